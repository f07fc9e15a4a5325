"""What a model leans on: the loss without a feature group, and with one feature shuffled.

Both ask the trained model; neither trains another. Losing a group shows what happens when its
feed breaks; a model trained without the group would lean on what correlates with it and lose
less. Sources: Breiman (2001), "Random forests", Machine Learning 45, for permutation.
"""

from collections.abc import Mapping

import numpy as np

from feature_repo.metrics import estimates, measure
from mlplatform.contracts import HIGHER_IS_BETTER, Ablation, Metric
from mlplatform.errors import DataError
from pipelines.steps.scored import HeldOut, Scored, certain

_IMPORTANCE_ROWS = 10_000
"""Rows that are shuffled: enough to rank features by the metric, at a third of the time."""


def ablations(
    model: Scored, groups: Mapping[str, tuple[str, ...]], rows: HeldOut, metric: Metric
) -> tuple[Ablation, ...]:
    """Measure what the model loses when a group's columns are missing (NaN) in each test row.

    A tree that saw no missing value of a feature in training treats NaN as LightGBM does (as 0)
    or sends it to a side it never weighed (XGBoost): the loss is then that of a feed never known
    to fail. Differences are positive when the group helps.

    Raises:
        DataError: A group names a feature that the model does not have.
    """
    found = []
    for group, features in groups.items():
        absent = sorted(set(features) - set(model.features))
        if absent:
            raise DataError(
                f"group {group} names {absent}, which {model.name} does not have: "
                "make GROUPS in features.py agree with the feature service"
            )
        without = model.inputs.copy()
        without[:, [model.features.index(name) for name in features]] = np.nan
        lesser = measure(rows.labels, model.scorer.probability(without), rows.resamples, [metric])
        difference = model.measured[metric].gain_over(lesser[metric])
        found.append(
            Ablation(
                group=group,
                features=features,
                metric=metric,
                difference=certain(difference, f"the ablation of {group}"),
            )
        )
    return tuple(found)


def importance(model: Scored, rows: HeldOut, metric: Metric, seed: int) -> dict[str, float]:
    """Return by feature what the metric loses when that column is shuffled, the largest first.

    The same rows, evenly spread over the window, and the same order of shuffling serve all
    features. Positive: the feature helps.
    """
    count = len(rows.labels)
    index = np.linspace(0, count - 1, min(count, _IMPORTANCE_ROWS)).astype(np.intp)
    labels, inputs = rows.labels[index], model.inputs[index]
    whole = estimates(labels, model.scores[index], [metric])[metric]
    sign = 1.0 if HIGHER_IS_BETTER[metric] else -1.0
    order = np.random.default_rng(seed).permutation(len(index))
    losses = {}
    for position, feature in enumerate(model.features):
        shuffled = inputs.copy()
        shuffled[:, position] = inputs[order, position]
        score = estimates(labels, model.scorer.probability(shuffled), [metric])[metric]
        losses[feature] = sign * (whole - score)
    return dict(sorted(losses.items(), key=lambda item: -item[1]))
