"""The replay: what is pushed before which request, and what is counted."""

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import polars as pl
import pytest

from feature_repo import catalog
from local.load import Answer
from local.replay import Replay, Stretch, updates
from local.tally import Tally, ledger
from local.traffic import Traffic, traffic

START = datetime(2013, 3, 1, 12, tzinfo=UTC)
END = START + timedelta(hours=3)


@pytest.fixture(scope="module")
def code() -> catalog.UseCaseCode:
    return catalog.load("flight_delay")


@pytest.fixture(scope="module")
def requests(code: catalog.UseCaseCode) -> Traffic:
    return traffic(code, START, END)


def answer(index: int, status: int = 200, **changed: object) -> Answer:
    body = {
        "request_id": "r",
        "model": "flight_delay",
        "version": 1,
        "arm": "champion",
        "epoch": 1,
        "score": 0.5,
        "decision": True,
        "degraded": False,
        "fallback": False,
        "reasons": [],
        "latency": {"features_us": 1, "inference_us": 2, "decision_us": 3, "total_us": 6},
    } | changed
    return Answer(index, status, msgspec.json.encode(body), 10.0, 10.001, 10.004)


def test_a_feature_row_is_pushed_before_the_first_request_that_may_know_it(
    code: catalog.UseCaseCode, requests: Traffic
) -> None:
    times = requests.times
    feed = updates(code, START, END, times)

    seen = 0
    for index, parts in feed.items():
        for _, rows in parts:
            known = rows.select(pl.max_horizontal("event_timestamp", "created_timestamp"))
            moments = known.to_series().dt.epoch("us")
            seen += rows.height
            if index < len(times):
                assert moments.max() <= times[index]  # type: ignore[operator]
            if index:
                assert moments.min() > times[index - 1]  # type: ignore[operator]
    assert seen > 100


def test_everything_that_became_known_in_the_window_is_pushed_once(
    code: catalog.UseCaseCode, requests: Traffic
) -> None:
    raw = code.read(datetime(2013, 1, 1, tzinfo=UTC), END)
    feed = updates(code, START, END, requests.times)

    for view, compute in code.batch.items():
        inside = pl.col("created_timestamp").is_between(START, END, closed="right")
        pushed = [rows for parts in feed.values() for name, rows in parts if name == view]
        assert compute(raw).filter(inside).height == sum(rows.height for rows in pushed)


def test_answers_refusals_and_lost_requests_are_counted_apart() -> None:
    tally = Tally(total=4)
    for item in (
        answer(0, fallback=True),
        answer(1, degraded=True, decision=False),
        answer(2, status=429),
        Answer(3, 0, b"", 0.0, 0.0, 1.0),
    ):
        tally.add(item)

    assert (2, 1, 1) == (tally.answered, tally.refused, tally.lost)
    assert (1, 1, 1) == (tally.fallback, tally.degraded, tally.positive)
    assert pytest.approx(4.0) == tally.line()["p50"]["client"]


def test_the_ledger_has_a_row_for_each_request_that_was_sent(requests: Traffic) -> None:
    rows = ledger(requests, [answer(0), answer(1, status=503)])

    assert requests.rows["request_id"].head(2).to_list() == rows["request_id"].to_list()
    assert [200, 503] == rows["status"].to_list()
    assert [0.5, None] == rows["score"].to_list()
    assert pytest.approx([4.0, 4.0]) == rows["ms"].to_list()


class _Client:
    """Answers at once, and knows in what order things happened."""

    def __init__(self, happened: list[str]) -> None:
        self._happened = happened

    def request(self, path: str, body: bytes) -> bytes:
        del path
        return body

    async def exchange(self, payload: bytes) -> tuple[int, bytes]:
        self._happened.append(msgspec.json.decode(payload)["request_id"])
        return 200, answer(0).body


def test_a_feed_that_is_stopped_delivers_what_was_held_back_when_it_is_there_again(
    requests: Traffic,
) -> None:
    happened: list[str] = []
    rows = pl.DataFrame({"row": [1]})
    feed = {0: [("weather", rows), ("other", rows)], 5: [("weather", rows)]}
    first, last = END - timedelta(hours=1), END

    async def run() -> Replay:
        replay = Replay(
            _Client(happened),  # type: ignore[arg-type]
            "/", requests, feed, lambda view, _: happened.append(view), 1e6,
        )  # fmt: skip
        await replay.run(Stretch(first, withheld=("weather",)))
        happened.append("whole again")
        await replay.run(Stretch(last))
        return replay

    replay = asyncio.run(run())

    again = happened.index("whole again")
    assert happened[0] == "other"
    assert "weather" not in happened[:again]
    assert ["weather", "weather"] == happened[again + 1 : again + 3]
    assert requests.rows["request_id"].to_list() == [
        one for one in happened if one not in {"weather", "other", "whole again"}
    ]
    assert replay.tally.pushed == 3
