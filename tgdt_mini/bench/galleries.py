"""Search in galleries of generated pictures: each stage, both, and scoring everything instead."""

import tempfile
from itertools import cycle
from pathlib import Path

import torch

from tgdt_mini.bench.baselines import gathered_similarity
from tgdt_mini.bench.generated import Pictures
from tgdt_mini.bench.measure import cpu_milliseconds, version
from tgdt_mini.bench.peers import searches
from tgdt_mini.bench.rows import Row
from tgdt_mini.reports.choice import missed
from tgdt_mini.retrieval import best_by_global, two_stage
from tgdt_mini.search.faiss_index import faiss_index
from tgdt_mini.search.gallery import Gallery
from tgdt_mini.search.rerank import rerank
from tgdt_mini.search.screen import Screen, is_useful
from tgdt_mini.similarity import global_similarity, local_similarity

REGIONS, WIDTH, WORDS = 36, 256, 15
SHORTLIST, WEIGHT, BATCH = 100, 2.0, 16  # BATCH: queries that are searched together
SHORTLISTS = (10, 20, 50, 100, 200)
QUERIES = 32  # captions that the agreement is measured on
MANY = 256  # captions that the compact gallery is judged by; at once, they share their candidates
# size: times faster than scoring everything, for one query and for 16 together
FLOORS = {10_000: (20, 12), 100_000: (60, 25)}
WAYS = {  # one query at a time, and 16 at once
    "disk": ("two stages from disk, K 100", "16 queries together, from disk, each"),
    "memory": ("two stages in memory", "16 queries together, in memory, each"),
}


def search_size(size: int, speed: dict, repeats: int = 5, engines: bool = True) -> dict:
    """{"rows": [Row], "curve": {...}, "missed": {...}, "engines": [...]} of `size` pictures.

    speed: as `measure.speed` gives it. Everything reads the same tokens: float32 in memory, float16
    on disk, and the compact gallery's float16 and int8. curve: {"full": ms,
    "two-stage": [{"shortlist", "ms", "agreement"}]}, where agreement is the percent of the ten best
    by full scoring that two stages find. missed: see `reports.choice.missed`. engines: stage one
    by faiss.
    """
    pictures = Pictures(size, REGIONS, WIDTH)
    images = pictures.images()
    captions = pictures.captions(torch.arange(QUERIES) * (size // QUERIES), WORDS)
    with tempfile.TemporaryDirectory() as folder:
        gallery = _on_disk(images, size, folder)
        small = {"local_precision": "int8", "global_precision": "float16"}
        compact = _on_disk(images, size, folder, name="compact", **small)
        in_memory = _in_memory(images)

        def ways(query):
            return {
                "full": lambda: local_similarity(images, query()),
                "disk": lambda: gallery.search(query(), 10, SHORTLIST, WEIGHT),
                "memory": lambda: in_memory(query()),
            }

        gallery.search(captions, 10, SHORTLIST, WEIGHT)  # the pages of these come into memory
        single = cpu_milliseconds(ways(_one_by_one(captions)), repeats)
        batch = ways(lambda: captions[:BATCH])
        full = {"full": batch.pop("full")}  # by itself: after it the others' caches are cold
        together = cpu_milliseconds(full, repeats) | cpu_milliseconds(batch, repeats)
        rows = _speedups("Search", f"{size:,} images", size, single, together, speed)
        many = pictures.captions(torch.arange(MANY) * (size // MANY), WORDS)
        same = _agreement(gallery, compact, many)
        rows += _ten_lines(images, in_memory, gallery, compact, captions, same, speed, repeats)
        if size < 10_000:
            rows.append(_many_at_once(images, gallery, many, repeats))
        rows += _stages(size, images, gallery, captions[[0]], single["full"], repeats)
        by_global = global_similarity(images, captions).T  # (Q, G)
        mixed = by_global + WEIGHT * local_similarity(images, captions).T
        points = _curve(gallery, captions, mixed.topk(10).indices, repeats)
        return {
            "rows": rows,
            "curve": {"full": single["full"], "two-stage": points},
            "missed": missed(by_global, mixed, SHORTLISTS),
            "engines": _engines(size, gallery, captions, repeats) if engines else [],
        }


def image_queries(size: int, repeats: int = 5) -> list[Row]:
    """The other way round: searches of `size` captions on disk by pictures."""
    pictures = Pictures(size, REGIONS, WIDTH)
    captions, images = pictures.captions(torch.arange(size), WORDS), pictures.images(0, BATCH)
    with tempfile.TemporaryDirectory() as folder:
        gallery = _on_disk(captions, size, folder, "caption")

        def ways(query):
            return {
                "full": lambda: local_similarity(query(), captions),
                "disk": lambda: gallery.search(query(), 10, SHORTLIST, WEIGHT),
            }

        single = cpu_milliseconds(ways(_one_by_one(images)), repeats)
        together = cpu_milliseconds(ways(lambda: images), repeats)
    return _speedups("Search by image", f"{size:,} captions", size, single, together)


def _on_disk(embedding, size, folder, holds="image", name="gallery", **precisions):
    path = Path(folder) / name
    Gallery.build(embedding, list(range(size)), holds, **precisions).save(path)
    return Gallery.load(path)


def _in_memory(images):
    """A search by `two_stage`, screened where `Gallery.search` would be."""
    screen = Screen(images.global_token) if is_useful(len(images), WIDTH) else None

    def search(queries):
        index = screen if is_useful(len(images), WIDTH, len(queries)) else None
        return two_stage(queries, images, SHORTLIST, WEIGHT, "caption", index)

    return search


def _one_by_one(queries):
    """A function that gives the first eight queries in turn, and again."""
    return cycle([queries[[i]] for i in range(8)]).__next__


def at_best(
    size: int, speed: dict, queries: int = 1, global_bytes: int | None = None, local_bytes: int = 2
) -> float:
    """The least milliseconds of a query of `queries` together: reading each byte, multiplying all.

    global_bytes: of a number of the global tokens (default: 1 where they are screened, else 4).
    """
    if global_bytes is None:
        global_bytes = 1 if is_useful(size, WIDTH, queries) else 4
    candidates = SHORTLIST * REGIONS * WIDTH  # numbers
    read = size * WIDTH * global_bytes / queries + candidates * local_bytes
    multiplied = 2 * (size * WIDTH + candidates * WORDS)
    return read / 1e6 / speed["read"] + multiplied / 1e6 / speed["multiply"]


def _agreement(gallery, other, captions):
    """Percent of the first ten that two galleries have in common."""
    first, second = (one.search(captions, 10, SHORTLIST, WEIGHT) for one in (gallery, other))
    return percent_of(first.indices, second.indices)


def _ten_lines(images, in_memory, gallery, compact, captions, same, speed, repeats):
    """One query by us, and by ten lines of code around faiss on the same tokens."""
    size, one = len(gallery), _one_by_one(captions)
    mapped = gallery.local_tokens.view(size, REGIONS, WIDTH).numpy()
    peers = searches(images, mapped, SHORTLIST, WEIGHT)
    asked = 10, SHORTLIST, WEIGHT
    disk, less, memory = (
        f"{size:,} images, from disk, locals float16, globals float32",
        f"{size:,} images, from disk, locals int8, globals float16 ({same:.1f}% of the first ten "
        "are the same)",
        f"{size:,} images, in memory",
    )
    ways = {
        disk: lambda: gallery.search(one(), *asked),
        less: lambda: compact.search(one(), *asked),
        memory: lambda: in_memory(one()),
    }
    ways |= {name: lambda search=search: search(one()) for name, search in peers.items()}
    times = cpu_milliseconds(ways, repeats)
    in_memory, in_half, in_bfloat16 = list(peers) or ["faiss"] * 3
    large = size == 100_000
    screened = 1 if is_useful(size, WIDTH) else 2
    limits = {disk: at_best(size, speed), less: at_best(size, speed, 1, screened, 1)}
    limits[memory] = at_best(size, speed, local_bytes=4)
    compared = [
        (disk, in_half, 1.0 if large else None),
        (disk, in_memory, None),
        (less, in_half, 0.6 if large else None),
        (less, in_bfloat16, None),
        (memory, in_memory, None),
    ]
    return [
        Row.share("Ten lines", what, times[what], peer, times.get(peer), at_most, limits[what])
        for what, peer, at_most in compared
    ]


def _many_at_once(images, gallery, captions, repeats):
    """So many queries together that each picture is a candidate of many of them."""
    ways = {
        "ours": lambda: gallery.search(captions, 10, SHORTLIST, WEIGHT),
        "memory": lambda: two_stage(captions, images, SHORTLIST, WEIGHT, "caption"),
    }
    times = {way: time / MANY for way, time in cpu_milliseconds(ways, repeats).items()}
    what = f"{len(gallery):,} images, {MANY} queries together, from disk, each"
    return Row.share("Ten lines", what, times["ours"], "two_stage, in memory", times["memory"], 1.2)


def _speedups(table, name, size, single, together, speed=None):
    """Rows of each way to search, one query and each of 16 together, against scoring everything."""
    rows, together = [], {way: milliseconds / BATCH for way, milliseconds in together.items()}
    for i, floor in enumerate(FLOORS.get(size, (None, None))):
        (_, full), *searches = (single, together)[i].items()
        for way, milliseconds in searches:
            what = f"{name}, {WAYS[way][i]}"
            limit = None
            if speed:
                stored = 2 if way == "disk" else 4
                limit = at_best(size, speed, (1, BATCH)[i], local_bytes=stored)
            rows.append(
                Row.speedup(
                    table, what, milliseconds, "scoring everything", full, floor, limit=limit
                )
            )
    return rows


def _stages(size, images, gallery, query, full, repeats):
    """Each stage, and full scoring of a moderate gallery, against what others have written."""
    name, words = f"{size:,} images", query.local_tokens[0]
    _, ids = best_by_global(query.global_token, gallery.global_tokens, SHORTLIST)  # (1, K)
    tokens = gallery.local_tokens.view(size, REGIONS, WIDTH)
    stages = {
        "one": lambda: best_by_global(query.global_token, gallery.global_tokens, SHORTLIST),
        "two": lambda: rerank(query, gallery.stored, ids, "caption"),
        "gathered": lambda: gathered_similarity(words, tokens, ids[0]),
    }
    if version("faiss-cpu"):
        faiss, numbers = faiss_index(gallery.global_tokens), query.global_token.numpy()
        stages["faiss"] = lambda: faiss.search(numbers, SHORTLIST)
    times = cpu_milliseconds(stages, repeats)
    at_most = 3.0 if size == 100_000 else None
    compared = [
        ("stage one of {}", times["one"], "faiss IndexFlatIP", times.get("faiss"), at_most),
        (
            "stage two of {}, 100 candidates",
            times["two"],
            "gather, matmul, max",
            times["gathered"],
            1.5,
        ),
    ]
    if size <= 10_000:
        theirs = None
        if version("maxsim-cpu"):
            from maxsim_cpu import maxsim_scores

            arrays = words.numpy(), images.local_tokens.numpy()
            functions = lambda: local_similarity(images, query), lambda: maxsim_scores(*arrays)
            full, theirs = cpu_milliseconds(dict(enumerate(functions)), repeats).values()
        at_most = 1.4 if size == 10_000 else None
        compared.append(("scoring all of {}", full, "maxsim-cpu", theirs, at_most))
    return [Row.share("Stages", what.format(name), *figures) for what, *figures in compared]


def _curve(gallery, captions, best, repeats):
    """For each shortlist: CPU milliseconds a query, and percent of the `best` (Q, 10) found."""
    points, one = [], _one_by_one(captions)
    for k in SHORTLISTS:
        hits = gallery.search(captions, 10, k, WEIGHT).indices
        search = {"": lambda k=k: gallery.search(one(), 10, k, WEIGHT)}
        milliseconds = cpu_milliseconds(search, repeats)[""]
        points.append({"shortlist": k, "ms": milliseconds, "agreement": percent_of(best, hits)})
    return points


def _engines(size, gallery, captions, repeats):
    """Stage one by each index of faiss: how many of the true 100 best, and milliseconds."""
    globals_ = gallery.global_tokens
    _, best = best_by_global(captions.global_token, globals_, SHORTLIST)
    measured, one = [], _one_by_one(captions)
    for name, index in _indexes(globals_):

        def shortlist(queries, index=index):
            return best_by_global(queries.global_token, globals_, SHORTLIST, index)[1]

        ids = shortlist(captions)
        milliseconds = cpu_milliseconds({"": lambda f=shortlist: f(one())}, repeats)[""]
        measured.append(
            {"size": size, "engine": name, "ms": milliseconds, "recall": percent_of(best, ids)}
        )
    return measured


def _indexes(global_tokens):
    """Yields (name, index) of each first stage; without faiss only that of the package."""
    yield "none, exact", None
    if not version("faiss-cpu"):
        return
    import faiss

    yield "screen, exact", Screen(global_tokens)
    yield "faiss flat", faiss_index(global_tokens)
    numbers, width = global_tokens.numpy(), global_tokens.shape[1]
    for name, kind in (("SQfp16", "QT_fp16"), ("SQ8", "QT_8bit")):
        kind = getattr(faiss.ScalarQuantizer, kind)
        index = faiss.IndexScalarQuantizer(width, kind, faiss.METRIC_INNER_PRODUCT)
        index.train(numbers)
        index.add(numbers)
        yield f"faiss {name}", index
    for kind, set_effort, efforts in (
        ("ivf", lambda index, lists: setattr(index, "nprobe", lists), (16, 64)),
        ("hnsw", lambda index, length: setattr(index.hnsw, "efSearch", length), (128, 512)),
    ):
        index = faiss_index(global_tokens, kind)
        for effort in efforts:
            set_effort(index, effort)
            yield f"faiss {kind}, {effort}", index


def percent_of(wanted: torch.Tensor, hits: torch.Tensor) -> float:
    """How many of the ids `wanted` (Q, K) are among the hits (Q, K') of the same query."""
    return 100 * float((wanted[:, :, None] == hits[:, None, :]).any(2).double().mean())
