"""Triton's config.pbtxt, derived from the spec: one description, one text for each target.

`embedded` is the Python backend around onnxruntime, for one machine without a GPU. `gpu` is the
onnxruntime backend on a GPU node, with CUDA or TensorRT. Tree ensembles have no CUDA kernel in
onnxruntime: it runs those nodes on the processor inside the same server, on either target.

It refuses FIL on a GPU node, the backend with CUDA kernels for trees: it reads XGBoost's,
LightGBM's or Treelite's own file, and what is signed here is ONNX with the calibration inside, so
FIL would serve unsigned, other numbers. It would need the trees' own file among the signed ones, an
ensemble of Triton's that applies the calibration to its answer, and golden answers of that pair.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

from mlplatform.contracts.usecase.operation import Serving
from mlplatform.errors import ModelError

Target = Literal["embedded", "gpu"]

_MICROSECONDS: Final = 1000  # in a millisecond
_WORKSPACE_BYTES: Final = 256 * 1024**2
"""GPU memory that TensorRT may use while it builds and runs: tabular models need little; its
default is 1 GiB."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything that config.pbtxt says."""

    name: str
    version: int
    width: int
    """Number of features."""
    target: Target
    accelerator: Literal["cuda", "tensorrt"] | None
    largest_batch: int
    """Rows of the largest request, and of the largest batch."""
    usual_batch: int
    """Rows at which a batch waits no longer."""
    queue_delay_us: int
    """Longest wait for companions, microseconds; 0: none, a batch is what came during a run."""
    instances: int


def describe(name: str, version: int, width: int, serving: Serving, target: Target) -> ModelConfig:
    """Derive the description from a use case's `serving` section.

    Args:
        name: Registered name.
        version: Registered version; also the version directory's.
        width: Number of features.
        serving: The section.
        target: What runs it.

    Raises:
        ModelError: The section asks for FIL on a GPU node.
    """
    inference, budget = serving.inference, serving.latency_ms
    if target == "gpu" and inference.backend == "fil":
        raise ModelError(
            f"{name} cannot be served by FIL: FIL reads xgboost.ubj, LightGBM's model.txt or a "
            "Treelite checkpoint, and only model.onnx is signed, with the calibration inside. It "
            "would need that file in the signed manifest and the calibration as a second step of "
            "an ensemble; until then set serving.inference.backend to onnxruntime (its trees run "
            "on the processor) or tensorrt"
        )
    accelerators: dict[str, Literal["cuda", "tensorrt"]] = {
        "onnxruntime": "cuda",
        "tensorrt": "tensorrt",
    }
    return ModelConfig(
        name=name,
        version=version,
        width=width,
        target=target,
        accelerator=accelerators[inference.backend] if target == "gpu" else None,
        # A batch request arrives whole, and Triton refuses one that is larger than its batches.
        largest_batch=max(inference.max_batch, serving.max_rows),
        usual_batch=inference.max_batch,
        # On a GPU half of the hop is for companions, the other half for the batch that runs when
        # a request arrives. One machine waits for nobody: its runs take less than any useful wait
        # (1 ms of delay made 0.4 ms into 1.8 ms for a lone request and brought no throughput).
        queue_delay_us=0 if target == "embedded" else math.floor(budget.queue * _MICROSECONDS / 2),
        instances=inference.instances,
    )


def render(config: ModelConfig) -> str:
    """Return the text of config.pbtxt."""
    kind = "KIND_GPU" if config.target == "gpu" else "KIND_CPU"
    backend = "onnxruntime" if config.target == "gpu" else "python"
    return (
        f'name: "{config.name}"\n'
        f'backend: "{backend}"\n'
        f"max_batch_size: {config.largest_batch}\n"
        f'input [{{ name: "features" data_type: TYPE_FP32 dims: [{config.width}] }}]\n'
        'output [{ name: "probability" data_type: TYPE_FP32 dims: [1] }]\n'
        f"version_policy {{ specific {{ versions: [{config.version}] }} }}\n"
        f"instance_group [{{ kind: {kind} count: {config.instances} }}]\n"
        f"{_batching(config)}"
        f"{_warmup('one', 1, config.width)}"
        f"{_warmup('full', config.usual_batch, config.width)}"
        f"{_accelerator(config.accelerator)}"
        f"{_threads(config.target)}"
    )


def _batching(config: ModelConfig) -> str:
    """Return the dynamic batcher's section, on purpose without a queue policy.

    In the batcher of 2.51 any `default_queue_policy` (a timeout, also a queue size alone) makes it
    miss wake-ups: with 8 callers one request in a hundred waited 400 ms, with none 1.4 ms. With a
    timeout newer versions lose throughput (triton-inference-server/server issue 8870). Callers
    have deadlines, and the gateway bounds the requests under way.
    """
    if not config.queue_delay_us:
        return "dynamic_batching {}\n"
    return (
        "dynamic_batching {\n"
        f"  preferred_batch_size: [{config.usual_batch}]\n"
        f"  max_queue_delay_microseconds: {config.queue_delay_us}\n"
        "}\n"
    )


def _warmup(name: str, rows: int, width: int) -> str:
    return (
        "model_warmup [{\n"
        f'  name: "{name}"\n'
        f"  batch_size: {rows}\n"
        '  inputs { key: "features" value '
        f"{{ data_type: TYPE_FP32 dims: [{width}] zero_data: true }} }}\n"
        "}]\n"
    )


def _accelerator(name: Literal["cuda", "tensorrt"] | None) -> str:
    # A GPU instance runs on CUDA without being asked; only TensorRT is an accelerator to name.
    if name != "tensorrt":
        return ""
    return (
        "optimization { execution_accelerators { gpu_execution_accelerator [{\n"
        '  name: "tensorrt"\n'
        # Half precision would not give the golden answers.
        '  parameters { key: "precision_mode" value: "FP32" }\n'
        f'  parameters {{ key: "max_workspace_size_bytes" value: "{_WORKSPACE_BYTES}" }}\n'
        "}] } }\n"
    )


def _threads(target: Target) -> str:
    if target == "embedded":
        return ""  # set in model.py
    return (
        'parameters { key: "intra_op_thread_count" value: { string_value: "1" } }\n'
        'parameters { key: "inter_op_thread_count" value: { string_value: "1" } }\n'
    )
