"""The simulator: traces are what they say, the driver counts rightly, peers keep their rules."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from bench.rollout import __main__ as bench
from bench.rollout import peers, tables
from bench.rollout.driver import Driver
from bench.rollout.simulate import BATCH, POLICIES, START, Outcome, simulate
from bench.rollout.traffic import BASE_RATES, DELAYS, EDGES, KINDS, Kind, Trace, edge, losses
from mlplatform.contracts.rollout import Counts, Moments, Routed, Share, Statistics

EQUAL = KINDS[0]
KIND_IDS = [kind.name for kind in KINDS]


def named(name: str) -> Kind:
    return next(kind for kind in KINDS if kind.name == name)


# --- Traffic -------------------------------------------------------------------------------------


def test_a_trace_is_the_same_however_far_one_looks_first() -> None:
    once, twice, other = (Trace(EQUAL, 0.01, (1, 2, number)) for number in (3, 3, 4))
    once.reach(100)
    twice.reach(1)
    twice.reach(100)
    other.reach(100)

    assert np.array_equal(once.counts, twice.counts)
    assert np.array_equal(once.late, twice.late)
    assert not np.array_equal(once.counts, other.counts)


@pytest.mark.parametrize("base", BASE_RATES)
@pytest.mark.parametrize("kind", KINDS, ids=KIND_IDS)
def test_a_class_is_worse_by_what_it_says(kind: Kind, base: float) -> None:
    trace = Trace(kind, base, (5,))
    trace.reach(320)
    entities, champion, challenger, slow, slower, pairs, squares = trace.counts[-1, -1]
    rate = 1.0 if kind.errors is None else kind.errors * base

    for events, expected in (
        (champion, base), (challenger, rate), (slow, base), (slower, kind.overruns * base),
    ):  # fmt: skip
        spread = math.sqrt(expected * (1 - expected) / entities)
        assert expected == pytest.approx(events / entities, abs=5 * spread + 1e-12)
    assert challenger - champion == pairs
    assert abs(pairs) <= squares < challenger + champion  # some requests fail both

    table = losses(kind)
    early, late = (float((s - table.champion).mean()) for s in (table.early, table.late))
    if kind.scores == "constant":
        assert early > 0.4
    elif kind.scores == "late":
        assert 0.0 == pytest.approx(early, abs=0.001)
        assert kind.loss == pytest.approx(0.7 * 0.0 + 0.3 * late, abs=0.001)
    else:
        assert kind.loss == pytest.approx(early, abs=0.001)
        assert early == late


def test_a_band_is_its_share_of_entities() -> None:
    trace = Trace(EQUAL, 0.001, (5,))
    trace.reach(64)
    for weight in (0.05, 0.2, 0.5, 0.95):
        for sums in (trace.counts[-1, :, 0], trace.early[-1, :, 0], trace.late[-1, :, 0]):
            spread = math.sqrt(weight * (1 - weight) / sums[-1])

            assert weight == pytest.approx(sums[edge(weight)] / sums[-1], abs=3 * spread)


# --- The stand-in of the driver ------------------------------------------------------------------


def routed(epoch: int, weight: float, shadow: float) -> Routed:
    return Routed(epoch=epoch, weight=weight, shadow=shadow, phase="canary", at=START)


SCRIPT = [routed(1, 0.0, 0.0), routed(2, 0.0, 1.0), routed(3, 0.05, 1.0), routed(4, 0.95, 0.0)]
ASKED = [0, 3, 10, 31]
"""Batch before which each is asked for."""


def driven(trace: Trace, lag: int, batches: int) -> tuple[Driver, Statistics]:
    driver = Driver(trace, lag, recent=12)
    for batch in range(batches):
        driver.serve(tuple(r for r, at in zip(SCRIPT, ASKED, strict=True) if at <= batch))
    return driver, driver.statistics(START + batches * BATCH)


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("batches", [2, 9, 20, 40, 90])
def test_the_driver_counts_what_a_sum_over_cells_counts(lag: int, batches: int) -> None:
    trace = Trace(named("better"), 0.05, (7,))
    driver, found = driven(trace, lag, batches)
    cells, early, late = (
        np.diff(np.diff(sums[: batches + 1], axis=0), axis=1)
        for sums in (trace.counts, trace.early, trace.late)
    )
    early[max(0, batches - DELAYS[0]) :] = 0  # not known yet
    late[max(0, batches - DELAYS[1]) :] = 0
    labels = early + late
    routes = [
        [r for r, at in zip(SCRIPT, ASKED, strict=True) if at == 0 or at + lag <= batch][-1]
        for batch in range(batches)
    ]
    weights = np.array([route.weight for route in routes])
    ours = np.array(EDGES) <= np.round(100 * weights)[:, None]
    shadowed = ~ours & np.array([route.shadow > 0 for route in routes])[:, None]

    assert routes[-1].epoch == driver.acknowledged
    assert sorted({weight for weight in weights if weight}) == [s.weight for s in found.stages]
    for stage in found.stages:
        here = (weights == stage.weight)[:, None]
        new, old = cells[ours & here].sum(axis=0), cells[~ours & here].sum(axis=0)
        scored, other = labels[ours & here].sum(axis=0), labels[~ours & here].sum(axis=0)
        assert Counts(int(old[0]), int(new[0])) == stage.exposed
        assert Counts(int(old[1]), int(new[2])) == stage.events["error_rate"]
        assert Counts(int(old[3]), int(new[4])) == stage.events["budget_overrun_rate"]
        for metric, theirs, mine in (
            ("error_rate", old[[0, 1, 1]], new[[0, 2, 2]]),
            ("budget_overrun_rate", old[[0, 3, 3]], new[[0, 4, 4]]),
            ("loss", other[[0, 1, 2]], scored[[0, 3, 4]]),
        ):
            assert close(theirs, stage.values[metric].champion)
            assert close(mine, stage.values[metric].challenger)
    assert close(cells[shadowed].sum(axis=0)[[0, 5, 6]], found.paired["error_rate"])
    assert close(labels[shadowed].sum(axis=0)[[0, 5, 6]], found.paired["loss"])
    first = int(np.argmax(weights > 0)) if weights.any() else batches
    champion = (cells * ~ours[:, :, None]).sum(axis=1)
    for shares, span in ((found.baseline, champion[:first]), (found.recent, champion[-12:])):
        entities, errors, _, slow = span.sum(axis=0)[:4]
        assert Share(int(errors), int(entities)) == shares["error_rate"]
        assert Share(int(slow), int(entities)) == shares["budget_overrun_rate"]


def close(expected: Sequence[float], sums: Moments) -> bool:
    return bool(np.allclose(expected, (sums.n, sums.total, sums.squares)))


def test_no_number_has_no_loss() -> None:
    _, found = driven(Trace(named("NaN output"), 0.01, (7,)), 0, 60)

    assert "loss" not in found.newest
    assert "loss" not in found.paired
    assert {0} == {stage.values["loss"].challenger.n for stage in found.stages}
    assert all(stage.values["loss"].champion.n for stage in found.stages)


# --- The peers' rules ----------------------------------------------------------------------------


def scripted(errors: Callable[[int], float], overruns: float = 0.0, kind: Kind = EQUAL) -> Trace:
    """Make a trace whose challenger errs on a share of each band's 1,000 entities, by minute."""
    trace = Trace(kind, 0.01, (1,))
    cells = np.zeros((128, len(EDGES), 7))
    cells[..., 0] = 1000
    for minute in range(len(cells)):
        cells[minute, :, 2] = round(1000 * errors(minute + 1))
        cells[minute, :, 4] = round(1000 * overruns)
    sums = np.zeros((129, len(EDGES) + 1, 7))
    sums[1:, 1:] = cells.cumsum(axis=0).cumsum(axis=1)
    trace.counts, trace.early, trace.late = sums, np.zeros_like(sums), np.zeros_like(sums)
    return trace


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        pytest.param(lambda _: 0.05, ("promoted", 40), id="at the threshold"),
        pytest.param(lambda _: 0.051, ("rolled back", 15), id="below it in every measurement"),
        pytest.param(lambda m: 0.2 if m <= 10 else 0, ("promoted", 40), id="twice"),
        pytest.param(
            lambda m: 0.2 if m in {1, 20, 33} else 0, ("promoted", 40), id="too short to be seen"
        ),
        pytest.param(
            lambda m: 0.26 if m in {1, 20, 33} else 0, ("rolled back", 35), id="three times"
        ),
    ],
)
def test_argo_fails_at_the_third_bad_measurement_of_five_minutes(
    errors: Callable[[int], float], expected: tuple[str, int]
) -> None:
    found = peers.argo(scripted(errors), 0.95)

    assert expected == (found.result, found.batches)


@pytest.mark.parametrize(
    ("errors", "overruns", "expected"),
    [
        pytest.param(lambda _: 0.01, 0.01, ("promoted", 10), id="at both thresholds"),
        pytest.param(lambda _: 0.011, 0.0, ("rolled back", 10), id="too many errors"),
        pytest.param(lambda _: 0.0, 0.011, ("rolled back", 10), id="too slow"),
        pytest.param(lambda m: 0.1 * (m <= 9), 0.0, ("promoted", 19), id="nine halts"),
        pytest.param(lambda m: 0.1 * (m % 2), 0.0, ("rolled back", 19), id="ten in all"),
    ],
)
def test_flagger_halts_at_a_failed_check_and_rolls_back_at_the_tenth(
    errors: Callable[[int], float], overruns: float, expected: tuple[str, int]
) -> None:
    found = peers.flagger(scripted(errors, overruns))

    assert expected == (found.result, found.batches)


def test_the_z_test_rolls_back_at_the_first_significant_look() -> None:
    # The 50 of 1,000 entities' errors at 5 % of traffic against none of 13,000.
    bad = peers.peeked(scripted(lambda m: 0.05 * (m > 7)), (0.05, 0.2, 0.5))
    good = peers.peeked(scripted(lambda _: 0.0), (0.05, 0.2, 0.5))

    assert ("rolled back", 8) == (bad.result, bad.batches)
    assert ("promoted", 60) == (good.result, good.batches)


def test_spoiled_answers_are_those_that_the_champion_had_got_right() -> None:
    trace = scripted(lambda _: 0.2, overruns=0.1)
    trace.counts[..., 1] = trace.counts[..., 2] / 4  # of 200 errors in a band and a minute
    trace.counts[..., 3] = trace.counts[..., 4] / 2  # of 100 overruns
    found = peers.argo(trace, 0.95)

    assert (150 + 50) * (4 * 10 + 8 * 5) == found.spoiled  # 20 % for 10 minutes, 40 % for 5
    assert 1000 * len(EDGES) * 15 == found.answers


# --- Rollouts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 3])
@pytest.mark.parametrize(
    ("kind", "result"),
    [(kind, "promoted" if kind.good or kind.good is None else "rolled back") for kind in KINDS],
    ids=KIND_IDS,
)
def test_the_core_ends_a_rollout_as_its_class_deserves(
    kind: Kind, result: str, number: int
) -> None:
    found = simulate(kind, number, seed=11)

    assert result == found.endings[0].result
    assert kind.shadow or not found.path


def test_the_same_seed_gives_the_same_rollout() -> None:
    kind = named("threefold errors, no shadow")
    once, again, other = (simulate(kind, 2, seed, keep_path=True) for seed in (3, 3, 4))

    assert once == again
    assert once.path != other.path
    assert 1.0 < once.wald < 4.0


# --- What is said of them ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "runs", "expected"),
    [
        pytest.param(0, 10_000, (0.0, 2.995e-4), id="rule of three"),
        pytest.param(5, 100, (0.01643, 0.11284), id="Clopper and Pearson's own kind"),
        pytest.param(100, 100, (0.97049, 1.0), id="all"),
    ],
)
def test_intervals_of_shares_are_exact(
    events: int, runs: int, expected: tuple[float, float]
) -> None:
    assert expected == pytest.approx(tables.interval(events, runs), rel=1e-3)


def outcomes(kind: str, results: dict[str, int], wald: float = math.nan) -> list[Outcome]:
    return [
        Outcome(kind, 0.01, (ending,) * len(POLICIES), "", wald, ())
        for result, count in results.items()
        for ending in [peers.Ending(result, 10, 1.0, 100.0)]  # type: ignore[arg-type]
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(outcomes("equal", {"promoted": 990, "rolled back": 2}), [True], id="few"),
        pytest.param(outcomes("equal", {"promoted": 99, "rolled back": 1}), [None], id="too few"),
        pytest.param(outcomes("equal", {"promoted": 90, "rolled back": 10}), [False], id="many"),
        pytest.param(outcomes("better", {"promoted": 999, "held": 1}), [True], id="power"),
        pytest.param(outcomes("better", {"promoted": 90, "held": 10}), [False], id="weak"),
        pytest.param(outcomes("slow", {"rolled back": 9, "held": 1}), [True], id="none promoted"),
        pytest.param(outcomes("slow", {"rolled back": 9999, "promoted": 1}), [False], id="one"),
        pytest.param(
            outcomes("bad on late labels", {"rolled back": 900, "held": 100}),
            [True, False],
            id="held is not rolled back",
        ),
        pytest.param(
            outcomes("threefold errors, no shadow", {"rolled back": 99}, wald=1.3),
            [True, True],
            id="soon",
        ),
        pytest.param(
            outcomes("threefold errors, no shadow", {"rolled back": 40}, wald=1.3)
            + outcomes("threefold errors, no shadow", {"held": 60}),
            [True, False],
            id="not found is later than any",
        ),
    ],
)
def test_a_requirement_is_met_as_far_as_the_runs_tell(
    found: list[Outcome], expected: list[bool | None]
) -> None:
    assert expected == [one.met for one in tables.requirements(found)]


def test_a_row_counts_each_result_once() -> None:
    found = outcomes("slow", {"rolled back": 3, "promoted": 1, "held": 2})
    whole, at_base = (
        next(row for row in tables.rows(found) if row.base == base) for base in (None, 0.01)
    )

    assert (6, 1, 3, 2, 10, 0.01) == (
        whole.runs, whole.promoted, whole.rolled_back, whole.held, whole.minutes, whole.spoiled,
    )  # fmt: skip
    assert whole.runs == at_base.runs


def test_a_tiny_run_writes_its_table_and_its_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rollout.json"
    status = bench.main(["--runs", "2", "--processes", "2", "--output", str(output)])

    found = json.loads(output.read_text())
    assert 0 == status
    assert {"seed": 1, "runs": 2} == {name: found[name] for name in ("seed", "runs")}
    assert len(KINDS) * len(POLICIES) * (1 + 2) == len(found["rows"])
    assert len(KINDS) + 2 == len(found["requirements"])
    assert "Flagger" in capsys.readouterr().out
    page = (tmp_path / "rollout.html").read_text(encoding="utf-8")
    assert all(kind.name in page for kind in KINDS)
    assert 5 <= page.count('class="plotly-graph-div"')
