"""Data of one split, divided into three by picture; and pictures that are the same file.

What is tested on must not be trained on. So all captions of a picture stay together, and so do
pictures whose files are equal, whatever they are called.
"""

import hashlib
import random
from collections import Counter
from pathlib import Path

from tgdt_mini.files.check import named

SPLITS = ("train", "validation", "test")


def read_shares(text: str) -> list[float]:
    """[80.0, 10.0, 10.0] of "80/10/10", the shares of train, validation and test.

    Two numbers leave test out. ValueError for another text.
    """
    try:
        shares = [float(part) for part in text.split("/")]
    except ValueError:
        shares = []
    if len(shares) not in (2, 3) or not all(0 < share < 1e6 for share in shares):
        raise ValueError(
            f"--divide is {named(text)}; give the shares of train, validation and test, such as "
            "80/10/10"
        )
    return shares


def divided(records, shares: list[float], seed: int) -> dict:
    """{split: Dataset} of the records of one split: the same for the same ids, shares and seed.

    ValueError if there are too few pictures for a split to have one.
    """
    contents = contents_of(records)
    groups = {}
    for row, (name, content) in enumerate(zip(records["image_id"][:], contents)):
        groups.setdefault(content or name, []).append((name, row))
    ordered = sorted(sorted(group) for group in groups.values())
    random.Random(seed).shuffle(ordered)
    ends, placed, rows = _ends(shares, len(records)), 0, [[] for _ in shares]
    for group in ordered:
        part = next(i for i, end in enumerate(ends) if placed < end)
        rows[part] += [row for _, row in group]
        placed += len(group)
    if not all(rows):
        raise ValueError(
            f"--divide makes {len(shares)} splits, but {len(records)} pictures are too few for that"
        )
    return {split: records.select(sorted(own)) for split, own in zip(SPLITS, rows)}


def _ends(shares, count):
    """Where each split ends: [8, 9, 10] of 10 pictures and the shares 80, 10 and 10."""
    sums = [sum(shares[: i + 1]) / sum(shares) for i in range(len(shares))]
    return [*(max(i + 1, round(count * part)) for i, part in enumerate(sums[:-1])), count]


def copies(data: dict) -> list[tuple[str, str]]:
    """Pairs of pictures in different splits whose files are equal: ("train: a.jpg", "test: b.jpg").

    data: {split: records}. Pictures that cannot be read are left to whoever reads them.
    """
    first, pairs, contents = {}, [], _contents(data.values())
    for (split, records), of_split in zip(data.items(), contents):
        for name, content in zip(records["image_id"][:], of_split):
            other = first.setdefault(content, (split, name))
            if content and other[0] != split:
                pairs.append((f"{other[0]}: {other[1]}", f"{split}: {name}"))
    return pairs


def contents_of(records) -> list[str | None]:
    """What is the same for pictures of equal bytes only; None for each picture without a file."""
    return _contents([records])[0]


def _contents(several):
    """The same for several sets of records. Only files that share their size are read."""
    parts = [list(_parts(records)) for records in several]
    sizes = Counter(size for of_set in parts for size, _ in of_set)
    return [[_content(size, read, sizes[size] > 1) for size, read in of_set] for of_set in parts]


def _content(size, read, shared):
    if size is None:
        return None
    try:
        return f"{size} {hashlib.sha256(read()).hexdigest()}" if shared else str(size)
    except OSError:
        return None


def _parts(records):
    """(size, a function that reads its bytes) of each picture; (None, None) without one."""
    from datasets import Image

    if "image" not in records.column_names:
        yield from [(None, None)] * len(records)
        return
    raw = records.select_columns("image").cast_column("image", Image(decode=False))
    for row, record in enumerate(raw):
        image = record["image"] or {}
        if image.get("bytes") is not None:
            yield len(image["bytes"]), lambda row=row: raw[row]["image"]["bytes"]
        elif image.get("path"):
            path = Path(image["path"])
            yield (path.stat().st_size if path.is_file() else None), path.read_bytes
        else:
            yield None, None
