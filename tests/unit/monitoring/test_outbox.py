"""People are told once for each key and interval, and what a channel did not take comes later."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.contracts.alert import Alert, AlertState, Announced, Severity
from mlplatform.errors import ServiceError
from monitoring.outbox import REPEAT, Outbox, announce
from tests.unit.ledger.conftest import postgresql, url  # noqa: F401 (fixtures)
from tests.unit.monitoring.signals import USECASE, at

PAGE = REPEAT["page"] / timedelta(hours=1)


def alert(
    hour: float,
    state: AlertState = "firing",
    name: str = "DataFault",
    severity: Severity = "page",
) -> Alert:
    return Alert(
        usecase=USECASE, name=name, severity=severity, state=state, summary="so", at=at(hour)
    )


class Taker:
    """A channel that takes alerts, or fails when it is told to."""

    def __init__(self) -> None:
        self.taken: list[Alert] = []
        self.asked = 0
        self.away = False

    def send(self, alert: Alert) -> None:
        self.asked += 1
        if self.away:
            raise ServiceError("away")
        self.taken.append(alert)


def told(*alerts: Alert) -> list[Alert]:
    state = announce(Announced(usecase=USECASE), alerts, ["a"])
    return [parcel.alert for parcel in state.parcels]


@pytest.mark.parametrize(
    ("alerts", "expected"),
    [
        pytest.param([alert(0), alert(0), alert(1)], [0], id="again within the interval"),
        pytest.param([alert(0), alert(PAGE)], [0, 1], id="goes on after the interval"),
        pytest.param([alert(0), alert(1, "resolved")], [0, 1], id="over"),
        pytest.param(
            [alert(0), alert(1, "resolved"), alert(2, "resolved")], [0, 1], id="over is said once"
        ),
        pytest.param([alert(0, "resolved")], [], id="over, and was never told"),
        pytest.param(
            [alert(0), alert(1, "resolved"), alert(2), alert(3, "resolved")], [0, 1], id="flaps"
        ),
        pytest.param(
            [alert(0), alert(1, "resolved"), alert(PAGE)], [0, 1, 2], id="back after the interval"
        ),
        pytest.param([alert(PAGE), alert(0)], [0], id="an earlier moment comes late"),
        pytest.param(
            [alert(0), alert(2), alert(1, "resolved")], [0], id="an earlier end comes late"
        ),
        pytest.param([alert(0), alert(0, name="Skew")], [0, 1], id="two keys"),
        pytest.param(
            [alert(0, severity="ticket"), alert(PAGE, severity="ticket")], [0], id="a ticket"
        ),
    ],
)
def test_what_is_told(alerts: Sequence[Alert], expected: Sequence[int]) -> None:
    assert [alerts[place] for place in expected] == told(*alerts)


MOMENTS = st.builds(
    alert,
    st.integers(0, 60),
    st.sampled_from(["firing", "resolved"]),
    st.sampled_from(["DataFault", "Skew"]),
    st.sampled_from(["page", "ticket"]),
)


@given(st.lists(MOMENTS, max_size=40))
def test_one_firing_for_each_key_and_interval_however_reports_come(alerts: list[Alert]) -> None:
    said = told(*alerts, *alerts[::2])

    for name in ("DataFault", "Skew"):
        mine = [item for item in said if item.name == name]
        assert sorted(mine, key=lambda item: item.at) == mine
        fired = [item for item in mine if item.state == "firing"]
        for first, second in pairwise(fired):
            assert second.at - first.at >= REPEAT[second.severity]
        for first, second in pairwise(mine):
            assert "firing" in {first.state, second.state}  # an end is told once
        assert not mine or mine[0].state == "firing"


@given(st.lists(MOMENTS, min_size=1, max_size=20), st.randoms())
def test_something_that_fires_is_always_told_first(alerts: list[Alert], random: object) -> None:
    keys = {item.key for item in alerts if item.state == "firing"}
    random.shuffle(alerts)  # type: ignore[attr-defined]  # a random.Random

    assert keys == {item.key for item in told(*alerts)}


@pytest.fixture
def taker() -> Taker:
    return Taker()


@pytest.fixture
def make(url: str, taker: Taker) -> Callable[[], Outbox]:  # noqa: F811 (the fixture)
    return lambda: Outbox(url, {"a": taker})


def test_each_process_tells_what_no_other_one_has_told(
    make: Callable[[], Outbox], taker: Taker
) -> None:
    assert [1, 0] == [make().announce(USECASE, [alert(0)]) for _ in range(2)]
    assert [alert(0)] == taker.taken
    assert () == make().read(USECASE).parcels


def test_what_a_channel_did_not_take_is_sent_at_the_next_call_in_order(
    make: Callable[[], Outbox], taker: Taker
) -> None:
    taker.away = True
    assert 0 == make().announce(USECASE, [alert(0), alert(0, name="Skew")])
    assert 0 == make().announce(USECASE, [alert(1, "resolved")])
    assert 2 == taker.asked  # once for each call: a channel that fails is not asked again
    taker.away = False

    assert 3 == make().announce(USECASE, [])
    assert ["DataFault", "Skew", "DataFault"] == [item.name for item in taker.taken]
    assert 0 == make().announce(USECASE, [])


def test_a_channel_that_is_away_holds_up_no_other(url: str, taker: Taker) -> None:  # noqa: F811
    away = Taker()
    away.away = True
    outbox = Outbox(url, {"a": away, "b": taker})

    assert 1 == outbox.announce(USECASE, [alert(0)])
    assert [alert(0)] == taker.taken
    assert ["a"] == [parcel.channel for parcel in outbox.read(USECASE).parcels]


def test_what_waits_for_a_channel_that_never_comes_back_is_bounded(
    make: Callable[[], Outbox], taker: Taker
) -> None:
    taker.away = True
    outbox = make()
    days = [alert(PAGE * place) for place in range(300)]
    outbox.announce(USECASE, days)
    state = outbox.read(USECASE)

    assert (days[-1], 300) == (state.parcels[-1].alert, len(state.parcels) + state.lost)
    assert state.lost > 0


def test_of_many_at_once_nobody_loses_an_alert(make: Callable[[], Outbox], taker: Taker) -> None:
    make().read(USECASE)
    names = [f"Alert{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: make().announce(USECASE, [alert(0, name=name)]), names))

    assert set(names) == {item.name for item in taker.taken}  # some perhaps twice
    assert () == make().read(USECASE).parcels


def test_alerts_of_another_use_case_are_refused(make: Callable[[], Outbox]) -> None:
    with pytest.raises(ValueError, match="flight_delay"):
        make().announce("other", [alert(0)])
