"""Live traffic from past events: a process of its own sends it, a stretch at a time.

It is asked for traffic until a moment of the data's time; when that returns, every request has
been answered and every answer is in the archive. Between two stretches the world stands still, so
that whoever judges a stretch sees the same rows in every run, however busy the machine is.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

import polars as pl
from rich.console import Console

from feature_repo import predictions
from local.live import Screen
from local.processes import tail
from local.serving import Serving
from local.workspace import Workspace
from mlplatform.contracts import Window
from mlplatform.contracts.usecase.operation import LatencyBudget
from mlplatform.errors import PlatformError

_ARCHIVED_SECONDS: Final = 60.0
"""Longest wait for the archive, which writes a file twice a second (`Workspace`)."""
_STOP_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.1
_COUNTED: Final = ("request_id", "received_at", "arm")

Line = dict[str, Any]


class LiveTraffic:
    """The traffic of a window, for the length of a `with` block.

    Args:
        console: Where its progress is shown.
        workspace: Gets the client's own ledger when the traffic ends.
        running: The platform that answers; its clock goes with the traffic.
        start: First moment; the online store stands there.
        end: No event after it is sent.
        per_second: The pace.
        budget: Of the use case.
        watch: Called with each line of progress, which it may add to.
    """

    def __init__(
        self,
        console: Console,
        workspace: Workspace,
        running: Serving,
        start: datetime,
        end: datetime,
        per_second: float,
        budget: LatencyBudget,
        watch: Callable[[Line], None] = lambda _: None,
    ) -> None:
        self._screen, self._workspace, self._running = Screen(console, budget), workspace, running
        self._start, self._end, self._per_second = start, end, per_second
        self._watch = watch
        self._log = workspace.root / "replay.log"
        self._last: Line = {}
        self.began = datetime.now(UTC)

    def __enter__(self) -> Self:
        """Start the process that sends."""
        self._workspace.replay.mkdir(parents=True, exist_ok=True)
        self._workspace.answers.unlink(missing_ok=True)
        running = self._running
        command = [
            sys.executable, "-m", "local.replay", "--usecase", running.usecase,
            "--start", self._start.isoformat(), "--end", self._end.isoformat(),
            "--rate", str(self._per_second), "--gateway", running.url,
            "--redis", running.redis_url, "--data-root", str(self._workspace.data),
            "--out", str(self._workspace.answers),
        ]  # fmt: skip
        with self._log.open("wb") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
        return self

    def until(self, moment: datetime, withheld: Collection[str] = ()) -> Line:
        """Send what comes before a moment; return the last line when all is answered and archived.

        Args:
            moment: Of the data's time.
            withheld: Feature views whose feed has stopped meanwhile.

        Raises:
            PlatformError: The process failed, or the archive lacks answers.
        """
        asked = {"until": moment.isoformat(), "withheld": sorted(withheld)}
        self._screen.show(self._said(asked))
        self._archived(self._last["answered"])
        self._running.clock.seen(moment)
        return self._last

    def ledger(self) -> pl.DataFrame:
        """End the traffic and return the client's own ledger (`local.tally.ledger`).

        Raises:
            PlatformError: The process failed.
        """
        self._process.communicate()
        if self._process.returncode:
            raise self._failed()
        return pl.read_parquet(self._workspace.answers)

    def archived(self) -> pl.DataFrame:
        """Return this traffic's rows of the archive, without the shadow's."""
        return self._rows(tuple(predictions.SCHEMA))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process, whatever it is doing."""
        self._process.terminate()
        try:
            self._process.communicate(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def _said(self, asked: dict[str, Any]) -> Iterator[Line]:
        """Ask for a stretch and yield the lines until it is reached."""
        assert self._process.stdin is not None  # noqa: S101  # both are pipes
        assert self._process.stdout is not None  # noqa: S101  # as above
        try:
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._failed() from error
        for text in self._process.stdout:
            self._last = line = json.loads(text)
            at = datetime.fromisoformat(line["event_time"])
            if at > self._start:  # not before the first request, which has a time of 1970
                self._running.clock.seen(at)
            self._watch(line)
            yield line
            if "reached" in line:
                return
        raise self._failed()

    def _failed(self) -> PlatformError:
        status = self._process.wait()
        return PlatformError(
            f"the replay ended with {status}; the end of {self._log}:\n{tail(self._log)}"
        )

    def _archived(self, answered: int) -> None:
        deadline = time.monotonic() + _ARCHIVED_SECONDS
        while (found := self._rows(_COUNTED).height) < answered:
            if time.monotonic() > deadline:
                raise PlatformError(
                    f"the archive of predictions holds {found:,} of {answered:,} answers after "
                    f"{_ARCHIVED_SECONDS:g} s: see {self._workspace.root / 'archiver.log'}"
                )
            time.sleep(_POLL_SECONDS)

    def _rows(self, columns: tuple[str, ...]) -> pl.DataFrame:
        rows = predictions.read(
            self._workspace.predictions,
            self._running.usecase,
            Window(start=self._start, end=self._end),
            columns,
        )
        return rows.filter(pl.col("received_at") >= self.began, pl.col("arm") != "shadow")
