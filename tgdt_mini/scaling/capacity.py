"""What a gallery of any size costs by formula: its bytes, the images that fit, a query's work.

    stage one   G x D multiply-adds, and all G global tokens read from the first to the last
    stage two   K x W x T x D multiply-adds, and the local tokens of K images read where they lie

A core multiplies faster than memory delivers. So the bytes that stage one reads decide how long it
takes, and up to which size a gallery needs no approximate index. Nothing is measured here;
`scaling/pooling.py` has the ways to store less. G gallery, D width, T local tokens of an image, W
words of a caption, K shortlist.
"""

from dataclasses import dataclass

from tgdt_mini.files.check import one_of

BITS = {"float32": 32, "float16": 16, "int8": 8, "1 bit": 1}  # of one number
READ_SPEED = 10 * 10**9  # bytes a second that one core reads from memory: assumed, put yours here


def token_bytes(width: int, kind: str = "float32") -> int:
    """Bytes of one stored token: its numbers, and for int8 a scale of 4 bytes.

    Example: 128 wide, float16 -> 256. Raises ValueError for an unknown kind and a width below 1.
    """
    one_of("kind", kind, BITS)
    if width < 1:
        raise ValueError(f"width is {width}; it must be at least 1")
    return -(-width * BITS[kind] // 8) + (4 if kind == "int8" else 0)  # rounded up


@dataclass(frozen=True)
class GallerySize:
    """A gallery `width` D wide, with `tokens` T local tokens an image, and how both are stored."""

    width: int
    tokens: float
    global_kind: str = "float32"
    local_kind: str = "float16"

    @property
    def global_bytes(self) -> int:
        """Bytes of an image that stage one reads."""
        return token_bytes(self.width, self.global_kind)

    @property
    def local_bytes(self) -> float:
        """Bytes of an image that stage two reads: local tokens, and 8 that say where they begin."""
        return self.tokens * token_bytes(self.width, self.local_kind) + 8

    @property
    def image_bytes(self) -> float:
        """All bytes of an image but its name. Example: GallerySize(128, 4) -> 512 + 1024 + 8."""
        return self.global_bytes + self.local_bytes

    def images_in(self, memory: float, disk: float | None = None) -> int:
        """Images that a machine holds, all in memory or with the local tokens on `disk` (bytes)."""
        if disk is None:
            return int(memory // self.image_bytes)
        return int(min(memory // self.global_bytes, disk // self.local_bytes))

    def graph_bytes(self, links: int = 16) -> int:
        """Bytes of an image in an HNSW graph: twice `links` neighbours in the lowest layer."""
        return 2 * links * 4  # 4 bytes each

    def work(self, images: int, words: int = 12, shortlist: int = 100) -> dict[str, float]:
        """Multiply-adds and bytes read for one caption, by stage and for scoring everything."""
        shortlist = min(shortlist, images)
        pairs = words * self.tokens * self.width  # multiply-adds of one image's local tokens
        return {
            "stage one": images * self.width,
            "stage two": shortlist * pairs,
            "everything": images * (self.width + pairs),
            "stage one, bytes": images * self.global_bytes,
            "stage two, bytes": shortlist * self.local_bytes,
            "everything, bytes": images * self.image_bytes,
        }

    def exact_up_to(self, seconds: float, read: float = READ_SPEED, cores: int = 1) -> int:
        """Images whose global tokens are read within `seconds`, at `read` bytes a second a core."""
        return int(seconds * read * cores // self.global_bytes)
