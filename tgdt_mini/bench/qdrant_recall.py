"""What Qdrant's approximate index misses of a shortlist, and what it saves, measured with the
engine in this process.

`python -m tgdt_mini.bench.qdrant_recall [SIZE ...]` prints the table of docs/scaling.md. The
pictures are those of `bench/generated.py`, as wide as the mini model and with as many regions;
captions of 12 words ask for them.
"""

import sys
import tempfile
import time

import torch

from tgdt_mini.bench.generated import Pictures
from tgdt_mini.retrieval import best_by_global
from tgdt_mini.scaling.capacity import table
from tgdt_mini.scaling.qdrant import QdrantGallery
from tgdt_mini.search.gallery import Gallery

SIZES, QUERIES, SHORTLIST, WEIGHT = (10_000, 30_000, 100_000), 200, 100, 2.0


def measure(size: int, queries: int = QUERIES, shortlist: int = SHORTLIST) -> list[dict]:
    """For exact search and for the index: percent of the true `shortlist` best found by stage one,
    percent of the ten answers of two exact stages that two stages return, and CPU milliseconds a
    query for both stages.
    """
    pictures = Pictures(size, regions=4, width=128)
    gallery = Gallery.build(pictures.images(), list(range(size)))
    asked = pictures.captions(torch.arange(queries) * (size // queries), 12)
    _, near = best_by_global(asked.global_token, gallery.global_tokens, shortlist)
    best = gallery.search(asked, 10, shortlist, WEIGHT).indices
    found = []
    with tempfile.TemporaryDirectory() as folder:
        there = QdrantGallery.upload(gallery, folder, "pictures")
        there.build_index()
        for exact in (True, False):
            ids = [
                [hit.id for hit in there.engine.shortlist(each.tolist(), shortlist, exact)]
                for each in asked.global_token
            ]
            began = time.process_time()
            hits = there.search(asked, 10, shortlist, WEIGHT, exact=exact)
            took = time.process_time() - began
            found.append(
                {
                    "size": size,
                    "exact": exact,
                    "recall": _percent(torch.tensor(ids), near),
                    "answers": _percent(hits.indices, best),
                    "ms": 1000 * took / queries,
                }
            )
        there.close()
    return found


def _percent(found, wanted):
    """Of the wanted (Q, K), how many are among the found (Q, K')."""
    return 100 * float((wanted[:, :, None] == found[:, None, :]).any(2).double().mean())


def main(sizes) -> None:
    """Print the table, in Markdown."""
    head, rows = (
        (
            "pictures",
            "stage one",
            "of the 100 nearest, %",
            "of the first 10 answers, %",
            "CPU ms a query",
        ),
        [],
    )
    for size in sizes:
        rows += [
            (
                f"{each['size']:,}",
                "exact" if each["exact"] else "by index",
                f"{each['recall']:.1f}",
                f"{each['answers']:.1f}",
                f"{each['ms']:.1f}",
            )
            for each in measure(size)
        ]
    print(table(head, rows))


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or SIZES)
