"""The model as Triton's Python backend runs it; `export` copies this file as `model.py`.

It runs in Triton's own Python, beside numpy and onnxruntime only, so it imports nothing of the
platform. All requests that Triton hands over at once are one run of the model.

It refuses nothing itself: Triton has checked names, types and shapes against config.pbtxt.
"""

from pathlib import Path
from typing import Any


class TritonPythonModel:
    """One instance; Triton calls `initialize` once and `execute` for each batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model beside this file."""
        import numpy as np
        import onnxruntime
        import triton_python_backend_utils  # type: ignore[import-not-found]  # Triton brings it

        options = onnxruntime.SessionOptions()
        # A row takes microseconds: threads would cost more than they save, and spinning ones
        # would take the processor from the gateway beside.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(args["model_repository"], args["model_version"], "model.onnx")
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._run = session.run
        self._concatenate = np.concatenate
        self._triton = triton_python_backend_utils

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return one response for each request, in order."""
        triton = self._triton
        features = [
            triton.get_input_tensor_by_name(request, "features").as_numpy() for request in requests
        ]
        rows = features[0] if len(features) == 1 else self._concatenate(features)
        probability = self._run(["probability"], {"features": rows})[0]
        responses, start = [], 0
        for part in features:
            stop = start + len(part)
            tensor = triton.Tensor("probability", probability[start:stop])
            responses.append(triton.InferenceResponse([tensor]))
            start = stop
        return responses
