"""The breaker as a state machine over a clock, against a model of what it promises."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from serving.gateway.breaker import Breaker


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock)
    for _ in range(5):
        breaker.failed()
    return breaker


def test_it_opens_after_five_failures_in_a_row() -> None:
    breaker = Breaker(Clock())
    for _ in range(4):
        breaker.failed()

    assert breaker.allows()
    breaker.failed()
    assert not breaker.allows()


def test_a_success_in_between_starts_the_count_again() -> None:
    breaker = Breaker(Clock())
    for _ in range(3):
        for _ in range(4):
            breaker.failed()
        breaker.succeeded()

    assert "closed" == breaker.state


def test_one_probe_goes_through_after_the_pause_and_closes_it() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 0.1

    assert [True, False, False] == [breaker.allows() for _ in range(3)]
    breaker.succeeded()
    assert all(breaker.allows() for _ in range(3))


def test_each_failed_probe_doubles_the_pause_up_to_a_second() -> None:
    clock = Clock()
    breaker = opened(clock)
    pauses = []
    for _ in range(6):
        started = clock.now
        while not breaker.allows():
            clock.now += 0.001
        pauses.append(round(clock.now - started, 1))
        breaker.failed()

    assert [0.1, 0.2, 0.4, 0.8, 1.0, 1.0] == pauses


def test_a_probe_that_never_reports_does_not_keep_it_open_for_ever() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 0.1

    assert breaker.allows()
    clock.now += 0.9
    assert not breaker.allows()
    clock.now += 0.2
    assert breaker.allows()


class Promises(RuleBasedStateMachine):
    """Whatever happens in whatever order, these hold."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker(self.clock)
        self.in_a_row = 0
        self.allowed_since_failure = 0

    @rule(seconds=st.floats(0.0, 3.0))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def a_call_fails(self) -> None:
        if self.breaker.allows():
            self.breaker.failed()
            self.in_a_row += 1

    @rule()
    def a_call_works(self) -> None:
        if self.breaker.allows():
            self.breaker.succeeded()
            self.in_a_row = 0

    @rule()
    def a_late_result_comes(self) -> None:
        self.breaker.failed()
        self.in_a_row += 1

    @rule()
    def a_second_and_a_bit_later_a_call_is_always_tried(self) -> None:
        self.clock.now += 1.001

        assert self.breaker.allows()
        self.breaker.failed()
        self.in_a_row += 1

    @invariant()
    def closed_means_fewer_than_five_failures_in_a_row(self) -> None:
        assert (self.in_a_row < 5) == (self.breaker.state == "closed")

    @invariant()
    def after_a_failed_probe_nothing_goes_through_at_once(self) -> None:
        if self.breaker.state == "open":
            before = self.breaker._next
            if self.clock.now < before:
                assert not self.breaker.allows()


TestPromises = Promises.TestCase
TestPromises.settings = settings(derandomize=True, max_examples=200, deadline=None)
