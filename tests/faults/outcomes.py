"""What became of a try, and the table of all."""

import warnings
from collections import Counter

RIGHT, REFUSED = "right", "refused"


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
        lines = [
            "| what | kind | tried | right | refused by name | failed |",
            "|---|---|---|---|---|---|",
        ]
        for (group, kind), row in self.rows.items():
            numbers = (row[name] for name in ("tried", RIGHT, REFUSED, "failed"))
            lines.append(f"| {group} | {kind} | {' | '.join(map(str, numbers))} |")
        return "\n".join(lines)
