"""The live view: what a person sees of a replay."""

import io
import json
from typing import Any

import msgspec
import pytest
from rich.console import Console

from local import live
from local.tally import Tally
from mlplatform.contracts.usecase.operation import LatencyBudget

BUDGET = LatencyBudget(total=50, network=10, features=10, queue=5, inference=15, decision=10)


def line(**changed: Any) -> dict[str, Any]:
    hops = dict.fromkeys(("client", "features", "inference", "decision", "total"), 1.0)
    return {
        "seconds": 2.0,
        "total": 1000,
        "sent": 400,
        "answered": 399,
        "refused": 0,
        "lost": 1,
        "degraded": 7,
        "fallback": 3,
        "positive": 90,
        "pushed": 1234,
        "event_time": "2013-12-01T10:00:00+00:00",
        "p50": hops,
        "p99": hops | {"inference": 31.5},
    } | changed


def shown(*, terminal: bool, lines: list[dict[str, Any]]) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)
    live.Screen(console, BUDGET).show(lines)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_it_shows_rate_outcomes_and_each_hop_beside_its_budget() -> None:
    text = shown(terminal=True, lines=[line()])

    assert "2013-12-01 10:00 UTC   400 of 1,000 requests   200/s" in text
    assert "answered 399   warned 90   degraded 7   fallback 3   refused 0   lost 1" in text
    assert "31.5" in text
    assert "20" in text  # queue and inference are measured together


def test_without_a_terminal_it_prints_a_state_now_and_then() -> None:
    text = shown(terminal=False, lines=[line(sent=1), line(sent=2), line(sent=1000)])

    assert "1 of 1,000 requests" in text
    assert "2 of 1,000" not in text


@pytest.mark.parametrize("terminal", [True, False])
def test_before_any_answer_no_latency_is_shown(*, terminal: bool) -> None:
    nothing = json.loads(msgspec.json.encode(Tally(total=1000, sent=3, lost=3).line()))
    text = shown(terminal=terminal, lines=[nothing])

    assert "3 of 1,000 requests" in text
    assert "lost 3" in text
    assert "nan" not in text


@pytest.mark.parametrize("terminal", [True, False])
def test_a_replay_that_says_nothing_shows_nothing(*, terminal: bool) -> None:
    assert "requests" not in shown(terminal=terminal, lines=[])
