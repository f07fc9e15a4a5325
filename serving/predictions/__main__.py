"""Archive the prediction log: `python -m serving.predictions [--once] [--usecase NAME …]`.

The composition root of the archiver. It reads the streams in Redis (MLPLATFORM_REDIS_URL) and
writes hourly Parquet files (MLPLATFORM_ARCHIVE_ROOT) until SIGTERM, which lets it finish the file
at hand. An outage of Redis or the disk is said once and survived.
"""

import argparse
import logging
import signal
import sys
import threading
import time
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
        redis = redis_sync.connect(RedisSettings.load().url.get_secret_value())
        root = Path(settings.root)
        archivers = {name: Archiver(redis, root, name) for name in usecases}
        if options.once:
            for archiver in archivers.values():
                archiver.catch_up(stop.is_set)
        else:
            _run(archivers, root, settings.every_seconds, stop)
    except PlatformError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _run(
    archivers: dict[str, Archiver], root: Path, every_seconds: float, stop: threading.Event
) -> None:
    trouble: set[str] = set()
    look: dict[str, float] = {}
    while not stop.is_set():
        for name, archiver in archivers.items():
            try:
                archiver.catch_up(stop.is_set)
                if time.monotonic() >= look.get(name, 0):
                    merge(root, name, newest=_MERGE_HOURS if name in look else None)
                    look[name] = time.monotonic() + _MERGE_SECONDS
            except (ServiceError, OSError) as error:
                if name not in trouble:
                    text = "%s: %s; tried again every %g s"
                    _log.warning(text, name, shorten(error), every_seconds)
                trouble.add(name)
            else:
                if name in trouble:
                    _log.warning("%s: archiving again", name)
                trouble.discard(name)
        stop.wait(every_seconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving.predictions", description=__doc__)
    parser.add_argument("--once", action="store_true", help="archive what is there, then end")
    parser.add_argument(
        "--usecase",
        action="append",
        metavar="NAME",
        help="whose log, may be repeated; default: MLPLATFORM_GATEWAY_USECASES",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
