"""One measured comparison and the limit that the project sets itself: printed, never enforced."""

from dataclasses import asdict, dataclass

from tgdt_mini.reports import markdown

HEADS = ("what", "measured", "compared with", "ratio", "floor", "", "limit")


@dataclass(frozen=True)
class Row:
    """A measurement `ours` in `unit`, and the `theirs` of a peer (None: it is not installed).

    ratio: ours / theirs, or theirs / ours where more is better. peer "": nothing to compare with.
    at_most, at_least: floors of the ratio or, without a peer, of `ours`. limit: what the machine
    would need at best, to read what is read and to multiply what is multiplied, in `unit`.
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
    limit: float | None = None

    @classmethod
    def share(cls, table, what, ours, peer, theirs, at_most=None, limit=None) -> "Row":
        """Milliseconds as a share of a peer's: ours / theirs, less is better."""
        ratio = ours / theirs if theirs else None
        return cls(table, what, ours, "ms", peer, theirs, ratio, at_most=at_most, limit=limit)

    @classmethod
    def speedup(cls, table, what, ours, peer, theirs, at_least=None, unit="ms", limit=None):
        """How many times faster ours is: theirs / ours."""
        ratio = theirs / ours
        return cls(table, what, ours, unit, peer, theirs, ratio, at_least=at_least, limit=limit)

    def reached(self) -> bool | None:
        """Whether the limit is kept; None without a limit or without a measurement."""
        value = self.ratio if self.peer else self.ours
        if value is None or (self.at_most is None and self.at_least is None):
            return None
        return value <= self.at_most if self.at_most is not None else value >= self.at_least

    def cells(self) -> tuple[str, ...]:
        """The row as text, below HEADS."""
        peer = f"{self.peer} {number(self.theirs)} {self.unit}" if self.theirs else self.peer
        if self.peer and self.theirs is None:
            peer += " not installed"
        limits = (("at most", self.at_most), ("at least", self.at_least))
        limit = "".join(f"{word} {value:g}" for word, value in limits if value is not None)
        ours = "not measured here" if self.ours is None else f"{number(self.ours)} {self.unit}"
        reached = {None: "", True: "reached", False: "not reached"}[self.reached()]
        best = ""
        if self.limit and self.ours is not None:
            best = f"{number(self.limit)} {self.unit}, {self.ours / self.limit:.1f}x"
        return self.what, ours, peer, number(self.ratio), limit, reached, best

    def to_dict(self) -> dict:
        return asdict(self)


def table(rows: list[Row]) -> str:
    """Rows as a Markdown table, each with its limit and whether it is kept."""
    return markdown.table(HEADS, [row.cells() for row in rows])


def number(value: float | None) -> str:
    """Three digits that mean something. Example: 1304.7 -> "1,305", 12.42 -> "12.4"."""
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"
