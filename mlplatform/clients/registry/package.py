"""Laying out a logged model: MLflow's ONNX flavour around the signed directory."""

import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Final

from mlplatform.clients.registry.connection import quiet_import

SIGNED: Final = "signed"
"""Folder of the signed directory among the version's artifacts."""


def lay_out(
    package: Path, directory: Path, features: tuple[str, ...], *, run_id: str, model_id: str
) -> None:
    """Write the logged model's folder `package` around a copy of the signed `directory`."""
    with quiet_import():
        import mlflow.onnx as flavour
        import mlflow.pyfunc  # noqa: F401 (the flavour imports it lazily, with warnings)
        import onnx
        from mlflow.models import Model, ModelSignature
        from mlflow.types.schema import ColSpec, Schema

    signed = directory / "model.onnx"
    flavour.save_model(
        onnx.load(signed),
        package,
        mlflow_model=Model(run_id=run_id, model_id=model_id),
        signature=ModelSignature(
            inputs=Schema([ColSpec("float", feature) for feature in features]),
            outputs=Schema([ColSpec("float", "probability")]),
        ),
        conda_env=_runtime(),
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )
    shutil.copyfile(signed, package / "model.onnx")  # the signed bytes, not a serialised copy
    shutil.copytree(directory, package / SIGNED)


def _runtime() -> dict[str, object]:
    """Name what the model needs to run; MLflow would ask for a pip that uv does not install."""
    pinned = [f"{name}=={metadata.version(name)}" for name in ("mlflow", "onnx", "onnxruntime")]
    python = platform.python_version()
    dependencies = [f"python={python}", "pip", {"pip": pinned}]
    return {"name": "model", "channels": ["conda-forge"], "dependencies": dependencies}
