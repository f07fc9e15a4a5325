"""An archiver in a process of its own, that kills itself: URL ROOT POINT TIMES [SECONDS].

It ends by SIGKILL when the step POINT is done for the TIMES-th time; `never` is no step. Without
SECONDS it archives what is there and ends.
"""

import os
import signal
import sys
import time
from pathlib import Path

from mlplatform.clients import redis_sync
from mlplatform.errors import ServiceError
from serving.predictions.archive import Archiver
from serving.predictions.compaction import merge


def main(url: str, root: Path, point: str, times: int, seconds: float) -> None:
    left = [times]

    def at(done: str) -> None:
        if done == point:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    archiver = Archiver(redis_sync.connect(url), root, "flights", at=at)
    end = time.monotonic() + seconds
    while True:
        try:
            archiver.catch_up()
            merge(root, "flights", at=at)
        except ServiceError:
            if not seconds:
                raise
        if time.monotonic() >= end:
            return
        time.sleep(0.02)


if __name__ == "__main__":
    url, root, point, times, *seconds = sys.argv[1:]
    main(url, Path(root), point, int(times), float(seconds[0]) if seconds else 0)
