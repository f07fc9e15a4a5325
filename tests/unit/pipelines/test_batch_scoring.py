"""Batch scores: what serving would have answered, the same bytes each time, or a clear refusal."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper, numpy_helper

from feature_repo import catalog, ingest
from local.mlflow_server import mlflow_server
from mlplatform import signing
from mlplatform.clients.registry import Registry
from mlplatform.contracts import (
    Candidate,
    Evaluation,
    GateReport,
    GateResult,
    Interval,
    Manifest,
    ModelRef,
    TrainingSet,
    Window,
)
from mlplatform.errors import DataError, ModelError
from mlplatform.settings import RegistrySettings
from pipelines import artifacts, tasks
from pipelines.steps.batch_score import BatchScores, batch_score
from pipelines.steps.onnx_scoring import Scorer
from pipelines.steps.register import register
from pipelines.steps.split import matrix, read
from pipelines.steps.training_set import build_training_set

SPEC = catalog.load("flight_delay").spec
START = datetime(2013, 1, 1, tzinfo=UTC)
NOW = datetime(2014, 1, 1, tzinfo=UTC)
KEYS = sorted({key for entity in SPEC.entities for key in entity.keys})
Array = np.ndarray[Any, Any]


def write_model(path: Path, features: int) -> str:
    """Write a logistic model with weights of both signs; return its digest."""
    weights = np.linspace(-1, 1, features, dtype=np.float32).reshape(-1, 1) / 50
    zero = numpy_helper.from_array(np.zeros((), np.float32), "zero")
    graph = helper.make_graph(
        [
            helper.make_node("IsNaN", ["features"], ["missing"]),
            helper.make_node("Where", ["missing", "zero", "features"], ["filled"]),
            helper.make_node("MatMul", ["filled", "weights"], ["score"]),
            helper.make_node("Sigmoid", ["score"], ["probability"]),
        ],
        "model",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, features])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(weights, "weights"), zero],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(model)
    return signing.file_digest(path)


def labels(count: int = 48) -> pl.DataFrame:
    hours = range(count)
    return pl.DataFrame(
        {
            "request_id": [f"r{hour}" for hour in hours],
            **{key: ["a"] * count for key in KEYS},
            "event_timestamp": [START + timedelta(hours=hour) for hour in hours],
            "label_timestamp": [START + timedelta(hours=hour + 3) for hour in hours],
            SPEC.label.name: [hour % 2 for hour in hours],
            **{name: ["x"] * count for name in SPEC.slices.columns if name not in KEYS},
        },
        schema_overrides={
            "event_timestamp": pl.Datetime("us", "UTC"),
            "label_timestamp": pl.Datetime("us", "UTC"),
            SPEC.label.name: pl.Int8,
        },
    )


def join(rows: pl.DataFrame) -> pl.DataFrame:
    hours = pl.col("event_timestamp").dt.epoch("s") / 3600 % 100
    return rows.with_columns(temp=pl.when(hours % 7 > 0).then(hours).cast(pl.Float32))


def request(columns: Any) -> dict[str, Array]:
    return {"twice": 2 * columns["temp"]}


@pytest.fixture
def score(tmp_path: Path) -> Callable[..., BatchScores]:
    """Scores with a model of two features; arguments replace those of the step."""
    path = tmp_path / "model.onnx"
    digest = write_model(path, 2)
    manifest = Manifest(
        name=SPEC.name,
        version=3,
        run_id="run",
        model_digest=digest,
        data_digest="d" * 64,
        git_commit="0123abc",
        feature_service="flights_v1",
        features=("twice", "temp"),
        created_at=START,
    )
    ref = ModelRef(
        name=SPEC.name, version=3, digest=digest, uri="models:/x", signature="e" * 64,
        run_id="run", created=False, registered_at=START,
    )  # fmt: skip

    def work(rows: pl.DataFrame, **changes: Any) -> BatchScores:
        options: dict[str, Any] = {
            "window": Window(start=START, end=START + timedelta(hours=24)),
            "join": join,
            "request": request,
            "request_inputs": ("temp",),
            "model": path,
            "ref": ref,
            "manifest": manifest,
            "out": tmp_path / "out",
            "git_commit": "4567def",
            "now": NOW,
        }
        return batch_score(SPEC, rows, **(options | changes))

    return work


def scores_in(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / json.loads((folder / "manifest.json").read_text())["file"])


def test_scores_are_those_that_the_evaluation_computes_from_the_training_set(
    score: Callable[..., BatchScores], tmp_path: Path
) -> None:
    training_set = build_training_set(
        SPEC,
        labels(),
        join=join,
        request=request,
        request_inputs=["temp"],
        groups={"weather": ("temp",), "request": ("twice",)},
        as_of=START + timedelta(days=9),
        out=tmp_path,
    )
    rows = read(training_set).filter(pl.col("event_timestamp") < START + timedelta(hours=24))
    expected = Scorer(tmp_path / "model.onnx", 2).probability(matrix(rows, ("twice", "temp")))
    score(labels())
    found = scores_in(tmp_path / "out")

    assert rows["request_id"].to_list() == found["request_id"].to_list()
    assert np.array_equal(expected, found["score"].to_numpy())


def test_the_file_holds_keys_time_score_and_decision(
    score: Callable[..., BatchScores], tmp_path: Path
) -> None:
    result = score(labels())
    rows = scores_in(tmp_path / "out")
    decided = rows["score"] >= SPEC.serving.decision_threshold

    assert ["request_id", *KEYS, "event_timestamp", "score", "decision"] == [
        "request_id",
        *sorted(rows.columns[1 : 1 + len(KEYS)]),
        *rows.columns[1 + len(KEYS) :],
    ]
    assert decided.to_list() == rows["decision"].to_list()
    assert (24, decided.sum()) == (result.rows, result.acted)
    assert 0 < result.acted < 24


def test_the_manifest_says_what_was_scored_with_what(
    score: Callable[..., BatchScores], tmp_path: Path
) -> None:
    result = score(labels())
    content = (tmp_path / "out" / result.file).read_bytes()

    assert result == BatchScores.model_validate_json(
        (tmp_path / "out" / "manifest.json").read_bytes()
    )
    assert hashlib.sha256(content).hexdigest() == result.sha256
    assert (SPEC.name, 3, "flights_v1", "e" * 64, "4567def", NOW) == (
        result.model,
        result.version,
        result.feature_service,
        result.signature,
        result.git_commit,
        result.created_at,
    )


def test_rows_are_scored_whether_their_label_is_known_or_not(
    score: Callable[..., BatchScores], tmp_path: Path
) -> None:
    unknown = labels().with_columns(
        pl.lit(None, pl.Int8).alias(SPEC.label.name),
        label_timestamp=pl.lit(None, pl.Datetime("us", "UTC")),
    )
    score(labels())
    known = scores_in(tmp_path / "out")
    score(unknown)

    assert known.equals(scores_in(tmp_path / "out"))


def test_scoring_again_changes_no_byte(score: Callable[..., BatchScores], tmp_path: Path) -> None:
    first = score(labels())
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    second = score(labels(), now=NOW + timedelta(days=1), git_commit="89ab012")

    assert first == second
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}


def test_a_damaged_file_of_scores_is_written_again(
    score: Callable[..., BatchScores], tmp_path: Path
) -> None:
    first = score(labels())
    path = tmp_path / "out" / first.file
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    score(labels())

    assert whole == path.read_bytes()


def test_other_scores_replace_those_before(
    score: Callable[..., BatchScores], tmp_path: Path
) -> None:
    score(labels())
    second = score(labels(), join=lambda rows: join(rows).with_columns(pl.col("temp") + 1))

    assert {"manifest.json", second.file} == {path.name for path in (tmp_path / "out").iterdir()}


def test_an_empty_window_is_refused_with_the_times_that_there_are(
    score: Callable[..., BatchScores], tmp_path: Path
) -> None:
    late = Window(start=START + timedelta(days=9), end=START + timedelta(days=10))
    with pytest.raises(DataError, match="2013-01-01 00:00 to 2013-01-02 23:00; choose another"):
        score(labels(), window=late)
    assert not (tmp_path / "out").exists()


def test_no_rows_at_all_are_refused(score: Callable[..., BatchScores]) -> None:
    with pytest.raises(DataError, match="there are none at all"):
        score(labels(0))


def test_a_join_that_loses_rows_is_refused(score: Callable[..., BatchScores]) -> None:
    with pytest.raises(DataError, match="returned 23 rows for 24, "):
        score(labels(), join=lambda rows: join(rows).head(-1))


def test_a_feature_that_the_service_no_longer_has_is_named(
    score: Callable[..., BatchScores],
) -> None:
    with pytest.raises(DataError, match="reads twice, which feature service flights_v1"):
        score(labels(), request=lambda _: {})


def test_a_model_of_another_width_is_refused(
    score: Callable[..., BatchScores], tmp_path: Path
) -> None:
    write_model(tmp_path / "wide.onnx", 3)
    with pytest.raises(ModelError, match="takes 3 features but the rows have 2"):
        score(labels(), model=tmp_path / "wide.onnx")


def test_a_folder_with_something_else_in_it_is_refused(
    score: Callable[..., BatchScores], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text('{"mine": 1}')
    with pytest.raises(DataError, match="is no manifest of scores"):
        score(labels())


@dataclass(frozen=True)
class Platform:
    """A data root with twelve days of real flights, and a registry with one signed model."""

    root: Path
    registry: Registry
    ref: ModelRef
    training_set: TrainingSet
    model: Path
    public: Path

    def score(self, model: str = "challenger", days: tuple[int, int] = (5, 7)) -> Path:
        """Run the task; return the folder of its manifest."""
        manifest = self.root / "artifact"
        start, end = (f"2013-01-{day:02d}T00:00:00Z" for day in days)
        tasks.batch_score(
            "flight_delay", "run-1", model, start, end, str(self.root / "scores"), str(manifest)
        )
        return manifest

    @property
    def trouble(self) -> str:
        record = self.root / "runs" / "flight_delay" / "run-1" / "batch_score.json"
        return str(json.loads(record.read_text())["error"])


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    root = tmp_path_factory.mktemp("platform")
    end = "2013-01-12T00:00:00Z"
    public, private = root / "key.pub", root / "key.pem"
    signing.create_key_pair(private, public)
    logger = logging.getLogger("mlplatform")
    handlers, propagate, level = logger.handlers[:], logger.propagate, logger.level
    with mlflow_server(root / "mlflow") as server, pytest.MonkeyPatch.context() as patch:
        settings = RegistrySettings(tracking_uri=server.url, timeout_seconds=10)
        patch.setenv("MLPLATFORM_DATA_ROOT", str(root))
        patch.setenv("MLPLATFORM_ARCHIVE_ROOT", str(root / "predictions"))
        patch.setenv("MLPLATFORM_LEDGER_URL", f"sqlite:///{root}/ledger.db")
        patch.setenv("MLPLATFORM_REGISTRY_TRACKING_URI", server.url)
        patch.setenv("MLPLATFORM_SIGNING_PUBLIC_KEY", str(public))
        patch.setenv("MLPLATFORM_SIGNING_PRIVATE_KEY", str(private))
        ingest.land("flight_delay", str(root), datetime.fromisoformat(end))
        tasks.build_training_set("flight_delay", end, "run-0", str(root / "training_set"))
        data = artifacts.read_training_set(root / "training_set")
        model = root / "model.onnx"
        ref = register_model(data, model, Registry(settings), signing.KeyPair(private, public))
        yield Platform(root, Registry(settings), ref, data, model, public)
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


def register_model(
    data: TrainingSet, path: Path, registry: Registry, keys: signing.KeyPair
) -> ModelRef:
    digest = write_model(path, len(data.features))
    interval = Interval(estimate=0.5, low=0.4, high=0.6)
    candidate = Candidate(
        name="logistic", role="candidate", path=path, digest=digest, features=data.features,
        params={}, trials=1, best_iteration=0, training_loss=0.5, validation_loss=0.5,
        validation_score=0.5, train_rows=1, fit_seconds=0, max_export_difference=0,
    )  # fmt: skip
    evaluation = Evaluation(
        candidate="logistic", role="candidate", window=data.window, rows=1, positive_rate=0.2,
        metrics={"pr_auc": interval},
    )  # fmt: skip
    passed = GateResult(
        gate="any", passed=True, reason="it is a test", metric="pr_auc", observed=1, required=0
    )
    return register(
        SPEC, data, candidate, evaluation, GateReport(candidate="logistic", results=(passed,)),
        registry, keys, "0123abc", path.parent / "signed", NOW,
        request_inputs=data.request_inputs,
    )  # fmt: skip


@pytest.mark.loop
def test_real_flights_get_the_scores_that_evaluation_computes(platform: Platform) -> None:
    result = artifacts.read(platform.score(), "scores", BatchScores)
    (folder,) = (platform.root / "scores" / "flight_delay" / "v1").iterdir()
    found = scores_in(folder)
    moment = pl.col("event_timestamp")
    rows = read(platform.training_set).filter(
        moment >= START + timedelta(days=4), moment < START + timedelta(days=6)
    )
    inputs = matrix(rows, platform.training_set.features)
    expected = rows.select(
        "request_id", expected=pl.Series(Scorer(platform.model, 2).probability(inputs))
    )
    both = expected.join(found, on="request_id", how="left", maintain_order="left")

    assert 1000 < both.height <= result.rows == found.height
    assert 0 == both["score"].null_count()
    assert np.array_equal(both["expected"].to_numpy(), both["score"].to_numpy())
    assert (platform.ref.digest, platform.ref.signature) == (result.digest, result.signature)
    assert "20130105T000000000000Z-20130107T000000000000Z" == folder.name


@pytest.mark.loop
def test_a_version_number_names_the_same_model_as_its_alias(platform: Platform) -> None:
    by_alias = artifacts.read(platform.score("challenger"), "scores", BatchScores)
    by_number = artifacts.read(platform.score("1"), "scores", BatchScores)

    assert by_alias == by_number


@pytest.mark.loop
@pytest.mark.parametrize(
    ("model", "days", "message"),
    [
        pytest.param("99", (5, 7), "version 99 of flight_delay", id="unknown version"),
        pytest.param("champion", (5, 7), "no version of flight_delay is 'champion'", id="alias"),
        pytest.param("1", (7, 7), "its end is not after its start", id="window without length"),
        pytest.param("1", (20, 21), "has no prediction to score", id="window without data"),
    ],
)
def test_what_cannot_be_scored_is_said(
    model: str, days: tuple[int, int], message: str, platform: Platform
) -> None:
    with pytest.raises(SystemExit):
        platform.score(model, days)
    assert message in platform.trouble


@pytest.mark.loop
@pytest.mark.parametrize("name", ["model.onnx", "profile.json", "evaluation.json"])
def test_a_model_that_was_changed_in_the_registry_is_refused(platform: Platform, name: str) -> None:
    (stored,) = (platform.root / "mlflow").rglob(f"signed/{name}")
    whole = stored.read_bytes()
    stored.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(SystemExit):
            platform.score("1", (8, 9))
    finally:
        stored.write_bytes(whole)

    assert name in platform.trouble
    assert not list((platform.root / "scores").rglob("20130108*"))
