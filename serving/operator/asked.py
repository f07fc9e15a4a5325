"""What a person asks for in a ModelRollout, and what of it is due: pure.

`spec` says how things are to be, so each of these may be asked again and again: what was done is
told by the state and by the answers in the status. An order is carried out once for each id.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlplatform.clients.kubernetes import Object
from mlplatform.contracts import Rollout
from mlplatform.contracts.rollout import AT_REST, Order
from mlplatform.contracts.usecase.operation import RolloutPlan
from mlplatform.errors import SpecError, shorten
from serving.rollout import machine
from serving.rollout.newcomer import newcomer


class _Part(BaseModel):
    """What the API server has checked: fields of a later release are let through."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class GivenOrder(_Part):
    """`spec.order`."""

    id: int = Field(ge=1)
    action: Order
    reason: str = ""
    actor: str = "kubernetes"


class Asked(_Part):
    """`spec` of a ModelRollout."""

    usecase: str
    version: int | None = None
    again: bool = False
    paused: bool | None = None
    reason: str = ""
    plan: dict[str, Any] = {}
    order: GivenOrder | None = None


def parse(found: Object) -> Asked:
    """Return what a ModelRollout asks for.

    Raises:
        SpecError: It is not what the definition of the kind says.
    """
    try:
        return Asked.model_validate(found["spec"])
    except ValidationError as error:
        raise SpecError(
            f"spec of modelrollout {found['metadata']['name']}: {shorten(error)}; apply the "
            "definition of the kind of this release (helm/mlplatform/crds)"
        ) from error


def planned(plan: RolloutPlan, asked: Asked) -> RolloutPlan:
    """Return the use case's plan with the fields that are other ones here.

    Raises:
        SpecError: They make no plan.
    """
    if not asked.plan:
        return plan
    try:
        return RolloutPlan.model_validate(plan.model_dump() | asked.plan)
    except ValidationError as error:
        raise SpecError(
            f"spec.plan of {asked.usecase} makes no rollout plan: {shorten(error)}"
        ) from error


def order_due(asked: Asked, status: Object) -> GivenOrder | None:
    """Return the order that has no answer yet."""
    answered = int((status.get("lastOrder") or {}).get("id") or 0)
    return asked.order if asked.order is not None and asked.order.id > answered else None


def pause_due(asked: Asked, rollout: Rollout | None) -> Order | None:
    """Return what makes the rollout under way as paused as it is asked to be."""
    if asked.paused is None or rollout is None or rollout.phase in AT_REST:
        return None
    if asked.paused == rollout.paused:
        return None
    return "pause" if asked.paused else "resume"


def version_due(
    asked: Asked,
    status: Object,
    rollout: Rollout | None,
    challenger: int | None,
    champion: int | None,
) -> int | None:
    """Return the version that a rollout is to be asked for; None: there is none to ask for.

    Args:
        asked: What is asked for; without a version, the newest one, unless all is paused.
        status: Of the ModelRollout: knows what was answered before.
        rollout: The newest one; None: there was none.
        challenger: Version that the registry's alias names; None: none.
        champion: The same of the champion, or of the version that serves.
    """
    if champion is None and rollout is None:
        return None  # the first version of all needs no rollout
    if asked.version is None:
        version = None if asked.paused else newcomer(challenger, champion, rollout)
        again = False
    else:
        version, again = asked.version, asked.again
    answer = status.get("asked") or {}
    if version is None or (answer.get("version"), answer.get("again", False)) == (version, again):
        return None
    if again:
        return version
    if rollout is not None:
        had = rollout.challenger.version == version
        serves = rollout.phase in AT_REST and machine.serves(rollout).version == version
        return None if had or serves else version
    return None if champion == version else version
