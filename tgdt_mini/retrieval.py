"""Two-stage search: a shortlist by global score, then the shortlist alone re-ordered by global + weight x local.

    stage 1   one dot product with every item of the gallery, keep the top K
    stage 2   late interaction with those K only: K / G of the work of scoring everything

`two_stage` does it for embeddings in memory, on any device, and returns scores for evaluation. `Gallery` is what an
application keeps: items are encoded once, their tokens lie on disk, and a search reads the shortlist's tokens only.
Stage 1 is exact, a dot product with all items: enough below a million. No approximate index, no appending, no deletion.

Q queries, G gallery items, K shortlist, L local tokens of an item, D width. A gallery's local tokens lie end to end,
(T, D) without padding, item g owning rows offsets[g] to offsets[g + 1].
"""

import json
import time
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from tgdt_mini.embedding import Embedding
from tgdt_mini.paths import whole_folder
from tgdt_mini.similarity import at_least_float32, autocast_off, check_query_is, check_real, shortlist_similarity

FLOATS = 2**22  # gathered tokens, or stage-one scores, held at once: 16 MB of float32
CHECKED = 2**28  # bytes: files up to 256 MB are read through and compared with their checksum at every load
HELD = ("image", "caption")
FORMAT = "tgdt_mini gallery 1"
ARRAYS = ("global_tokens", "local_tokens", "offsets")


def two_stage(
    queries: Embedding, gallery: Embedding, shortlist: int, local_weight: float, query_is: str
) -> torch.Tensor:
    """(Q, G) scores: global + local_weight x local for each query's shortlist, -inf for everything else.

    query_is "image" searches a gallery of captions, "caption" a gallery of images; both ways S_L is the mean over the
    caption's words. shortlist: K, at most G is used. With K = G this equals `mixed_similarity`.
    Source: evaluate_utils/evaluation.py of the released code, which takes one query at a time.
    """
    check_query_is(query_is)
    names = ("image", "caption") if query_is == "image" else ("caption", "image")
    counts = check_real(queries, gallery, names=names)[1]  # (G,)
    length, width = gallery.local_tokens.shape[1:]
    ragged = bool((counts < length).any())

    def fetch(ids):
        tokens = gallery.local_tokens.index_select(0, ids.flatten()).view(*ids.shape, length, width)  # (q, K, L, D)
        return tokens, gallery.mask[ids] if ragged else None

    global_tokens = at_least_float32(gallery.global_token)
    scores = global_tokens.new_full((len(queries), len(gallery)), -float("inf"))
    for rows, ids, mixed, _ in _search(queries, global_tokens, fetch, length, shortlist, local_weight, query_is):
        scores[rows].scatter_(1, ids, mixed)
    return scores


@dataclass(frozen=True)
class Hits:
    """The k best of each query, best first, and the seconds that each stage took for all queries together."""

    indices: torch.Tensor  # (Q, k) rows of the gallery
    scores: torch.Tensor  # (Q, k)
    items: list[list]  # Q lists of k items
    seconds: dict[str, float]  # {"shortlist": ..., "rerank": ...}


@dataclass(frozen=True, eq=False, repr=False)
class Gallery:
    """Encoded items, to be searched by the other modality. On the CPU: it is the disk that a search waits for.

    global_tokens (G, D) float32; local_tokens (T, D) float16, memory-mapped after `load`; offsets (G + 1,);
    items: G JSON values that a hit returns; holds: "image" or "caption"; model: fingerprint of the encoder, or None.
    """

    global_tokens: torch.Tensor
    local_tokens: torch.Tensor
    offsets: torch.Tensor
    items: list
    holds: str
    model: str | None = None

    @classmethod
    def build(cls, embedding: Embedding, items: list, holds: str = "image", model: str | None = None) -> "Gallery":
        """A gallery of an embedding's real tokens; items[i], say a file name, is what a hit on row i returns."""
        if holds not in HELD:
            raise ValueError(f'holds is {holds!r}; it must be "image" or "caption"')
        if len(items) != len(embedding):
            raise ValueError(f"{len(items)} items for {len(embedding)} embedded {holds}s; give one item for each")
        counts = check_real(embedding, names=(holds,))[0]  # (G,)
        embedding = embedding.detach()
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])  # (G + 1,)
        local_tokens = embedding.local_tokens[embedding.mask].to(torch.float16).cpu()  # (T, D)
        return cls(embedding.global_token.float().cpu(), local_tokens, offsets, list(items), holds, model)

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def longest(self) -> int:
        """The most local tokens that an item has."""
        return int(self.offsets.diff().max())

    def search(
        self, query: Embedding, k: int = 10, shortlist: int = 100, local_weight: float = 1.0,
        expect_model: str | None = None,
    ) -> Hits:  # fmt: skip
        """The k best items for each query (captions if the gallery holds images, and the other way round).

        The same scores as `two_stage` on the stored tokens. A k larger than the shortlist enlarges the shortlist, one
        larger than the gallery returns the whole gallery. expect_model: see `load`.
        """
        if k < 1:
            raise ValueError(f"k is {k}; ask for at least 1 hit")
        self._check_model(expect_model)
        query_is = "caption" if self.holds == "image" else "image"
        check_real(query, names=(query_is,))
        shortlist = max(shortlist, k) if shortlist >= 1 else shortlist  # below 1 is an error, raised in _search
        query = query.detach().to("cpu", torch.float32)
        indices, scores, seconds = [], [], {"shortlist": 0.0, "rerank": 0.0}
        parts = _search(query, self.global_tokens, self._fetch, self.longest, shortlist, local_weight, query_is)
        for _, ids, mixed, took in parts:
            best = mixed.topk(min(k, len(self)))  # (q, k)
            indices.append(ids.gather(1, best.indices))
            scores.append(best.values)
            seconds = {stage: seconds[stage] + took[stage] for stage in seconds}
        indices = torch.cat(indices)  # (Q, k)
        items = [[self.items[row] for row in rows] for rows in indices.tolist()]
        return Hits(indices, torch.cat(scores), items, seconds)

    def _fetch(self, ids):
        """The stored tokens of items ids (q, K): (q, K, L, D), and which of them are real; None if all are."""
        if len(self.local_tokens) == len(self) * self.longest:  # every item has the same number: gather whole items
            tokens = self.local_tokens.unflatten(0, (len(self), self.longest)).index_select(0, ids.flatten())
            return tokens.unflatten(0, ids.shape), None  # (q, K, L, D)
        first, counts = self.offsets[ids], self.offsets[ids + 1] - self.offsets[ids]  # (q, K)
        place = torch.arange(int(counts.max()))  # (L,)
        mask = place < counts[..., None]  # (q, K, L)
        rows = first[..., None] + torch.minimum(place, counts[..., None] - 1)  # a pad repeats the item's last token
        return self.local_tokens.index_select(0, rows.flatten()).unflatten(0, rows.shape), mask  # (q, K, L, D)

    def save(self, folder: str | Path) -> None:
        """Write the gallery to a folder: three .npy files that numpy can map, and gallery.json. No pickle.

        Whatever goes wrong, the folder holds the old gallery or the new one, never a part. A folder that holds
        something else is not touched: ValueError.
        """
        about = {"format": FORMAT, "holds": self.holds, "model": self.model, "items": self.items, "files": {}}
        try:
            json.dumps(about)
        except TypeError as error:
            raise ValueError(f"items must be JSON values, such as file names: {error}") from None
        with whole_folder(Path(folder), marker="gallery.json") as beside:
            for name in ARRAYS:
                path = beside / f"{name}.npy"
                np.save(path, getattr(self, name).numpy(), allow_pickle=False)
                about["files"][path.name] = {"bytes": path.stat().st_size, "crc32": _crc32(path)}
            (beside / "gallery.json").write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, expect_model: str | None = None, check_all: bool = False) -> "Gallery":
        """Open a saved gallery; the local tokens stay on disk until a search reads them.

        expect_model: the fingerprint of the model that will encode the queries; another one is a ValueError.
        check_all: compare the checksum of large files too (always done up to 256 MB; sizes are always compared).
        Raises ValueError that names the file for whatever is missing, truncated or damaged.
        """
        about, tensors = _read_about(Path(folder) / "gallery.json"), {}
        for name in ARRAYS:
            path = Path(folder) / f"{name}.npy"
            expected = about["files"].get(path.name, {})
            size = path.stat().st_size if path.is_file() else None
            if size is None or size != expected.get("bytes"):
                raise ValueError(f"{path} has {size} bytes instead of {expected.get('bytes')}; re-index")
            if (check_all or size <= CHECKED) and _crc32(path) != expected.get("crc32"):
                raise ValueError(f"{path} is damaged: its checksum differs from the one in gallery.json; re-index")
            mode = "c" if name == "local_tokens" else None  # "c": torch wants writable memory, the file stays as it is
            tensors[name] = torch.from_numpy(np.load(path, mmap_mode=mode, allow_pickle=False))
        gallery = cls(items=about["items"], holds=about["holds"], model=about["model"], **tensors)
        if not len(gallery) == len(gallery.global_tokens) == len(gallery.offsets) - 1:
            raise ValueError(f"{folder} names {len(gallery)} items in gallery.json, its arrays differ; re-index")
        gallery._check_model(expect_model)
        return gallery

    def _check_model(self, expect_model):
        if expect_model is not None and expect_model != self.model:
            raise ValueError(f"the gallery was built by another model ({self.model}, not {expect_model}); re-index")


def _search(queries, global_tokens, fetch, length, shortlist, local_weight, query_is):
    """Both stages, some queries at a time: yields (rows, ids (q, K), mixed scores (q, K), seconds of each stage)."""
    if shortlist < 1:
        raise ValueError(f"shortlist is {shortlist}; it must be at least 1, and about 100 to lose little")
    size, width = global_tokens.shape
    if queries.global_token.shape[1] != width:
        raise ValueError(
            f"queries are {queries.global_token.shape[1]} wide, the gallery {width}: built by another model; re-index"
        )
    shortlist = min(shortlist, size)
    step, substep = max(1, FLOATS // size), max(1, FLOATS // (shortlist * length * width))
    for start in range(0, len(queries), step):
        some = queries[start : start + step]
        begin = time.perf_counter()
        with autocast_off(global_tokens):
            scores = at_least_float32(some.global_token) @ global_tokens.T  # (q, G)
        ids = scores.topk(shortlist).indices.sort(1).values  # (q, K), ascending: a disk reads forward
        middle = time.perf_counter()
        blocks = [slice(i, i + substep) for i in range(0, len(some), substep)]
        local = torch.cat([shortlist_similarity(some[rows], *fetch(ids[rows]), query_is) for rows in blocks])  # (q, K)
        mixed = scores.gather(1, ids) + local_weight * local  # (q, K)
        seconds = {"shortlist": middle - begin, "rerank": time.perf_counter() - middle}
        yield slice(start, start + step), ids, mixed, seconds


def _read_about(path):
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if about["format"] != FORMAT or not isinstance(about["items"], list) or about["holds"] not in HELD:
            raise KeyError(f"format {about['format']!r}")
        return {"model": about["model"], "files": dict(about["files"])} | about
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; build the gallery first") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); re-index") from None


def _crc32(path):
    return zlib.crc32(np.memmap(path, np.uint8, "r"))
