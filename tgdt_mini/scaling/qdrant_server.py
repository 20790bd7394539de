"""The requests to a Qdrant server, through its client.

A collection has two vectors a point: "global", compared by dot product, and "local", a list of
vectors compared by MaxSim: for each of the query's vectors the largest dot product with one of the
point's, added up. "local" has no index (m=0), since it only ever meets a shortlist. Both stages are
one request: prefetch K points by global, score those by local, and mix both in a formula, global +
weight / words x local.
"""

FORMAT = "tgdt_mini qdrant 1"
# points that the index keeps while it searches, by the shortlist; with 1 it found 69 of the 100
# nearest of 30,000
BREADTH = 4


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
        metadata = checked(config.metadata, self.collection)
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


def checked(metadata, name):
    """The metadata of a collection, which must be one of this package: else ValueError."""
    if not metadata or metadata.get("format") != FORMAT:
        raise ValueError(f"collection {str(name)!r} was not made by tgdt_mini; name another one")
    return metadata
