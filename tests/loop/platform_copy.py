"""A copy of the repository that the loop's tests run and plant faults in."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from local.summary import Summary
from mlplatform.contracts import Decision
from mlplatform.ledger import Ledger

AS_OF = "2013-03-01T12:00:00Z"


@dataclass(frozen=True)
class Platform:
    """A copy of the repository and a folder that its runs work in."""

    checkout: Path
    root: Path

    @property
    def summary(self) -> Summary:
        return Summary.model_validate_json((self.root / "run.json").read_bytes())

    @property
    def ledger(self) -> Ledger:
        return Ledger(f"sqlite:///{self.root / 'ledger.db'}")

    def decisions(self) -> list[Decision]:
        return [entry.decision for entry in self.ledger.entries()]

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "local.demo", "--root", str(self.root)]

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(self.checkout), "COLUMNS": "400", "NO_COLOR": "1"}

    def demo(
        self, as_of: str = AS_OF, *, replay_days: float = 0, rate: float = 100
    ) -> "subprocess.CompletedProcess[str]":
        replay = ["--replay-days", str(replay_days), "--rate", str(rate), "--only-traffic"]
        return self.python(*self.command[1:], "--as-of", as_of, *replay)

    def python(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.checkout,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,  # a model is built: on a busy machine that takes minutes
        )

    def temperature(self) -> float:
        """Mean of the feature `temp` over the oldest thousand rows of the last training set."""
        data = self.summary.training_set
        assert data is not None
        oldest = pl.read_parquet(data.path).head(1000)
        return float(oldest.select(pl.col("temp").cast(pl.Float64).mean()).item())

    def append(self, name: str, code: str) -> None:
        path = self.checkout / "usecases" / "flight_delay" / name
        path.write_text(path.read_text() + code)

    def processes(self) -> list[int]:
        """Processes that were told to work in this folder and are still there."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                told = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
                running = "\nState:\tZ" not in (entry / "status").read_text()
            except OSError:  # it ended while we looked
                continue
            if running and str(self.root).encode() in told:
                found.append(int(entry.name))
        return found
