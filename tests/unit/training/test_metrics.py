"""Metrics agree with scikit-learn under any weights; intervals cover what they say."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from feature_repo.metrics import (
    Resamples,
    by_day,
    calibration_curve,
    estimates,
    measure,
    precision_recall_curve,
    weighted,
)
from mlplatform.errors import DataError


def _times(days: int, per_day: int) -> pl.Series:
    start = datetime(2013, 6, 1, tzinfo=UTC)
    times = [
        start + timedelta(days=day, minutes=row) for day in range(days) for row in range(per_day)
    ]
    return pl.Series(times, dtype=pl.Datetime("us", "UTC"))


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), levels=st.sampled_from([3, 20, 10**6]))
def test_metrics_equal_scikit_learn_under_row_weights_also_with_ties(
    seed: int, levels: int
) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(4, 80))
    labels = np.append(rng.integers(0, 2, count - 2), [0, 1]).astype(np.int8)
    scores = (rng.integers(1, levels, count) / levels).astype(np.float64)
    weights = rng.multinomial(3 * count, np.full(count, 1 / count)).astype(np.float64)
    weights[-2:] += 1  # both classes have weight

    actual = weighted(labels, scores, [weights[None, :]])

    assert actual["pr_auc"][0] == pytest.approx(
        average_precision_score(labels, scores, sample_weight=weights)
    )
    assert actual["roc_auc"][0] == pytest.approx(
        roc_auc_score(labels, scores, sample_weight=weights)
    )
    clipped = np.clip(scores, np.finfo(np.float32).eps, 1 - np.finfo(np.float32).eps)
    assert actual["log_loss"][0] == pytest.approx(log_loss(labels, clipped, sample_weight=weights))


def test_weights_count_rows_as_if_they_were_repeated(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 2, 60).astype(np.int8)
    scores = rng.random(60)
    weights = rng.integers(0, 4, 60)

    repeated = estimates(
        np.repeat(labels, weights), np.repeat(scores, weights), ["pr_auc", "roc_auc", "log_loss"]
    )

    actual = weighted(labels, scores, [weights[None, :].astype(np.float32)], list(repeated))

    assert repeated == pytest.approx({metric: value[0] for metric, value in actual.items()})


def test_calibration_error_is_the_mean_gap_of_ten_equal_bins(rng: np.random.Generator) -> None:
    scores = rng.permutation(np.linspace(0.01, 0.99, 200))
    labels = (rng.random(200) < scores**2).astype(np.int8)
    order = np.argsort(scores)
    expected = np.mean(
        [abs(scores[part].mean() - labels[part].mean()) for part in np.split(order, 10)]
    )

    assert expected == pytest.approx(estimates(labels, scores)["calibration_error"])


def test_equal_scores_share_a_bin_so_that_the_order_of_rows_does_not_matter() -> None:
    labels = np.repeat([0, 1], [75, 25]).astype(np.int8)

    assert estimates(labels, np.full(100, 0.25))["calibration_error"] == pytest.approx(0.0)
    assert len(calibration_curve(labels, np.full(100, 0.25))) == 1


def test_a_certain_and_wrong_probability_costs_a_bounded_loss() -> None:
    loss = estimates(np.array([0, 1], dtype=np.int8), np.array([1.0, 1.0]), ["log_loss"])

    assert loss["log_loss"] == pytest.approx(-np.log(np.finfo(np.float32).eps) / 2, rel=1e-6)


def test_areas_are_undefined_and_not_zero_when_a_resample_lacks_a_class() -> None:
    labels = np.array([0, 0, 1], dtype=np.int8)
    scores = np.array([0.1, 0.2, 0.9])

    actual = weighted(labels, scores, [np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])])

    assert np.isnan(actual["pr_auc"]).tolist() == [True, True]
    assert np.isnan(actual["roc_auc"]).tolist() == [True, True]
    assert np.isfinite(actual["log_loss"]).all()


def test_no_interval_is_given_when_many_resamples_lack_a_class() -> None:
    labels = np.zeros(60, dtype=np.int8)
    labels[:6] = 1  # all positives on the first of six days: a third of resamples miss it
    measured = measure(labels, np.linspace(0.9, 0.1, 60), by_day(_times(6, 10), seed=1))

    assert measured["pr_auc"].interval() is None
    assert measured["log_loss"].interval() is not None


def test_a_model_never_differs_from_itself(rng: np.random.Generator) -> None:
    labels, scores = rng.integers(0, 2, 200).astype(np.int8), rng.random(200)
    resamples = by_day(_times(10, 20), seed=3)

    gain = measure(labels, scores, resamples)["pr_auc"].gain_over(
        measure(labels, scores, resamples)["pr_auc"]
    )

    assert gain is not None
    assert (0.0, 0.0, 0.0) == (gain.estimate, gain.low, gain.high)


@pytest.mark.parametrize("metric", ["pr_auc", "roc_auc", "log_loss", "calibration_error"])
def test_a_positive_gain_means_better_whichever_way_the_metric_points(
    metric: str, rng: np.random.Generator
) -> None:
    truth = rng.random(2000)
    labels = (rng.random(2000) < truth).astype(np.int8)
    resamples = by_day(_times(20, 100), seed=3)
    good = measure(labels, truth, resamples)
    bad = measure(labels, np.clip(1 - truth, 0.01, 0.99), resamples)

    gain = good[metric].gain_over(bad[metric])  # type: ignore[index]

    assert gain is not None
    assert gain.low > 0


def test_pairing_narrows_the_interval_of_a_difference(rng: np.random.Generator) -> None:
    truth = rng.random(3000)
    labels = (rng.random(3000) < truth).astype(np.int8)
    resamples = by_day(_times(30, 100), seed=5)
    ours = measure(labels, truth, resamples, ["log_loss"])["log_loss"]
    theirs = measure(
        labels, np.clip(truth + rng.normal(0, 0.02, 3000), 0.01, 0.99), resamples, ["log_loss"]
    )["log_loss"]
    paired, alone = ours.gain_over(theirs), ours.interval()

    assert paired is not None
    assert alone is not None
    assert paired.high - paired.low < (alone.high - alone.low) / 3


def test_day_intervals_cover_the_truth_where_row_intervals_do_not() -> None:
    """Each day has its own level: rows of a day are not independent."""
    rng = np.random.default_rng(11)
    days, per_day, repeats = 30, 20, 100
    times = _times(days, per_day)
    covered = {"days": 0, "rows": 0}
    # Constant 0.3 against rates that vary by day, with mean 0.3: the expected loss is exact.
    truth = -(0.3 * np.log(0.3) + 0.7 * np.log(0.7))
    for repeat in range(repeats):
        rates = rng.beta(1.5, 3.5, days)
        labels = (rng.random((days, per_day)) < rates[:, None]).astype(np.int8).ravel()
        scores = np.full(days * per_day, 0.3)
        by_rows = Resamples(
            np.arange(days * per_day),
            rng.multinomial(
                days * per_day, np.full(days * per_day, 1 / (days * per_day)), size=200
            ).astype(np.float32),
        )
        for name, resamples in {"days": by_day(times, repeat, 200), "rows": by_rows}.items():
            interval = measure(labels, scores, resamples, ["log_loss"])["log_loss"].interval()
            assert interval is not None
            covered[name] += interval.low <= truth <= interval.high

    assert covered["days"] / repeats > 0.87
    assert covered["rows"] / repeats < 0.75


def test_equal_seeds_draw_equal_days() -> None:
    times = _times(10, 3)

    assert np.array_equal(by_day(times, 1).counts, by_day(times, 1).counts)
    assert not np.array_equal(by_day(times, 1).counts, by_day(times, 2).counts)


def test_rows_of_one_utc_day_are_drawn_together() -> None:
    late = datetime(2013, 6, 1, 23, 59, tzinfo=UTC)
    days = [late + timedelta(days=day) for day in range(5)]
    times = pl.Series([*days, late + timedelta(minutes=2)], dtype=pl.Datetime("us", "UTC"))
    resamples = by_day(times, seed=1)

    assert [0, 1, 2, 3, 4, 1] == resamples.day.tolist()
    assert (resamples.counts.sum(axis=1) == 5).all()


def test_fewer_than_five_days_are_refused_with_what_to_change() -> None:
    with pytest.raises(DataError, match=r"rows on 4 days.*test_days higher"):
        by_day(_times(4, 10), seed=1)


def test_blocks_of_resamples_give_what_one_block_gives(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, scores = rng.integers(0, 2, 300).astype(np.int8), rng.random(300)
    resamples = by_day(_times(10, 30), seed=2, count=50)
    whole = weighted(labels, scores, resamples.blocks())
    monkeypatch.setattr("feature_repo.metrics._BLOCK", 7 * 300)

    parts = weighted(labels, scores, resamples.blocks())

    assert all(np.allclose(whole[metric], parts[metric]) for metric in whole)


def test_the_precision_recall_curve_ends_at_full_recall_with_few_points(
    rng: np.random.Generator,
) -> None:
    labels, scores = rng.integers(0, 2, 5000).astype(np.int8), rng.random(5000)
    points = precision_recall_curve(labels, scores)

    assert len(points) <= 100
    assert points[-1].x == 1.0
    assert points[-1].y == pytest.approx(labels.mean(), abs=0.01)
    assert [point.x for point in points] == sorted(point.x for point in points)
