"""The requests to Qdrant, for a server through its client and for the engine in this process.

A collection has two vectors a point: "global", compared by dot product, and "local", a list of
vectors compared by MaxSim: for each of the query's vectors the largest dot product with one of the
point's, added up. "local" has no index (m=0), since it only ever meets a shortlist. Both stages are
one request: prefetch K points by global, score those by local, and mix both in a formula, global +
weight / words x local.

Both classes have the same methods. Points are (number, {"global": ..., "local": ...}, {"item":
...}), and `stored` gives {number: (item, global token)} of those that are there.
"""

import errno
import os
import re
import shutil
from pathlib import Path

from tgdt_mini.files.check import shown
from tgdt_mini.files.manifest import read_json, write_sealed
from tgdt_mini.files.paths import to_install
from tgdt_mini.files.whole import whole_folder
from tgdt_mini.search.gallery import HOLDS

FORMAT = "tgdt_mini qdrant 1"
METADATA = "about.json"  # of a collection in a folder
WIDEST = 2**16  # numbers of a vector that the library takes
# points that the index keeps while it searches, by the shortlist; with 1 it found 69 of the 100
# nearest of 30,000
BREADTH = 4
# bytes of the disk that the engine in this process needs: it maps files of 32 MB that are not
# there yet, and where one of their pages does not fit, the system ends the whole process
ROOM = 2**28


class Server:
    """A collection on a server, or in the small stand-in that qdrant-client has for one."""

    def __init__(self, client, address, collection):
        self.client, self.address, self.collection = client, address, collection

    def __str__(self):
        return f"collection {self.collection!r} at {self.address}"

    def _request(self, method, *arguments, **options):
        """A call to the client; an error is one line that names the address."""
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
        return self._request("collection_exists", self.collection)

    def close(self):
        pass

    def metadata(self):
        if not self.exists():
            names = sorted(known.name for known in self._request("get_collections").collections)
            raise ValueError(
                f"{self.address} has no collection {self.collection!r} "
                f"(there is: {', '.join(names) or 'none'}); upload one"
            )
        config = self._request("get_collection", self.collection).config
        metadata = _checked(config.metadata, self.collection)
        return metadata | {"width": config.params.vectors["global"].size}

    def create(self, width, metadata, shards, replicas, half):
        from qdrant_client import models

        dot = models.Distance.DOT
        local = models.VectorParams(
            size=width,
            distance=dot,
            multivector_config=models.MultiVectorConfig(
                comparator=models.MultiVectorComparator.MAX_SIM
            ),
            datatype=models.Datatype.FLOAT16 if half else models.Datatype.FLOAT32,
            on_disk=True,
            hnsw_config=models.HnswConfigDiff(m=0),
        )
        self._request(
            "create_collection",
            self.collection,
            vectors_config={
                "global": models.VectorParams(size=width, distance=dot),
                "local": local,
            },
            metadata=metadata,
            shard_number=shards,
            replication_factor=replicas,
        )

    def count(self):
        return self._request("count", self.collection, exact=True).count

    def stored(self, numbers):
        parts = {"with_payload": ["item"], "with_vectors": ["global"]}
        records = self._request("retrieve", self.collection, numbers, **parts)
        return {record.id: (record.payload["item"], record.vector["global"]) for record in records}

    def put(self, points):
        from qdrant_client.models import PointStruct

        points = [
            PointStruct(id=number, vector=vectors, payload=payload)
            for number, vectors, payload in points
        ]
        self._request("upsert", self.collection, points, wait=True)

    def build_index(self):
        pass

    def two_stage(self, vector, words, k, shortlist, local_weight, exact):
        from qdrant_client import models

        params = models.SearchParams(exact=exact, hnsw_ef=BREADTH * shortlist)
        near = models.Prefetch(query=vector, using="global", limit=shortlist, params=params)
        local = models.Prefetch(query=words, using="local", limit=shortlist, prefetch=[near])
        weighted = models.MultExpression(mult=[local_weight / len(words), "$score[1]"])
        mixed = models.FormulaQuery(formula=models.SumExpression(sum=["$score[0]", weighted]))
        prefetch = [near, local]
        return self._request(
            "query_points", self.collection, mixed, prefetch=prefetch, limit=k
        ).points

    def shortlist(self, vector, shortlist, exact):
        from qdrant_client import models

        return self._request(
            "query_points",
            self.collection,
            vector,
            using="global",
            limit=shortlist,
            with_vectors=["local"],
            search_params=models.SearchParams(exact=exact, hnsw_ef=BREADTH * shortlist),
        ).points


class Embedded:
    """A collection in a folder, for the engine in this process."""

    def __init__(self, folder):
        self.folder, self._shard = Path(folder), None

    def __str__(self):
        return f"collection {self.folder.name!r} in {self.folder.parent}"

    @property
    def shard(self):
        if self._shard is None:
            load = _qdrant_edge().EdgeShard.load
            self._shard = self._asked("open", lambda: load(str(self.folder / "shard")))
        return self._shard

    def _asked(self, what, ask):
        """What the engine answers; its errors are one line that names the folder."""
        try:
            return ask()
        except (ValueError, KeyboardInterrupt):
            raise
        except BaseException as error:  # a panic of Rust is no Exception
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"Qdrant could not {what} {self.folder} ({reason}); if another process has it "
                "open, end that one; if it is damaged, delete it and upload again"
            ) from error

    def _check_room(self):
        """OSError where the disk is nearly full."""
        nearest = next(
            path for path in (self.folder, *self.folder.absolute().parents) if path.exists()
        )
        if shutil.disk_usage(nearest).free < ROOM:
            words = f"less than {ROOM >> 20} MB are left for Qdrant"
            raise OSError(errno.ENOSPC, words, str(self.folder))

    def close(self):
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def exists(self):
        return (self.folder / METADATA).is_file()

    def metadata(self):
        if not self.exists():
            raise ValueError(f"{self.folder} holds no collection; upload a gallery first")
        path, options = self.folder / METADATA, ("collection", "delete its folder and upload again")
        _checked(read_json(path, {}, *options, sealed=None), self.folder)
        known = read_json(path, {"width": int, "holds": HOLDS, "model": (str, None)}, *options)
        if type(width := known["width"]) is not int or not 0 < width <= WIDEST:
            raise ValueError(f"{path} is damaged (width is {shown(width)}); {options[1]}")
        return known

    def create(self, width, metadata, shards, replicas, half):
        if (shards or 1, replicas or 1) != (1, 1):
            raise ValueError(
                f"shards is {shards} and replicas {replicas}, but they are for a server; a folder "
                "has one of each"
            )
        self._check_room()
        edge = _qdrant_edge()
        kinds, dot = edge.VectorStorageDatatype, edge.Distance.Dot
        local = edge.EdgeVectorParams(
            width,
            dot,
            multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
            datatype=kinds.Float16 if half else kinds.Float32,
            hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000),
        )
        vectors = {"global": edge.EdgeVectorParams(width, dot), "local": local}
        with whole_folder(self.folder, marker=METADATA) as staging:
            edge.EdgeShard.create(str(staging / "shard"), edge.EdgeConfig(vectors=vectors)).close()
            write_sealed(staging / METADATA, metadata | {"width": width})

    def count(self):
        request = _qdrant_edge().CountRequest(exact=True)
        return self._asked("read", lambda: self.shard.count(request))

    def stored(self, numbers):
        records = self._asked(
            "read", lambda: self.shard.retrieve(numbers, with_payload=True, with_vector=["global"])
        )
        return {record.id: (record.payload["item"], record.vector["global"]) for record in records}

    def put(self, points):
        self._check_room()
        edge = _qdrant_edge()
        points = [edge.Point(*point) for point in points]
        self._asked("write", lambda: self.shard.update(edge.UpdateOperation.upsert_points(points)))

    def build_index(self):
        self._check_room()
        self._asked("index", lambda: self.shard.optimize())

    def two_stage(self, vector, words, k, shortlist, local_weight, exact):
        edge = _qdrant_edge()
        nearest, formula = edge.Query.Nearest, edge.Expression
        params = edge.SearchParams(exact=exact, hnsw_ef=BREADTH * shortlist)
        near = edge.Prefetch(shortlist, nearest(vector, using="global"), params=params)
        local = edge.Prefetch(shortlist, nearest(words, using="local"), prefetches=[near])
        weight = formula.Constant(local_weight / len(words))
        weighted = formula.Mult([weight, formula.Variable("$score[1]")])
        mixed = edge.Formula(formula.Sum([formula.Variable("$score[0]"), weighted]))
        prefetches = [near, local]
        request = edge.QueryRequest(k, query=mixed, prefetches=prefetches, with_payload=True)
        return self._asked("search", lambda: self.shard.query(request))

    def shortlist(self, vector, shortlist, exact):
        edge = _qdrant_edge()
        request = edge.QueryRequest(
            shortlist,
            query=edge.Query.Nearest(vector, using="global"),
            params=edge.SearchParams(exact=exact, hnsw_ef=BREADTH * shortlist),
            with_payload=True,
            with_vector=["local"],
        )
        return self._asked("search", lambda: self.shard.query(request))


def engine_of(where, collection: str):
    """The engine of an address, a folder or a QdrantClient.

    Raises ValueError when the package that it needs is missing.
    """
    if not isinstance(where, (str, Path)):
        return Server(where, "the client's address", collection)
    _check_collection(collection)
    if re.match("https?://", str(where), re.IGNORECASE):
        try:
            from qdrant_client import QdrantClient
        except ImportError:
            raise ValueError(
                f"the Qdrant server {where} needs the package qdrant-client: {to_install('qdrant')}"
            ) from None
        key = os.environ.get("QDRANT_API_KEY")
        client = QdrantClient(url=str(where), api_key=key, timeout=60, check_compatibility=False)
        return Server(client, str(where), collection)
    # a colon stands in addresses, and on Windows behind the letter of a drive
    has_colon = ":" in str(where)[2:] or str(where).startswith(":")
    if not str(where).strip() or (has_colon and not os.path.isdir(where)):
        raise ValueError(
            f"where is {str(where)!r}; give a server's address with its scheme, such as "
            "http://localhost:6333, or a folder, such as runs/qdrant"
        )
    return Embedded(Path(where) / collection)


def _check_collection(name):
    """ValueError for a name that no server takes and that would leave a folder."""
    if not isinstance(name, str) or not re.fullmatch(r"[\w .-]{1,255}", name) or set(name) <= {"."}:
        raise ValueError(
            f"collection is {shown(name)}; name it with letters, digits, dots, dashes and spaces"
        )


def _qdrant_edge():
    try:
        import qdrant_edge
    except ImportError:
        raise ValueError(
            f"Qdrant in a folder needs the package qdrant-edge-py: {to_install('qdrant')}"
        ) from None
    return qdrant_edge


def _checked(metadata, name):
    if not metadata or metadata.get("format") != FORMAT:
        raise ValueError(f"collection {str(name)!r} was not made by tgdt_mini; name another one")
    return metadata
