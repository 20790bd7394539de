"""One measured comparison, and a table of them. A floor is what the project asks of itself: told,
never enforced.
"""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """`ours` beside `theirs`, in `unit`, or alone. ratio: as the floor is meant, a share or how
    many times faster.

    at_most, at_least: the floor of the ratio or, without one, of `ours`. theirs None: the peer is
    not installed.
    """

    table: str
    what: str
    ours: float | None
    unit: str
    peer: str = ""
    theirs: float | None = None
    ratio: float | None = None
    at_most: float | None = None
    at_least: float | None = None

    @classmethod
    def share(cls, table, what, ours, peer, theirs, at_most=None, unit="ms") -> "Row":
        """ours / theirs, where less is better."""
        return cls(
            table, what, ours, unit, peer, theirs, ours / theirs if theirs else None, at_most
        )

    @classmethod
    def speedup(cls, table, what, ours, peer, theirs, at_least=None, unit="ms") -> "Row":
        """theirs / ours: how many times faster ours is."""
        return cls(
            table, what, ours, unit, peer, theirs, theirs / ours if theirs else None, None, at_least
        )

    def reached(self) -> bool | None:
        """Whether the floor is reached; None without a floor or without a measurement."""
        value = self.ratio if self.peer else self.ours
        if value is None or (self.at_most is None and self.at_least is None):
            return None
        return value <= self.at_most if self.at_most is not None else value >= self.at_least

    def to_dict(self) -> dict:
        return asdict(self)


def markdown(rows: list[Row]) -> str:
    """Rows as a Markdown table, each with its floor and whether it is reached.

    Example: | stage one of 100,000 | 5.8 ms | faiss flat 6.8 ms | 0.85 | at most 3 | reached |
    """
    lines = ["| what | measured | beside it | ratio | floor | |", "|---|---|---|---|---|---|"]
    for row in rows:
        beside = (
            f"{row.peer} {number(row.theirs)} {row.unit}" if row.theirs is not None else row.peer
        )
        if row.peer and row.theirs is None:
            beside += " not installed"
        floor = f"at most {row.at_most:g}" if row.at_most is not None else ""
        floor = f"at least {row.at_least:g}" if row.at_least is not None else floor
        reached = {None: "", True: "reached", False: "not reached"}[row.reached()]
        ours = "not measured here" if row.ours is None else f"{number(row.ours)} {row.unit}"
        lines.append(
            f"| {row.what} | {ours} | {beside} | {number(row.ratio)} | {floor} | {reached} |"
        )
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Three figures that mean something. Example: 1304.7 -> "1,305", 12.42 -> "12.4", 0.0873 ->
    "0.087".
    """
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return (
        f"{value:.1f}"
        if abs(value) >= 10
        else f"{value:.2f}"
        if abs(value) >= 1
        else f"{value:.3f}"
    )
