"""A gallery: items encoded once, whose tokens lie on disk, and a search that reads few of them.

    gallery/  gallery.json      the kind of item, the model's fingerprint, the search's settings,
                                and the shards: what `build` wrote, then what was appended
              shard-00000/      items.json, counts.npy, global_tokens.npy (g, D) float32 or float16,
                                local_tokens.npy (T, D) float16 or int8 with scales.npy

How these are written, and why nobody sees a half-written gallery, is told by `files/store.py`.
Items can be appended, not deleted. Q queries, G items, K shortlist, T local tokens, D width.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tgdt_mini.embedding import Embedding, check_real
from tgdt_mini.files import store
from tgdt_mini.files.check import named, real_number, shown, whole_number, writable
from tgdt_mini.files.manifest import read_json, read_whole
from tgdt_mini.files.rows import PRECISIONS, MappedRows, RaggedRows, encode_rows
from tgdt_mini.retrieval import search_in_blocks
from tgdt_mini.search.hits import Hits
from tgdt_mini.search.rerank import rerank
from tgdt_mini.search.screen import Screen, is_useful
from tgdt_mini.similarity import MOST_WEIGHT

NAME, FORMAT, CURE = "gallery.json", "tgdt_mini gallery 3", "re-index"
HOLDS = ("image", "caption")
MANIFEST: dict[str, Any] = {
    "format": FORMAT,
    "holds": HOLDS,
    "model": (str, None),
    "settings": (dict, None),
}
MANIFEST |= {"source": (str, None), "shards": dict}
CHECKED = 2**28  # bytes that are compared with their checksums by `load`: a quarter of a second
SETTINGS = {"shortlist": 100, "local_weight": 1.0}  # of a search, where validation chose none


@dataclass(frozen=True, eq=False, repr=False)
class Gallery:
    """Encoded items, to be searched by the other modality, on the CPU.

    global_tokens (G, D) float32 or float16 are in memory; stored, the local tokens, are on disk
    after `load`. items: G JSON values that a hit returns. holds: "image" or "caption". model: the
    fingerprint of the encoder, or None. settings: what `search` uses unless it is told otherwise,
    {"shortlist": K, "local_weight": weight}, or None. source: the name or folder of the model, to
    find it again, or None.
    """

    global_tokens: torch.Tensor
    stored: RaggedRows
    items: list
    holds: str
    model: str | None = None
    settings: dict | None = None
    source: str | None = None

    @classmethod
    def build(
        cls,
        embedding: Embedding,
        items: list,
        holds: str = "image",
        model: str | None = None,
        local_precision: str = "float16",
        global_precision: str = "float32",
        settings: dict | None = None,
    ) -> "Gallery":
        """A gallery of an embedding's real tokens; items[i], such as a file name, is row i's.

        local_precision: "float16", or "int8" in half of the bytes; global_precision: "float32" or
        "float16". settings: what validation chose, see `reports/choice.py`.
        """
        if not isinstance(embedding, Embedding):
            raise TypeError(f"embedding is {shown(embedding)}; it must be an Embedding")
        for name, value, known in (
            ("holds", holds, HOLDS),
            ("local_precision", local_precision, PRECISIONS),
            ("global_precision", global_precision, ("float32", "float16")),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; it must be {' or '.join(known)}")
        items = list(items)
        if len(items) != len(embedding):
            raise ValueError(
                f"{len(items)} items for {len(embedding)} embedded {holds}s; give one for each"
            )
        check_items(items)
        _check_settings(settings)
        check_real(embedding, names=(holds,))
        counts = embedding.mask.sum(1).cpu()  # (G,)
        embedding = embedding.detach()
        tokens, real = embedding.local_tokens.flatten(0, 1), embedding.mask.flatten()
        tokens = tokens if bool(real.all()) else tokens[real]  # (T, D)
        numbers, scales = encode_rows(tokens, local_precision)
        rows = MappedRows([numbers.numpy()], [None if scales is None else scales.numpy()])
        global_tokens = embedding.global_token.to("cpu", getattr(torch, global_precision))
        stored = RaggedRows.of(rows, counts)
        owner = torch.arange(len(items)).repeat_interleave(counts)  # (T,) the item of each row
        kept = numbers if scales is None else scales
        for part, each in ((global_tokens, torch.arange(len(items))), (kept, owner)):
            if not bool(torch.isfinite(part).all()):
                row = (~torch.isfinite(part.view(len(part), -1)).all(1)).nonzero()[0, 0]
                raise ValueError(
                    f"a token of item {shown(items[each[row]])} holds NaN, or a number that is too "
                    "large for its precision: the model made it"
                )
        return cls(global_tokens, stored, items, holds, model, settings)

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def screen(self) -> Screen:
        """Stage one for few queries and many items; needs faiss. Made by the first such search."""
        return Screen(self.global_tokens)

    @property
    def offsets(self) -> torch.Tensor:
        """(G + 1,) item g owns rows offsets[g] to offsets[g + 1] of the local tokens."""
        return self.stored.starts

    @property
    def local_tokens(self) -> torch.Tensor:
        """(T, D) all local tokens as they are stored; of several shards, a copy in memory."""
        arrays = self.stored.rows.arrays
        return torch.from_numpy(arrays[0] if len(arrays) == 1 else np.concatenate(arrays))

    def search(
        self,
        query: Embedding,
        k: int = 10,
        shortlist: int | None = None,
        local_weight: float | None = None,
        expect_model: str | None = None,
        index: Any = None,
    ) -> Hits:
        """The k best items for each query, which is of the other modality.

        The scores are those of `two_stage` on the stored tokens. shortlist and local_weight: None
        means what `settings` say, else 100 and 1.0. A k larger than the shortlist makes it longer;
        one larger than the gallery returns the whole gallery. expect_model: as in `load`. index: a
        `faiss_index` that makes the shortlist. Raises ValueError if a score is NaN.
        """
        chosen = SETTINGS | (self.settings or {})
        shortlist = chosen["shortlist"] if shortlist is None else shortlist
        local_weight = chosen["local_weight"] if local_weight is None else local_weight
        k, shortlist = whole_number("k", k, 1), whole_number("shortlist", shortlist, 1)
        if not isinstance(query, Embedding):
            raise TypeError(
                f"query is a {type(query).__name__}; give an Embedding, as encode_texts makes it, "
                "or search with a Retriever"
            )
        self.check_model(expect_model)
        query_is = "caption" if self.holds == "image" else "image"
        check_real(query, names=(query_is,))
        size, width = self.global_tokens.shape
        shortlist = max(shortlist, k)
        query = query.detach().to("cpu", torch.float32)
        indices, scores, seconds = [], [], {"shortlist": 0.0, "rerank": 0.0}

        if index is None and is_useful(size, width, len(query)):
            index = self.screen

        def local_scores(queries, ids):
            return rerank(queries, self.stored, ids, query_is)

        for _, ids, mixed, took in search_in_blocks(
            query, self.global_tokens, local_scores, shortlist, local_weight, index=index
        ):
            best = mixed.topk(min(k, len(self)))  # (q, k)
            indices.append(ids.gather(1, best.indices))
            scores.append(best.values)
            seconds = {stage: seconds[stage] + took[stage] for stage in seconds}
        best_rows = torch.cat(indices)  # (Q, k)
        items = [[self.items[row] for row in rows] for rows in best_rows.tolist()]
        return Hits(best_rows, torch.cat(scores), items, seconds)

    def save(self, folder: str | Path) -> None:
        """Write the gallery to a folder, in place of the one that is there.

        Whatever goes wrong, the folder holds the old gallery or the new one, never a part.
        Raises ValueError for a folder that holds something else.
        """
        folder = Path(folder)
        with store.one_writer(folder):
            store.check_ours(folder, NAME)
            store.replace_shards(folder, NAME, self._manifest(), self._shards(), keep={})

    def append(self, folder: str | Path) -> None:
        """Add this gallery's items to the one in a folder, whose shards stay as they are.

        Whatever goes wrong, the folder holds what it held, or all of it and these items.
        Raises ValueError if there is no gallery, or one of another model, width, kind of item,
        precision of global tokens or settings; settings of None are any.
        """
        folder, new = Path(folder), self._manifest()
        with store.one_writer(folder):
            known = read_json(folder / NAME, MANIFEST, "gallery", "build and save one first")
            if new["settings"] is None:
                new["settings"] = known["settings"]
            new["source"] = known["source"]
            for name, value in new.items():
                if known.get(name) != value:
                    raise ValueError(
                        f"{folder} has another {name} ({known.get(name)}, not {value}); "
                        "append what was built alike"
                    )
            store.replace_shards(folder, NAME, new, self._shards(), keep=known["shards"])

    def _manifest(self):
        names = {"holds": self.holds, "model": self.model, "width": self.global_tokens.shape[1]}
        names["global_precision"] = str(self.global_tokens.dtype).removeprefix("torch.")
        return {"format": FORMAT} | names | {"settings": self.settings, "source": self.source}

    def _shards(self):
        """[(items, arrays)] as they are stored: one shard for each array of local tokens."""
        rows, shards, start = self.stored.rows, [], 0
        for array, scales, end in zip(rows.arrays, rows.scales, rows.starts[1:]):
            stop = int(torch.searchsorted(self.offsets, int(end)))  # each item owns a row or more
            arrays = {
                "counts": self.offsets[start : stop + 1].diff().numpy(),
                "global_tokens": self.global_tokens[start:stop].numpy(),
                "local_tokens": array,
                "scales": scales,
            }
            shards.append((self.items[start:stop], arrays))
            start = stop
        return shards

    @classmethod
    def load(
        cls, folder: str | Path, expect_model: str | None = None, check_all: bool = False
    ) -> "Gallery":
        """The gallery of a folder; its local tokens stay on disk until a search reads them.

        expect_model: the fingerprint of the model that encodes the queries; ValueError if another
        one made the gallery. check_all: compare all checksums, not only those of the first 256 MB.
        Raises ValueError that names the file for whatever is missing, truncated or damaged.
        """

        def read(folder):
            try:
                is_there = (folder / NAME).is_file()
            except OSError as error:  # a name that is too long, a folder that is closed
                why = f"cannot be read ({error.strerror}); name another folder"
                raise ValueError(f"{named(folder / NAME)} {why}") from error
            if not is_there:
                raise ValueError(
                    f"{named(folder / NAME)} is missing; make a gallery of your pictures first: "
                    f"python -m tgdt_mini index --images FOLDER --model photographs "
                    f"--out {named(folder)}"
                )
            known = read_json(folder / NAME, MANIFEST, "gallery", CURE)
            _check_settings(known["settings"], f"{folder / NAME} is damaged: ")
            most = float("inf") if check_all else CHECKED
            read = store.read_store(folder / NAME, known["shards"], "local_tokens", CURE, most)
            global_tokens = torch.from_numpy(np.concatenate(read.arrays("global_tokens")))
            fields = {name: known[name] for name in ("holds", "model", "settings", "source")}
            return cls(global_tokens, read.ragged, read.items, **fields)

        gallery = read_whole(folder, NAME, read)
        gallery.check_model(expect_model, folder)
        return gallery

    def check_model(self, expect_model: str | None, where: str | Path = "") -> None:
        """ValueError if another model made the gallery; where: its folder, for the message."""
        if expect_model is not None and expect_model != self.model:
            its = f"{self.model} of {self.source}" if self.source else self.model
            of = f" {named(where)}" if where else ""
            raise ValueError(
                f"the gallery{of} was built by another model ({named(its)}, not "
                f"{named(expect_model)}); search with its model, or re-index"
            )


def check_items(items):
    """ValueError for an item that JSON would give back as another one."""
    for number, item in enumerate(items):
        if type(item) in (int, bool, type(None)) or (type(item) is str and writable(item)):
            continue
        try:
            same = json.loads(json.dumps(item, allow_nan=False)) == item  # a tuple becomes a list
        except (TypeError, ValueError, RecursionError):
            same = False
        if not same:
            raise ValueError(
                f"items must be JSON values, such as names, but item {number} is {shown(item)}"
            )


def _check_settings(settings, where=""):
    """ValueError unless settings are None, or values for some of SETTINGS."""
    try:
        for name, value in ({} if settings is None else settings).items():
            if name == "shortlist":
                whole_number(name, value, 1)
            else:
                real_number(name, value, -MOST_WEIGHT, MOST_WEIGHT)
        fits = settings is None or set(settings) <= set(SETTINGS)
    except (AttributeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"{where}settings are {shown(settings)}; they must be None, or hold a shortlist (a "
            "whole number), a local_weight (a number), or both"
        )
