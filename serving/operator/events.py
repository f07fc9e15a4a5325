"""The story as events of the ModelRollout: what `kubectl describe` shows below the status.

One for each chapter, and one when a server gets another trouble. Best effort: an event that cannot
be written is not written, because the ledger has the decision anyway. An event has a name of its
own, so that a replica which takes over does not tell twice.
"""

import hashlib
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from mlplatform.clients.kubernetes import EVENTS, MODEL_ROLLOUTS, Cluster, Object
from mlplatform.contracts import Rollout, ServerStatus
from mlplatform.contracts.rollout import Version
from mlplatform.errors import PlatformError
from serving.operator.store import object_name

_MESSAGE_LIMIT: Final = 1000
"""Characters; the API server refuses more than 1,024."""
_WARNINGS: Final = frozenset({"harm", "failed", "held"})
_OFTEN: Final = 20
"""Troubles that are told of one server in this process: one that flaps is not told for ever."""

_log: Final = logging.getLogger(__name__)


class Events:
    """The events of one use case.

    Args:
        cluster: Where they are written.
        reporter: The replica.
    """

    def __init__(self, cluster: Cluster, reporter: str) -> None:
        self._cluster, self._reporter = cluster, reporter
        self._told: tuple[int, int] | None = None
        """Number and chapters of the rollout that were told."""
        self._troubles: dict[Version, str] = {}
        self._count: dict[Version, int] = {}
        self._warned = ""

    def tell(
        self, found: Object, rollout: Rollout | None, servers: Mapping[Version, ServerStatus]
    ) -> None:
        """Write what has happened since the last time.

        Args:
            found: The ModelRollout.
            rollout: As it is now.
            servers: The same.
        """
        if rollout is not None:
            self._chapters(found, rollout)
        elif self._told is None:
            self._told = (0, 0)
        for version, status in servers.items():
            self._server(found, version, status)

    def warn(self, usecase: str, trouble: str) -> None:
        """Write that something cannot be done as asked; the same one once."""
        if trouble == self._warned:
            return
        self._warned = trouble
        try:
            found = self._cluster.get(MODEL_ROLLOUTS, object_name(usecase))
        except PlatformError:
            return
        self._write(found, "CannotBeDone", trouble, warning=True)

    def _chapters(self, found: Object, rollout: Rollout) -> None:
        before = self._told
        self._told = rollout.number, len(rollout.story)
        if before is None:
            return  # told by whoever drove before
        number, chapters = before
        for chapter in rollout.story[chapters if number == rollout.number else 0 :]:
            self._write(
                found,
                "".join(word.capitalize() for word in chapter.verdict.split("_")),
                f"version {rollout.challenger.version}: {chapter.reason or chapter.verdict}",
                warning=chapter.verdict in _WARNINGS,
                once=f"{rollout.number}.{chapter.number}",
            )

    def _server(self, found: Object, version: Version, status: ServerStatus) -> None:
        trouble = f"{status.state}: {status.detail}" if status.detail else status.state
        if self._troubles.get(version) == trouble:
            return
        self._troubles[version] = trouble
        self._count[version] = self._count.get(version, 0) + 1
        if status.state in {"starting", "absent"} and self._count[version] > _OFTEN:
            return
        reason = {"ready": "ServerReady", "failed": "ServerFailed"}.get(
            status.state, "ServerStarting"
        )
        text = f"server of version {version.version}: {status.detail or status.state}"
        self._write(found, reason, text, warning=status.state == "failed")

    def _write(
        self, found: Object, reason: str, message: str, *, warning: bool, once: str = ""
    ) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata = found["metadata"]
        unique = once or hashlib.sha256(f"{reason} {message} {now}".encode()).hexdigest()[:10]
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{metadata['uid'][:8]}.{unique}"},
            "involvedObject": {
                "apiVersion": found["apiVersion"],
                "kind": found["kind"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "reason": reason,
            "message": message[:_MESSAGE_LIMIT],
            "type": "Warning" if warning else "Normal",
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": "mlplatform-operator", "host": self._reporter},
            "reportingComponent": "mlplatform-operator",
            "reportingInstance": self._reporter,
        }
        try:
            self._cluster.create(EVENTS, body)
        except PlatformError as error:
            _log.debug("an event of %s was not written: %s", metadata["name"], error)
