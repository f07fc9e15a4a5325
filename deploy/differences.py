"""What an upgrade would change: the released objects beside the planned ones, as a unified diff.

Both are Helm's: what it has released, and what it would. An object that differs is shown to the API
server as well, with nothing written, so that a change that it refuses is known before it is tried.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from deploy.released import kind_of, objects
from mlplatform.clients.kubernetes import Cluster, Object
from mlplatform.errors import ServiceError

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
    body: Object
    """As it would be; of one that is removed, as it is."""


def differences(current: str, planned: str) -> list[Difference]:
    """Return what differs between two manifests, in the planned one's order.

    Args:
        current: As released; empty: nothing is.
        planned: As it would be.
    """
    before, after = _by_name(current), _by_name(planned)
    found = []
    for name, body in after.items():
        old = before.get(name)
        diff = _diff(name, old, body)
        if diff:
            found.append(Difference("changed" if old else "made", name, diff, body))
    for name, body in before.items():
        if name not in after:
            found.append(Difference("removed", name, _diff(name, body, None), body))
    return found


def refused(cluster: Cluster, found: list[Difference]) -> list[str]:
    """Return which changes the API server would refuse, and why.

    Raises:
        ServiceError: The API server is away.
    """
    said = []
    for difference in found:
        if difference.change == "removed":
            continue
        try:
            cluster.apply(kind_of(difference.body), difference.body, "helm", dry_run=True)
        except ServiceError as error:
            if "cannot be reached" in str(error):
                raise
            said.append(f"{difference.name}: {error}")
    return said


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
