"""The same requests as in `qdrant_server.py`, to Qdrant's engine in this process, on a folder."""

import errno
import shutil
from pathlib import Path

from tgdt_mini.files.check import shown
from tgdt_mini.files.manifest import read_json, write_sealed
from tgdt_mini.files.paths import to_install
from tgdt_mini.files.whole import whole_folder
from tgdt_mini.scaling.qdrant_server import BREADTH, checked
from tgdt_mini.search.gallery import HOLDS

METADATA = "about.json"  # of a collection in a folder
WIDEST = 2**16  # numbers of a vector that the library takes
# bytes of the disk that the engine in this process needs: it maps files of 32 MB that are not
# there yet, and where one of their pages does not fit, the system ends the whole process
ROOM = 2**28


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
        checked(read_json(path, {}, *options, sealed=None), self.folder)
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


def _qdrant_edge():
    try:
        import qdrant_edge
    except ImportError:
        raise ValueError(
            f"Qdrant in a folder needs the package qdrant-edge-py: {to_install('qdrant')}"
        ) from None
    return qdrant_edge
