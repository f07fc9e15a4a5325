"""What an upgrade would change: the released objects beside the planned ones, as a unified diff.

Both are Helm's: what it has released, and what it would. An object that differs is shown to the API
server as well, with nothing written, so that a change that it refuses is known before it is tried.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from deploy.released import kind_of, objects
from mlplatform.clients.kubernetes import Cluster, Object
from mlplatform.errors import ServiceError, StaleError

Change = Literal["made", "removed", "changed"]

_MASK: Final = "(hidden)"
_LABELS: Final = ("helm.sh/chart", "app.kubernetes.io/version")
"""Of every object: a new version of the chart alone is said once, not on each of them."""


@dataclass(frozen=True)
class Difference:
    """One object that would change."""

    change: Change
    name: str
    """`Kind/name`."""
    diff: str
    before: Object | None
    after: Object | None


def differences(current: str, planned: str) -> list[Difference]:
    """Return what differs between two manifests, in the planned one's order.

    Args:
        current: As released; empty: nothing is.
        planned: As it would be.
    """
    before, after = _by_name(current), _by_name(planned)
    found = []
    for name in [*after, *(name for name in before if name not in after)]:
        old, new = before.get(name), after.get(name)
        change: Change = "made" if old is None else "removed" if new is None else "changed"
        if diff := _diff(name, old, new):
            found.append(Difference(change, name, diff, old, new))
    return found


def refused(cluster: Cluster, found: list[Difference]) -> list[str]:
    """Return which changes the API server would refuse, and why.

    Raises:
        ServiceError: The API server is away.
    """
    said = []
    for difference in found:
        try:
            _try(cluster, difference)
        except StaleError:  # what would be made is there already: Helm takes it over
            continue
        except ServiceError as error:
            if "cannot be reached" in str(error):
                raise
            said.append(f"{difference.name}: {error}")
    return said


def _try(cluster: Cluster, difference: Difference) -> None:
    """Have the API server check a change as Helm would make it: what differs, and nothing else."""
    before, after = difference.before, difference.after
    if after is None:
        return
    kind, name = kind_of(after), after["metadata"]["name"]
    if before is None or cluster.find(kind, name) is None:
        cluster.create(kind, after, dry_run=True)
    else:
        cluster.patch(kind, name, merge_patch(before, after), dry_run=True)


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON merge patch (RFC 7396) that makes one object of the other."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            if inner := merge_patch(old, value):
                patch[key] = inner
        elif key not in before or old != value:
            patch[key] = value
    return patch


def _by_name(manifest: str) -> dict[str, Object]:
    return {f"{body['kind']}/{body['metadata']['name']}": body for body in objects(manifest)}


def _diff(name: str, before: Object | None, after: Object | None) -> str:
    old, new = _lines(before), _lines(after)
    if old == new:
        return ""
    labels = (name if before else "/dev/null", name if after else "/dev/null")
    return "\n".join(difflib.unified_diff(old, new, *labels, lineterm="", n=3))


def _lines(body: Object | None) -> list[str]:
    import yaml

    if body is None:
        return []
    shown = masked(body) if body["kind"] == "Secret" else body
    text = yaml.safe_dump(_unversioned(shown), sort_keys=True, width=1000)
    return [*text.splitlines()]


def masked(secret: Object) -> Object:
    """Return a Secret without its values: a diff is read by whoever stands behind the person."""
    return {
        name: dict.fromkeys(value, _MASK) if name in {"data", "stringData"} else value
        for name, value in secret.items()
    }


def _unversioned(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _unversioned(part) for key, part in value.items() if key not in _LABELS}
    if isinstance(value, list):
        return [_unversioned(part) for part in value]
    return value


def coloured(diff: str) -> Iterator[tuple[str, str]]:
    """Yield the lines of a diff with the style of each."""
    for line in diff.splitlines():
        if line.startswith(("+++", "---")):
            yield line, "bold"
        elif line.startswith("+"):
            yield line, "green"
        elif line.startswith("-"):
            yield line, "red"
        else:
            yield line, "cyan" if line.startswith("@@") else ""
