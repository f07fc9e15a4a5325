"""The files of a model directory, and those that a test does not look into."""

from pathlib import Path

from mlplatform import signing

FILES = (
    "model.onnx",
    "feature_config.json",
    "manifest.json",
    "profile.json",
    "reference.parquet",
    "evaluation.json",
    "model.sig",
)
"""Of a signed directory, all of them."""


def fill(directory: Path) -> None:
    """Write everything beside the model and its manifest: well named, and of no content."""
    for name in (signing.CONFIG, signing.PROFILE, signing.EVALUATION):
        (directory / name).write_text("{}")
    (directory / signing.REFERENCE).write_bytes(b"PAR1")
