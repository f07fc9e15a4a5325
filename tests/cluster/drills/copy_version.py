"""Registers a copy of a version, as sound as the original or broken on purpose; prints its number.

Runs in a pod, where pipelines run: `copy_version.py flight_delay 1 sound|broken TAG`.
"""

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import onnx
from broken_model import register_copy, scaled  # type: ignore[import-not-found]  # beside it there

from mlplatform.clients.registry import Registry
from mlplatform.settings import RegistrySettings, SigningSettings
from mlplatform.signing import KeyPair


def main() -> None:
    """Register it; sound copies differ from the original in their bytes alone."""
    name, version, kind, tag = sys.argv[1:]

    def change(content: bytes) -> bytes:
        model = onnx.load_from_string(scaled(content) if kind == "broken" else content)
        model.doc_string = tag
        return bytes(model.SerializeToString())

    settings = SigningSettings.load()
    with tempfile.TemporaryDirectory() as folder:
        made = register_copy(
            Registry(RegistrySettings.load()),
            name,
            int(version),
            change,
            f"a {kind} copy for a test",
            keys=KeyPair(private=settings.private_key, public=settings.public_key),
            workdir=Path(folder),
            now=datetime.now(UTC),
        )
    sys.stdout.write(f"registered version {made.version}\n")


main()
