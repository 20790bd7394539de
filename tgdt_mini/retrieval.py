"""Two-stage search: a shortlist by global score, then the shortlist alone re-ordered by global + weight x local.

    stage 1   one dot product with every item of the gallery, keep the top K (`stage_one.py`)
    stage 2   late interaction with those K only: K / G of the work of scoring everything

`two_stage` does it for embeddings in memory, on any device, and returns scores for evaluation. `Gallery` is what an
application keeps: items are encoded once, their tokens lie on disk, and a search reads the shortlist's tokens only.
More items can be appended; none can be deleted.

Q queries, G gallery items, K shortlist, L local tokens of an item, D width. A gallery's local tokens lie end to end,
(T, D) without padding, item g owning rows offsets[g] to offsets[g + 1].
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from tgdt_mini import gallery_files
from tgdt_mini.embedding import Embedding
from tgdt_mini.local_tokens import LocalTokens, Segment
from tgdt_mini.similarity import at_least_float32, check_query_is, check_real, paired_similarity, shortlist_similarity
from tgdt_mini.stage_one import FLOATS, best_by_global, by_columns, check_index

MEETINGS = 8  # shortlists that an item is in, on average, from which on they are scored pair by pair, not padded


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

    def by_query(some, ids):
        return _by_query(some, ids, fetch, length, query_is)

    def by_pairs(some, ids):
        asked = torch.arange(len(ids), device=ids.device).repeat_interleave(ids.shape[1])  # (q*K,)
        if query_is == "image":
            return paired_similarity(some, gallery, asked, ids.flatten()).view(ids.shape)  # (q, K)
        return paired_similarity(gallery, some, ids.flatten(), asked).view(ids.shape)  # (q, K)

    many = query_is == "image" or len(queries) * min(shortlist, len(gallery)) >= MEETINGS * len(gallery)
    rerank = by_pairs if many else by_query
    longest = max(length, queries.mask.shape[1])
    scores = at_least_float32(queries.global_token[:0]).new_full((len(queries), len(gallery)), -float("inf"))
    for rows, ids, mixed, _ in _search(queries, gallery.global_token, rerank, shortlist, local_weight, longest):
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

    global_tokens (G, D) float32 or float16, in memory; stored: the local tokens, on disk after `load`; items: G JSON
    values that a hit returns; holds: "image" or "caption"; model: fingerprint of the encoder, or None.
    """

    global_tokens: torch.Tensor
    stored: LocalTokens
    items: list
    holds: str
    model: str | None = None

    @classmethod
    def build(
        cls, embedding: Embedding, items: list, holds: str = "image", model: str | None = None,
        local_precision: str = "float16", global_precision: str = "float32",
    ) -> "Gallery":  # fmt: skip
        """A gallery of an embedding's real tokens; items[i], say a file name, is what a hit on row i returns.

        local_precision: "float16" or "int8", half of the bytes; global_precision: "float32" or "float16".
        """
        if holds not in gallery_files.HELD:
            raise ValueError(f'holds is {holds!r}; it must be "image" or "caption"')
        for name, value, known in (
            ("local_precision", local_precision, ("float16", "int8")),
            ("global_precision", global_precision, ("float32", "float16")),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; it must be {' or '.join(known)}")
        if len(items) != len(embedding):
            raise ValueError(f"{len(items)} items for {len(embedding)} embedded {holds}s; give one item for each")
        counts = check_real(embedding, names=(holds,))[0]  # (G,)
        embedding = embedding.detach()
        tokens, real = embedding.local_tokens.flatten(0, 1), embedding.mask.flatten()
        segment = Segment.of(tokens if bool(real.all()) else tokens[real], counts, local_precision)
        global_tokens = by_columns(embedding.global_token.to("cpu", getattr(torch, global_precision)))
        return cls(global_tokens, LocalTokens((segment,)), list(items), holds, model)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def offsets(self) -> torch.Tensor:
        """(G + 1,) item g owns rows offsets[g] to offsets[g + 1] of the local tokens."""
        return self.stored.offsets

    @property
    def local_tokens(self) -> torch.Tensor:
        """(T, D) all local tokens as they are stored. If items were appended, this is a copy in memory."""
        tokens = [segment.tokens for segment in self.stored.segments]
        return tokens[0] if len(tokens) == 1 else torch.cat(tokens)

    def search(
        self, query: Embedding, k: int = 10, shortlist: int = 100, local_weight: float = 1.0,
        expect_model: str | None = None, index=None,
    ) -> Hits:  # fmt: skip
        """The k best items for each query (captions if the gallery holds images, and the other way round).

        The same scores as `two_stage` on the stored tokens. A k larger than the shortlist enlarges the shortlist, one
        larger than the gallery returns the whole gallery. expect_model: see `load`. index: makes the shortlist instead
        of scoring all items, see `stage_one.faiss_index`. Raises ValueError if a score is NaN.
        """
        if k < 1:
            raise ValueError(f"k is {k}; ask for at least 1 hit")
        self._check_model(expect_model)
        query_is = "caption" if self.holds == "image" else "image"
        check_real(query, names=(query_is,))
        if index is not None:
            check_index(index, *self.global_tokens.shape)
        shortlist = max(shortlist, k) if shortlist >= 1 else shortlist  # below 1 is an error, raised in _search
        query = query.detach().to("cpu", torch.float32)
        indices, scores, seconds = [], [], {"shortlist": 0.0, "rerank": 0.0}

        def rerank(some, ids):
            return _by_query(some, ids, self.stored.fetch, self.stored.longest, query_is)

        for _, ids, mixed, took in _search(query, self.global_tokens, rerank, shortlist, local_weight, index=index):
            best = mixed.topk(min(k, len(self)))  # (q, k)
            indices.append(ids.gather(1, best.indices))
            scores.append(best.values)
            seconds = {stage: seconds[stage] + took[stage] for stage in seconds}
        indices = torch.cat(indices)  # (Q, k)
        items = [[self.items[row] for row in rows] for rows in indices.tolist()]
        return Hits(indices, torch.cat(scores), items, seconds)

    def save(self, folder: str | Path) -> None:
        """Write the gallery to a folder, see `gallery_files.py`.

        Whatever goes wrong, the folder holds the old gallery or the new one, never a part. A folder that holds
        something else is not touched: ValueError.
        """
        gallery_files.write(Path(folder), self._arrays(), {"holds": self.holds, "model": self.model})

    def append(self, folder: str | Path) -> None:
        """Add this gallery's items to the one in a folder, whose files stay as they are.

        Whatever goes wrong, the folder holds what it held, or all of it and these. ValueError if there is no gallery,
        or one of another model, width, kind of item or precision of global tokens.
        """
        gallery_files.append(Path(folder), self._arrays(), {"holds": self.holds, "model": self.model})

    def _arrays(self):
        start, found = 0, []
        for segment in self.stored.segments:
            end = start + len(segment.offsets) - 1
            arrays = {"global_tokens": self.global_tokens[start:end], "local_tokens": segment.tokens,
                      "offsets": segment.offsets, "scales": segment.scales}  # fmt: skip
            arrays = {name: array.numpy() for name, array in arrays.items() if array is not None}
            found.append({"items": self.items[start:end], **arrays})
            start = end
        return found

    @classmethod
    def load(cls, folder: str | Path, expect_model: str | None = None, check_all: bool = False) -> "Gallery":
        """Open a saved gallery; the local tokens stay on disk until a search reads them.

        expect_model: the fingerprint of the model that will encode the queries; another one is a ValueError.
        check_all: compare all checksums, not only those of the first 256 MB (sizes are always compared).
        Raises ValueError that names the file for whatever is missing, truncated or damaged.
        """
        about, stored = gallery_files.read(Path(folder), check_all)
        segments, items, parts = [], [], []
        for each in stored:
            tensors = {name: torch.from_numpy(each[name]) for name in each if name != "items"}
            segments.append(Segment(tensors["local_tokens"], tensors["offsets"], tensors.get("scales")))
            parts.append(tensors["global_tokens"])
            items += each["items"]
        global_tokens = torch.empty(parts[0].shape[1], len(items), dtype=parts[0].dtype).T  # (G, D), see by_columns
        torch.cat(parts, out=global_tokens)
        gallery = cls(global_tokens, LocalTokens(tuple(segments)), items, about["holds"], about["model"])
        gallery._check_model(expect_model)
        return gallery

    def _check_model(self, expect_model):
        if expect_model is not None and expect_model != self.model:
            raise ValueError(f"the gallery was built by another model ({self.model}, not {expect_model}); re-index")


def _search(queries, global_tokens, rerank, shortlist, local_weight, longest=1, index=None):
    """Both stages, some queries at a time: yields (rows, ids (q, K), mixed scores (q, K), seconds of each stage).

    rerank: (some queries, their shortlists (q, K)) -> (q, K) local scores, with `longest` numbers held for each.
    """
    if shortlist < 1:
        raise ValueError(f"shortlist is {shortlist}; it must be at least 1, and about 100 to lose little")
    size, width = global_tokens.shape
    if queries.global_token.shape[1] != width:
        raise ValueError(
            f"queries are {queries.global_token.shape[1]} wide, the gallery {width}: built by another model; re-index"
        )
    shortlist = min(shortlist, size)
    step = max(1, FLOATS // max(size, shortlist * longest))
    for start in range(0, len(queries), step):
        some = queries[start : start + step]
        begin = time.perf_counter()
        scores, ids = best_by_global(some.global_token, global_tokens, shortlist, index)  # (q, K)
        middle = time.perf_counter()
        mixed = scores + local_weight * rerank(some, ids)  # (q, K)
        if mixed.isnan().any():
            row, place = mixed.isnan().nonzero()[0].tolist()
            raise ValueError(
                f"query {start + row} scores NaN with item {int(ids[row, place])}; a ranking among NaN means nothing, "
                "so find where the model made it"
            )
        seconds = {"shortlist": middle - begin, "rerank": time.perf_counter() - middle}
        yield slice(start, start + step), ids, mixed, seconds


def _by_query(queries, ids, fetch, length, query_is):
    """(q, K) local scores, some queries at a time: each query's candidates are gathered by `fetch`."""
    step = max(1, FLOATS // (ids.shape[1] * length * queries.local_tokens.shape[2]))
    blocks = [slice(start, start + step) for start in range(0, len(queries), step)]
    return torch.cat([shortlist_similarity(queries[rows], *fetch(ids[rows]), query_is) for rows in blocks])
