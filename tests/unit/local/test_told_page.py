"""The page of a demonstration: complete, escaped, and honest about what is missing."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from plotly.offline import get_plotlyjs

from local import told_answered, told_figures, told_looks, told_performance
from local.told import Claim, Day, Told
from local.told_page import cards, link, row, write_page
from mlplatform.contracts.performance import PairedPerformance
from tests.unit.local import stories

HOSTILE = "<script>alert('data')</script>"


def page(folder: Path, told: Told, answers: pl.DataFrame) -> str:
    """Return the page without plotly's own code."""
    path = folder / "report.html"
    write_page(path, told, answers)
    return path.read_text(encoding="utf-8").replace(get_plotlyjs(), "")


def layout(figure: str) -> dict[str, Any]:
    """Return the layout of a figure of a page."""
    # newPlot(id, data, layout, config): three JSON values after the id.
    rest = figure.partition("Plotly.newPlot(")[2].partition(",")[2].strip()
    _, end = json.JSONDecoder().raw_decode(rest)
    found, _ = json.JSONDecoder().raw_decode(rest[end:].lstrip(" ,\n"))
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page(tmp_path_factory.mktemp("whole"), stories.full(), stories.answers())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("not all of it held", id="verdict"),
        pytest.param('<span class="mark">✗</span>A broken version is rolled back', id="claim"),
        pytest.param("2: a feed is stopped (planted), Jun 14 to Jun 16", id="act"),
        pytest.param("<b>temperature</b> in 3 of 18 windows", id="drift"),
        pytest.param("data fault: the feed is broken <b>weather</b>", id="cause"),
        pytest.param("the feed of weather was stopped on purpose", id="withheld"),
        pytest.param("infrastructure: p99 80 ms, 50 ms allowed", id="layer"),
        pytest.param('<td class="n bad">61.00</td>', id="budget"),
        pytest.param('href="why-flight_delay-v3.html"', id="rollout"),
        pytest.param(f"<code>{'0f' * 16}</code>", id="decision"),
        pytest.param("labels of Jun 12: healthy", id="labels"),
    ],
)
def test_the_page_tells(whole: str, text: str) -> None:
    assert text in re.sub(r"\s*<i [^>]*>.</i>\s*", " ", whole)


def test_nothing_is_fetched_from_a_network(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(path, stories.full(), stories.answers())

    assert get_plotlyjs() in path.read_text(encoding="utf-8")
    text = page(tmp_path, stories.full(), stories.answers())
    assert not re.search(r"https?://|@import|<(script|link|img|iframe)[^>]+(src|href)=", text)


def test_text_of_the_story_is_escaped(tmp_path: Path) -> None:
    day = stories.day(8)
    faulty = [
        finding.model_copy(update={"blamed": (HOSTILE,), "why": HOSTILE})
        for finding in day.report.findings
    ]
    line = stories.line(8, "retrain", HOSTILE, "refused", HOSTILE)
    drift = stories.drift(8, "input_drift")
    columns = tuple(
        one.model_copy(update={"column": HOSTILE, "reason": HOSTILE}) for one in drift.columns
    )
    report = day.report.model_copy(
        update={
            "findings": tuple(faulty),
            "drift": drift.model_copy(update={"columns": columns}),
        }
    )
    texts = {"act": HOSTILE, "rollout": HOSTILE, "alerts": (HOSTILE,), "withheld": (HOSTILE,)}
    hostile = day.model_copy(update={"report": report, "decisions": (line,), **texts})
    told = stories.full(
        goal=HOSTILE,
        days=(hostile,),
        decisions=(line, line.model_copy(update={"verdict": HOSTILE, "kind": "rollout"})),
        claims=(Claim(text=HOSTILE, held=True, seen=HOSTILE),),
        replaced=stories.pair().model_copy(update={"reason": HOSTILE}),
        usecase=HOSTILE,
    )

    assert HOSTILE not in page(tmp_path, told, stories.answers())


def test_an_empty_story_says_what_is_missing(tmp_path: Path) -> None:
    text = page(tmp_path, stories.empty(), stories.answers(0))

    for sentence in (
        "Nothing was claimed",
        "No window was lived through",
        "No labels have matured yet",
        "No model was replaced",
        "No version was rolled out",
        "The ledger is empty",
    ):
        assert sentence in text


def without(day: Day, **parts: Any) -> Day:
    return day.model_copy(update={"report": day.report.model_copy(update=parts)})


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param({"drift": None}, id="drift"),
        pytest.param({"performance": None, "hindsight": None, "estimate": None}, id="performance"),
        pytest.param({"findings": ()}, id="findings"),
        pytest.param({"version": None}, id="version"),
    ],
)
def test_a_window_without_a_part_is_told_all_the_same(
    tmp_path: Path, parts: dict[str, Any]
) -> None:
    told = stories.full(days=(without(stories.day(8), **parts),))

    assert "Jun 09" in page(tmp_path, told, stories.answers(0))


@pytest.mark.parametrize("draw", ["timeline", "performance"])
def test_a_figure_has_a_title_and_each_lane_its_unit(draw: str) -> None:
    told = stories.full()
    figure = (
        told_figures.timeline(told, stories.answers())
        if draw == "timeline"
        else told_performance.figure(told.days)
    )
    found = layout(figure)
    titles = [note["text"] for note in found["annotations"]]

    assert "(UTC)" in found["title"]["text"]
    assert sum(name.startswith("yaxis") for name in found) == len(titles)
    measured = [title for title in titles if title not in {"Acts", "Decisions"}]
    assert all("(" in title or title.startswith("Cause") for title in measured)


def test_a_later_judgement_replaces_the_one_before() -> None:
    first = stories.day(4)
    second = stories.day(5)
    again = first.report.findings[0].model_copy(update={"cause": "inconclusive"})
    findings = (*second.report.findings, again)
    found = told_looks.newest([first, without(second, findings=findings)])

    assert ["inconclusive"] == [
        one.cause for one in found if (one.watch, one.window) == ("inputs", first.window)
    ]


def test_what_a_pipeline_recorded_by_its_own_clock_stands_in_its_window() -> None:
    told = stories.full()
    foreign = stories.line(8, "run", "training-1", "failed").model_copy(
        update={"recorded_at": told.end + timedelta(days=4000)}
    )

    assert stories.window(8).end == told_looks.moment(foreign, told)
    assert [("pipeline", "bad")] == [
        (mark.lane, mark.style)
        for mark in told_looks.marks(told.model_copy(update={"decisions": (foreign,)}))
    ]


def test_those_who_answered_are_named_and_rules_only_where_they_did() -> None:
    ruled = pl.col("fallback")
    answers = stories.answers()

    assert ["version 1", "version 2", "the rules"] == words(answers)
    assert ["version 1", "version 2"] == words(answers.filter(~ruled))
    assert ["the rules"] == words(answers.filter(ruled))


def words(answers: pl.DataFrame) -> list[str]:
    return [look.words for look in told_answered.answerers(answers)]


def test_shares_add_up_and_nobody_has_one_in_a_long_silence() -> None:
    at = pl.col("event_timestamp")
    silent = at.is_between(stories.window(4).start, stories.window(5).end)
    shares = told_answered.shares(stories.answers().filter(~silent))
    total = shares.select(at, total=pl.sum_horizontal(pl.exclude("event_timestamp")))
    empty = total.filter(pl.col("total") == 0)["event_timestamp"]

    assert {0.0, 100.0} == set(total["total"].round(9))
    # Twelve hours after the last answer, and until the first at six in the morning.
    assert empty.min() == stories.window(4).start + timedelta(hours=12)
    assert empty.max() == stories.window(6).start + timedelta(hours=3)


def sentence(low: float, value: float, high: float) -> str:
    gain = stories.pair().gains[0]
    span = {"estimate": value, "low": low, "high": high, "level": 0.95}
    changed = gain.model_dump() | {"value": value, "interval": span}
    pair = PairedPerformance.model_validate(stories.pair().model_dump() | {"gains": [changed]})
    return next(told_performance.sentences(pair))


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((0.004, 0.012, 0.02), "Version 2 is better than version 1 by 0.012 [0.004, 0.020]"),
        ((-0.02, -0.012, -0.004), "Version 1 is better than version 2 by 0.012 [0.004, 0.020]"),
        ((-0.004, 0.012, 0.02), "In PR-AUC neither is better on 6,200 matured requests"),
    ],
    ids=["better", "worse", "equal"],
)
def test_the_words_follow_the_interval(span: tuple[float, float, float], expected: str) -> None:
    assert sentence(*span).startswith(expected)


def test_only_pages_that_are_kept_are_linked_relative_to_the_report(tmp_path: Path) -> None:
    kept = tmp_path / "windows" / "of june" / "drift.html"
    kept.parent.mkdir(parents=True)
    kept.touch()

    assert link(str(kept), tmp_path) == "windows/of%20june/drift.html"
    assert link(str(kept.with_name("gone.html")), tmp_path) == ""
    assert link("", tmp_path) == ""


def test_a_day_lists_the_versions_that_answered_and_what_the_trigger_said(tmp_path: Path) -> None:
    found = row(stories.day(9), stories.answers(), tmp_path)
    asked = row(stories.day(8), stories.answers(0), tmp_path)

    assert found.versions == "1, 2"
    assert asked.versions == "1"
    assert [line.verdict for line in asked.trigger] == ["requested", "submitted"]


def test_the_head_counts_requests_of_the_trigger_not_its_other_words() -> None:
    assert ("1", "retrainings asked for") in cards(stories.full())
    assert ("1 of 2", "claims held") in cards(stories.full())
