"""Metrics of served models on matured labels, and what their scores promised before."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from feature_repo import predictions
from mlplatform import spec as specs
from mlplatform.contracts import Evaluation, Interval, UseCase, Window
from mlplatform.errors import DataError
from monitoring.estimate import estimate, expected, hindsight, keep, kept, track_record
from monitoring.performance import compare, performance

START: Final = datetime(2013, 6, 1, tzinfo=UTC)
TIME: Final = pl.Datetime("us", "UTC")


@pytest.fixture(scope="module")
def spec() -> UseCase:
    root = Path(__file__).resolve().parents[3]
    return specs.load(root / "usecases" / "flight_delay" / "usecase.yaml")


def window(days: float) -> Window:
    return Window(start=START, end=START + timedelta(days=days))


def registered(pr_auc: float, rate: float, half_width: float = 0.005) -> Evaluation:
    interval = Interval(estimate=pr_auc, low=pr_auc - half_width, high=pr_auc + half_width)
    return Evaluation(
        candidate="xgboost",
        role="candidate",
        window=window(31),
        rows=10_000,
        positive_rate=rate,
        metrics={"pr_auc": interval},
    )


def served(
    scores: Any, days: float, version: int = 1, arm: str = "champion", **columns: Any
) -> pl.DataFrame:
    """Rows of the log spread evenly over days, named r0, r1, …"""
    count = len(scores)
    times = [START + timedelta(days=days * row / count) for row in range(count)]
    fixed = {
        "gateway": ["g"] * count,
        "sequence": range(count),
        "request_id": [f"r{row}" for row in range(count)],
        "event_time": pl.Series(times, dtype=TIME),
        "received_at": pl.Series(times, dtype=TIME),
        "entity": [f"e{row}" for row in range(count)],
        "arm": [arm] * count,
        "version": [version] * count,
        "score": pl.Series(scores, dtype=pl.Float64),
        "degraded": [False] * count,
        "fallback": [False] * count,
    }
    rows = pl.DataFrame({**fixed, **columns})
    return rows.cast({name: predictions.SCHEMA[name] for name in rows.columns})


def labels_of(rows: pl.DataFrame, late: Any, hours: float = 2) -> pl.DataFrame:
    return rows.select(
        "request_id",
        event_timestamp="event_time",
        label_timestamp=pl.col("event_time") + timedelta(hours=hours),
        late=pl.Series(late, dtype=pl.Int8),
    )


def world(count: int, seed: int, low: float = 0.02, high: float = 0.9) -> tuple[Any, Any]:
    """Calibrated scores and their labels."""
    rng = np.random.default_rng(seed)
    scores = low + (high - low) * rng.beta(0.8, 2.5, count)
    return scores, (rng.random(count) < scores).astype(np.int8)


def at_rate(labels: Any, scores: Any, rate: float) -> float:
    share = labels.mean()
    weight = np.where(labels == 1, rate / share, (1 - rate) / (1 - share))
    return float(average_precision_score(labels, scores, sample_weight=weight))


LATER: Final = START + timedelta(days=60)


def test_metrics_are_those_of_evaluation_on_the_rows_that_count(spec: UseCase) -> None:
    scores, late = world(2_000, 1)
    rows = served(scores, 10)

    found = performance(
        spec,
        rows,
        labels_of(rows, late),
        version=1,
        registered=None,
        window=window(10),
        as_of=LATER,
    )
    values = {item.metric: item for item in found.metrics}

    assert average_precision_score(late, scores) == pytest.approx(values["pr_auc"].value)
    assert roc_auc_score(late, scores) == pytest.approx(values["roc_auc"].value)
    assert all(item.interval is not None for item in found.metrics)
    assert late.mean() == pytest.approx(found.cohort.positive_rate)
    assert ("inconclusive", 1.0) == (found.verdict, found.cohort.maturity)


def test_every_request_is_in_exactly_one_number_of_the_cohort(spec: UseCase) -> None:
    scores, late = world(200, 2)
    rows = served(scores, 10).with_columns(
        row=pl.int_range(pl.len()),
    )
    rows = rows.with_columns(
        degraded=pl.col("row") < 10,
        fallback=pl.col("row").is_between(5, 20),
        score=pl.when(pl.col("row") == 30).then(float("nan")).otherwise("score"),
        version=pl.when(pl.col("row").is_between(5, 20)).then(0).otherwise("version"),
        arm=pl.when(pl.col("row").is_between(5, 20)).then(pl.lit("rules")).otherwise("arm"),
    ).drop("row")
    again = rows.tail(50).with_columns(
        sequence=pl.col("sequence") + 1_000,
        received_at=pl.col("received_at") + timedelta(minutes=1),
        score=pl.lit(0.0),
    )
    known = labels_of(rows, late).with_columns(
        late=pl.when(pl.int_range(pl.len()) == 40).then(None).otherwise("late")
    )

    cohort = performance(
        spec,
        pl.concat([again, rows]),
        known,
        version=1,
        registered=None,
        window=window(10),
        as_of=START + timedelta(days=6),
    ).cohort

    assert 200 == cohort.requests
    assert (5, 16, 1, 1) == (cohort.degraded, cohort.fallback, cohort.unscored, cohort.unlabelled)
    # A label counts from 24 hours on: five of ten days are due, one row a moment later.
    assert 99 == cohort.open
    assert cohort.requests == (
        cohort.degraded + cohort.fallback + cohort.unscored + cohort.open + cohort.unlabelled
        + cohort.measured
    )  # fmt: skip


@pytest.mark.parametrize(
    ("before", "verdict"), [(0.12, "loss"), (0.0, "no_loss"), (0.05, "inconclusive")], ids=str
)
def test_a_verdict_says_only_what_the_interval_says(
    spec: UseCase, before: float, verdict: str
) -> None:
    scores, late = world(12_000, 3)
    rows, rate = served(scores, 30), 0.3
    reference = registered(at_rate(late, scores, rate) + before, rate)

    found = performance(
        spec, rows, labels_of(rows, late), version=1, registered=reference, window=window(30),
        as_of=LATER,
    )  # fmt: skip
    (loss,) = found.losses

    assert verdict == found.verdict
    assert loss.loss is not None
    assert before == pytest.approx(loss.loss.estimate, abs=1e-6)
    assert loss.loss.low < before < loss.loss.high
    assert "pr_auc" in found.reason


def test_a_season_with_fewer_late_flights_is_no_loss_of_the_model(spec: UseCase) -> None:
    """The same model and ranking; half of the positives are gone, so plain precision falls."""
    scores, late = world(16_000, 4)
    drop = (late == 1) & (np.random.default_rng(5).random(len(late)) < 0.6)
    rows = served(scores[~drop], 30)
    reference = registered(float(average_precision_score(late, scores)), float(late.mean()))

    found = performance(
        spec, rows, labels_of(rows, late[~drop]), version=1, registered=reference,
        window=window(30), as_of=LATER,
    )  # fmt: skip
    plain = next(item.value for item in found.metrics if item.metric == "pr_auc")

    assert reference.metrics["pr_auc"].estimate - plain > 0.1
    assert found.losses[0].live.value == pytest.approx(
        reference.metrics["pr_auc"].estimate, abs=0.02
    )
    assert "no_loss" == found.verdict


@pytest.mark.parametrize(
    ("count", "days", "at", "verdict"),
    [
        (0, 10, 60, "inconclusive"),
        (3, 10, 60, "inconclusive"),
        (2_000, 3, 60, "inconclusive"),
        (2_000, 10, 0.5, "immature"),
        (2_000, 10, 3, "immature"),
    ],
    ids=["empty", "tiny", "three days", "no label yet", "two days matured"],
)
def test_windows_without_evidence_have_a_type_and_a_reason(
    spec: UseCase, count: int, days: float, at: float, verdict: str
) -> None:
    scores, late = world(count, 6)
    rows = served(scores, days)

    found = performance(
        spec, rows, labels_of(rows, late), version=1, registered=registered(0.4, 0.25),
        window=window(days), as_of=START + timedelta(days=at),
    )  # fmt: skip

    assert verdict == found.verdict
    assert found.reason


def test_one_class_only_is_inconclusive_and_never_no_loss(spec: UseCase) -> None:
    rows = served(np.linspace(0.1, 0.9, 500), 10)

    found = performance(
        spec, rows, labels_of(rows, np.zeros(500)), version=1, registered=registered(0.0, 0.25),
        window=window(10), as_of=LATER,
    )  # fmt: skip

    assert "inconclusive" == found.verdict
    assert "pr_auc cannot be compared" in found.reason


def test_labels_that_stay_away_are_a_fault_and_no_loss(spec: UseCase) -> None:
    scores, late = world(4_000, 7)
    rows = served(scores, 20)
    known = labels_of(rows, late).filter(pl.col("late") == 0)  # only what is known early

    found = performance(
        spec,
        rows,
        known,
        version=1,
        registered=registered(0.9, 0.3),
        window=window(20),
        as_of=LATER,
    )

    assert "inconclusive" == found.verdict
    assert "check the source of the labels" in found.reason


def test_a_request_that_the_labels_name_twice_is_refused(spec: UseCase) -> None:
    rows = served([0.1, 0.9], 1)
    twice = pl.concat([labels_of(rows, [0, 1])] * 2)

    with pytest.raises(DataError, match=r"'r\d' and 1 other requests more than once"):
        performance(spec, rows, twice, version=1, registered=None, window=window(1), as_of=LATER)


def test_a_better_shadow_is_found_on_the_requests_that_both_saw(spec: UseCase) -> None:
    scores, late = world(6_000, 8)
    noise = np.random.default_rng(9).normal(0, 0.12, len(scores))
    champion = served(np.clip(scores + noise, 0.001, 0.999), 20)
    shadow = served(scores, 20, version=2, arm="shadow", sequence=range(10_000, 16_000))
    half = shadow.filter(pl.int_range(pl.len()) % 2 == 0)

    def compared(ours: int, theirs: int) -> Any:
        return compare(
            spec, pl.concat([champion, half]), labels_of(champion, late), champion=ours,
            challenger=theirs, window=window(20), as_of=LATER,
        )  # fmt: skip

    found, swapped = compared(1, 2), compared(2, 1)
    gain = {item.metric: item.value for item in found.gains}["pr_auc"]
    of_half = slice(None, None, 2)
    expected_gain = average_precision_score(late[of_half], scores[of_half]) - (
        average_precision_score(late[of_half], champion["score"].to_numpy()[of_half])
    )

    assert 3_000 == found.cohort.requests == found.cohort.measured
    assert expected_gain == pytest.approx(gain)
    assert ("better", "worse") == (found.verdict, swapped.verdict)


def test_a_version_does_not_differ_from_itself(spec: UseCase) -> None:
    scores, late = world(1_000, 10)
    champion = served(scores, 10)
    shadow = served(scores, 10, version=2, arm="shadow")

    found = compare(
        spec, pl.concat([champion, shadow]), labels_of(champion, late), champion=1, challenger=2,
        window=window(10), as_of=LATER,
    )  # fmt: skip

    assert {0.0} == {item.value for item in found.gains}
    assert "inconclusive" == found.verdict


@pytest.mark.parametrize(("low", "high"), [(0.02, 0.9), (0.3, 0.6)], ids=["sharp", "unsure"])
def test_calibrated_scores_promise_what_comes_true(spec: UseCase, low: float, high: float) -> None:
    scores, late = world(20_000, 11, low, high)
    rows = served(scores, 20)
    said = estimate(spec, rows, version=1, registered=None, window=window(20), as_of=START)
    true = performance(
        spec,
        rows,
        labels_of(rows, late),
        version=1,
        registered=None,
        window=window(20),
        as_of=LATER,
    )

    found = hindsight(said, true)

    assert {"pr_auc", "roc_auc", "log_loss"} == set(found.errors)
    assert all(abs(error) < 0.015 for error in found.errors.values())
    assert scores.mean() == pytest.approx(said.cohort.positive_rate)


def test_inputs_on_which_the_model_is_unsure_are_an_expected_loss_before_any_label(
    spec: UseCase,
) -> None:
    sure, late = world(8_000, 12)
    rate = float(late.mean())
    reference = registered(float(average_precision_score(late, sure)), rate)

    def verdict(scores: Any) -> str:
        rows = served(scores, 20)
        return estimate(
            spec, rows, version=1, registered=reference, window=window(20), as_of=START
        ).verdict

    assert "no_loss" == verdict(sure)
    assert "loss" == verdict(rate + 0.2 * (sure - rate))


def test_an_estimate_is_blind_to_a_changed_relation_and_hindsight_says_so(
    spec: UseCase, tmp_path: Path
) -> None:
    scores, late = world(6_000, 13)
    rows = served(scores, 20)
    said = estimate(spec, rows, version=1, registered=None, window=window(20), as_of=START)
    flipped = labels_of(rows, np.random.default_rng(14).permutation(late))
    true = performance(
        spec, rows, flipped, version=1, registered=None, window=window(20), as_of=LATER
    )
    found = hindsight(said, true)
    keep(tmp_path, found.model_copy(update={"realised": None, "errors": {}}))
    keep(tmp_path, found)  # in the place of the first

    assert (found,) == kept(tmp_path, spec.name, 1)
    assert () == kept(tmp_path, spec.name, 2)
    record = {item.metric: item for item in track_record(kept(tmp_path, spec.name, 1))}
    assert record["roc_auc"].bias > 0.2
    assert record["roc_auc"].bias == record["roc_auc"].mean_absolute_error


def test_hindsight_refuses_another_window(spec: UseCase) -> None:
    rows = served([0.1], 1)
    empty = labels_of(rows, [0])
    said = estimate(spec, rows, version=1, registered=None, window=window(1), as_of=START)
    other = performance(
        spec, rows, empty, version=1, registered=None, window=window(2), as_of=LATER
    )

    with pytest.raises(DataError, match="same version and window"):
        hindsight(said, other)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(scores=st.lists(st.integers(0, 20).map(lambda n: n / 20), min_size=1, max_size=12))
def test_expected_counts_are_those_of_all_labels_weighted_by_their_probability(
    scores: list[float],
) -> None:
    """At each threshold the expected numbers of positives and hits are sums of scores."""
    times = pl.Series([START] * len(scores), dtype=TIME)
    sample = expected(pl.Series(scores, dtype=pl.Float64), times)

    for threshold in {0.0, *scores}:
        above = sample.scores >= threshold
        hits = sample.weights[above & (sample.labels == 1)].sum()

        assert sum(s for s in scores if s >= threshold) == pytest.approx(hits)
    assert len(scores) == pytest.approx(sample.weights.sum())
    assert np.mean(scores) == pytest.approx(sample.positive_rate)
