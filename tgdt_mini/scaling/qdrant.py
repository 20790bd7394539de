"""The same two-stage search in Qdrant, for galleries too large for one machine's memory.

    gallery = Gallery.load("runs/gallery")
    remote = QdrantGallery.upload(gallery, "http://localhost:6333", "pictures")
    remote.search(query, k=10, shortlist=100, local_weight=2.0)  # Hits, as from Gallery.search

A point is an item. A caption query over images is one request with both stages in it. Qdrant's
MaxSim adds up over the QUERY's tokens, which is right for words that look for regions. So for an
image query over captions the engine returns the shortlist, and stage two runs here.
`scaling/qdrant_server.py` and `qdrant_folder.py` have the requests.

where: the address of a server; a folder, for the same engine in this process, which one process at
a time may open; or a QdrantClient. No deletion and no filters. How to start servers, and how many:
docs/scaling.md.
"""

import json
import time

import torch
from torch.nn.utils.rnn import pad_sequence

from tgdt_mini.embedding import Embedding, check_real
from tgdt_mini.files.progress import progress_bar
from tgdt_mini.scaling.qdrant_engines import engine_of
from tgdt_mini.scaling.qdrant_server import FORMAT
from tgdt_mini.search.gallery import Gallery
from tgdt_mini.search.hits import Hits
from tgdt_mini.similarity import shortlist_similarity

FLOATS = 2**19  # in one upload request, about 10 MB as JSON; a server takes 32 MB at most
# numbers of a global token differ by less than this when one item was encoded twice, for example
# on a CPU and on a GPU
SAME = 0.01


class QdrantGallery:
    """A gallery in Qdrant: `upload` or `open` one. It holds "image" or "caption" items."""

    def __init__(self, engine):
        metadata = engine.metadata()
        self.engine, self.width = engine, metadata["width"]
        self.holds, self.model = metadata["holds"], metadata["model"]  # a model's fingerprint

    def __len__(self) -> int:
        return self.engine.count()

    def close(self) -> None:
        """Let another process open the folder. A server takes any number of clients."""
        self.engine.close()

    @classmethod
    def open(cls, where, collection: str, expect_model: str | None = None) -> "QdrantGallery":
        """A collection that is there.

        Raises ValueError if it is not, was not made by this package, or was made by another model.
        """
        remote = cls(engine_of(where, collection))
        remote._check_model(expect_model)
        return remote

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
        """The collection, made if it is not there, with a gallery's items in it.

        Item i is point first + i, and several galleries may fill one collection. An item that is
        there already is not sent again, and each batch is acknowledged before the next: call it
        again after it was stopped. shards, replicas: of a new collection on a cluster. half: local
        tokens as float16, in half the space. Raises ValueError, before anything is sent, if one of
        these points holds something else.
        """
        engine, width = engine_of(where, collection), gallery.global_tokens.shape[1]
        if not engine.exists():
            metadata = {"format": FORMAT, "holds": gallery.holds, "model": gallery.model}
            engine.create(width, metadata, shards, replicas, half)
        remote = cls(engine)
        for name, theirs, ours in (
            ("width", remote.width, width),
            ("holds", remote.holds, gallery.holds),
        ):
            if theirs != ours:
                raise ValueError(
                    f"collection {collection!r} has {name} {theirs}, the gallery {ours}; "
                    "name another one"
                )
        remote._check_model(gallery.model)
        missing = remote._missing(gallery, first)
        step = max(1, FLOATS // (gallery.stored.longest * width))
        bar = progress_bar(
            progress=progress,
            total=len(gallery),
            initial=len(gallery) - len(missing),
            desc="uploading",
            unit=" items",
        )
        with bar:
            for start in range(0, len(missing), step):
                rows = missing[start : start + step]
                engine.put([_point(gallery, row, first) for row in rows])
                bar.update(len(rows))
        return remote

    def _missing(self, gallery, first):
        """The rows that the collection lacks. ValueError if one of the points is another item."""
        step, missing = max(1, FLOATS // self.width), []
        for start in range(0, len(gallery), step):
            rows = range(start, min(start + step, len(gallery)))
            stored = self.engine.stored([first + row for row in rows])
            for row in rows:
                if first + row not in stored:
                    missing.append(row)
                    continue
                item, token = stored[first + row]
                distance = (torch.tensor(token) - gallery.global_tokens[row].float()).abs().max()
                other = json.dumps(item) != json.dumps(gallery.items[row])
                if other or distance > SAME:
                    theirs = repr(item) if other else f"another {self.holds} called {item!r}"
                    raise ValueError(
                        f"{self.engine} holds {theirs} as number {first + row}, where the gallery "
                        f"has {gallery.items[row]!r}: name another --collection, or another place "
                        "for --qdrant"
                    )
        return missing

    def build_index(self) -> None:
        """Make the index that `search(exact=False)` reads, and wait. A server does so by itself.

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
        """The k best items for each query, as `Gallery.search` finds them; indices are the points'.

        exact: stage one compares the query with everything. False: by the engine's index, once it
        has built one. seconds: "engine" and, for image queries, "rerank". Raises ValueError for k
        or shortlist below 1, queries of another model or width, and an empty collection.
        """
        if k < 1 or shortlist < 1:
            raise ValueError(f"k is {k} and shortlist {shortlist}; each must be at least 1")
        self._check_model(expect_model)
        width = query.global_token.shape[1]
        if width != self.width:
            raise ValueError(
                f"queries are {width} wide, the collection {self.width}: built by another model"
            )
        check_real(query, names=("caption" if self.holds == "image" else "image",))
        query, seconds = query.detach().to("cpu", torch.float32), {}
        search_one = self._by_caption if self.holds == "image" else self._by_image
        shortlist, hits = max(shortlist, k), []
        for row in range(len(query)):
            hits.append(search_one(query[[row]], k, shortlist, local_weight, exact, seconds))
        if not hits[0]:
            raise ValueError("the collection holds nothing to search; upload a gallery")
        ids = torch.tensor([[point.id for point, _ in row] for row in hits])
        scores = torch.tensor([[score for _, score in row] for row in hits])
        items = [[point.payload["item"] for point, _ in row] for row in hits]
        return Hits(ids, scores, items, seconds)

    def _by_caption(self, query, k, shortlist, local_weight, exact, seconds):
        """[(point, score)] of one query; adds to seconds."""
        began = time.perf_counter()
        vector = query.global_token[0].tolist()
        words = query.local_tokens[query.mask].tolist()  # without pads: they would count as words
        points = self.engine.two_stage(vector, words, k, shortlist, local_weight, exact)
        _add(seconds, "engine", began)
        return [(point, point.score) for point in points]

    def _by_image(self, query, k, shortlist, local_weight, exact, seconds):
        """[(point, score)] of one query; adds to seconds."""
        began = time.perf_counter()
        points = self.engine.shortlist(query.global_token[0].tolist(), shortlist, exact)
        _add(seconds, "engine", began)
        if not points:
            return []
        began = time.perf_counter()
        tokens = [torch.tensor(point.vector["local"]) for point in points]
        mask = [torch.ones(len(words), dtype=torch.bool) for words in tokens]
        tokens, mask = (pad_sequence(side, batch_first=True)[None] for side in (tokens, mask))
        local = shortlist_similarity(query, tokens, mask, "image")[0]  # (K,)
        mixed = torch.tensor([point.score for point in points]) + local_weight * local
        best = mixed.topk(min(k, len(points)))
        _add(seconds, "rerank", began)
        return [(points[i], score) for score, i in zip(*(side.tolist() for side in best))]

    def _check_model(self, expect_model):
        if expect_model is not None and expect_model != self.model:
            raise ValueError(
                f"another model built the collection ({self.model}, not {expect_model}); index "
                "anew, and name another --collection"
            )


def _point(gallery, row, first):
    tokens, _ = gallery.stored.fetch(torch.tensor([[row]]))  # (1, 1, L, D)
    vectors = {
        "global": gallery.global_tokens[row].tolist(),
        "local": tokens[0, 0].float().tolist(),
    }
    return first + row, vectors, {"item": gallery.items[row]}


def _add(seconds, name, began):
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began
