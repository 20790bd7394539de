"""What a gallery of any size costs: bytes, images a machine, multiply-adds and bytes read a query,
by formula.

    stage one   G x D multiply-adds, and G global tokens read from one end to the other
    stage two   K x W x T x D multiply-adds, and the local tokens of K images, wherever they lie

Arithmetic is cheap and reading is not: a core multiplies faster than memory delivers, so the bytes
that stage one reads decide how long it takes, and how many images can be compared without an
approximate index. `python -m tgdt_mini.scaling.capacity` prints the tables of docs/scaling.md.
Nothing is measured here; what it costs in rsum to store less is in `scaling/pooling.py`.

G gallery, D width, T local tokens of an image, W words of a caption, K shortlist.
"""

from dataclasses import dataclass
from math import ceil

BITS = {"float32": 32, "float16": 16, "int8": 8, "1 bit": 1}  # of one number
GIGABYTE = 10**9
READ = (
    10 * GIGABYTE
)  # bytes a second that one core reads from memory: an assumption, put your machine's in its place


def token_bytes(width: int, kind: str = "float32") -> int:
    """Bytes of one stored token: its numbers, and for int8 a scale of 4 bytes. Example: 128 wide,
    float16 -> 256.
    """
    if kind not in BITS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(BITS)}")
    if width < 1:
        raise ValueError(f"width is {width}; it must be at least 1")
    return -(-width * BITS[kind] // 8) + (4 if kind == "int8" else 0)


@dataclass(frozen=True)
class Plan:
    """A gallery to be: `width` D, `tokens` T local tokens an image on average, and how both kinds
    are stored.
    """

    width: int
    tokens: float
    global_kind: str = "float32"
    local_kind: str = "float16"

    @property
    def global_bytes(self) -> int:
        """Bytes that stage one reads of an image."""
        return token_bytes(self.width, self.global_kind)

    @property
    def local_bytes(self) -> float:
        """Bytes of an image's local tokens, and 8 that say where they begin: what stage two reads
        of one image.
        """
        return self.tokens * token_bytes(self.width, self.local_kind) + 8

    @property
    def image_bytes(self) -> float:
        """All bytes of an image, without its name. Example: `Plan(128, 4)` -> 512 + 1024 + 8."""
        return self.global_bytes + self.local_bytes

    def images_in(self, memory: float, disk: float | None = None) -> int:
        """Images that a machine holds: all in memory, or with local tokens on `disk`. Both in
        bytes.
        """
        if disk is None:
            return int(memory // self.image_bytes)
        return int(min(memory // self.global_bytes, disk // self.local_bytes))

    def graph_bytes(self, links: int = 16) -> int:
        """Bytes that an HNSW graph adds to an image: twice `links` neighbours on its ground floor,
        4 bytes each.
        """
        return 2 * links * 4

    def work(self, images: int, words: int = 12, shortlist: int = 100) -> dict[str, float]:
        """Multiply-adds and bytes read for one caption: of each stage, and of scoring everything
        instead.
        """
        shortlist = min(shortlist, images)
        pairs = words * self.tokens * self.width  # of one image, by local tokens
        return {
            "stage one": images * self.width,
            "stage two": shortlist * pairs,
            "everything": images * (self.width + pairs),
            "stage one, bytes": images * self.global_bytes,
            "stage two, bytes": shortlist * self.local_bytes,
            "everything, bytes": images * self.image_bytes,
        }

    def exact_up_to(self, seconds: float, read: float = READ, cores: int = 1) -> int:
        """The largest gallery whose stage one, exact, reads everything within `seconds`, at `read`
        bytes a second.
        """
        return int(seconds * read * cores // self.global_bytes)


PLANS = {"mini, 4 regions": Plan(128, 4), "paper's sizes, 36 regions": Plan(1024, 36)}
SIZES = tuple(10**power for power in range(3, 10))
MEMORY, DISK = 256 * GIGABYTE, 4000 * GIGABYTE  # of the machine in the tables


def room_table() -> str:
    """Markdown: bytes an image and images a machine, by the precision of the local tokens."""
    rows = []
    for name, plan in PLANS.items():
        for kind in BITS:
            one = Plan(plan.width, plan.tokens, local_kind=kind)
            room, machines = short(one.images_in(MEMORY)), ceil(10**9 / one.images_in(MEMORY))
            rows.append(
                (
                    name,
                    kind,
                    f"{one.image_bytes:,.0f}",
                    f"{one.global_bytes:,}",
                    room,
                    short(one.images_in(MEMORY, DISK)),
                    machines,
                )
            )
    head = (
        "gallery",
        "local tokens as",
        "bytes an image",
        "of which global",
        "images a machine, in memory",
        "with local tokens on its disk",
        "machines for a billion, in memory",
    )
    return table(head, rows)


def work_table() -> str:
    """Markdown: multiply-adds and bytes of one caption query, from a thousand images to a
    billion.
    """
    rows = []
    for name, plan in PLANS.items():
        for size in SIZES:
            work = plan.work(size)
            read = {
                stage: short(work[f"{stage}, bytes"]) + "B" for stage in ("stage one", "stage two")
            }
            took = float(f"{1000 * work['stage one, bytes'] / READ:.2g}")
            rows.append(
                (
                    name,
                    short(size),
                    short(work["stage one"]),
                    read["stage one"],
                    f"{took:,g}",
                    short(work["stage two"]),
                    read["stage two"],
                    short(work["everything"]),
                )
            )
    head = (
        "gallery",
        "images",
        "stage one",
        "it reads",
        "ms at 10 GB/s",
        "stage two",
        "it reads",
        "everything",
    )
    return table(head, rows)


def exact_table() -> str:
    """Markdown: the largest gallery that exact stage one searches in time, by how global tokens are
    stored.
    """
    times, rows = (0.01, 0.1, 1.0), []
    for name, plan in PLANS.items():
        for kind in ("float32", "float16", "int8"):
            one = Plan(plan.width, plan.tokens, kind)
            rows.append((name, kind, *(short(one.exact_up_to(each)) for each in times)))
    return table(
        ("gallery", "global tokens as", *(f"{1000 * each:.0f} ms" for each in times)), rows
    )


TABLES = {"room": room_table, "work": work_table, "exact": exact_table}


def table(head: tuple, rows: list[tuple]) -> str:
    """Markdown. A first cell that repeats the one above it stays empty."""
    lines, above = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"], None
    for first, *others in rows:
        lines.append(f"| {' | '.join(['' if first == above else first, *map(str, others)])} |")
        above = first
    return "\n".join(lines)


def short(number: float) -> str:
    """Two digits and a unit. Example: 1,544 -> "1.5 k", 24,000,000 -> "24 M"."""
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.995 * size:
            scaled = number / size
            return (
                f"{scaled:.0f} {unit}"
                if scaled >= 9.95 or scaled == round(scaled)
                else f"{scaled:.1f} {unit}"
            )
    return f"{number:.0f} "


if __name__ == "__main__":
    print("\n\n".join(make() for make in TABLES.values()))
