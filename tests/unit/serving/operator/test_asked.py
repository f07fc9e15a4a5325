"""What of a ModelRollout is due: once, and not again when it was answered."""

from typing import Any

import pytest

from mlplatform.contracts import Rollout
from mlplatform.errors import SpecError
from serving.operator.asked import Asked, order_due, parse, pause_due, planned, version_due
from tests.unit.serving.rollout import builders

ORDER = {"id": 4, "action": "abort"}


def asked(**spec: Any) -> Asked:
    return parse(
        {"metadata": {"name": "flight-delay"}, "spec": {"usecase": "flight_delay", **spec}}
    )


def at(phase: Any) -> Rollout:
    """A rollout of version 4 after version 3."""
    return builders.reach(phase)[0]


@pytest.mark.parametrize(
    ("spec", "last", "due"),
    [
        ({}, None, None),
        ({"order": ORDER}, None, 4),
        ({"order": ORDER}, {"id": 3, "accepted": True}, 4),
        ({"order": ORDER}, {"id": 4, "accepted": True}, None),
        ({"order": ORDER}, {"id": 4, "accepted": False}, None),
        ({"order": ORDER}, {"id": 5, "accepted": True}, None),
    ],
    ids=["none", "the first", "the next", "done", "refused", "an older one"],
)
def test_an_order_is_due_until_it_is_answered(spec: Any, last: Any, due: int | None) -> None:
    status = {} if last is None else {"lastOrder": last}
    found = order_due(asked(**spec), status)

    assert due == (None if found is None else found.id)


@pytest.mark.parametrize(
    ("wanted", "paused", "due"),
    [
        (None, True, None),
        (None, False, None),
        (True, False, "pause"),
        (True, True, None),
        (False, True, "resume"),
        (False, False, None),
    ],
)
def test_a_rollout_is_made_as_paused_as_it_is_to_be(
    wanted: bool | None, paused: bool, due: str | None
) -> None:
    rollout = at("canary").model_copy(update={"paused": paused})

    assert due == pause_due(asked(paused=wanted), rollout)


@pytest.mark.parametrize("phase", ["promoted", "rolled_back", "held", "superseded"])
def test_what_is_over_is_not_paused(phase: str) -> None:
    assert None is pause_due(asked(paused=True), at(phase))
    assert None is pause_due(asked(paused=True), None)


@pytest.mark.parametrize(
    ("spec", "challenger", "due"),
    [
        pytest.param({}, None, None, id="nothing is registered"),
        pytest.param({}, 3, None, id="the champion alone"),
        pytest.param({}, 5, 5, id="a newer one"),
        pytest.param({"paused": True}, 5, None, id="all is paused"),
        pytest.param({"version": 4}, 5, 4, id="another one is asked for"),
        pytest.param({"version": 4, "paused": True}, 5, 4, id="asked for, to stand paused"),
        pytest.param({"version": 3}, 5, None, id="it serves"),
        pytest.param({"version": 3, "again": True}, 5, 3, id="it serves, and is asked for again"),
    ],
)
def test_before_the_first_rollout_a_newer_version_is_due(
    spec: Any, challenger: int | None, due: int | None
) -> None:
    assert due == version_due(asked(**spec), {}, None, challenger, 3)


@pytest.mark.parametrize("spec", [{}, {"version": 1}], ids=["by itself", "asked for"])
def test_the_first_version_of_all_needs_no_rollout(spec: Any) -> None:
    assert None is version_due(asked(**spec), {}, None, 1, None)


@pytest.mark.parametrize(
    ("phase", "spec", "challenger", "due"),
    [
        ("canary", {}, 4, None),
        ("canary", {}, 5, 5),
        ("canary", {"version": 4}, 4, None),
        ("canary", {"version": 5}, 4, 5),
        ("promoted", {}, 4, None),
        ("promoted", {"version": 4}, 4, None),
        ("promoted", {"version": 3}, 4, 3),
        ("rolled_back", {}, 4, None),
        ("rolled_back", {"version": 4}, 4, None),
        ("rolled_back", {"version": 4, "again": True}, 4, 4),
        ("rolled_back", {"version": 3}, 4, None),
    ],
)
def test_a_version_gets_one_rollout(
    phase: str, spec: Any, challenger: int, due: int | None
) -> None:
    assert due == version_due(asked(**spec), {}, at(phase), challenger, None)


@pytest.mark.parametrize("accepted", [True, False])
def test_what_was_answered_is_not_asked_for_again(accepted: bool) -> None:
    answer = {"asked": {"version": 5, "again": False, "accepted": accepted}}

    assert None is version_due(asked(), answer, at("canary"), 5, None)
    assert None is version_due(asked(version=5), answer, at("canary"), 5, None)
    assert 5 == version_due(asked(version=5, again=True), answer, at("canary"), 5, None)
    assert 6 == version_due(asked(), answer, at("canary"), 6, None)


def test_the_plan_is_the_use_cases_but_for_what_is_said_here() -> None:
    plan = builders.PLAN
    assert plan is planned(plan, asked())

    other = planned(plan, asked(plan={"weights": [0.1], "soak_hours": 2}))
    assert plan.model_copy(update={"weights": (0.1,), "soak_hours": 2.0}) == other


@pytest.mark.parametrize("plan", [{"weights": []}, {"wieghts": [0.1]}], ids=["empty", "misspelt"])
def test_what_makes_no_plan_is_refused(plan: Any) -> None:
    with pytest.raises(SpecError, match=r"spec\.plan of flight_delay makes no rollout plan"):
        planned(builders.PLAN, asked(plan=plan))


def test_a_spec_of_another_release_is_refused_where_it_means_something_else() -> None:
    assert "flight_delay" == asked(tomorrows="field").usecase
    with pytest.raises(SpecError, match="apply the definition of the kind"):
        asked(order={"id": 1, "action": "restart"})
