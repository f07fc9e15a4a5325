"""The platform's own kinds of objects, taken up by the API server before anything uses them.

Server-side apply, because Helm installs CRDs once and never upgrades them. Removing a CRD removes
every object of its kind in the whole cluster, so `make destroy` does it last and only where no
other namespace has one.
"""

import time
from pathlib import Path
from typing import Final

from deploy.helm import CHART
from deploy.namespaces import MANAGER
from mlplatform.clients.kubernetes import Cluster, Kind, Object
from mlplatform.errors import ServiceError

DEFINITIONS: Final = Kind("apiextensions.k8s.io/v1", "customresourcedefinitions", namespaced=False)
_FOLDER: Final = CHART / "crds"
_SECONDS: Final = 30.0
"""The API server takes a definition up in about a second."""
_POLL_SECONDS: Final = 0.2


def wanted(folder: Path = _FOLDER) -> list[Object]:
    """Return the chart's definitions."""
    import yaml

    paths = sorted(folder.glob("*.yaml"))
    return [body for path in paths for body in yaml.safe_load_all(path.read_text("utf-8")) if body]


def established(body: Object) -> bool:
    """Return whether the API server serves a definition's objects."""
    # Of one that was made this instant they are null.
    conditions = body.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def ensure(cluster: Cluster) -> str:
    """Make the definitions so, and wait until they are served; return what was done, in words.

    Raises:
        ServiceError: The API server is away, refuses one, or does not take it up.
    """
    done = []
    for body in wanted():
        name = body["metadata"]["name"]
        before = cluster.find(DEFINITIONS, name)
        after = cluster.apply(DEFINITIONS, body, MANAGER)
        deadline = time.monotonic() + _SECONDS
        # Helm looks kinds up in what the API server lists, a moment after it begins to serve them.
        while not (established(after) and _listed(cluster, after)):
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"the API server has not taken {name} up within {_SECONDS:.0f} s: "
                    f"`kubectl describe crd {name}` says why"
                )
            time.sleep(_POLL_SECONDS)
            after = cluster.get(DEFINITIONS, name)
        done.append(f"{name} {_change(before, after)}")
    return "; ".join(done)


def _listed(cluster: Cluster, body: Object) -> bool:
    spec = body["spec"]
    return any(kind.plural == spec["names"]["plural"] for kind in cluster.kinds(spec["group"]))


def _change(before: Object | None, after: Object) -> str:
    if before is None:
        return "made"
    same = before["metadata"].get("generation") == after["metadata"].get("generation")
    return "is there" if same else "changed"
