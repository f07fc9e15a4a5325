"""Archive the prediction log: `python -m serving.predictions [--once] [--usecase NAME …]`.

The composition root of the archiver. It reads the streams in Redis (MLPLATFORM_REDIS_URL) and
writes hourly Parquet files (MLPLATFORM_ARCHIVE_ROOT) until SIGTERM. Then it archives once more, so
that the last rows of gateways that ended just before are in the files. An outage of Redis or the
disk is said once and survived.

With `--ready FILE` it says to a supervisor that it works: the file is removed at the start, made
after the first pass in which every use case was archived, touched after each further one, and
removed at the end. Its age grows while Redis or the disk is away, which no restart would cure.
"""

import argparse
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mlplatform.clients import redis_sync
from mlplatform.errors import PlatformError, ServiceError, shorten
from mlplatform.settings import ArchiveSettings, GatewaySettings, RedisSettings
from serving.predictions.archive import Archiver
from serving.predictions.compaction import merge

_MERGE_SECONDS: Final = 600.0
"""Between two looks for hours to merge; the two days before now are looked at."""
_MERGE_HOURS: Final = 48
_REDIS_SECONDS: Final = 2.0
"""Longest wait for a reply, which takes milliseconds: one wait may lie before the last pass, one
in it, and supervisors kill 10 s (local) or 30 s (Kubernetes) after SIGTERM."""
_LAST_SECONDS: Final = 5.0
"""From which on the last pass begins no further file; 20,000 rows, a file, take about a second."""

_log: Final = logging.getLogger("mlplatform.archive")


def main(arguments: list[str] | None = None) -> int:
    """Run the archiver; return 0 when it was asked to end, 2 when it cannot run."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(name)s | %(levelname)s | %(message)s")
    stop = threading.Event()
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda *_: stop.set())
    try:
        settings = ArchiveSettings.load()
        usecases = options.usecase or list(GatewaySettings.load().usecases)
        url = RedisSettings.load().url.get_secret_value()
        redis = redis_sync.connect(url, timeout_seconds=_REDIS_SECONDS)
        root = Path(settings.root)
        archivers = {name: Archiver(redis, root, name) for name in usecases}
        if options.once:
            for archiver in archivers.values():
                archiver.catch_up(stop.is_set)
        else:
            _prepare(options.ready)
            _Work(archivers, root, settings.every_seconds, options.ready).run(stop)
            _prepare(options.ready)
    except PlatformError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


@dataclass
class _Work:
    """The archivers of all use cases, and what is wrong with which."""

    archivers: dict[str, Archiver]
    root: Path
    every_seconds: float
    ready: Path | None
    trouble: set[str] = field(default_factory=set)

    def run(self, stop: threading.Event) -> None:
        """Archive until `stop` is set, and then once more."""
        look: dict[str, float] = {}
        while not stop.is_set():
            self._archive(stop.is_set)
            for name in self.archivers:
                newest = _MERGE_HOURS if name in look else None
                if time.monotonic() >= look.get(name, 0) and self._attempt(
                    f"merging {name}",
                    lambda name=name, newest=newest: merge(  # type: ignore[misc]
                        self.root, name, newest=newest, stop=stop.is_set
                    ),
                ):
                    look[name] = time.monotonic() + _MERGE_SECONDS
            stop.wait(self.every_seconds)
        end = time.monotonic() + _LAST_SECONDS
        self._archive(lambda: time.monotonic() > end)

    def _archive(self, stop: Callable[[], bool]) -> None:
        good = [
            self._attempt(name, lambda archiver=archiver: archiver.catch_up(stop))  # type: ignore[misc]
            for name, archiver in self.archivers.items()
        ]
        if all(good) and self.ready is not None:
            self._attempt(str(self.ready), self.ready.touch)

    def _attempt(self, what: str, work: Callable[[], object]) -> bool:
        """Do it; return False when there was trouble, which is said when it begins and ends."""
        try:
            work()
        except (ServiceError, OSError) as error:
            if what not in self.trouble:
                text = "%s: %s; tried again every %g s"
                _log.warning(text, what, shorten(error), self.every_seconds)
            self.trouble.add(what)
            return False
        if what in self.trouble:
            _log.warning("%s: works again", what)
        self.trouble.discard(what)
        return True


def _prepare(ready: Path | None) -> None:
    """Remove the file that says that we work, which an earlier process may have left."""
    if ready is None:
        return
    try:
        ready.parent.mkdir(parents=True, exist_ok=True)
        ready.unlink(missing_ok=True)
    except OSError as error:
        raise ServiceError(
            f"--ready {ready} cannot be written: {shorten(error)}; name a file in a folder that "
            "this process may write"
        ) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving.predictions", description=__doc__)
    parser.add_argument("--once", action="store_true", help="archive what is there, then end")
    parser.add_argument(
        "--ready", type=Path, metavar="FILE", help="touched after each good pass; not with --once"
    )
    parser.add_argument(
        "--usecase",
        action="append",
        metavar="NAME",
        help="whose log, may be repeated; default: MLPLATFORM_GATEWAY_USECASES",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
