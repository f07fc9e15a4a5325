"""Where the platform on one machine keeps its things, and what its processes are told.

Everything lies under one folder (`build/demo`), which may be removed at any time. Two runs at once
in one folder are refused.
"""

import contextlib
import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from mlplatform.errors import PlatformError
from mlplatform.settings import ComputeSettings

_SERVING: Final = "serving.lock"


@dataclass(frozen=True)
class Workspace:
    """Paths under the folder of a local platform."""

    root: Path

    LOCK: ClassVar = "lock"
    """File that a run holds."""

    @property
    def data(self) -> Path:
        """Raw tables, offline store, Feast registry, journals of runs."""
        return self.root / "data"

    @property
    def mlflow(self) -> Path:
        """The MLflow server's database and artifacts."""
        return self.root / "mlflow"

    @property
    def ledger_url(self) -> str:
        """The ledger's SQLite database."""
        return f"sqlite:///{(self.root / 'ledger.db').absolute()}"

    @property
    def keys(self) -> tuple[Path, Path]:
        """The signing key pair: private, public."""
        return self.root / "keys" / "signing.pem", self.root / "keys" / "signing.pub.pem"

    @property
    def run_summary(self) -> Path:
        """What the last training run did, as JSON."""
        return self.root / "run.json"

    @property
    def run_report(self) -> Path:
        """The same for a person to look at."""
        return self.root / "run.html"

    @property
    def summary(self) -> Path:
        """The story of the whole loop, as JSON."""
        return self.root / "summary.json"

    @property
    def report(self) -> Path:
        """The same for a person to look at."""
        return self.root / "report.html"

    @property
    def monitoring(self) -> Path:
        """What monitoring kept of each window."""
        return self.root / "monitoring"

    @property
    def watched(self) -> Path:
        """Signed directories that monitoring compares with, as they were fetched."""
        return self.root / "watched"

    @property
    def redis(self) -> Path:
        """The online store's append-only file; a run of the servers starts it empty."""
        return self.root / "redis"

    @property
    def models(self) -> Path:
        """Exported model versions, never changed."""
        return self.root / "models"

    @property
    def spill(self) -> Path:
        """Rows of the prediction log that wait for Redis."""
        return self.root / "spill"

    @property
    def predictions(self) -> Path:
        """The archived prediction log."""
        return self.data / "predictions"

    @property
    def replay(self) -> Path:
        """What the replay of live traffic sent, got and found."""
        return self.root / "replay"

    @property
    def answers(self) -> Path:
        """The client's own ledger of the last replay."""
        return self.replay / "answers.parquet"

    @property
    def live_report(self) -> Path:
        """The last replay for a person to look at."""
        return self.root / "live.html"

    @property
    def replay_summary(self) -> Path:
        """The outcome of the last replay, as JSON."""
        return self.root / "replay.json"

    def story(self, usecase: str, version: int) -> Path:
        """The story of a version for a person to look at."""
        return self.root / f"why-{usecase}-v{version}.html"

    @property
    def packages(self) -> Path:
        """Compiled pipelines, where `make compile` puts them too."""
        return Path("build/pipelines")

    @property
    def clock(self) -> Path:
        """The time of the servers, for commands in other processes."""
        return self.root / "clock.json"

    @property
    def aliases_lock(self) -> Path:
        """Held by whoever puts the registry's aliases right."""
        return self.root / "aliases.lock"

    @property
    def served(self) -> bool:
        """Whether servers of this workspace run, in whatever process."""
        try:
            with (self.root / _SERVING).open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    @contextlib.contextmanager
    def lock(self, name: str = LOCK) -> Iterator[None]:
        """Hold the workspace for one run.

        Raises:
            PlatformError: another run holds it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)  # keys, logs with requests, the registry's database
        with (self.root / name).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise PlatformError(
                    f"another run is using {self.root}: wait for it or choose another --root"
                ) from error
            yield

    def serving_lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the servers of the workspace; beside `lock`, which a run without servers holds too.

        Raises:
            PlatformError: another process runs them.
        """
        return self.lock(_SERVING)

    def environment(self, compute: ComputeSettings, registry_url: str) -> dict[str, str]:
        """Return the environment of a step's process: where things are, how many threads."""
        private, public = self.keys
        threads = str(compute.cpus)
        return os.environ | {
            "MLPLATFORM_ENVIRONMENT": "local",
            "MLPLATFORM_GIT_COMMIT": git_commit(),
            "MLPLATFORM_DATA_ROOT": str(self.data.absolute()),
            "MLPLATFORM_ARCHIVE_ROOT": str(self.predictions.absolute()),
            "MLPLATFORM_LEDGER_URL": self.ledger_url,
            "MLPLATFORM_REGISTRY_TRACKING_URI": registry_url,
            "MLPLATFORM_SIGNING_PRIVATE_KEY": str(private.absolute()),
            "MLPLATFORM_SIGNING_PUBLIC_KEY": str(public.absolute()),
            "MLPLATFORM_COMPUTE_CPUS": threads,
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "POLARS_MAX_THREADS": threads,
            "PYTHONUNBUFFERED": "1",
        }

    def serving_environment(self, redis_url: str, port: int, usecase: str) -> dict[str, str]:
        """Return the environment of the gateway and the archiver: one core each, no secrets."""
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
        return (
            os.environ
            | one
            | {
                "MLPLATFORM_ENVIRONMENT": "local",
                "MLPLATFORM_GIT_COMMIT": git_commit(),
                "MLPLATFORM_REDIS_URL": redis_url,
                "MLPLATFORM_GATEWAY_PORT": str(port),
                "MLPLATFORM_GATEWAY_USECASES": json.dumps([usecase]),
                "MLPLATFORM_GATEWAY_SPILL": str(self.spill.absolute()),
                "MLPLATFORM_ARCHIVE_ROOT": str(self.predictions.absolute()),
                "MLPLATFORM_ARCHIVE_EVERY_SECONDS": "0.5",
                "PYTHONUNBUFFERED": "1",
            }
        )


def git_commit() -> str:
    """Return the commit of the checkout, `-dirty` appended when it has changes; else unknown."""
    root = Path(__file__).resolve().parent
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
