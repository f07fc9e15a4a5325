"""An API server that knows leases, in memory: a writing needs the newest resourceVersion."""

import copy
from typing import Any

from mlplatform.clients.kubernetes import Cluster, Kind, Object
from mlplatform.errors import NotFoundError, ServiceError, StaleError


class LeaseCluster(Cluster):
    """Holds one object of each name; may be away, or lose its answer to a writing."""

    def __init__(self) -> None:
        self.namespace = "tests"
        self.objects: dict[str, Object] = {}
        self.away = False
        self.loses_answers = False
        self._writes = 0

    def find(self, kind: Kind, name: str, *, namespace: str = "") -> Object | None:
        del kind, namespace
        self._asked()
        return copy.deepcopy(self.objects.get(name))

    def create(self, kind: Kind, body: Object, *, dry_run: bool = False) -> Object:
        del kind, dry_run
        self._asked()
        if body["metadata"]["name"] in self.objects:
            raise StaleError("it is there")
        return self._put(body)

    def replace(self, kind: Kind, body: Object, *, subresource: str = "") -> Object:
        del kind, subresource
        self._asked()
        known = self.objects.get(body["metadata"]["name"])
        if known is None:
            raise NotFoundError("it is gone")
        if known["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise StaleError("it is another one")
        done = self._put(body)
        if self.loses_answers:
            raise ServiceError("the answer got lost")
        return done

    def _put(self, body: Object) -> Object:
        self._writes += 1
        metadata: dict[str, Any] = {**body["metadata"], "resourceVersion": str(self._writes)}
        kept = copy.deepcopy({**body, "metadata": metadata})
        self.objects[metadata["name"]] = kept
        return copy.deepcopy(kept)

    def _asked(self) -> None:
        if self.away:
            raise ServiceError("it is away")
