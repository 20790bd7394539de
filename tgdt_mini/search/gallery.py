"""A gallery: items encoded once, whose tokens lie on disk, and a search that reads the shortlist's
tokens only.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from tgdt_mini.embedding import Embedding
from tgdt_mini.files.rows import LocalTokens, Segment
from tgdt_mini.retrieval import _by_query, _search, by_columns
from tgdt_mini.search import files
from tgdt_mini.search.faiss_index import check_index
from tgdt_mini.similarity import check_real


@dataclass(frozen=True)
class Hits:
    """The k best of each query, best first, and the seconds that each stage took for all queries
    together.
    """

    indices: torch.Tensor  # (Q, k) rows of the gallery
    scores: torch.Tensor  # (Q, k)
    items: list[list]  # Q lists of k items
    seconds: dict[str, float]  # {"shortlist": ..., "rerank": ...}


@dataclass(frozen=True, eq=False, repr=False)
class Gallery:
    """Encoded items, to be searched by the other modality. On the CPU: it is the disk that a search
    waits for.

    global_tokens (G, D) float32 or float16, in memory; stored: the local tokens, on disk after
    `load`; items: G JSON values that a hit returns; holds: "image" or "caption"; model: fingerprint
    of the encoder, or None.
    """

    global_tokens: torch.Tensor
    stored: LocalTokens
    items: list
    holds: str
    model: str | None = None

    @classmethod
    def build(
        cls,
        embedding: Embedding,
        items: list,
        holds: str = "image",
        model: str | None = None,
        local_precision: str = "float16",
        global_precision: str = "float32",
    ) -> "Gallery":
        """A gallery of an embedding's real tokens; items[i], say a file name, is what a hit on row
        i returns.

        local_precision: "float16" or "int8", half of the bytes; global_precision: "float32" or
        "float16".
        """
        if holds not in files.HELD:
            raise ValueError(f'holds is {holds!r}; it must be "image" or "caption"')
        for name, value, known in (
            ("local_precision", local_precision, ("float16", "int8")),
            ("global_precision", global_precision, ("float32", "float16")),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; it must be {' or '.join(known)}")
        if len(items) != len(embedding):
            raise ValueError(
                f"{len(items)} items for {len(embedding)} embedded {holds}s; give one item for each"
            )
        counts = check_real(embedding, names=(holds,))[0]  # (G,)
        embedding = embedding.detach()
        tokens, real = embedding.local_tokens.flatten(0, 1), embedding.mask.flatten()
        segment = Segment.of(tokens if bool(real.all()) else tokens[real], counts, local_precision)
        global_tokens = by_columns(
            embedding.global_token.to("cpu", getattr(torch, global_precision))
        )
        return cls(global_tokens, LocalTokens((segment,)), list(items), holds, model)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def offsets(self) -> torch.Tensor:
        """(G + 1,) item g owns rows offsets[g] to offsets[g + 1] of the local tokens."""
        return self.stored.offsets

    @property
    def local_tokens(self) -> torch.Tensor:
        """(T, D) all local tokens as they are stored. If items were appended, this is a copy in
        memory.
        """
        tokens = [segment.tokens for segment in self.stored.segments]
        return tokens[0] if len(tokens) == 1 else torch.cat(tokens)

    def search(
        self,
        query: Embedding,
        k: int = 10,
        shortlist: int = 100,
        local_weight: float = 1.0,
        expect_model: str | None = None,
        index=None,
    ) -> Hits:
        """The k best items for each query (captions if the gallery holds images, and the other way
        round).

        The same scores as `two_stage` on the stored tokens. A k larger than the shortlist enlarges
        the shortlist, one larger than the gallery returns the whole gallery. expect_model: see
        `load`. index: makes the shortlist instead of scoring all items, see
        `stage_one.faiss_index`. Raises ValueError if a score is NaN.
        """
        if k < 1:
            raise ValueError(f"k is {k}; ask for at least 1 hit")
        self._check_model(expect_model)
        query_is = "caption" if self.holds == "image" else "image"
        check_real(query, names=(query_is,))
        if index is not None:
            check_index(index, *self.global_tokens.shape)
        shortlist = (
            max(shortlist, k) if shortlist >= 1 else shortlist
        )  # below 1 is an error, raised in _search
        query = query.detach().to("cpu", torch.float32)
        indices, scores, seconds = [], [], {"shortlist": 0.0, "rerank": 0.0}

        def rerank(some, ids):
            return _by_query(some, ids, self.stored.fetch, self.stored.longest, query_is)

        for _, ids, mixed, took in _search(
            query, self.global_tokens, rerank, shortlist, local_weight, index=index
        ):
            best = mixed.topk(min(k, len(self)))  # (q, k)
            indices.append(ids.gather(1, best.indices))
            scores.append(best.values)
            seconds = {stage: seconds[stage] + took[stage] for stage in seconds}
        indices = torch.cat(indices)  # (Q, k)
        items = [[self.items[row] for row in rows] for rows in indices.tolist()]
        return Hits(indices, torch.cat(scores), items, seconds)

    def save(self, folder: str | Path) -> None:
        """Write the gallery to a folder, see `search/files.py`.

        Whatever goes wrong, the folder holds the old gallery or the new one, never a part. A folder
        that holds
        something else is not touched: ValueError.
        """
        files.write(Path(folder), self._arrays(), {"holds": self.holds, "model": self.model})

    def append(self, folder: str | Path) -> None:
        """Add this gallery's items to the one in a folder, whose files stay as they are.

        Whatever goes wrong, the folder holds what it held, or all of it and these. ValueError if
        there is no gallery, or one of another model, width, kind of item or precision of global
        tokens.
        """
        files.append(Path(folder), self._arrays(), {"holds": self.holds, "model": self.model})

    def _arrays(self):
        start, found = 0, []
        for segment in self.stored.segments:
            end = start + len(segment.offsets) - 1
            arrays = {
                "global_tokens": self.global_tokens[start:end],
                "local_tokens": segment.tokens,
                "offsets": segment.offsets,
                "scales": segment.scales,
            }
            arrays = {name: array.numpy() for name, array in arrays.items() if array is not None}
            found.append({"items": self.items[start:end], **arrays})
            start = end
        return found

    @classmethod
    def load(
        cls, folder: str | Path, expect_model: str | None = None, check_all: bool = False
    ) -> "Gallery":
        """Open a saved gallery; the local tokens stay on disk until a search reads them.

        expect_model: the fingerprint of the model that will encode the queries; another one is a
        ValueError.
        check_all: compare all checksums, not only those of the first 256 MB (sizes are always
        compared).
        Raises ValueError that names the file for whatever is missing, truncated or damaged.
        """
        about, stored = files.read(Path(folder), check_all)
        segments, items, parts = [], [], []
        for each in stored:
            tensors = {name: torch.from_numpy(each[name]) for name in each if name != "items"}
            segments.append(
                Segment(tensors["local_tokens"], tensors["offsets"], tensors.get("scales"))
            )
            parts.append(tensors["global_tokens"])
            items += each["items"]
        global_tokens = torch.empty(
            parts[0].shape[1], len(items), dtype=parts[0].dtype
        ).T  # (G, D), see by_columns
        torch.cat(parts, out=global_tokens)
        gallery = cls(
            global_tokens, LocalTokens(tuple(segments)), items, about["holds"], about["model"]
        )
        gallery._check_model(expect_model)
        return gallery

    def _check_model(self, expect_model):
        if expect_model is not None and expect_model != self.model:
            raise ValueError(
                f"the gallery was built by another model ({self.model}, not {expect_model}); re-index"
            )
