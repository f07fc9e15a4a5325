"""LightGBM with early stopping; missing values stay NaN.

Deterministic by its own switches (`deterministic`, `force_row_wise`) and one thread per model,
so that the digest does not depend on the machine's number of cores.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlplatform.errors import ModelError, SpecError
from pipelines.models.kind import Features, Fitted, Fitting, Floats, Kind, Rows
from pipelines.models.trees import Tree, regressor, round_down

_FIXED: dict[str, Any] = {
    "objective": "binary",
    "metric": "binary_logloss",
    "boosting": "gbdt",
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": 0,
}

_NORMAL = ("No further splits", "Stopped training because there are no more leaves")
"""Said of small or easy data, where trees end before `num_leaves`."""


class _Listener:
    """LightGBM's logger: parameters that it will not use are remembered, warnings go to ours."""

    def __init__(self) -> None:
        self.refused: set[str] = set()

    def info(self, message: str) -> None:
        """Hear the library itself, which says all it says at this level, also warnings."""
        if "[Warning]" in message:
            self.warning(message)

    def warning(self, message: str) -> None:
        """Hear the Python package."""
        text = message.replace("[LightGBM] [Warning]", "").strip()
        if "Unknown parameter" in text or "will be ignored" in text:
            self.refused.add(text)
        elif text and not text.startswith(_NORMAL):
            logging.getLogger("mlplatform.train").warning("lightgbm: %s", text)


def fit(train: Rows, validation: Rows, fitting: Fitting) -> Fitted:
    """Boost until the weighted log loss on `validation` stops falling.

    Raises:
        SpecError: LightGBM does not know or refuses a parameter.
    """
    import lightgbm

    listener = _Listener()
    lightgbm.register_logger(listener)
    params = {**fitting.params, **_FIXED, "seed": fitting.seed % 2**31}
    rows = lightgbm.Dataset(train.features, train.labels, weight=fitting.weights(train.labels))
    held_out = rows.create_valid(
        validation.features, validation.labels, weight=fitting.weights(validation.labels)
    )
    try:
        booster = lightgbm.train(
            params,
            rows,
            num_boost_round=fitting.max_rounds,
            valid_sets=[held_out],
            callbacks=[lightgbm.early_stopping(fitting.early_stopping_rounds, verbose=False)],
        )
    except lightgbm.basic.LightGBMError as error:
        raise SpecError(
            f"lightgbm refuses {dict(fitting.params)}: {error}; change its search or fixed"
        ) from error
    if listener.refused:
        refused = "; ".join(sorted(listener.refused))
        raise SpecError(f"lightgbm: {refused}; remove it from search or fixed")
    rounds = int(booster.best_iteration) or booster.current_iteration()
    text = booster.model_to_string(num_iteration=rounds)
    return Fitted(native=text.encode(), rounds=rounds)


def margin(native: bytes, features: Features) -> Floats:
    """Return the log-odds of each row, [N]."""
    import lightgbm

    booster = lightgbm.Booster(model_str=native.decode())
    return np.asarray(booster.predict(features, raw_score=True, num_threads=1), dtype=np.float64)


def nodes(native: bytes) -> Sequence[Any]:
    """Return the trees as one ONNX node, read from LightGBM's own text format (v4)."""
    text = native.decode().partition("\nend of trees")[0]
    _, *blocks = text.split("\nTree=")
    return [regressor([_tree(block) for block in blocks], "BRANCH_LEQ", 0.0)]


def _tree(block: str) -> Tree:
    """Read one tree: inner nodes are numbered from 0, leaf i is written as child `-i - 1`."""
    fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
    values = [float(value) for value in fields["leaf_value"].split()]
    leaves = len(values)
    if leaves == 1:  # no split was worth it
        return Tree([-1], [-1], [0], [0.0], [False], values)
    inner = leaves - 1
    flags = np.asarray(fields["decision_type"].split(), dtype=np.int64)
    missing_type = (flags >> 2) & 3  # 0: none seen in training, 1: zero, 2: NaN
    if (flags & 1).any() or (missing_type == 1).any() or fields.get("is_linear", "0") != "0":
        raise ModelError(
            "this LightGBM model has categorical splits, zero as missing or linear trees, which "
            "the export does not write: encode categories as numbers and drop those settings"
        )
    threshold = np.asarray(fields["threshold"].split(), dtype=np.float64)
    # Without a missing value in training, LightGBM reads a NaN as 0 and compares that.
    missing_left = np.where(missing_type == 2, (flags & 2) > 0, threshold >= 0.0)  # noqa: PLR2004 - the format's own code

    def children(name: str) -> list[int]:
        ids = [int(child) for child in fields[name].split()]
        return [child if child >= 0 else inner - child - 1 for child in ids] + [-1] * leaves

    return Tree(
        left=children("left_child"),
        right=children("right_child"),
        feature=[int(feature) for feature in fields["split_feature"].split()],
        threshold=_exact(threshold).tolist(),
        missing_left=missing_left.tolist(),
        value=[0.0] * inner + values,
    )


def _exact(thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return float32 thresholds that send every float32 the way LightGBM sends it.

    LightGBM reads a value within 1e-35 of 0 as 0 (`kZeroThreshold` in its meta.h) and puts
    thresholds on that very edge: the values between such a threshold and 0 change sides.
    """
    zero = np.float32(1e-35)
    near_zero = np.where(thresholds < 0, np.nextafter(-zero, np.float32(-np.inf)), zero)
    return np.where(np.abs(thresholds) <= zero, near_zero, round_down(thresholds))


KIND = Kind(
    suffix=".txt",
    reserved=frozenset(_FIXED)
    | {
        "seed",
        "random_state",
        "n_jobs",
        "scale_pos_weight",
        "is_unbalance",
        "zero_as_missing",
        "linear_tree",
        "sigmoid",
    },
    fit=fit,
    margin=margin,
    nodes=nodes,
)
