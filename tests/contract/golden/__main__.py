"""Rewrite the golden files: `make golden`. Review the difference before you commit it."""

from pathlib import Path
from tempfile import TemporaryDirectory

from pipelines.compile import compile_all
from tests.contract.test_compiled_pipelines import CASES, GOLDEN

if __name__ == "__main__":
    for name, settings in CASES.items():
        with TemporaryDirectory() as folder:
            (path,) = compile_all(Path(folder), settings)
            (GOLDEN / f"{name}.yaml").write_text(path.read_text())
