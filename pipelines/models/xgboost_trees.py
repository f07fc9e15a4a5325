"""XGBoost with histograms and early stopping; missing values stay NaN.

One thread per model, always: trials run beside each other, and the sums of a histogram, hence
the digest, do not depend on the machine's number of cores.
"""

import json
import logging
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlplatform.errors import SpecError
from pipelines.models.kind import Features, Fitted, Fitting, Floats, Kind, Rows
from pipelines.models.trees import Tree, regressor

_FIXED = {
    "objective": "binary:logistic",
    "eval_metric": "logloss",
    "tree_method": "hist",
    "booster": "gbtree",
    "nthread": 1,
    "verbosity": 1,
    "validate_parameters": True,
}


def fit(train: Rows, validation: Rows, fitting: Fitting) -> Fitted:
    """Boost until the weighted log loss on `validation` stops falling.

    Raises:
        SpecError: XGBoost does not know a parameter.
    """
    import xgboost

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = xgboost.QuantileDMatrix(
            train.features, train.labels, weight=fitting.weights(train.labels), nthread=1
        )
        held_out = xgboost.QuantileDMatrix(
            validation.features,
            validation.labels,
            weight=fitting.weights(validation.labels),
            nthread=1,
            ref=rows,
        )
        try:
            booster = xgboost.train(
                {**fitting.params, **_FIXED, "seed": fitting.seed},
                rows,
                num_boost_round=fitting.max_rounds,
                evals=[(held_out, "validation")],
                early_stopping_rounds=fitting.early_stopping_rounds,
                verbose_eval=False,
            )
        except xgboost.core.XGBoostError as error:
            message = str(error).strip().splitlines()[0][:300]
            raise SpecError(
                f"xgboost refuses {dict(fitting.params)}: {message}; change its search or fixed"
            ) from error
    for warning in caught:
        if "are not used" in str(warning.message):
            raise SpecError(
                f"xgboost knows no such parameter among {sorted(fitting.params)}: "
                f"{' '.join(str(warning.message).split())}; remove it from search or fixed"
            )
        logging.getLogger("mlplatform.train").warning("xgboost: %s", warning.message)
    kept = booster[: booster.best_iteration + 1]
    return Fitted(native=bytes(kept.save_raw("ubj")), rounds=int(booster.best_iteration) + 1)


def _booster(native: bytes) -> Any:
    import xgboost

    return xgboost.Booster({"nthread": 1}, model_file=bytearray(native))


def margin(native: bytes, features: Features) -> Floats:
    """Return the log-odds of each row, [N]."""
    margins = _booster(native).inplace_predict(features, predict_type="margin")
    return np.asarray(margins, dtype=np.float64)


def nodes(native: bytes) -> Sequence[Any]:
    """Return the trees as one ONNX node; XGBoost itself compares in float32, with `<`."""
    learner = json.loads(_booster(native).save_raw("json"))["learner"]
    trees = [
        Tree(
            left=tree["left_children"],
            right=tree["right_children"],
            feature=tree["split_indices"],
            threshold=tree["split_conditions"],
            missing_left=[bool(left) for left in tree["default_left"]],
            value=tree["split_conditions"],  # a leaf keeps its value in the same column
        )
        for tree in learner["gradient_booster"]["model"]["trees"]
    ]
    # A probability; "[5E-1]" since 3.1, where it became a vector, "5E-1" before.
    (score,) = np.atleast_1d(json.loads(learner["learner_model_param"]["base_score"]))
    return [regressor(trees, "BRANCH_LT", math.log(score / (1.0 - score)))]


KIND = Kind(
    suffix=".ubj",
    reserved=frozenset(_FIXED)
    | {"seed", "random_state", "n_jobs", "scale_pos_weight", "num_parallel_tree"},
    fit=fit,
    margin=margin,
    nodes=nodes,
)
