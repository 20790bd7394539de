"""What became of a try, and the table of all."""

import re
import warnings
from collections import Counter

RIGHT, REFUSED = "right", "refused"
MOST_ROWS = 12


def outcome(answer, wanted, names=(), errors=(ValueError, TypeError)) -> str:
    """RIGHT, REFUSED, or what went wrong.

    answer() is compared with `wanted`; None: any answer will do. names: of which a refusal must
    hold one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = answer()
        except errors as error:
            text = str(error)
            if "\n" in text.strip() or not text.strip():
                return f"not one line: {text[:100]!r}"
            if names and not any(name in text for name in names):
                return f"unnamed: {text[:160]}"
            return REFUSED
        except MemoryError as error:
            return f"out of memory: {error}"
        except Exception as error:
            return f"traceback of {type(error).__name__}: {str(error)[:160]}"
    return RIGHT if wanted is None or found == wanted else "another answer, in silence"


class Table:
    """How many tries of each kind ended how."""

    def __init__(self):
        self.rows: dict[tuple[str, str], Counter] = {}
        self.failures: list[str] = []

    def add(self, group: str, kind: str, ended: str, what: str = "") -> None:
        row = self.rows.setdefault((group, kind), Counter())
        row["tried"] += 1
        row[ended if ended in (RIGHT, REFUSED) else "failed"] += 1
        if ended not in (RIGHT, REFUSED):
            self.failures.append(f"{group}, {kind}, {what}: {ended}")

    def __str__(self):
        return _markdown(("what", "kind"), self.rows)

    def summary(self) -> str:
        """The table with one row for all files of a folder, all options of a command, and so on.

        Where a group has more than MOST_ROWS of them, it is one row.
        """
        rows: dict[tuple[str, str, int], Counter] = {}
        for group in dict.fromkeys(group for group, _ in self.rows):
            kinds = [kind for other, kind in self.rows if other == group]
            wholes = {kind: re.split(": | -", kind)[0] for kind in kinds}
            if len(set(wholes.values())) > MOST_ROWS:
                wholes = dict.fromkeys(kinds, "all")
            for whole in dict.fromkeys(wholes.values()):
                parts = [kind for kind in kinds if wholes[kind] == whole]
                counts = [self.rows[group, kind] for kind in parts]
                rows[group, whole, len(parts)] = sum(counts, Counter())
        return _markdown(("what", "of", "kinds"), rows)


def _markdown(names, rows):
    columns = ("tried", RIGHT, REFUSED, "failed")
    heads = [*names, "tried", RIGHT, "refused by name", "failed"]
    lines = [heads, ["---"] * len(heads)]
    lines += [[*key, *(row[column] for column in columns)] for key, row in rows.items()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
