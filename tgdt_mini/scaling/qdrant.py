"""The same search in Qdrant, an engine made for galleries that outgrow one machine's memory, or one
machine.

    gallery = Gallery.load("runs/gallery") there = QdrantGallery.upload(gallery,
    "http://localhost:6333", "pictures")     # stopped? call it again there.search(query, k=10,
    shortlist=100, local_weight=2.0)                     # Hits, as from Gallery.search

A point is an item. A caption query over images is one request, both stages inside the engine. Its
MaxSim sums over the QUERY's tokens, which is right for words that look for regions; so for an image
query over captions the engine returns the shortlist, and stage two runs here. What is sent to the
engine is in `scaling/qdrant_engines.py`.

where: the address of a server; a folder, for the same engine inside this process, which one process
at a time may open; or a QdrantClient. No deletion and no filters. How to start a server, and how
many: docs/scaling.md.
"""

import json
import time

import torch

from tgdt_mini.embedding import Embedding
from tgdt_mini.scaling.qdrant_engines import FORMAT, engine_of
from tgdt_mini.search.gallery import Gallery, Hits
from tgdt_mini.similarity import check_real, shortlist_similarity

FLOATS = 2**19  # in one upload request, about 10 MB as JSON; a server takes 32 MB at most
# a number of a global token differs by less where one item was encoded twice, on a CPU and on a GPU
# say
SAME = 0.01


class QdrantGallery:
    """A gallery in Qdrant. `upload` or `open` one; it holds "image" or "caption", made by `model`
    (a fingerprint).
    """

    def __init__(self, engine):
        about = engine.about()
        self.engine, self.width, self.holds, self.model = (
            engine,
            about["width"],
            about["holds"],
            about["model"],
        )

    def __len__(self) -> int:
        return self.engine.count()

    def close(self) -> None:
        """Let another process open the folder. A server does not mind how many are connected."""
        self.engine.close()

    @classmethod
    def open(cls, where, collection: str, expect_model: str | None = None) -> "QdrantGallery":
        """A collection that is there. ValueError if it is not, is somebody else's, or was made by
        another model.
        """
        found = cls(engine_of(where, collection))
        found._check_model(expect_model)
        return found

    @classmethod
    def upload(
        cls,
        gallery: Gallery,
        where,
        collection: str,
        first: int = 0,
        shards: int | None = None,
        replicas: int | None = None,
        half: bool = False,
        progress: bool = True,
    ) -> "QdrantGallery":
        """Put a gallery's items into a collection, which is made if it is not there; returns the
        collection.

        Item i is point first + i: what is there already is not sent again, so an upload that was
        stopped goes on when it is called again, and several galleries fill one collection. Each
        batch is acknowledged before the next.
        shards, replicas: of a new collection on a cluster. half: local tokens as float16, in half
        the room.
        Raises ValueError, before anything is sent, where one of these points holds something else.
        """
        from tqdm import tqdm

        engine, width = engine_of(where, collection), gallery.global_tokens.shape[1]
        if not engine.exists():
            about = {"format": FORMAT, "holds": gallery.holds, "model": gallery.model}
            engine.create(width, about, shards, replicas, half)
        found = cls(engine)
        for name, theirs, ours in (
            ("width", found.width, width),
            ("holds", found.holds, gallery.holds),
        ):
            if theirs != ours:
                raise ValueError(
                    f"collection {collection!r} has {name} {theirs}, the gallery {ours}; name another one"
                )
        found._check_model(gallery.model)
        missing = found._missing(gallery, first)
        step = max(1, FLOATS // (gallery.stored.longest * width))
        bar = tqdm(
            total=len(gallery),
            initial=len(gallery) - len(missing),
            desc="uploading",
            unit=" items",
            disable=None if progress else True,
        )
        with bar:
            for start in range(0, len(missing), step):
                rows = missing[start : start + step]
                engine.put([_point(gallery, row, first) for row in rows])
                bar.update(len(rows))
        return found

    def _missing(self, gallery, first):
        """The rows of a gallery that are not in the collection. ValueError if a row's point holds
        something else.
        """
        step, missing = max(1, FLOATS // self.width), []
        for start in range(0, len(gallery), step):
            rows = range(start, min(start + step, len(gallery)))
            there = self.engine.present([first + row for row in rows])
            for row in rows:
                if first + row not in there:
                    missing.append(row)
                    continue
                item, token = there[first + row]
                other = json.dumps(item) != json.dumps(gallery.items[row])
                if (
                    other
                    or (torch.tensor(token) - gallery.global_tokens[row].float()).abs().max() > SAME
                ):
                    theirs = repr(item) if other else f"another {self.holds} called {item!r}"
                    raise ValueError(
                        f"{self.engine} holds {theirs} as number {first + row}, where the gallery has "
                        f"{gallery.items[row]!r}: name another --collection, or another place for --qdrant"
                    )
        return missing

    def build_index(self) -> None:
        """Make the index that `search(exact=False)` reads, and wait for it; a server does so by
        itself meanwhile.

        Qdrant makes none for less than 10 MB of global tokens: 20,000 items, 128 wide.
        """
        self.engine.build_index()

    def search(
        self,
        query: Embedding,
        k: int = 10,
        shortlist: int = 100,
        local_weight: float = 1.0,
        expect_model: str | None = None,
        exact: bool = True,
    ) -> Hits:
        """The k best items for each query, as `Gallery.search` finds them; indices are the points'
        numbers.

        exact: stage one compares the query with everything. False: by the engine's index, once it
        has built one.
        seconds: "engine" and, for image queries, "rerank".
        """
        if k < 1 or shortlist < 1:
            raise ValueError(f"k is {k} and shortlist {shortlist}; each must be at least 1")
        self._check_model(expect_model)
        if query.global_token.shape[1] != self.width:
            raise ValueError(
                f"queries are {query.global_token.shape[1]} wide, the collection {self.width}: built by another model"
            )
        check_real(query, names=("caption" if self.holds == "image" else "image",))
        query = query.detach().to("cpu", torch.float32)
        find = self._by_caption if self.holds == "image" else self._by_image
        seconds = {}
        found = [
            find(query[[row]], k, max(shortlist, k), local_weight, exact, seconds)
            for row in range(len(query))
        ]
        ids, scores, items = zip(*found)
        if not ids[0]:
            raise ValueError("the collection holds nothing to search; upload a gallery")
        return Hits(torch.tensor(ids), torch.tensor(scores), list(items), seconds)

    def _by_caption(self, query, k, shortlist, local_weight, exact, seconds):
        began = time.perf_counter()
        words = query.local_tokens[
            query.mask
        ].tolist()  # pads are left out: a zero vector would not be neutral
        hits = self.engine.two_stage(
            query.global_token[0].tolist(), words, k, shortlist, local_weight, exact
        )
        _add(seconds, "engine", began)
        return (
            [hit.id for hit in hits],
            [hit.score for hit in hits],
            [hit.payload["item"] for hit in hits],
        )

    def _by_image(self, query, k, shortlist, local_weight, exact, seconds):
        began = time.perf_counter()
        hits = self.engine.shortlist(query.global_token[0].tolist(), shortlist, exact)
        _add(seconds, "engine", began)
        if not hits:
            return [], [], []
        began = time.perf_counter()
        tokens = [torch.tensor(hit.vector["local"]) for hit in hits]
        mask = [torch.ones(len(each), dtype=torch.bool) for each in tokens]
        tokens, mask = (
            torch.nn.utils.rnn.pad_sequence(each, batch_first=True) for each in (tokens, mask)
        )
        local = shortlist_similarity(query, tokens[None], mask[None], "image")[0]  # (K,)
        best = (torch.tensor([hit.score for hit in hits]) + local_weight * local).topk(
            min(k, len(hits))
        )
        _add(seconds, "rerank", began)
        hits = [hits[place] for place in best.indices.tolist()]
        return [hit.id for hit in hits], best.values.tolist(), [hit.payload["item"] for hit in hits]

    def _check_model(self, expect_model):
        if expect_model is not None and expect_model != self.model:
            raise ValueError(
                f"another model built the collection ({self.model}, not {expect_model}); index anew, and name another "
                "--collection"
            )


def _point(gallery, row, first):
    tokens, _ = gallery.stored.fetch(torch.tensor([[row]]))  # (1, 1, L, D)
    local = tokens[0, 0].float().tolist()
    return (
        first + row,
        {"global": gallery.global_tokens[row].tolist(), "local": local},
        {"item": gallery.items[row]},
    )


def _add(seconds, name, began):
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began
