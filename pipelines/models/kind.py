"""What a kind of model must offer, and the values that it exchanges with the steps.

Every kind speaks in log-odds (the margin): calibration, imbalance and export are then written
once, outside the kinds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.float32]
"""Model inputs, [N, F]; missing is NaN. float32 because that is what serving sends."""

Labels = npt.NDArray[np.int8]
"""0 or 1, [N]."""

Floats = npt.NDArray[np.float64]

Params = Mapping[str, float | int | str]


@dataclass(frozen=True)
class Rows:
    """Rows to fit or to measure on: features [N, F] and labels [N]."""

    features: Features
    labels: Labels


@dataclass(frozen=True)
class Fitting:
    """How one configuration is fitted."""

    params: Params
    seed: int
    max_rounds: int
    early_stopping_rounds: int
    positive_weight: float
    """Weight of a positive row; negatives weigh 1."""

    def weights(self, labels: Labels) -> npt.NDArray[np.float32]:
        """Return the weight of each row, [N].

        Weights and not the libraries' `scale_pos_weight`: that one changes the gradient only, so
        early stopping would read an unweighted loss of a model that is fitted to a weighted one.
        """
        return np.where(labels == 1, self.positive_weight, 1.0).astype(np.float32)


@dataclass(frozen=True)
class Fitted:
    """A fitted model in its library's own text or JSON form, never a pickle."""

    native: bytes
    rounds: int
    """Boosting rounds kept by early stopping; 0: the kind has none."""


@dataclass(frozen=True)
class Kind:
    """A kind of model."""

    suffix: str
    """File ending of the native form, with its dot."""
    reserved: frozenset[str]
    """Parameters that the platform sets and a spec may not."""
    fit: Callable[[Rows, Rows, Fitting], Fitted]
    """Train rows, validation rows (for early stopping), how; returns the model."""
    margin: Callable[[bytes, Features], Floats]
    """Native form and features [N, F]; returns log-odds [N]."""
    nodes: Callable[[bytes], Sequence[Any]]
    """Native form; returns ONNX nodes from `features` [N, F] to `margin` [N, 1]."""
