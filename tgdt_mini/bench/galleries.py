"""Search by generated captions in generated pictures of several sizes: each stage, both, and
everything instead.
"""

import tempfile
from pathlib import Path

import torch

from tgdt_mini.bench.baselines import gathered_similarity
from tgdt_mini.bench.generated import Pictures
from tgdt_mini.bench.measure import cpu_milliseconds, in_fresh_process, megabytes_of, version
from tgdt_mini.bench.rows import Row
from tgdt_mini.reports.choice import missed
from tgdt_mini.retrieval import best_by_global, two_stage
from tgdt_mini.search.faiss_index import faiss_index
from tgdt_mini.search.gallery import Gallery
from tgdt_mini.similarity import global_similarity, local_similarity, shortlist_similarity

REGIONS, WIDTH, WORDS, K, BATCH, WEIGHT = 36, 256, 15, 100, 16, 2.0
FLOORS = {
    10_000: (20, 12),
    100_000: (60, 25),
}  # times faster than scoring everything: one query, 16 at once
SHORTLISTS = (10, 20, 50, 100, 200)
ASKED = 32  # captions that the agreement is measured on


def search_size(size: int, repeats: int = 5, engines: bool = True) -> dict:
    """{"rows": [Row], "curve": {...}, "missed": {...}, "engines": [...]} of a gallery of `size`
    pictures.

    Everything is asked of the same tokens: as float32 in memory when all is scored, as float16 on
    disk by searches.
    curve: {"full": ms, "two-stage": [{"shortlist", "ms", "agreement"}]}, agreement being the
    percent of the ten best by full scoring that two stages find. missed: see `stage_one.missed`.
    engines: stage one by faiss.
    """
    pictures = Pictures(size, REGIONS, WIDTH)
    images = pictures.images()
    asked = pictures.captions(torch.arange(ASKED) * (size // ASKED), WORDS)
    one = _in_turn([asked[[i]] for i in range(8)])
    many = asked[:BATCH]
    at_least, at_least_many = FLOORS.get(size, (None, None))
    with tempfile.TemporaryDirectory() as folder:
        Gallery.build(images, list(range(size))).save(Path(folder) / "gallery")
        gallery = Gallery.load(Path(folder) / "gallery")
        times = cpu_milliseconds(
            {
                "full": lambda: local_similarity(images, next(one)),
                "search": lambda: gallery.search(next(one), 10, K, WEIGHT),
                "memory": lambda: two_stage(next(one), images, K, WEIGHT, "caption"),
            },
            repeats,
        )
        together = cpu_milliseconds(
            {
                "search": lambda: gallery.search(many, 10, K, WEIGHT),
                "memory": lambda: two_stage(many, images, K, WEIGHT, "caption"),
            },
            repeats,
        )
        # 16 queries share the reading of what is scored in full
        together |= cpu_milliseconds({"full": lambda: local_similarity(images, many)}, repeats)
        together = {name: each / BATCH for name, each in together.items()}
        table, name = "Search", f"{size:,} images"
        full = "scoring everything"
        rows = [
            Row.speedup(
                table,
                f"{name}, two stages from disk, K 100",
                times["search"],
                full,
                times["full"],
                at_least,
            ),
            Row.speedup(
                table,
                f"{name}, two stages in memory",
                times["memory"],
                full,
                times["full"],
                at_least,
            ),
            Row.speedup(
                table,
                f"{name}, 16 queries together, from disk, each",
                together["search"],
                full,
                together["full"],
                at_least_many,
            ),
            Row.speedup(
                table,
                f"{name}, 16 queries together, in memory, each",
                together["memory"],
                full,
                together["full"],
                at_least_many,
            ),
        ]
        rows += _peer_rows(name, size, images, gallery, asked[[0]], times["full"], repeats)
        by_global = global_similarity(images, asked).T  # (Q, G)
        mixed = by_global + WEIGHT * local_similarity(images, asked).T
        points = _curve(gallery, asked, mixed.topk(10).indices, one, repeats)
        return {
            "rows": rows,
            "curve": {"full": times["full"], "two-stage": points},
            "missed": missed(by_global, mixed, SHORTLISTS),
            "engines": _engines(size, gallery, asked, one, repeats) if engines else [],
        }


def image_queries(size: int, repeats: int = 5) -> list[Row]:
    """The other way round: searches of `size` captions on disk by pictures, one and 16 at a
    time.
    """
    pictures = Pictures(size, REGIONS, WIDTH)
    captions, many = pictures.captions(torch.arange(size), WORDS), pictures.images(0, BATCH)
    one = _in_turn([many[[i]] for i in range(8)])
    at_least, at_least_many = FLOORS.get(size, (None, None))
    with tempfile.TemporaryDirectory() as folder:
        Gallery.build(captions, list(range(size)), "caption").save(Path(folder) / "gallery")
        gallery = Gallery.load(Path(folder) / "gallery")
        times = cpu_milliseconds(
            {
                "full": lambda: local_similarity(next(one), captions),
                "search": lambda: gallery.search(next(one), 10, K, WEIGHT),
            },
            repeats,
        )
        together = cpu_milliseconds(
            {
                "full": lambda: local_similarity(many, captions),
                "search": lambda: gallery.search(many, 10, K, WEIGHT),
            },
            repeats,
        )
    table, full = "Search by image", "scoring everything"
    return [
        Row.speedup(
            table,
            f"{size:,} captions, two stages from disk, K 100",
            times["search"],
            full,
            times["full"],
            at_least,
        ),
        Row.speedup(
            table,
            f"{size:,} captions, 16 queries together, from disk, each",
            together["search"] / BATCH,
            full,
            together["full"] / BATCH,
            at_least_many,
        ),
    ]


def _peer_rows(name, size, images, gallery, query, full, repeats):
    """Each stage, and full scoring of a moderate gallery, against what others have written for
    it.
    """
    globals_, words = query.global_token, query.local_tokens[0]
    faiss = faiss_index(gallery.global_tokens) if version("faiss-cpu") else None
    _, ids = best_by_global(globals_, gallery.global_tokens, K)  # (1, K)
    stages = {
        "one": lambda: best_by_global(globals_, gallery.global_tokens, K),
        "two": lambda: shortlist_similarity(query, *gallery.stored.fetch(ids), "caption"),
        "gathered": lambda: gathered_similarity(
            words, gallery.local_tokens.view(size, REGIONS, WIDTH), ids[0]
        ),
    }
    if faiss:
        numbers = globals_.numpy()
        stages["faiss"] = lambda: faiss.search(numbers, K)
    times = cpu_milliseconds(stages, repeats)
    rows = [
        Row.share(
            "Stages",
            f"stage one of {name}",
            times["one"],
            "faiss IndexFlatIP",
            times.get("faiss"),
            3.0 if size == 100_000 else None,
        ),
        Row.share(
            "Stages",
            f"stage two of {name}, 100 candidates",
            times["two"],
            "gather, matmul, max",
            times["gathered"],
            1.5,
        ),
    ]
    if size <= 10_000:
        theirs = None
        if version("maxsim-cpu"):
            import maxsim_cpu

            numbers, regions = words.numpy(), images.local_tokens.numpy()
            both = cpu_milliseconds(
                {
                    "ours": lambda: local_similarity(images, query),
                    "maxsim": lambda: maxsim_cpu.maxsim_scores(numbers, regions),
                },
                repeats,
            )
            full, theirs = both["ours"], both["maxsim"]
        at_most = 1.4 if size == 10_000 else None
        rows.append(
            Row.share("Stages", f"scoring all of {name}", full, "maxsim-cpu", theirs, at_most)
        )
    return rows


def _curve(gallery, asked, best, one, repeats):
    """For each shortlist: CPU milliseconds a query, and percent of the `best` (Q, 10) that are
    found.
    """
    points = []
    for shortlist in SHORTLISTS:
        found = gallery.search(asked, 10, shortlist, WEIGHT).indices
        both = torch.stack([torch.isin(mine, wanted) for mine, wanted in zip(found, best)])
        times = cpu_milliseconds(
            {"search": lambda k=shortlist: gallery.search(next(one), 10, k, WEIGHT)}, repeats
        )
        points.append(
            {
                "shortlist": shortlist,
                "ms": times["search"],
                "agreement": 100 * float(both.double().mean()),
            }
        )
    return points


def _engines(size, gallery, asked, one, repeats):
    """Stage one by each index of faiss: how many of the true 100 best it finds, and how long it
    takes.
    """
    _, true = best_by_global(asked.global_token, gallery.global_tokens, K)
    found = []
    for kind in ("ours", "flat", "ivf", "hnsw") if version("faiss-cpu") else ("ours",):
        index = None if kind == "ours" else faiss_index(gallery.global_tokens, kind)

        def shortlist(queries, index=index):
            return best_by_global(queries.global_token, gallery.global_tokens, K, index)[1]

        ids = shortlist(asked)
        hit = torch.stack([torch.isin(mine, wanted) for mine, wanted in zip(ids, true)])
        times = cpu_milliseconds({kind: lambda f=shortlist: f(next(one))}, repeats)
        name = "none, exact" if kind == "ours" else f"faiss {kind}"
        found.append(
            {
                "size": size,
                "engine": name,
                "ms": times[kind],
                "recall": 100 * float(hit.double().mean()),
            }
        )
    return found


def memory_rows(size: int, repeats: int = 5) -> list[Row]:
    """Opening a gallery on disk, its bytes an image, and the memory that searches need, in a fresh
    process.
    """
    rows = []
    for local, global_ in (("float16", "float32"), ("int8", "float16")):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "gallery"
            grow(path, Pictures(size, REGIONS, WIDTH), local, global_, block=10_000)
            stored = sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
            seconds = (
                cpu_milliseconds({"open": lambda path=path: Gallery.load(path)}, repeats)["open"]
                / 1000
            )
            megabytes = in_fresh_process(search_megabytes, path, WIDTH)
        what = f"{size:,} images, locals {local}, globals {global_}"
        in_memory = size * WIDTH * (4 if global_ == "float32" else 2) / 1e6
        full_size = size == 100_000
        rows += [
            Row("Gallery", f"{what}: on disk, an image", stored / size / 1000, "kB"),
            Row(
                "Gallery",
                f"{what}: opened in",
                seconds,
                "s of CPU time",
                at_most=1.0 if full_size else None,
            ),
            Row(
                "Gallery",
                f"{what}: memory of searching (globals: {in_memory:.0f} MB)",
                megabytes,
                "MB",
                at_most=in_memory + 300,
            ),
        ]
    return rows


def grow(
    path: Path,
    pictures: Pictures,
    local_precision="float16",
    global_precision="float32",
    block=50_000,
):
    """A gallery of pictures on disk, of which no more than a block is ever in memory."""
    for start in range(0, pictures.size, block):
        end = min(start + block, pictures.size)
        names = [f"pictures/{i:08d}.jpg" for i in range(start, end)]
        part = Gallery.build(
            pictures.images(start, end),
            names,
            local_precision=local_precision,
            global_precision=global_precision,
        )
        part.append(path) if start else part.save(path)


def search_megabytes(path: Path, width: int) -> float | None:
    """Anonymous memory of opening a gallery and searching it, one caption at a time and all
    together.
    """
    asked = Pictures(1000, REGIONS, width).captions(torch.arange(ASKED), WORDS)

    def use():
        gallery = Gallery.load(path)
        for i in range(8):
            gallery.search(asked[[i]], 10, K, WEIGHT)
        gallery.search(asked, 10, 200, WEIGHT)

    return megabytes_of(use)


def _in_turn(things):
    while True:
        yield from things
