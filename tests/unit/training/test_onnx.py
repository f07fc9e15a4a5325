"""Every kind's ONNX file answers like its native model, also where exports usually go wrong."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlplatform.contracts import Candidate
from mlplatform.contracts.usecase.training import ModelKind
from mlplatform.errors import ModelError, SpecError
from pipelines.models import lightgbm_trees, logistic_regression
from pipelines.models.kind import Features, Fitting, Kind, Rows
from pipelines.models.registry import KINDS
from pipelines.models.trees import round_down
from pipelines.steps.calibration import Sigmoid
from pipelines.steps.onnx_export import TOLERANCE, check, export, probes
from pipelines.steps.onnx_scoring import Scorer

KIND_NAMES: list[ModelKind] = ["logistic_regression", "xgboost", "lightgbm"]
CALIBRATION = Sigmoid(slope=0.8, intercept=-0.3)


def _rows(seed: int, count: int = 1500) -> Rows:
    """Four features: one clean, one with gaps, one of small integers, one far from 0."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 4)).astype(np.float32)
    features[:, 2] = rng.integers(-3, 4, count)
    features[:, 3] = 2013 + np.round(features[:, 3], 2)
    margin = features[:, 0] * 1.5 + (features[:, 1] > 0.3) + 0.4 * features[:, 2] - 0.5
    features[rng.random(count) < 0.2, 1] = np.nan
    labels = (rng.random(count) < 1 / (1 + np.exp(-margin))).astype(np.int8)
    return Rows(features, labels)


def _fitting(**changes: Any) -> Fitting:
    values: dict[str, Any] = {
        "params": {},
        "seed": 7,
        "max_rounds": 40,
        "early_stopping_rounds": 10,
        "positive_weight": 2.0,
    }
    return Fitting(**{**values, **changes})


@pytest.fixture(scope="module", params=KIND_NAMES)
def fitted(request: pytest.FixtureRequest) -> tuple[Kind, bytes]:
    kind = KINDS[request.param]
    return kind, kind.fit(_rows(1), _rows(2), _fitting()).native


def test_onnx_equals_native_with_missing_values_and_at_thresholds(
    fitted: tuple[Kind, bytes],
) -> None:
    kind, native = fitted
    features = _rows(3).features
    features[:300][np.random.default_rng(0).random((300, 4)) < 0.4] = np.nan  # clean columns too
    exported = export(kind, native, CALIBRATION, features)
    rows = np.concatenate([features, probes(exported.content, features)])

    expected = CALIBRATION.probability(kind.margin(native, rows))

    assert np.abs(expected - Scorer(exported.content, 1).probability(rows)).max() <= TOLERANCE
    assert exported.max_difference <= TOLERANCE
    assert np.isnan(rows).all(axis=1).any()


def test_the_file_declares_what_serving_expects_and_an_old_runtime_loads(
    fitted: tuple[Kind, bytes],
) -> None:
    kind, native = fitted
    content = export(kind, native, CALIBRATION, _rows(3).features).content
    model = onnx.load_from_string(content)

    assert 8 == model.ir_version
    assert {"": 17, "ai.onnx.ml": 3} == {item.domain: item.version for item in model.opset_import}
    assert ["features"] == [item.name for item in model.graph.input]
    assert ["probability"] == [item.name for item in model.graph.output]
    output = model.graph.output[0].type.tensor_type
    assert onnx.TensorProto.FLOAT == output.elem_type
    assert ["rows", 1] == [dim.dim_param or dim.dim_value for dim in output.shape.dim]
    assert model.doc_string == ""


def test_equal_models_have_equal_bytes(fitted: tuple[Kind, bytes]) -> None:
    kind, native = fitted
    again = kind.fit(_rows(1), _rows(2), _fitting()).native

    assert native == again
    features = _rows(3).features
    assert (
        export(kind, native, CALIBRATION, features).content
        == export(kind, again, CALIBRATION, features).content
    )


def test_a_row_alone_scores_as_it_does_in_a_batch(fitted: tuple[Kind, bytes]) -> None:
    kind, native = fitted
    features = _rows(3, 200).features
    scorer = Scorer(export(kind, native, CALIBRATION, features).content, 1)
    alone = [scorer.probability(features[row : row + 1])[0] for row in range(200)]

    assert np.allclose(scorer.probability(features), alone, atol=1e-6)


def test_an_export_that_answers_differently_is_refused_with_the_worst_row(
    fitted: tuple[Kind, bytes],
) -> None:
    kind, native = fitted

    def wrong(native: bytes) -> Any:
        del native
        other = KINDS["logistic_regression"].fit(_rows(5), _rows(6), _fitting(params={"C": 0.001}))
        return logistic_regression.nodes(other.native)

    broken = Kind(kind.suffix, kind.reserved, kind.fit, kind.margin, wrong)

    with pytest.raises(ModelError, match=r"on row \d+: native 0\.\d+, ONNX 0\.\d+, features"):
        export(broken, native, CALIBRATION, _rows(3).features)


def test_an_output_that_is_no_number_is_refused() -> None:
    rows = np.zeros((3, 1), dtype=np.float32)

    with pytest.raises(ModelError, match="on row 1"):
        check(np.array([0.1, 0.2, 0.3]), np.array([0.1, np.nan, 0.3]), rows)


def test_logistic_regression_saves_what_scikit_learn_computes() -> None:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train = _rows(1)
    pipeline = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True),
        StandardScaler(),
        LogisticRegression(C=0.1, max_iter=500),
    )
    pipeline.fit(train.features.astype(np.float64), train.labels)
    kind = KINDS["logistic_regression"]
    native = kind.fit(train, train, _fitting(params={"C": 0.1}, positive_weight=1.0)).native

    expected = pipeline.decision_function(_rows(2).features.astype(np.float64))

    assert np.allclose(expected, kind.margin(native, _rows(2).features), atol=1e-9)


@pytest.mark.parametrize("name", KIND_NAMES)
def test_a_feature_that_is_always_missing_is_no_obstacle(name: ModelKind) -> None:
    train = _rows(1)
    train.features[:, 0] = np.nan
    kind = KINDS[name]
    native = kind.fit(train, train, _fitting()).native

    assert export(kind, native, CALIBRATION, _rows(2).features).max_difference <= TOLERANCE


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_trees_without_any_split_export_as_a_constant(name: ModelKind) -> None:
    rows = Rows(np.ones((200, 2), dtype=np.float32), np.tile([0, 0, 0, 1], 50).astype(np.int8))
    kind = KINDS[name]
    native = kind.fit(rows, rows, _fitting(positive_weight=1.0)).native
    scorer = Scorer(export(kind, native, Sigmoid(), rows.features).content, 1)

    assert scorer.probability(rows.features[:1]) == pytest.approx([0.25], abs=1e-3)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_boosting_stops_early_and_keeps_the_best_rounds(name: ModelKind) -> None:
    kind = KINDS[name]
    params = {"learning_rate": 0.5}
    done = kind.fit(
        _rows(1), _rows(2), _fitting(params=params, max_rounds=400, early_stopping_rounds=5)
    )
    assert 1 <= done.rounds < 100
    nodes = kind.nodes(done.native)
    trees = onnx.helper.get_attribute_value(
        next(item for item in nodes[0].attribute if item.name == "nodes_treeids")
    )

    assert done.rounds == max(trees) + 1


@pytest.mark.parametrize("name", KIND_NAMES)
def test_class_weights_raise_the_margin_of_positives(name: ModelKind) -> None:
    kind = KINDS[name]
    plain, weighted = (
        kind.fit(_rows(1), _rows(2), _fitting(positive_weight=weight)).native for weight in (1, 8)
    )
    features = _rows(3).features

    assert kind.margin(weighted, features).mean() > kind.margin(plain, features).mean() + 1


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        pytest.param("xgboost", {"max_deph": 3}, "max_deph.*remove it", id="xgboost-unknown"),
        pytest.param("lightgbm", {"num_leafs": 3}, "num_leafs.*remove it", id="lightgbm-unknown"),
        pytest.param("xgboost", {"max_depth": -3}, "xgboost refuses.*max_depth", id="xgboost-bad"),
        pytest.param(
            "lightgbm",
            {"learning_rate": -1.0},
            "lightgbm refuses.*learning_rate",
            id="lgbm-bad",
        ),
        pytest.param(
            "logistic_regression", {"CC": 1.0}, "logistic_regression refuses.*CC", id="lr-unknown"
        ),
        pytest.param(
            "logistic_regression", {"C": -1.0}, "logistic_regression refuses.*'C'", id="lr-bad"
        ),
    ],
)
def test_a_parameter_that_the_library_refuses_is_named(
    name: ModelKind, params: dict[str, float], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        KINDS[name].fit(_rows(1), _rows(2), _fitting(params=params))


def test_a_lightgbm_model_that_the_export_cannot_write_is_refused() -> None:
    native = KINDS["lightgbm"].fit(_rows(1), _rows(2), _fitting()).native
    text = native.decode()
    start = text.index("decision_type=") + len("decision_type=")
    categorical = text[:start] + "1" + text[start + 1 :]

    with pytest.raises(ModelError, match="categorical splits"):
        lightgbm_trees.nodes(categorical.encode())


@given(
    st.floats(width=32, allow_nan=False),
    st.floats(allow_nan=False),
)
@example(value=0.0, threshold=float(np.finfo(np.float32).min))
@example(value=0.0, threshold=float(np.finfo(np.float64).max))
def test_rounding_a_threshold_down_changes_no_comparison(value: float, threshold: float) -> None:
    rounded = round_down(np.array([threshold]))[0]

    assert (value <= threshold) == (np.float32(value) <= rounded)


@given(st.floats(-1, 1), st.integers(-2, 2))
def test_rounding_is_exact_beside_the_threshold(threshold: float, steps: int) -> None:
    value = np.float32(threshold)
    for _ in range(abs(steps)):
        value = np.nextafter(value, np.float32(np.sign(steps)))
    rounded = round_down(np.array([threshold]))[0]

    assert (float(value) <= threshold) == (value <= rounded)


def test_a_file_that_is_no_onnx_is_refused() -> None:
    with pytest.raises(ModelError, match="onnxruntime cannot load the model"):
        Scorer(b"not a model", 1)


def test_a_foreign_onnx_file_is_refused() -> None:
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2]) for name in "xy")
    body = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "foreign", [x], [y])
    model = helper.make_model(body, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])

    with pytest.raises(ModelError, match=r"maps \['x'\] to \['y'\]"):
        Scorer(model.SerializeToString(), 1)


def test_rows_of_another_width_are_refused(linear: Callable[..., Candidate]) -> None:
    model = linear("two", "candidate", {"a": 1.0, "b": 1.0})
    rows: Features = np.zeros((1, 3), dtype=np.float32)

    with pytest.raises(ModelError, match="takes 2 features but the rows have 3"):
        Scorer(model.path, 1).probability(rows)
