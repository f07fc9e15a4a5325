"""Who writes is stopped for a restore, and runs again afterwards as before; also after a kill.

How many replicas there were is kept in a ConfigMap of the namespace until the end, so a restore
that is started again knows what to go back to. Gateways and model servers are never stopped:
requests are answered all the time.
"""

import json
import time
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, Literal

from deploy.namespaces import MANAGER, PART_OF, PLATFORM, labels
from mlplatform.clients.kubernetes import (
    CONFIG_MAPS,
    CRON_JOBS,
    DEPLOYMENTS,
    JOBS,
    PODS,
    Cluster,
    Kind,
    Object,
)
from mlplatform.errors import ServiceError

NAME: Final = "mlplatform-restore"
"""Of the ConfigMap; it is there while a restore is under way."""
WRITERS: Final = MappingProxyType(
    {
        "ledger": ("operator", "trigger", "monitor", "training"),
        "registry": ("registry", "registry-setup", "operator", "monitor", "training"),
        "artifacts": ("registry", "operator", "training"),
        "data": ("archiver", "features", "monitor", "training"),
        "rollouts": ("operator",),
    }
)
"""Components that write or follow a part, by part."""

Stage = Literal["stopping", "placing", "placed"]
"""Until `placing` nothing was replaced, from `placed` on everything is and writers may have run."""

_COMPONENT: Final = "app.kubernetes.io/component"
_OURS: Final = MappingProxyType({PART_OF: PLATFORM})
_LONG: Final = ("training",)
"""Jobs that take long: whether to end one is for a person to say."""
_STOP_SECONDS: Final = 600.0
"""Longest wait for Jobs that are under way, and for pods that end."""
_READY_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 1.0


class Standstill:
    """The writers of one namespace, stopped and started.

    Args:
        cluster: Where.
        backup: Which backup is restored; told from others by it.
    """

    def __init__(self, cluster: Cluster, backup: str) -> None:
        self._cluster, self._backup = cluster, backup

    def begun(self) -> Stage | None:
        """Return how far a restore of this backup got that did not end; None: there is none.

        Raises:
            ServiceError: Another backup's restore did not end.
        """
        found = self._cluster.find(CONFIG_MAPS, NAME)
        if found is None:
            return None
        if found["data"]["backup"] != self._backup:
            raise ServiceError(
                f"the restore of another backup ({found['data']['backup']}) did not end: run that "
                f"one again first, or delete the ConfigMap {NAME} and start the writers yourself "
                f"({found['data']['deployments']})"
            )
        stage: Stage = found["data"]["stage"]
        return stage

    @property
    def attempt(self) -> str:
        """Name of this restore, also after a kill: another one of the same backup has another."""
        return str(self._cluster.get(CONFIG_MAPS, NAME)["data"]["attempt"])

    def mark(self, stage: Stage) -> None:
        """Keep how far the restore is; raises ServiceError where it cannot be kept."""
        self._cluster.patch(CONFIG_MAPS, NAME, {"data": {"stage": stage}})

    def refuse_long_jobs(self, components: Collection[str]) -> None:
        """Refuse while a run is under way that takes long.

        Raises:
            ServiceError: There is one.
        """
        names = [
            job["metadata"]["name"]
            for job in _active(self._cluster.list(JOBS, _OURS))
            if _component(job) in _LONG and _component(job) in components
        ]
        if names:
            raise ServiceError(
                f"runs are under way: {', '.join(names)}; wait for their end, or delete their "
                "Jobs, and restore then"
            )

    def stop(self, components: Collection[str]) -> str:
        """Stop what writes; return what was stopped, in words.

        Raises:
            ServiceError: Something does not end, or the API server is away.
        """
        before = self._before()
        for found in self._of(DEPLOYMENTS, components):
            name = found["metadata"]["name"]
            before["deployments"].setdefault(name, found["spec"].get("replicas", 1))
        for found in self._of(CRON_JOBS, components):
            suspended = found["spec"].get("suspend", False)
            before["cron_jobs"].setdefault(found["metadata"]["name"], suspended)
        self._keep(before)
        for name in before["cron_jobs"]:
            self._cluster.patch(CRON_JOBS, name, {"spec": {"suspend": True}})
        for name in before["deployments"]:
            self._cluster.patch(DEPLOYMENTS, name, {"spec": {"replicas": 0}})
        self._wait_until_gone(components)
        return ", ".join(sorted([*before["deployments"], *before["cron_jobs"]])) or "nothing"

    def start(self, only: Iterable[str] | None = None) -> str:
        """Let run again what ran before, and wait until it is ready; return what, in words.

        Args:
            only: Names of Deployments; none: all, and CronJobs as well.

        Raises:
            ServiceError: Something does not get ready.
        """
        before = self._before()
        names = set(before["deployments"]) & set(before["deployments"] if only is None else only)
        for name in sorted(names):
            replicas = {"replicas": before["deployments"][name]}
            self._cluster.patch(DEPLOYMENTS, name, {"spec": replicas})
        if only is None:
            for name, suspended in before["cron_jobs"].items():
                self._cluster.patch(CRON_JOBS, name, {"spec": {"suspend": suspended}})
        for name in sorted(names):
            self._wait_until_ready(name)
        return ", ".join(sorted(names)) or "nothing"

    def forget(self) -> None:
        """Say that the restore has ended."""
        self._cluster.delete(CONFIG_MAPS, NAME)

    def _before(self) -> dict[str, dict[str, Any]]:
        found = self._cluster.find(CONFIG_MAPS, NAME)
        data = {} if found is None else found["data"]
        return {name: json.loads(data.get(name, "{}")) for name in ("deployments", "cron_jobs")}

    def _keep(self, before: dict[str, dict[str, Any]]) -> None:
        found = (self._cluster.find(CONFIG_MAPS, NAME) or {}).get("data") or {}
        kept = {name: json.dumps(value, sort_keys=True) for name, value in before.items()}
        new = {
            "backup": self._backup,
            "stage": "stopping",
            "attempt": datetime.now(UTC).strftime("%Y%m%dT%H%M%S"),
        }
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME, "labels": labels("backup")},
            "data": new | found | kept,
        }
        self._cluster.apply(CONFIG_MAPS, body, MANAGER)

    def _of(self, kind: Kind, components: Collection[str]) -> list[Object]:
        return [one for one in self._cluster.list(kind, _OURS) if _component(one) in components]

    def _wait_until_gone(self, components: Collection[str]) -> None:
        deadline = time.monotonic() + _STOP_SECONDS
        while names := self._running(components):
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"these pods do not end: {', '.join(names)}; delete them and run it again"
                )
            time.sleep(_POLL_SECONDS)

    def _running(self, components: Collection[str]) -> list[str]:
        return [
            pod["metadata"]["name"]
            for pod in self._of(PODS, components)
            if pod.get("status", {}).get("phase") in {"Pending", "Running"}
        ]

    def _wait_until_ready(self, name: str) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not _is_ready(self._cluster.get(DEPLOYMENTS, name)):
            if time.monotonic() > deadline:
                raise ServiceError(f"{name} does not get ready; `make doctor` says why")
            time.sleep(_POLL_SECONDS)


def _active(jobs: Iterable[Object]) -> Iterable[Object]:
    return (job for job in jobs if job.get("status", {}).get("active"))


def _component(found: Object) -> str:
    return str((found["metadata"].get("labels") or {}).get(_COMPONENT, ""))


def _is_ready(deployment: Object) -> bool:
    wanted = deployment["spec"].get("replicas", 1)
    status = deployment.get("status", {})
    seen = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    return bool(seen and status.get("readyReplicas", 0) >= wanted)
