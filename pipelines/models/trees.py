"""Boosted trees as one ONNX node.

Written here and not left to onnxmltools 1.16 because its LightGBM converter rounds a double
threshold to the nearest float32: a row that sits between the two goes down the other branch
(measured: 0.23 in probability on rows at thresholds). It also gives a classifier with two
outputs that would have to be cut out again. The table below is small and holds both libraries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Comparison = Literal["BRANCH_LT", "BRANCH_LEQ"]


@dataclass(frozen=True)
class Tree:
    """One tree as columns over its nodes; node 0 is the root, a leaf has `left` below 0."""

    left: Sequence[int]
    right: Sequence[int]
    feature: Sequence[int]
    threshold: Sequence[float]
    missing_left: Sequence[bool]
    """Where a NaN goes."""
    value: Sequence[float]
    """Margin that a leaf adds; unread elsewhere."""


def round_down(thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return the largest float32 at or below each double.

    For every float32 `x` and double `t`, `x <= t` and `x <= round_down(t)` are the same.
    """
    with np.errstate(over="ignore"):  # at the ends of float32 both steps may reach infinity
        nearest = thresholds.astype(np.float32)
        below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest.astype(np.float64) > thresholds, below, nearest)


def regressor(trees: Sequence[Tree], comparison: Comparison, base: float) -> Any:
    """Return the `TreeEnsembleRegressor` node from `features` to `margin`.

    Args:
        trees: The trees, in the order of boosting; thresholds must be exact in float32.
        comparison: The test that sends a row left.
        base: Margin before the first tree.
    """
    from onnx import helper

    columns: dict[str, list[Any]] = {
        name: []
        for name in (
            "nodes_treeids",
            "nodes_nodeids",
            "nodes_featureids",
            "nodes_modes",
            "nodes_values",
            "nodes_truenodeids",
            "nodes_falsenodeids",
            "nodes_missing_value_tracks_true",
            "target_treeids",
            "target_nodeids",
            "target_ids",
            "target_weights",
        )
    }
    for number, tree in enumerate(trees):
        pending = [0]
        while pending:  # from the root, as pruning can leave nodes that nothing reaches
            node = pending.pop()
            leaf = tree.left[node] < 0
            row: tuple[Any, ...] = (
                (number, node, 0, "LEAF", 0.0, 0, 0, 0)
                if leaf
                else (
                    number,
                    node,
                    int(tree.feature[node]),
                    comparison,
                    float(tree.threshold[node]),
                    int(tree.left[node]),
                    int(tree.right[node]),
                    int(tree.missing_left[node]),
                )
            )
            target = (number, node, 0, float(tree.value[node])) if leaf else ()
            for column, item in zip(columns.values(), (*row, *target), strict=False):
                column.append(item)
            if not leaf:
                pending += [int(tree.right[node]), int(tree.left[node])]
    return helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        ["margin"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        base_values=[base],
        **columns,
    )
