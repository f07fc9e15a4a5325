"""The ModelRollouts: what people asked for, and the state that the operator left in the status.

They are put back while no operator runs, and the operator's lease is removed with them: the next
leader counts on from the number in the status, so that it may write what an earlier one wrote.
"""

import json
from pathlib import Path
from typing import Any, Final

from mlplatform.clients.kubernetes import LEASES, MODEL_ROLLOUTS, Cluster, Object
from mlplatform.errors import DataError, NotFoundError, shorten

_LEASE: Final = "mlplatform-operator"
_STATE: Final = "rollout"


def read(cluster: Cluster) -> list[Object]:
    """Return the ModelRollouts, as far as a backup keeps them.

    Raises:
        NotFoundError: The cluster has no such kind.
        ServiceError: The API server is away.
    """
    return [
        {
            "name": found["metadata"]["name"],
            "spec": found["spec"],
            "status": found.get("status") or {},
        }
        for found in cluster.list(MODEL_ROLLOUTS)
    ]


def states(objects: list[Object]) -> dict[str, Any]:
    """Return the states of the rollouts, by name: what decisions on the ledger belong to."""
    return {item["name"]: item["status"].get(_STATE) for item in objects}


def load(path: Path) -> list[Object]:
    """Return the ModelRollouts of a backup.

    Raises:
        DataError: The file holds none.
    """
    try:
        found: list[Object] = json.loads(path.read_text(encoding="utf-8"))
        whole = all({"name", "spec", "status"} <= set(item) for item in found)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} holds no ModelRollouts: {shorten(error)}") from error
    if not whole:
        raise DataError(f"{path} holds a ModelRollout without its name, spec or status")
    return found


def hold_something(cluster: Cluster) -> bool:
    """Return whether there was a rollout here, whose state a restore would replace."""
    try:
        return any(states(read(cluster)).values())
    except NotFoundError:
        return False


def restore(cluster: Cluster, objects: list[Object]) -> None:
    """Put ModelRollouts back; the operator must not run.

    Raises:
        StaleError: Somebody else writes them at this moment.
        ServiceError: The API server is away, or refuses.
    """
    cluster.delete(LEASES, _LEASE)
    for item in objects:
        found = cluster.find(MODEL_ROLLOUTS, item["name"])
        if found is None:
            found = cluster.create(
                MODEL_ROLLOUTS,
                {
                    "apiVersion": MODEL_ROLLOUTS.version,
                    "kind": "ModelRollout",
                    "metadata": {"name": item["name"]},
                    "spec": item["spec"],
                },
            )
        else:
            found = cluster.replace(MODEL_ROLLOUTS, found | {"spec": spec(found, item)})
        cluster.replace(MODEL_ROLLOUTS, found | {"status": item["status"]}, subresource="status")


def spec(found: Object, item: Object) -> Object:
    """Return what is asked for after a restore: as at the backup, but no order is given twice.

    Ids of orders only grow. One that was given since the backup stays, under its id: what it was
    about has been undone with the rest, and the operator answers it if it makes no sense.
    """
    wanted: Object = dict(item["spec"])
    newer, older = found["spec"].get("order"), wanted.get("order")
    if newer is not None and (older is None or newer["id"] > older["id"]):
        wanted["order"] = newer
    return wanted
