"""The state of rollouts in a cluster: in the status of the use case's ModelRollout.

It is replaced by compare-and-swap on the object's resourceVersion, so a change of what a person
asks for stands in the way of a decision that did not see it. What `kubectl get` shows is written in
the same call as the state that it describes, and so is the answer to the order that changed it: a
process that is killed in between has done both or neither.

What was seen at each look goes to the ledger's database, as everywhere. It refuses to know what a
state means.
"""

import json
from collections.abc import Callable
from typing import Final, Protocol, Self

from pydantic import ValidationError

from mlplatform.clients.kubernetes import MODEL_ROLLOUTS, Cluster, Object
from mlplatform.contracts import Rollout
from mlplatform.errors import DataError, StaleError, shorten
from serving.rollout.store import Look, Revision, Stored

_STATE: Final = "rollout"

Describe = Callable[[Rollout | None, Object], Object]
"""Returns what people read of a state, given the object as it is: fields of its status."""
Answer = Callable[[Rollout], Object]
"""Returns further fields of the status that belong to the writing of a state."""


class Looks(Protocol):
    """Where looks are kept."""

    def note(self, look: Look) -> None:
        """Keep what was seen; raises ServiceError where it cannot be kept."""
        ...


def object_name(usecase: str) -> str:
    """Return the name of the use case's ModelRollout, and of all else that carries its name."""
    return usecase.replace("_", "-")


class ClusterStore:
    """The rollouts of the use cases of one namespace; a `ports.States`.

    Args:
        cluster: Where the objects are.
        looks: Where what was seen is kept.
        token: Number of the writer's turn as the leader.
        describe: What people read of a state.
        answer: What belongs to each writing besides.
    """

    def __init__(
        self,
        cluster: Cluster,
        looks: Looks,
        token: Callable[[], int],
        describe: Describe = lambda *_: {},
        answer: Answer = lambda _: {},
    ) -> None:
        self._cluster, self._looks, self._token = cluster, looks, token
        self._describe, self._answer = describe, answer

    def answering(self, answer: Answer) -> Self:
        """Return the same store, whose writings carry an answer."""
        return type(self)(self._cluster, self._looks, self._token, self._describe, answer)

    def read(self, usecase: str) -> Stored | None:
        """Return the newest rollout of a use case; None when it never had one.

        Raises:
            DataError: The status holds no rollout of this use case.
            NotFoundError: The use case has no ModelRollout.
            ServiceError: The API server is away.
        """
        return stored(self.object(usecase), usecase)

    def object(self, usecase: str) -> Object:
        """Return the use case's ModelRollout; raises as `read`."""
        return self._cluster.get(MODEL_ROLLOUTS, object_name(usecase))

    def write(self, rollout: Rollout, *, revision: Revision) -> str:
        """Replace the state that has this revision, and return the new revision.

        Raises:
            StaleError: The object is another one by now, or a later leader has written it.
            NotFoundError: The use case has no ModelRollout.
            ServiceError: The API server is away; whether it was written is then unknown.
        """
        found = self.object(rollout.usecase)
        known = stored(found, rollout.usecase)
        if (0 if known is None else known.revision) != revision:
            raise StaleError(
                f"the rollout of {rollout.usecase} is no longer at revision {revision}: somebody "
                "else wrote it, or asks for something else meanwhile; read it and decide again"
            )
        fields = {_STATE: rollout.model_dump(mode="json")}
        return self._put(found, fields | self._describe(rollout, found) | self._answer(rollout))

    def describe(self, found: Object, fields: Object) -> str:
        """Write fields of the status that no state depends on, unless they are there already.

        Args:
            found: The object as it was read.
            fields: Of its status; the state is left as it is.

        Raises:
            StaleError: The object is another one by now, or a later leader has written it.
            ServiceError: The API server is away.
        """
        status = found.get("status") or {}
        if all(status.get(name) == value for name, value in fields.items()):
            return str(found["metadata"]["resourceVersion"])
        return self._put(found, fields)

    def note(self, look: Look) -> None:
        """Keep what was seen; raises ServiceError where the ledger's database is away."""
        self._looks.note(look)

    def _put(self, found: Object, fields: Object) -> str:
        status = found.get("status") or {}
        latest, token = token_of(found), self._token()
        if latest > token:
            raise StaleError(
                f"{found['metadata']['name']} was written by leader number {latest}, and this is "
                f"number {token}: another replica drives now"
            )
        status = {name: value for name, value in (status | fields).items() if value is not None}
        done = self._cluster.replace(
            MODEL_ROLLOUTS, found | {"status": status}, subresource="status"
        )
        return str(done["metadata"]["resourceVersion"])


def stored(found: Object, usecase: str) -> Stored | None:
    """Return the rollout in a ModelRollout; None when it holds none.

    Raises:
        DataError: It holds no rollout of this use case.
    """
    name, body = found["metadata"]["name"], (found.get("status") or {}).get(_STATE)
    if body is None:
        return None
    try:
        rollout = Rollout.model_validate_json(json.dumps(body))
    except ValidationError as error:
        raise DataError(
            f"status.rollout of modelrollout {name} cannot be read: {shorten(error)}; it was "
            "edited, or written by another release: remove it, and the copy in the ledger's "
            "database counts"
        ) from error
    if rollout.usecase != usecase:
        raise DataError(
            f"status.rollout of modelrollout {name} is the rollout of {rollout.usecase}: somebody "
            "edited it; remove it, and the copy in the ledger's database counts"
        )
    return Stored(str(found["metadata"]["resourceVersion"]), rollout)


def token_of(found: Object) -> int:
    """Return the number of the leader that wrote a ModelRollout last; 0: nobody did."""
    return int(((found.get("status") or {}).get("leader") or {}).get("token") or 0)
