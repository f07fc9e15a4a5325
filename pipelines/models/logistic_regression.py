"""Logistic regression on standardised features: the baseline that others must beat.

Missing values become the median of the training rows plus an indicator, so that "missing" can
carry its own weight. Saved as JSON of plain numbers; scikit-learn is needed to fit, not to score.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlplatform.errors import SpecError, shorten
from pipelines.models.kind import Features, Fitted, Fitting, Floats, Kind, Rows

_MAX_ITERATIONS = 500
"""lbfgs converges within tens of iterations on standardised columns; the rest is reserve."""


def fit(train: Rows, validation: Rows, fitting: Fitting) -> Fitted:
    """Fit median imputation, missing indicators, standardisation and the regression.

    `validation` is not used: there is nothing to stop early.

    Raises:
        SpecError: scikit-learn does not know or refuses a parameter.
    """
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships none

    del validation
    try:
        regression = LogisticRegression(**{"max_iter": _MAX_ITERATIONS, **fitting.params})
    except TypeError as error:
        raise _refused(fitting, error) from error
    pipeline = Pipeline(
        [
            (
                "impute",
                SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
            ),
            ("scale", StandardScaler()),
            ("regress", regression),
        ]
    )
    try:
        # Sums in BLAS depend on the number of threads: one, so that digests agree everywhere.
        with threadpool_limits(limits=1):
            pipeline.fit(
                train.features.astype(np.float64),
                train.labels,
                regress__sample_weight=fitting.weights(train.labels),
            )
    except ValueError as error:
        raise _refused(fitting, error) from error
    return Fitted(native=json.dumps(_numbers(pipeline)).encode(), rounds=0)


def _refused(fitting: Fitting, error: Exception) -> SpecError:
    return SpecError(
        f"logistic_regression refuses {dict(fitting.params)}: {shorten(error)}; change its "
        "search or fixed"
    )


def _numbers(pipeline: Any) -> dict[str, list[float] | float]:
    """Write the pipeline as `((x or median) - mean) / scale · weight + isnan(x) · missing + bias`.

    The mean is rounded to float32 and the bias takes the rest: subtracting it from a float32
    feature is then as good as exact, also for a column like a year with a mean far above its
    spread.
    """
    imputer, scaler, regression = (step for _, step in pipeline.steps)
    medians = imputer.statistics_
    width = len(medians)
    means = scaler.mean_[:width].astype(np.float32).astype(np.float64)
    slopes = regression.coef_[0] / scaler.scale_
    bias = float(regression.intercept_[0] - slopes @ scaler.mean_ + slopes[:width] @ means)
    missing = np.zeros(width)
    missing[imputer.indicator_.features_] = slopes[width:]
    return {
        "median": medians.tolist(),
        "mean": means.tolist(),
        "scale": scaler.scale_[:width].tolist(),
        "weight": regression.coef_[0][:width].tolist(),
        "missing": missing.tolist(),
        "bias": bias,
    }


def margin(native: bytes, features: Features) -> Floats:
    """Return the log-odds of each row, [N], in double precision."""
    numbers = json.loads(native)
    missing = np.isnan(features)
    filled = np.where(missing, np.asarray(numbers["median"]), features.astype(np.float64))
    scaled = (filled - np.asarray(numbers["mean"])) / np.asarray(numbers["scale"])
    weighted = scaled @ np.asarray(numbers["weight"]) + missing @ np.asarray(numbers["missing"])
    return np.asarray(weighted + numbers["bias"], dtype=np.float64)


def nodes(native: bytes) -> Sequence[Any]:
    """Return the same sum as ONNX nodes in float32."""
    from onnx import TensorProto, helper

    numbers = json.loads(native)
    width = len(numbers["median"])

    def constant(name: str, values: list[float], shape: list[int]) -> Any:
        rounded = [float(np.float32(value)) for value in values]
        tensor = helper.make_tensor(name, TensorProto.FLOAT, shape, rounded)
        return helper.make_node("Constant", [], [name], value=tensor)

    return [
        constant("median", numbers["median"], [width]),
        constant("mean", numbers["mean"], [width]),
        constant("scale", numbers["scale"], [width]),
        constant("weight", numbers["weight"], [width, 1]),
        constant("missing_weight", numbers["missing"], [width, 1]),
        constant("bias", [numbers["bias"]], [1]),
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Where", ["missing", "median", "features"], ["filled"]),
        helper.make_node("Sub", ["filled", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["scaled"]),
        helper.make_node("Cast", ["missing"], ["indicator"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["scaled", "weight"], ["from_values"]),
        helper.make_node("MatMul", ["indicator", "missing_weight"], ["from_missing"]),
        helper.make_node("Add", ["from_values", "from_missing"], ["weighted"]),
        helper.make_node("Add", ["weighted", "bias"], ["margin"]),
    ]


KIND = Kind(
    suffix=".json",
    reserved=frozenset({"class_weight", "n_jobs", "random_state", "verbose", "warm_start"}),
    fit=fit,
    margin=margin,
    nodes=nodes,
)
