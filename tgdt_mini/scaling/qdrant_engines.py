"""What `scaling/qdrant.py` asks of Qdrant, in the words of its client and in those of the engine inside
this process.

A collection has two vectors a point: "global" (dot product) and "local", a multivector compared by
MaxSim, the sum over the query's vectors of the largest dot product with one of the point's. "local"
has no index of its own (m=0), since it is only ever compared with a shortlist. Two stages are one
query of Qdrant's Query API: prefetch K points by global, of those the score by local, and a formula
of both, global + weight / words x local.

Both classes have the same methods; points are (number, {"global": ..., "local": ...}, {"item":
...}), and `present` gives {number: (item, global token)} of those that are there.
"""

import json
import os
from pathlib import Path

from tgdt_mini.files.whole import whole_folder

FORMAT = "tgdt_mini qdrant 1"
# points that the index holds in hand, by the shortlist; with 1 it found 69 of the 100 nearest of
# 30,000
BREADTH = 4


class Server:
    """A collection of a server, or of qdrant-client's own small stand-in for one."""

    def __init__(self, client, address, collection):
        self.client, self.address, self.collection = client, address, collection

    def __str__(self):
        return f"collection {self.collection!r} at {self.address}"

    def _ask(self, method, *arguments, **options):
        """A call to the client; what goes wrong is one line that says where."""
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        try:
            return getattr(self.client, method)(*arguments, **options)
        except ResponseHandlingException as error:
            reason = str(error).splitlines()[0]
            raise ConnectionError(
                f"no Qdrant server answers at {self.address} ({reason}); is it running?"
            ) from error
        except UnexpectedResponse as error:
            reason = " ".join(error.content.decode("utf-8", "replace").split())[:300]
            raise ValueError(
                f"Qdrant at {self.address} refused {method} of {self.collection!r}: {reason}"
            ) from error

    def exists(self):
        return self._ask("collection_exists", self.collection)

    def close(self):
        pass

    def about(self):
        if not self.exists():
            known = (
                ", ".join(sorted(each.name for each in self._ask("get_collections").collections))
                or "none"
            )
            raise ValueError(
                f"{self.address} has no collection {self.collection!r} (there is: {known}); upload one"
            )
        config = self._ask("get_collection", self.collection).config
        return _checked(config.metadata, self.collection) | {
            "width": config.params.vectors["global"].size
        }

    def create(self, width, about, shards, replicas, half):
        from qdrant_client import models

        dot, kind = (
            models.Distance.DOT,
            models.Datatype.FLOAT16 if half else models.Datatype.FLOAT32,
        )
        sums = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
        local = models.VectorParams(
            size=width,
            distance=dot,
            multivector_config=sums,
            datatype=kind,
            on_disk=True,
            hnsw_config=models.HnswConfigDiff(m=0),
        )
        vectors = {"global": models.VectorParams(size=width, distance=dot), "local": local}
        self._ask(
            "create_collection",
            self.collection,
            vectors_config=vectors,
            metadata=about,
            shard_number=shards,
            replication_factor=replicas,
        )

    def count(self):
        return self._ask("count", self.collection, exact=True).count

    def present(self, ids):
        found = self._ask(
            "retrieve", self.collection, ids, with_payload=["item"], with_vectors=["global"]
        )
        return {record.id: (record.payload["item"], record.vector["global"]) for record in found}

    def put(self, points):
        from qdrant_client.models import PointStruct

        points = [
            PointStruct(id=number, vector=vectors, payload=payload)
            for number, vectors, payload in points
        ]
        self._ask("upsert", self.collection, points, wait=True)

    def build_index(self):
        pass

    def two_stage(self, vector, words, k, shortlist, local_weight, exact):
        from qdrant_client import models

        params = models.SearchParams(exact=exact, hnsw_ef=BREADTH * shortlist)
        near = models.Prefetch(query=vector, using="global", limit=shortlist, params=params)
        sharp = models.Prefetch(query=words, using="local", limit=shortlist, prefetch=[near])
        weighted = models.MultExpression(mult=[local_weight / len(words), "$score[1]"])
        mixed = models.FormulaQuery(formula=models.SumExpression(sum=["$score[0]", weighted]))
        return self._ask(
            "query_points", self.collection, mixed, prefetch=[near, sharp], limit=k
        ).points

    def shortlist(self, vector, shortlist, exact):
        from qdrant_client import models

        params = models.SearchParams(exact=exact, hnsw_ef=BREADTH * shortlist)
        return self._ask(
            "query_points",
            self.collection,
            vector,
            using="global",
            limit=shortlist,
            with_vectors=["local"],
            search_params=params,
        ).points


class Embedded:
    """A collection in a folder, by the engine inside this process."""

    def __init__(self, folder):
        self.folder, self._shard = Path(folder), None

    def __str__(self):
        return f"collection {self.folder.name!r} in {self.folder.parent}"

    @property
    def shard(self):
        if self._shard is None:
            self._shard = _qdrant_edge().EdgeShard.load(str(self.folder / "shard"))
        return self._shard

    def close(self):
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def exists(self):
        return (self.folder / "about.json").is_file()

    def about(self):
        if not self.exists():
            raise ValueError(f"{self.folder} holds no collection; upload a gallery first")
        about = json.loads((self.folder / "about.json").read_text(encoding="utf-8"))
        return _checked(about, self.folder)

    def create(self, width, about, shards, replicas, half):
        if (shards or 1, replicas or 1) != (1, 1):
            raise ValueError("shards and replicas are for a server; a folder has one of each")
        edge = _qdrant_edge()
        kind = edge.VectorStorageDatatype.Float16 if half else edge.VectorStorageDatatype.Float32
        local = edge.EdgeVectorParams(
            width,
            edge.Distance.Dot,
            multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
            datatype=kind,
            hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000),
        )
        config = edge.EdgeConfig(
            vectors={"global": edge.EdgeVectorParams(width, edge.Distance.Dot), "local": local}
        )
        with whole_folder(self.folder, marker="about.json") as beside:
            edge.EdgeShard.create(str(beside / "shard"), config).close()
            (beside / "about.json").write_text(
                json.dumps(about | {"width": width}), encoding="utf-8"
            )

    def count(self):
        return self.shard.count(_qdrant_edge().CountRequest(exact=True))

    def present(self, ids):
        found = self.shard.retrieve(ids, with_payload=True, with_vector=["global"])
        return {record.id: (record.payload["item"], record.vector["global"]) for record in found}

    def put(self, points):
        edge = _qdrant_edge()
        self.shard.update(
            edge.UpdateOperation.upsert_points([edge.Point(*point) for point in points])
        )

    def build_index(self):
        self.shard.optimize()

    def two_stage(self, vector, words, k, shortlist, local_weight, exact):
        edge = _qdrant_edge()
        params, add, times = (
            edge.SearchParams(exact=exact, hnsw_ef=BREADTH * shortlist),
            edge.Expression.Sum,
            edge.Expression.Mult,
        )
        near = edge.Prefetch(shortlist, edge.Query.Nearest(vector, using="global"), params=params)
        sharp = edge.Prefetch(
            shortlist, edge.Query.Nearest(words, using="local"), prefetches=[near]
        )
        score = edge.Expression.Variable
        weighted = times([edge.Expression.Constant(local_weight / len(words)), score("$score[1]")])
        mixed = edge.Formula(add([score("$score[0]"), weighted]))
        return self.shard.query(
            edge.QueryRequest(k, query=mixed, prefetches=[near, sharp], with_payload=True)
        )

    def shortlist(self, vector, shortlist, exact):
        edge = _qdrant_edge()
        query, params = (
            edge.Query.Nearest(vector, using="global"),
            edge.SearchParams(exact=exact, hnsw_ef=BREADTH * shortlist),
        )
        return self.shard.query(
            edge.QueryRequest(
                shortlist, query=query, params=params, with_payload=True, with_vector=["local"]
            )
        )


def engine_of(where, collection: str):
    """The engine of an address, a folder or a QdrantClient. ValueError when the package that it
    needs is missing.
    """
    if not isinstance(where, (str, Path)):
        return Server(where, "the client's address", collection)
    if str(where).startswith(("http://", "https://")):
        try:
            from qdrant_client import QdrantClient
        except ImportError:
            raise ValueError(
                "a Qdrant server needs the package qdrant-client: pip install tgdt-mini[qdrant]"
            ) from None
        key = os.environ.get("QDRANT_API_KEY")
        client = QdrantClient(url=str(where), api_key=key, timeout=60, check_compatibility=False)
        return Server(client, str(where), collection)
    return Embedded(Path(where) / collection)


def _qdrant_edge():
    try:
        import qdrant_edge
    except ImportError:
        raise ValueError(
            "Qdrant in a folder needs the package qdrant-edge-py: pip install tgdt-mini[qdrant]"
        ) from None
    return qdrant_edge


def _checked(about, name):
    if not about or about.get("format") != FORMAT:
        raise ValueError(f"collection {str(name)!r} was not made by tgdt_mini; name another one")
    return about
