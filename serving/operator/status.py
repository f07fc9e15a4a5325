"""What `kubectl get modelrollouts` shows: fields of the status, from the state and the servers.

Pure: the same state always reads the same, so a status is written when something has changed and
at no other time. It refuses to be read back: nothing is decided on what stands here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from mlplatform.clients.kubernetes import Object
from mlplatform.contracts import Rollout, ServerStatus
from mlplatform.contracts.rollout import AT_REST, Version
from serving.rollout import machine

_MESSAGE_LIMIT: Final = 500
"""Characters of a message: a line of `kubectl get -o wide`."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known besides the state."""

    servers: Mapping[Version, ServerStatus]
    """Of the versions that are asked for, and why one does not start."""
    holder: str
    token: int
    """Of the leader."""
    champion: Version | None = None
    """That serves before there is a rollout."""
    routed: bool = False
    """Whether that one has its route."""
    trouble: str = ""
    """What cannot be done as asked, in words."""


def described(rollout: Rollout | None, seen: Seen, before: Object, now: datetime) -> Object:
    """Return the fields of a status; None for those that it does not have.

    Args:
        rollout: The newest one; None: there was none yet.
        seen: What is known besides.
        before: The ModelRollout as it was read.
        now: When a condition is said to have changed; the true time, as Kubernetes has it.
    """
    fields = _without(seen) if rollout is None else _of(rollout, seen)
    servers = [_server(version, status) for version, status in seen.servers.items()]
    generation = int(before["metadata"].get("generation", 0))
    earlier = {
        condition["type"]: condition
        for condition in (before.get("status") or {}).get("conditions", [])
    }
    conditions = [
        _condition(earlier.get(kind), kind, *said, generation, now)
        for kind, said in _conditions(rollout, seen).items()
    ]
    return fields | {
        "servers": servers,
        "leader": {"holder": seen.holder, "token": seen.token},
        "conditions": conditions,
        "observedGeneration": generation,
    }


def _of(rollout: Rollout, seen: Seen) -> Object:
    under_way = rollout.phase not in AT_REST
    wanted = rollout.routes[-1]
    return {
        "phase": "paused" if rollout.paused else rollout.phase,
        "step": rollout.step,
        "weight": wanted.weight,
        "champion": machine.serves(rollout).version,
        "challenger": rollout.challenger.version if under_way else None,
        "epoch": rollout.epoch,
        "message": _short(seen.trouble or _message(rollout, seen)),
    }


def _message(rollout: Rollout, seen: Seen) -> str:
    """Return what it waits for, and the server's own words where it is a server."""
    if not rollout.waits_for:
        return rollout.story[-1].reason if rollout.phase in AT_REST else ""
    details = [
        f"version {version.version}: {status.detail}"
        for version, status in seen.servers.items()
        if status.detail and status.state != "ready"
    ]
    said = f"waits for {rollout.waits_for}"
    return f"{said} ({'; '.join(details)})" if details else said


def _without(seen: Seen) -> Object:
    """Return the fields while there was no rollout yet."""
    champion = seen.champion
    fields: dict[str, Any] = dict.fromkeys(("step", "weight", "champion", "challenger", "epoch"))
    if champion is None:
        waits = "waits for the first registered version"
        return fields | {"phase": "waiting", "message": _short(seen.trouble or waits)}
    status = seen.servers.get(champion, ServerStatus("absent"))
    message = "the first version: there was nothing to compare it with"
    if not seen.routed:
        message = f"waits for the server of version {champion.version} to be ready"
        message += f" ({status.detail})" if status.detail else ""
    return fields | {
        "phase": "serving" if seen.routed else "starting",
        "champion": champion.version if seen.routed else None,
        "epoch": 1 if seen.routed else None,
        "message": _short(seen.trouble or message),
    }


def _conditions(rollout: Rollout | None, seen: Seen) -> dict[str, tuple[bool, str, str]]:
    """Return the conditions: whether, the reason as one word, the message."""
    champion = seen.champion if rollout is None else machine.serves(rollout)
    status = seen.servers.get(champion) if champion else None
    serving = (
        status is not None and status.state == "ready" and (rollout is not None or seen.routed)
    )
    failing = [
        f"version {version.version}: {server.detail or server.state}"
        for version, server in seen.servers.items()
        if server.state != "ready"
    ]
    if rollout is None:
        progress = (False, "NoRollout", "there was no rollout yet")
    else:
        progress = (
            not rollout.at_rest,
            "".join(word.capitalize() for word in rollout.phase.split("_")),
            _short(f"waits for {rollout.waits_for}" if rollout.waits_for else ""),
        )
    return {
        "Serving": (
            serving,
            "ServerReady" if serving else "NoServer",
            f"version {champion.version} serves" if champion and serving else "no version serves",
        ),
        "Progressing": progress,
        "ServersReady": (
            not failing,
            "Ready" if not failing else "NotReady",
            _short("; ".join(failing)),
        ),
        "Accepted": (
            not seen.trouble,
            "AsAsked" if not seen.trouble else "CannotBeDone",
            _short(seen.trouble),
        ),
    }


def _condition(
    earlier: Object | None,
    kind: str,
    true: bool,  # noqa: FBT001 (one of the three parts of what is said)
    reason: str,
    message: str,
    generation: int,
    now: datetime,
) -> Object:
    status = "True" if true else "False"
    since = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if earlier is not None and earlier["status"] == status:
        since = earlier["lastTransitionTime"]
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
        "observedGeneration": generation,
    }


def _server(version: Version, status: ServerStatus) -> Object:
    found = {"version": version.version, "digest": version.digest, "state": status.state}
    words = {"url": status.url, "detail": _short(status.detail)}
    return found | {name: text for name, text in words.items() if text}


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MESSAGE_LIMIT else line[: _MESSAGE_LIMIT - 1] + "…"
