"""Evidence: every entity counts once, on the arm of its toss, from rows and labels as they come."""

import itertools
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo import catalog
from feature_repo.predictions import part_name
from mlplatform.contracts import Rollout
from mlplatform.contracts.prediction import Prediction
from mlplatform.contracts.rollout import Counts, Moments, Pair, Phase, Routed, Share, Version
from mlplatform.contracts.usecase.operation import Guardrail
from mlplatform.errors import DataError, ServiceError
from serving.gateway.assignment import Assignment, bound
from serving.predictions.archive import _frame
from serving.rollout import sums
from serving.rollout.evidence import EvidenceReader
from tests.unit.serving.predictions.rows import make_row
from tests.unit.serving.rollout.evidence_oracle import Label, Oracle, micro

SPEC = catalog.spec("flight_delay")
BUDGET_US = 40_000
"""50 ms without the 10 ms of the network."""
START = datetime(2025, 3, 1, tzinfo=UTC)
AT = START + timedelta(hours=60)
HOUR = timedelta(hours=1)

CHAMPION, CHALLENGER = Version(version=3, digest="old"), Version(version=4, digest="new")
PLAN = SPEC.rollout.model_copy(update={"stale_hours": 24.0})
UNGUARDED = PLAN.model_copy(update={"guardrails": (Guardrail(metric="error_rate", margin=0.1),)})
ROUTES: Sequence[tuple[int, float, Phase]] = (
    (10, 0.0, "shadow"),
    (11, 0.2, "canary"),
    (12, 0.2, "canary"),  # asked for again: the stage goes on
    (14, 0.5, "canary"),
    (15, 0.8, "soak"),
    (16, 1.0, "soak"),  # as a plan without a holdback has it
    (17, 1.0, "promoted"),
    (18, 0.0, "rolled_back"),
)


def rollout_at(routes: int, **other: Any) -> Rollout:
    """Return the rollout when it had asked for so many routes."""
    asked = [
        Routed(epoch=epoch, weight=weight, shadow=1.0 - weight, phase=phase, at=START)
        for epoch, weight, phase in ROUTES[:routes]
    ]
    content: dict[str, Any] = {
        "usecase": SPEC.name,
        "number": 7,
        "challenger": CHALLENGER,
        "champion": CHAMPION,
        "plan": PLAN,
        "phase": asked[-1].phase,
        "routes": tuple(asked),
        "first_epoch": 10,
        "started_at": START,
        "entered_at": START,
        "deadline_at": START + timedelta(days=14),
    }
    return Rollout(**(content | other))


def intended(entity: str, epoch: int) -> dict[str, Any]:
    """Return who answers an entity, as a gateway says it in the row."""
    weight = {epoch: weight for epoch, weight, _ in ROUTES}.get(epoch, 0.0)
    challenged = Assignment(rollout_at(1).salt).of(entity) < bound(min(weight, 0.99))
    return {"arm": "challenger", "version": 4} if challenged else {"arm": "champion", "version": 3}


def falls_on(arm: str, epoch: int, count: int = 1) -> list[str]:
    """Return entities that an epoch's weight gives to an arm."""
    names = (f"AA|{number}" for number in itertools.count())
    found = (name for name in names if intended(name, epoch)["arm"] == arm)
    return list(itertools.islice(found, count))


_sequences = itertools.count(1)


def row(entity: str, epoch: int, hours: float = 1.0, **other: Any) -> Prediction:
    """Return a sound row, made so many hours after the rollout began."""
    time = micro(START + hours * HOUR)
    content: dict[str, Any] = {
        "usecase": SPEC.name,
        "entity": entity,
        "epoch": epoch,
        "event_time": time,
        "received_at": time,
        "degraded": False,
        "reasons": (),
    }
    number = next(_sequences) + 10**6 * (other.get("gateway") == "a")  # each counts its own rows
    return make_row(number, **(content | intended(entity, epoch) | other))


def put(root: Path, rows: Iterable[Prediction], first: int, last: int = 0, hour: int = 0) -> Path:
    """Write rows as the archiver does, or as a merge of several of its files."""
    moment = START + hour * HOUR
    name = f"{1000 * int(moment.timestamp())}-0"
    folder = root / SPEC.name / f"{moment:date=%Y-%m-%d}" / f"{moment:hour=%H}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / part_name(first, last or first)
    _frame([(name, each) for each in rows]).write_parquet(path)
    return path


def label_frame(labels: Mapping[str, Label]) -> pl.DataFrame:
    rows = [(name, each.event_at, each.known_at, each.value) for name, each in labels.items()]
    time = pl.Datetime("us", "UTC")
    columns = {"request_id": pl.String(), "event_timestamp": time, "label_timestamp": time}
    return pl.DataFrame(rows, {**columns, SPEC.label.name: pl.Int8()}, orient="row")


def reader(
    root: Path, labels: Mapping[str, Label] | None = None, at: datetime = AT
) -> EvidenceReader:
    return EvidenceReader(SPEC, root, lambda _, __: label_frame(labels or {}), lambda: at)


# --- All of it, against plain loops --------------------------------------------------------------

REASONS = ("features_late", "inference_late", "inference_down", "rules_failed")


@st.composite
def requests(draw: st.DrawFn) -> list[Prediction]:
    """Return the rows of one request: retried, repeated, shadowed, of any epoch."""
    entity = f"AA|{draw(st.integers(0, 11))}"
    epoch = draw(st.sampled_from((0, 8, 9, 10, 11, 11, 12, 14, 14, 15, 16, 17, 18, 99)))
    # Ties are common, and so are bursts within a second.
    received = micro(START) + draw(st.sampled_from((0, 1, 2, 999_999, 10**6, 3 * 10**6, 5 * 10**6)))
    gateway = draw(st.sampled_from(("a", "b")))
    name = f"r{draw(st.integers(0, 9))}"
    hours = draw(st.sampled_from((-60.0, -20.0, 0.0, 10.0, 30.0, 36.0, 37.0, 55.0, 90.0)))
    score = st.floats(0, 1, width=32)

    def outcome(arm: str) -> dict[str, Any]:
        fallback = draw(st.booleans())
        return {
            "gateway": gateway,
            "received_at": received,
            "request_id": name,
            "score": draw(score),
            "decision": draw(st.booleans()),
            "degraded": draw(st.booleans()),
            "fallback": fallback,
            "reasons": tuple(draw(st.lists(st.sampled_from(REASONS), max_size=2, unique=True))),
            "total_us": draw(st.sampled_from((900, 40_000, 40_001))),
            **({"arm": "rules", "version": 0} if fallback and arm != "shadow" else {}),
        }

    live = outcome("live")
    if draw(st.integers(0, 9)) == 0:
        live |= {"arm": draw(st.sampled_from(("champion", "challenger"))), "version": 4}
    rows = [row(entity, epoch, hours, **live) for _ in range(draw(st.sampled_from((1, 1, 1, 2))))]
    for _ in range(draw(st.sampled_from((0, 1, 1, 2)))):
        version = draw(st.sampled_from((4, 4, 4, 5)))
        shadowed = outcome("shadow") | {"arm": "shadow", "version": version}
        rows.append(row(entity, epoch, hours, **shadowed))
    return rows


LABELS = st.builds(
    lambda event, known, value: Label(
        START + event * HOUR, None if known is None else START + (event + known) * HOUR, value
    ),
    st.sampled_from((0, 10, 30, 36, 37)),
    st.sampled_from((None, 3, 23, 25, 60)),
    st.sampled_from((None, 0, 1)),
)


@settings(derandomize=True, max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    found=st.lists(requests(), max_size=40),
    labels=st.dictionaries(st.integers(0, 9).map("r{}".format), LABELS),
    routes=st.integers(1, len(ROUTES)),
    files=st.integers(1, 5),
)
def test_the_sums_are_those_of_plain_loops_however_the_rows_come(
    found: list[list[Prediction]], labels: dict[str, Label], routes: int, files: int
) -> None:
    rows = [each for request in found for each in request]
    rollout = rollout_at(routes)
    parts = [rows[number::files] for number in range(files)]

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        looks = reader(root, labels)
        for number, part in enumerate(parts, start=1):
            put(root, part, number, hour=number % 2)
            if number == 2:
                looks.read(rollout_at(1))  # with fewer rows and fewer routes
        put(root, [each for part in parts[1::2] for each in part], 2, 2 * files)  # merged
        grown, anew = looks.read(rollout), reader(root, labels).read(rollout)

    wanted = Oracle(
        rollout,
        rows,
        labels,
        AT,
        delay=timedelta(hours=24),
        budget_us=BUDGET_US,
        back=timedelta(hours=48),
    ).statistics()
    assert wanted == rounded(anew)
    assert anew == grown


def rounded(statistics: Any) -> Any:
    """Return the statistics with sums of twelve digits, as the oracle gives them."""

    def visit(value: Any) -> Any:
        if isinstance(value, Moments):
            return Moments(value.n, round(value.total, 12), round(value.squares, 12))
        if isinstance(value, msgspec.Struct):
            names = value.__struct_fields__
            return type(value)(**{name: visit(getattr(value, name)) for name in names})
        if isinstance(value, dict):
            return {name: visit(item) for name, item in value.items()}
        return tuple(map(visit, value)) if isinstance(value, tuple) else value

    return visit(statistics)


# --- One behaviour each --------------------------------------------------------------------------

CANARY = rollout_at(2)
(STABLE,), (NEW,) = falls_on("champion", 11), falls_on("challenger", 11)


def test_a_request_that_the_rules_answered_counts_for_the_arm_that_failed_it(
    tmp_path: Path,
) -> None:
    failed: dict[str, Any] = {
        "arm": "rules",
        "version": 0,
        "fallback": True,
        "reasons": ("inference_down",),
    }
    put(tmp_path, [row(NEW, 11, **failed), row(STABLE, 11)], 1)
    found = reader(tmp_path).read(CANARY)

    assert (Counts(1, 1), 0) == (found.stages[0].exposed, found.misassigned)
    for rate in ("error_rate", "fallback_rate"):
        assert Counts(0, 1) == found.stages[0].events[rate]
        assert Pair(Moments(1), Moments(1, 1.0, 1.0)) == found.stages[0].values[rate]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"arm": "challenger", "version": 4}, id="the-other-arm"),
        pytest.param({"version": 2}, id="another-version"),
    ],
)
def test_a_row_that_another_model_answered_than_the_assignment_says_is_counted(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    at_rest = [row(STABLE, epoch, **wrong) for epoch in (17, 18)]
    put(tmp_path, [row(STABLE, 11), row(STABLE, 11, **wrong), *at_rest], 1)

    assert 1 == reader(tmp_path).read(rollout_at(8)).misassigned


def test_an_entity_counts_once_however_often_it_asks(tmp_path: Path) -> None:
    slow: dict[str, Any] = {"total_us": BUDGET_US + 1}
    again = [row(NEW, 11, hours, **slow) for hours in (2, 3, 4)]
    put(tmp_path, [row(NEW, 11, 1), *again], 1)
    (stage,) = reader(tmp_path).read(CANARY).stages

    assert (Counts(0, 1), Counts(0, 1)) == (stage.exposed, stage.events["budget_overrun_rate"])
    assert Moments(1) == stage.values["budget_overrun_rate"].challenger


def test_a_burst_of_failures_counts_once_a_second_whichever_arm_it_began_on(
    tmp_path: Path,
) -> None:
    champions, challengers = falls_on("champion", 11, 3), falls_on("challenger", 11, 4)
    burst = [
        row(entity, 11, received_at=micro(START) + time, fallback=True)
        for entity, time in (
            *((entity, 1000 + number) for number, entity in enumerate(challengers[:3])),
            (champions[0], 2000),
            (champions[1], 10**6),
            (challengers[3], 10**6 + 1),
        )
    ]
    put(tmp_path, [*burst, row(champions[2], 11, 2)], 1)
    (stage,) = reader(tmp_path).read(CANARY).stages

    assert Counts(1, 1) == stage.events["fallback_rate"]
    assert Counts(3, 4) == stage.exposed
    assert Moments(4, 4.0, 4.0) == stage.values["fallback_rate"].challenger


def test_requests_of_one_moment_are_in_the_order_of_gateways_and_numbers(tmp_path: Path) -> None:
    later = row(NEW, 11, gateway="b")
    put(tmp_path, [later, row(NEW, 11, gateway="a", decision=True)], 1)
    (stage,) = reader(tmp_path).read(CANARY).stages

    assert Moments(1, 1.0, 1.0) == stage.values["decision_rate"].challenger


def test_an_entity_that_crosses_to_the_challenger_keeps_its_first_value(tmp_path: Path) -> None:
    (crosses,) = set(falls_on("champion", 11, 200)) & set(falls_on("challenger", 14, 12)[:1])
    put(tmp_path, [row(crosses, 11, decision=True), row(crosses, 14, 2, fallback=True)], 1)
    first, second = reader(tmp_path).read(rollout_at(4)).stages

    assert [(11, 0.2, Counts(1, 0)), (14, 0.5, Counts(0, 1))] == [
        (stage.epoch, stage.weight, stage.exposed) for stage in (first, second)
    ]
    assert (Moments(1, 1.0, 1.0), 0) == (
        first.values["decision_rate"].champion,
        second.values["decision_rate"].challenger.n,
    )
    assert (Counts(0, 0), Counts(0, 1)) == (
        first.events["fallback_rate"],
        second.events["fallback_rate"],
    )


def test_a_shadow_is_paired_with_the_request_that_it_saw(tmp_path: Path) -> None:
    shadow: dict[str, Any] = {"arm": "shadow", "version": 4}
    ids: list[dict[str, Any]] = [
        {"request_id": name, "received_at": micro(START) + number * 10**6}
        for name, number in (("a", 1), ("a", 1), ("b", 2), ("b", 3))
    ]
    put(
        tmp_path,
        [
            row("AA|1", 10, **ids[0]),
            row("AA|2", 10, **ids[1]),  # of one batch, whose client chose one id
            row("AA|3", 10, **ids[2], fallback=True),  # nobody showed it to the shadow
            row("AA|3", 10, **ids[3]),  # asked again
            row("AA|1", 10, **ids[0], **shadow, fallback=True),
            row("AA|2", 11, **ids[1], **shadow),  # the route has changed meanwhile
            row("AA|3", 10, **ids[3], **shadow, fallback=True),
        ],
        1,
    )
    found = reader(tmp_path).read(CANARY)

    assert Moments(3, 2.0, 2.0) == found.paired["fallback_rate"]
    assert "budget_overrun_rate" not in found.paired


def test_loss_counts_matured_labels_of_sound_answers_since_the_whole_cohort_is_known(
    tmp_path: Path,
) -> None:
    names = falls_on("challenger", 11, 5)
    scores: list[dict[str, Any]] = [{"request_id": name, "score": 0.25} for name in names]
    put(
        tmp_path,
        [
            row(names[0], 11, **scores[0]),
            row(names[1], 11, **scores[1], degraded=True),
            row(names[2], 11, **scores[2], fallback=True),
            row(names[3], 11, **scores[3]),  # no label yet
            row(names[4], 11, **scores[4]),  # known early, of a cohort that is not
            row(STABLE, 11, request_id="stable"),
        ],
        1,
    )
    old, young = START + HOUR, AT - 23 * HOUR
    labels = {name: Label(old, old + 3 * HOUR, 1) for name in names[:3]}
    labels |= {names[4]: Label(young, young, 0), "stable": Label(old + HOUR, old + HOUR, 0)}
    found = reader(tmp_path, labels).read(CANARY)

    assert Moments(1, 0.5625, 0.5625**2) == found.stages[0].values["loss"].challenger
    assert old + 24 * HOUR == found.newest["loss"]


def test_scores_that_are_no_numbers_stay_in_the_sums(tmp_path: Path) -> None:
    put(tmp_path, [row(NEW, 11, request_id="r", score=math.nan)], 1)
    label = {"r": Label(START, START, 1)}
    sums_of_loss = reader(tmp_path, label).read(CANARY).stages[0].values["loss"].challenger

    assert 1 == sums_of_loss.n
    assert math.isnan(sums_of_loss.total)


def test_only_traffic_of_its_own_keeps_a_canary_fresh(tmp_path: Path) -> None:
    shadow = row(STABLE, 10, 2, arm="shadow", version=4)
    put(tmp_path, [row(STABLE, 10, 2), shadow, row(STABLE, 11, 5)], 1)
    before, after = reader(tmp_path).read(rollout_at(1)), reader(tmp_path).read(CANARY)
    put(tmp_path, [row(NEW, 11, 4), row(NEW, 11, 1_000)], 2)  # a client's clock is ahead
    later = reader(tmp_path).read(CANARY)

    assert ({START + 2 * HOUR}, {}) == (set(before.newest.values()), after.newest)
    assert dict.fromkeys(sums.RATES, START + 4 * HOUR) == later.newest


def test_the_champion_is_compared_with_itself_before_the_split(tmp_path: Path) -> None:
    broken: dict[str, Any] = {"arm": "rules", "version": 0, "fallback": True}
    old: dict[str, Any] = {"arm": "champion", "version": 3}
    put(
        tmp_path,
        [
            row("a", 9, -1, **old),
            row("b", 9, -1, **broken),  # in an epoch that was the champion's alone
            row("c", 8, -1, **old),
            row("d", 8, -1, arm="challenger", version=5),
            row("e", 9, -49, **old),  # too long ago
            row(STABLE, 10, 0),
            row(STABLE, 11, 59, **broken),
            row(STABLE, 11, 30),  # not among the newest
        ],
        1,
    )
    found = reader(tmp_path).read(CANARY)

    assert Share(1, 3) == found.baseline["fallback_rate"]
    assert Share(1, 1) == found.recent["fallback_rate"]


def test_a_file_is_read_once_and_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    path = put(tmp_path, [row(NEW, 11)], 1)
    looks = reader(tmp_path)
    once = looks.read(CANARY)
    path.write_bytes(b"damaged")

    assert once == looks.read(CANARY)
    with pytest.raises(DataError, match=r"the prediction log of flight_delay in .* cannot be read"):
        reader(tmp_path).read(CANARY)


def test_rows_are_counted_once_after_their_files_were_merged(tmp_path: Path) -> None:
    rows = [row(STABLE, 11, arm="challenger", version=4), row(NEW, 11)]
    small = [put(tmp_path, [each], number) for number, each in enumerate(rows, start=1)]
    looks = reader(tmp_path)
    before = looks.read(CANARY)
    put(tmp_path, rows, 1, 2)

    assert before == looks.read(CANARY)
    for path in small:
        path.unlink()
    assert before == looks.read(CANARY)
    assert 1 == before.misassigned


def test_another_rollout_is_counted_anew(tmp_path: Path) -> None:
    put(tmp_path, [row(NEW, 11), row(STABLE, 11)], 1)
    looks = reader(tmp_path)
    looks.read(CANARY)
    other = rollout_at(2, number=8)

    assert reader(tmp_path).read(other) == looks.read(other)
    assert 8 == looks.read(other).number


def test_hours_that_had_ended_before_any_row_counts_are_not_opened(tmp_path: Path) -> None:
    put(tmp_path, [row(NEW, 11)], 2)
    put(tmp_path, [], 1, hour=-50).write_bytes(b"damaged")

    assert Counts(0, 1) == reader(tmp_path).read(CANARY).stages[0].exposed


def test_before_the_first_row_there_is_nothing(tmp_path: Path) -> None:
    found = reader(tmp_path).read(CANARY)

    assert ({}, Counts(), 0) == (found.newest, found.stages[0].exposed, found.misassigned)


def fails(_: datetime, __: datetime) -> pl.DataFrame:
    raise ServiceError("the warehouse is away")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param(fails, "the warehouse is away", id="the-source-fails"),
        pytest.param(
            lambda _, __: label_frame({}).drop("label_timestamp"), "label_timestamp", id="a-column"
        ),
        pytest.param(
            lambda _, __: pl.concat(2 * [label_frame({"r": Label(START, START, 1)})]),
            "name 'r' and 0 other requests more than once",
            id="twice",
        ),
    ],
)
def test_labels_that_cannot_be_used_are_said_and_cost_nothing_but_the_loss(
    tmp_path: Path, labels: Callable[[datetime, datetime], pl.DataFrame], message: str
) -> None:
    put(tmp_path, [row(NEW, 11)], 1)
    looks = EvidenceReader(SPEC, tmp_path, labels, lambda: AT)

    guarded, unguarded = looks.read(CANARY), looks.read(rollout_at(2, plan=UNGUARDED))

    assert message in guarded.unread
    assert msgspec.structs.replace(guarded, unread="") == unguarded
    assert {*sums.RATES} == {*unguarded.stages[0].values}


@pytest.mark.parametrize(
    ("first", "since"),
    [
        pytest.param(5, START + 5 * HOUR, id="since-the-first-request"),
        pytest.param(-1_000, START - 48 * HOUR, id="whatever-time-a-client-made-up"),
    ],
)
def test_labels_are_asked_for_since_the_rollouts_first_request(
    tmp_path: Path, first: float, since: datetime
) -> None:
    asked = []

    def labels(start: datetime, now: datetime) -> pl.DataFrame:
        asked.append((start, now))
        return label_frame({})

    put(tmp_path, [row("a", 9, -3), row(NEW, 11, first), row(STABLE, 11, 6)], 1)
    EvidenceReader(SPEC, tmp_path, labels, lambda: AT).read(CANARY)

    assert [(since, AT)] == asked


def test_the_source_of_labels_is_asked_once_a_minute_however_often_one_looks(
    tmp_path: Path,
) -> None:
    asked: list[datetime] = []
    now = [AT]

    def labels(_: datetime, at: datetime) -> pl.DataFrame:
        asked.append(at)
        return label_frame({})

    put(tmp_path, [row(NEW, 11)], 1)
    looks = EvidenceReader(SPEC, tmp_path, labels, lambda: now[0])
    for seconds in (0, 1, 59, 60, 61, -5):  # a clock that goes back asks as well
        now[0] = AT + timedelta(seconds=seconds)
        looks.read(CANARY)

    assert [0, 60, -5] == [(at - AT).total_seconds() for at in asked]
