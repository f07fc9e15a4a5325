"""What the API server lets into a ModelRollout, and what it refuses in words."""

from typing import Any

import pytest

from mlplatform.clients.kubernetes import MODEL_ROLLOUTS, Cluster, Object
from mlplatform.errors import ServiceError
from tests.cluster.operator.conftest import rollout

ORDER = {"id": 2, "action": "rollback", "reason": "a drill", "actor": "ana"}


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({}, id="nothing asked for"),
        pytest.param({"version": 3, "again": True, "paused": False, "reason": "why"}, id="all"),
        pytest.param({"order": ORDER}, id="an order"),
        pytest.param(
            {
                "plan": {
                    "shadow_hours": 0, "shadow_share": 1, "weights": [0.05, 0.2, 0.5],
                    "min_exposure": 1, "rollback_alpha": 0.01, "promotion_alpha": 0.1,
                    "guardrails": [{"metric": "loss", "margin": 0.01}], "stale_hours": 0.1,
                    "soak_hours": 0, "deadline_hours": 1,
                }
            },
            id="a whole plan",
        ),
    ],
)  # fmt: skip
def test_what_makes_sense_is_let_in(cluster: Cluster, spec: Object) -> None:
    made = cluster.create(MODEL_ROLLOUTS, rollout(**spec), dry_run=True)

    assert spec.items() <= made["spec"].items()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"version": 0}, "spec.version"),
        ({"version": "3"}, "spec.version"),
        ({"again": True}, "again needs a version"),
        ({"order": {"id": 0, "action": "abort"}}, "spec.order.id"),
        ({"order": {"id": 1, "action": "restart"}}, "Unsupported value"),
        ({"order": {"action": "abort"}}, "spec.order.id: Required"),
        ({"plan": {"weights": []}}, "at least one"),
        ({"plan": {"weights": [0.2, 1.0]}}, "shares between 0 and 1"),
        ({"plan": {"weights": [0.5, 0.2]}}, "must rise"),
        ({"plan": {"weights": [0.2, 0.2]}}, "must rise"),
        ({"plan": {"shadow_share": 1.1}}, "spec.plan.shadow_share"),
        ({"plan": {"shadow_hours": -1}}, "spec.plan.shadow_hours"),
        ({"plan": {"min_exposure": 0}}, "spec.plan.min_exposure"),
        ({"plan": {"min_exposure": 0.5}}, "spec.plan.min_exposure"),
        ({"plan": {"guardrails": []}}, "spec.plan.guardrails"),
        ({"plan": {"guardrails": [{"metric": "mood", "margin": 0.1}]}}, "Unsupported value"),
        ({"plan": {"guardrails": [{"metric": "loss", "margin": 0}]}}, "margin"),
        ({"plan": {"rollback_alpha": 0.2}}, "spec.plan.rollback_alpha"),
        ({"plan": {"promotion_alpha": 0}}, "spec.plan.promotion_alpha"),
        ({"plan": {"stale_hours": 0}}, "spec.plan.stale_hours"),
        ({"plan": {"deadline_hours": 0}}, "spec.plan.deadline_hours"),
        ({"usecase": "Flight"}, "spec.usecase"),
        ({"usecase": "other"}, "metadata.name must be the use case's name"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(cluster: Cluster, spec: Object, words: str) -> None:
    with pytest.raises(ServiceError, match=words):
        cluster.create(MODEL_ROLLOUTS, rollout(**spec), dry_run=True)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({**ORDER, "id": 1}, "id must grow"),
        ({**ORDER, "action": "abort"}, "id must grow"),
        ({**ORDER, "reason": "another"}, "id must grow"),
        (None, "order cannot be removed"),
    ],
    ids=["a smaller number", "another action", "another reason", "removed"],
)
@pytest.mark.usefixtures("made")
def test_an_order_changes_only_with_a_greater_number(
    cluster: Cluster, order: Object | None, words: str
) -> None:
    patch(cluster, order=ORDER)

    with pytest.raises(ServiceError, match=words):
        patch(cluster, order=order)
    assert {**ORDER, "id": 3} == patch(cluster, order={**ORDER, "id": 3})["spec"]["order"]
    assert 5 == patch(cluster, version=5)["spec"]["version"]


@pytest.mark.usefixtures("made")
def test_the_use_case_is_immutable(cluster: Cluster) -> None:
    with pytest.raises(ServiceError, match="usecase is immutable"):
        patch(cluster, usecase="flight-delay".replace("-", "_") + "s")


@pytest.mark.usefixtures("made")
def test_people_see_the_story_and_do_not_write_it(cluster: Cluster) -> None:
    status = {"phase": "canary", "champion": 3, "challenger": 4, "weight": 0.2, "message": "waits"}
    cluster.patch(MODEL_ROLLOUTS, "flight-delay", {"status": status})
    assert "status" not in cluster.get(MODEL_ROLLOUTS, "flight-delay")

    cluster.patch(MODEL_ROLLOUTS, "flight-delay", {"status": status}, subresource="status")

    cells = table(cluster)
    assert ["flight-delay", "canary", "3", "4", "0.2", "waits"] == [*cells[:5], cells[6]]


def patch(cluster: Cluster, **spec: Any) -> Object:
    return cluster.patch(MODEL_ROLLOUTS, "flight-delay", {"spec": spec})


def table(cluster: Cluster) -> list[str]:
    """Return the cells of the one row that `kubectl get modelrollouts` prints."""
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    path = f"{MODEL_ROLLOUTS.root}/namespaces/{cluster.namespace}/{MODEL_ROLLOUTS.plural}"
    found = cluster._api.call_api(
        path, "GET", header_params={"Accept": accept}, response_type="object",
        auth_settings=["BearerToken"], _return_http_data_only=True,
    )  # fmt: skip
    return [str(cell) for cell in found["rows"][0]["cells"]]
