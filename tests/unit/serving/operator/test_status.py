"""What people read of a use case, in each phase of its life."""

from datetime import UTC, datetime
from typing import Any

import pytest

from mlplatform.clients.kubernetes import Object
from mlplatform.contracts import Rollout, ServerStatus
from serving.operator.status import Seen, described
from tests.unit.serving.rollout import builders
from tests.unit.serving.rollout.builders import CHALLENGER, CHAMPION

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
READY = ServerStatus("ready", "http://server:8000")
STARTING = ServerStatus("starting", detail="no node takes its pod")
BEFORE: Object = {"metadata": {"name": "flight-delay", "generation": 7}}


def status(rollout: Rollout | None, before: Object = BEFORE, **more: Any) -> Object:
    servers = more.pop("servers", {CHAMPION: READY, CHALLENGER: READY})
    seen = Seen(servers=servers, holder="one", token=3, **more)
    return described(rollout, seen, before, more.get("now", NOW))


def conditions(found: Object) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in found["conditions"]}


def short(found: Object) -> tuple[Any, ...]:
    names = ("phase", "champion", "challenger", "weight", "message")
    return tuple(found.get(name) for name in names)


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        (
            {"servers": {}},
            ("waiting", None, None, None, "waits for the first registered version"),
        ),
        (
            {"servers": {CHAMPION: STARTING}, "champion": CHAMPION},
            (
                "starting", None, None, None,
                "waits for the server of version 3 to be ready (no node takes its pod)",
            ),
        ),
        (
            {"servers": {CHAMPION: READY}, "champion": CHAMPION, "routed": True},
            (
                "serving", 3, None, None,
                "the first version: there was nothing to compare it with",
            ),
        ),
    ],
    ids=["nothing is registered", "its server starts", "it serves"],
)  # fmt: skip
def test_before_the_first_rollout(more: dict[str, Any], shown: tuple[Any, ...]) -> None:
    assert shown == short(status(None, **more))


@pytest.mark.parametrize(
    ("phase", "shown"),
    [
        ("canary", ("canary", 3, 4, 0.2)),
        ("soak", ("soak", 3, 4, 0.8)),
        ("promoted", ("promoted", 4, None, 1.0)),
        ("rolled_back", ("rolled_back", 3, None, 0.0)),
    ],
)
def test_a_rollout_is_told_in_a_line(phase: Any, shown: tuple[Any, ...]) -> None:
    plan = builders.PLAN.model_copy(update={"weights": (0.2, 0.5)})

    assert shown == short(status(builders.reach(phase, plan=plan)[0]))[:4]


def test_what_it_waits_for_is_said_with_the_servers_own_words() -> None:
    rollout = builders.reach("canary")[0].model_copy(
        update={"waits_for": "the server of version 4 to be ready"}
    )
    found = status(rollout, servers={CHAMPION: READY, CHALLENGER: STARTING})

    assert (
        "waits for the server of version 4 to be ready (version 4: no node takes its pod)"
        == found["message"]
    )
    assert ("False", "NotReady") == conditions(found)["ServersReady"]
    assert ("True", "Canary") == conditions(found)["Progressing"]


def test_a_paused_rollout_says_so() -> None:
    rollout = builders.reach("canary")[0].model_copy(update={"paused": True})

    assert "paused" == status(rollout)["phase"]


def test_how_it_ended_is_said_when_it_is_over() -> None:
    rollout = builders.reach("rolled_back")[0]

    found = status(rollout.model_copy(update={"waits_for": ""}))
    assert rollout.story[-1].reason == found["message"]
    assert ("False", "RolledBack") == conditions(found)["Progressing"]
    assert ("True", "ServerReady") == conditions(found)["Serving"]


def test_what_cannot_be_done_comes_first() -> None:
    found = status(builders.reach("canary")[0], trouble="spec.plan makes no plan")

    assert "spec.plan makes no plan" == found["message"]
    assert ("False", "CannotBeDone") == conditions(found)["Accepted"]


def test_a_condition_keeps_the_time_of_its_last_change() -> None:
    first = status(builders.reach("canary")[0])
    before = {**BEFORE, "status": first}
    later = datetime(2026, 3, 2, tzinfo=UTC)
    seen = Seen(servers={CHAMPION: STARTING, CHALLENGER: READY}, holder="one", token=3)
    after = described(builders.reach("canary")[0], seen, before, later)
    since = {one["type"]: one["lastTransitionTime"] for one in after["conditions"]}

    assert "2026-03-01T12:00:00Z" == since["Progressing"]
    assert "2026-03-02T00:00:00Z" == since["ServersReady"]


def test_the_same_reads_the_same() -> None:
    rollout = builders.reach("canary")[0]
    first = status(rollout)
    seen = Seen(servers={CHAMPION: READY, CHALLENGER: READY}, holder="one", token=3)
    later = datetime(2026, 3, 2, tzinfo=UTC)

    assert first == described(rollout, seen, {**BEFORE, "status": first}, later)


def test_who_wrote_it_and_what_was_seen_is_said() -> None:
    found = status(builders.reach("canary")[0])

    assert ({"holder": "one", "token": 3}, 7) == (found["leader"], found["observedGeneration"])
    assert [(3, "ready"), (4, "ready")] == [
        (server["version"], server["state"]) for server in found["servers"]
    ]


def test_a_message_is_a_line() -> None:
    found = status(None, servers={}, trouble="a\nb " + "c" * 1000)

    assert found["message"].startswith("a b c")
    assert 500 == len(found["message"])
