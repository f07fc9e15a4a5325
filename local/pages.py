"""Evidently's pages, drawn in a process of their own while traffic goes on.

A page takes seconds of a core, the distances that a verdict needs a few hundredths of that. So a
window is judged at once, and drawn, its distances checked against Evidently's, behind.
"""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import polars as pl

from mlplatform.contracts import Window
from mlplatform.contracts.drift import DriftCalibration, DriftReport
from monitoring import drift


class Pages:
    """Draws for the length of a `with` block, which ends when all pages are drawn."""

    def __enter__(self) -> Self:
        """Start the process."""
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_behind)
        self._drawn: list[Future[DriftReport]] = []
        return self

    def detect(
        self,
        reference: pl.DataFrame,
        window: pl.DataFrame,
        calibration: DriftCalibration,
        of: Window,
        page: Path | None = None,
    ) -> DriftReport:
        """Return what `monitoring.drift.detect` returns without a page; the page follows.

        Raises:
            PlatformError: An earlier page showed other distances than were judged by.
        """
        for drawn in [one for one in self._drawn if one.done()]:
            self._drawn.remove(drawn)
            drawn.result()
        if page is not None:
            asked = reference, window, calibration, of, page
            self._drawn.append(self._pool.submit(drift.detect, *asked))
        return drift.detect(reference, window, calibration, of)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the pages; after an error those that have not begun are given up."""
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for drawn in self._drawn:
                drawn.result()


def _behind() -> None:
    """Go behind the others, leave Ctrl-C to the parent, and end with it."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # who answers requests goes first
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101  # this is a child

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
