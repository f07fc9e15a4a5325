"""Probabilities from an ONNX file: the way that serving computes them, used to measure a model.

It refuses files that are not a model of this platform: another input, output or width.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mlplatform.errors import ModelError, shorten
from pipelines.models.kind import Features, Floats

_BATCH = 16384
"""Rows at once: bounds the memory of intermediate results, whatever the window's size."""


class Scorer:
    """A loaded model.

    Args:
        model: The file's path or its content.
        threads: Threads for one call; results do not depend on it beyond float32 rounding.

    Raises:
        ModelError: The file is not ONNX, or not `features` [N, F] to `probability` [N, 1].
    """

    def __init__(self, model: Path | bytes, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Workers that spin between calls would take the second core from everything else.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        source = "its content" if isinstance(model, bytes) else str(model)
        try:
            self._session: Any = onnxruntime.InferenceSession(
                model if isinstance(model, bytes) else str(model),
                options,
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:
            raise ModelError(
                f"onnxruntime cannot load the model from {source}: {shorten(error)}; export it "
                "again"
            ) from error
        names = (
            [item.name for item in self._session.get_inputs()],
            [item.name for item in self._session.get_outputs()],
        )
        if names != (["features"], ["probability"]):
            raise ModelError(
                f"the model from {source} maps {names[0]} to {names[1]}, not features to "
                "probability: it was not exported by this platform"
            )
        self.width = int(self._session.get_inputs()[0].shape[1])

    def probability(self, features: Features) -> Floats:
        """Return the probability of the positive class for rows [N, F], as doubles [N].

        Raises:
            ModelError: The rows have another width than the model.
        """
        if features.shape[1] != self.width:
            raise ModelError(
                f"the model takes {self.width} features but the rows have {features.shape[1]}: "
                "use the feature list that it was trained with"
            )
        batches = [
            self._session.run(["probability"], {"features": features[start : start + _BATCH]})[0]
            for start in range(0, len(features), _BATCH)
        ]
        return np.concatenate(batches)[:, 0].astype(np.float64)
