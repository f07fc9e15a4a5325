"""The life of a use case in a cluster, as its ModelRollout tells it."""

from collections.abc import Iterator

import pytest

from mlplatform.clients.kubernetes import MODEL_ROLLOUTS
from tests.cluster.operator.conftest import rollout
from tests.cluster.operator.stage import NAME, Operator, Stage
from tests.loop.small_platform import USECASE

pytestmark = pytest.mark.usefixtures("operator")

PLAN = {"shadow_hours": 0, "weights": [0.2, 0.5], "soak_hours": 0, "min_exposure": 1_000_000}
"""Goes on by hand alone: nobody makes requests."""


@pytest.fixture(scope="module")
def operator(stage: Stage) -> Iterator[Operator]:
    stage.cluster.create(MODEL_ROLLOUTS, rollout(plan=PLAN))
    with stage.operator() as found:
        yield found


def test_the_first_registered_version_serves(stage: Stage, operator: Operator) -> None:
    stage.until(stage.phase("serving"))

    assert 1 == stage.status["champion"]
    assert {"triton-flight-delay-v1"} == stage.servers()
    route = stage.route
    assert route is not None
    assert (1, [1]) == (route.epoch, [arm.model.version for arm in route.arms])
    champion = stage.registry.by_alias(USECASE, "champion")
    assert champion is not None
    assert 1 == champion.version
    assert operator.process.poll() is None


def test_a_version_that_is_registered_is_rolled_out_by_itself(
    stage: Stage,
) -> None:
    assert 2 == stage.register(-0.011)
    stage.until(stage.phase("canary"))

    status = stage.status
    assert (1, 2, 0.2) == (status["champion"], status["challenger"], status["weight"])
    assert status["asked"]["accepted"]
    assert {"triton-flight-delay-v1", "triton-flight-delay-v2"} == stage.servers()
    stage.until(lambda: "Verified" in dict(stage.events()))


def test_an_order_promotes_it_and_the_version_before_goes(stage: Stage) -> None:
    stage.order("promote", reason="a drill", actor="ana")
    stage.until(stage.phase("soak"))
    stage.order("promote", reason="a drill", actor="ana")
    stage.until(stage.phase("promoted"))
    stage.until(lambda: stage.servers() == {"triton-flight-delay-v2"})

    assert {"id": 2, "action": "promote", "accepted": True, "message": "done"} == (
        stage.status["lastOrder"]
    )
    assert 2 == stage.status["champion"]
    assert {"ana"} == {
        row.decision.actor
        for row in stage.ledger.entries(USECASE, "rollout")
        if row.decision.verdict == "forced"
    }


def test_an_order_that_is_not_possible_is_answered(stage: Stage) -> None:
    stage.order("pause")
    stage.until(lambda: stage.status["lastOrder"]["id"] == 3)

    assert not stage.status["lastOrder"]["accepted"]
    assert "it is over; start another rollout" in stage.status["lastOrder"]["message"]


def test_a_version_whose_model_is_refused_in_the_pod_is_rolled_back(
    stage: Stage,
) -> None:
    stage.register(-0.012, served=False)
    stage.until(stage.phase("rolled_back"))

    assert "its signature is not valid" in stage.status["message"]
    stage.until(lambda: stage.servers() == {"triton-flight-delay-v2"})


def test_a_deletion_takes_servers_and_route_away_and_leaves_the_aliases(
    stage: Stage,
) -> None:
    stage.cluster.delete(MODEL_ROLLOUTS, NAME)
    stage.until(lambda: stage.cluster.find(MODEL_ROLLOUTS, NAME) is None)

    assert set() == stage.servers()
    assert None is stage.route
    champion = stage.registry.by_alias(USECASE, "champion")
    assert champion is not None
    assert 2 == champion.version


def test_a_use_case_that_comes_back_goes_on_where_it_was(stage: Stage, operator: Operator) -> None:
    stage.cluster.create(MODEL_ROLLOUTS, rollout(plan=PLAN))
    stage.until(stage.phase("rolled_back"))
    stage.until(lambda: stage.servers() == {"triton-flight-delay-v2"})
    stage.until(lambda: stage.route is not None)

    assert (2, 2) == (stage.status["champion"], stage.status["rollout"]["number"])
    assert 0 < stage.ledger.verify()
    assert "Traceback" not in operator.said
