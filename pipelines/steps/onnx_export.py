"""One ONNX file for one calibrated model, checked against the native one before it is kept.

Input `features` float32 [N, F], output `probability` float32 [N, 1]. The file is a function of
the model alone: no time stamps, no generated names, so that equal models have equal digests.
It refuses to return a model whose outputs differ from the native ones by more than 1e-5.

Versions: opset 17, ai.onnx.ml 3, IR 8 are what onnxruntime 1.14 and later loads (its table of
compatibility: onnxruntime.ai/docs/reference/compatibility.html), so the Triton images and
wheels with an older runtime serve the same file; nothing newer is needed by the graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from mlplatform.errors import ModelError
from pipelines.models.kind import Features, Kind
from pipelines.steps.calibration import Sigmoid
from pipelines.steps.onnx_scoring import Scorer

OPSET: Final = 17
ML_OPSET: Final = 3
IR_VERSION: Final = 8

TOLERANCE: Final = 1e-5
"""Largest allowed |ONNX - native| probability."""

_PROBE_ROWS = 2000
"""Rows of each probe: enough to meet each threshold of a small model and most of a large one."""


@dataclass(frozen=True)
class Export:
    """A checked ONNX file."""

    content: bytes
    max_difference: float
    """Largest |ONNX - native| probability over validation rows and probes."""


def export(kind: Kind, native: bytes, calibration: Sigmoid, validation: Features) -> Export:
    """Return the model as ONNX, equal to the native one on validation rows and on probes.

    Args:
        kind: What the model is.
        native: The model in its library's form.
        calibration: From log-odds to probability.
        validation: Validation features, [N, F].

    Raises:
        ModelError: The outputs differ by more than 1e-5; names the worst row.
    """
    content = graph(kind.nodes(native), validation.shape[1], calibration)
    rows = np.concatenate([validation, probes(content, validation)])
    expected = calibration.probability(kind.margin(native, rows))
    actual = Scorer(content, threads=1).probability(rows)
    return Export(content, check(expected, actual, rows))


def check(expected: Any, actual: Any, rows: Features) -> float:
    """Return the largest difference between two outputs on the same rows.

    Raises:
        ModelError: It is above 1e-5, or an output is no number; names the worst row.
    """
    differences = np.abs(expected - actual)
    worst = int(np.argmax(np.where(np.isnan(differences), np.inf, differences)))
    if not differences[worst] <= TOLERANCE:
        raise ModelError(
            f"the exported model differs from the native one by {differences[worst]:.3g} (more "
            f"than {TOLERANCE:g}) on row {worst}: native {expected[worst]:.7f}, ONNX "
            f"{actual[worst]:.7f}, features {rows[worst].tolist()}; this model is not kept: "
            "report the row, or leave this kind out of training.candidates"
        )
    return float(differences[worst])


def graph(nodes: Sequence[Any], width: int, calibration: Sigmoid) -> bytes:
    """Return the file's bytes: nodes to `margin`, then calibration to `probability`.

    Args:
        nodes: From `features` to `margin` [N, 1].
        width: Number of features.
        calibration: Slope and intercept on the margin.
    """
    from onnx import TensorProto, checker, helper

    def scalar(name: str, value: float) -> Any:
        tensor = helper.make_tensor(name, TensorProto.FLOAT, [1], [float(np.float32(value))])
        return helper.make_node("Constant", [], [name], value=tensor)

    body = helper.make_graph(
        [
            *nodes,
            scalar("calibration_slope", calibration.slope),
            scalar("calibration_intercept", calibration.intercept),
            helper.make_node("Mul", ["margin", "calibration_slope"], ["stretched"]),
            helper.make_node("Add", ["stretched", "calibration_intercept"], ["log_odds"]),
            helper.make_node("Sigmoid", ["log_odds"], ["probability"]),
        ],
        "model",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", width])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["rows", 1])],
    )
    model = helper.make_model(
        body,
        producer_name="mlplatform",
        ir_version=IR_VERSION,
        opset_imports=[
            helper.make_opsetid("", OPSET),
            helper.make_opsetid("ai.onnx.ml", ML_OPSET),
        ],
    )
    checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def probes(content: bytes, validation: Features) -> Features:
    """Return rows where exports go wrong: missing values, and values at the trees' thresholds.

    Validation rows, each with one feature (in turn) missing; a row with all missing; and for
    thresholds spread over the model, rows at the threshold and one float32 to either side.
    """
    base = validation[np.arange(_PROBE_ROWS) % len(validation)]
    rows = np.arange(len(base))
    missing = base.copy()
    missing[rows, rows % base.shape[1]] = np.nan
    parts = [missing, np.full((1, base.shape[1]), np.nan, dtype=np.float32)]
    features, thresholds = _thresholds(content)
    if len(thresholds):
        chosen = np.linspace(0, len(thresholds) - 1, _PROBE_ROWS).astype(np.intp)
        for toward in (None, -np.inf, np.inf):
            at = thresholds[chosen]
            if toward is not None:
                at = np.nextafter(at, np.float32(toward))
            moved = base.copy()
            moved[rows, features[chosen]] = np.where(np.isfinite(at), at, np.float32(0))
            parts.append(moved)
    return np.concatenate(parts)


def _thresholds(content: bytes) -> tuple[Any, Any]:
    """Return feature indices and thresholds of all splits in the file, in its order."""
    import onnx

    for node in onnx.load_from_string(content).graph.node:
        if node.op_type == "TreeEnsembleRegressor":
            columns = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            inner = np.array([mode != b"LEAF" for mode in columns["nodes_modes"]])
            return (
                np.asarray(columns["nodes_featureids"])[inner],
                np.asarray(columns["nodes_values"], dtype=np.float32)[inner],
            )
    return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.float32)
