"""Rewrite the golden files: `make golden`. Review the difference before you commit it."""

from pathlib import Path
from tempfile import TemporaryDirectory

from tests.contract.test_compiled_pipelines import CASES, GOLDEN, compiled

if __name__ == "__main__":
    for case in CASES:
        with TemporaryDirectory() as folder:
            (GOLDEN / f"{case}.yaml").write_text(compiled(Path(folder), case))
