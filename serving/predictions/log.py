"""The gateway's end of the prediction log: every row reaches the stream, and no request waits.

`put` packs a row into memory and returns. One task appends batches to the Redis stream, one batch
at a time and in the order of the rows. When Redis refuses, is slow or is away, that batch and all
later rows go to the spill (`serving.predictions.spill`); a second task replays the spill, and the
first returns to the direct way when nothing lies before it any more. So a row is in the stream
before any later one of its gateway, and whatever is repeated is a row that the archiver has seen:
it takes a row whose sequence is not above the highest of its gateway for a duplicate.

Kept through kill -9: what Redis acknowledged and what was spilled. In memory only are the rows of
the last 10 ms and of the batch under way, for one second at most when Redis has just stopped to
answer. It refuses to hold more than a bounded number of rows: with Redis away and the disk full,
new rows are dropped, counted and said. It refuses to interpret rows.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from mlplatform.clients.redis_link import RedisLink
from mlplatform.clients.redis_protocol import encode
from mlplatform.contracts.prediction import Prediction
from mlplatform.errors import DataError, ServiceError, shorten
from serving.predictions import stream
from serving.predictions.spill import Spill

_BATCH_ROWS: Final = 256
_LINGER_SECONDS: Final = 0.01
"""The first row of a batch waits this long for others: a tenth of the wake-ups at 1,000 rows/s."""
_DEADLINE_SECONDS: Final = 1.0
"""For one batch; loopback takes 1 ms. Slower than this is a sink that is down."""
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0
"""Between two attempts to replay, doubled each time."""
_ADOPT_SECONDS: Final = 10.0
"""Between two looks for spilled rows of dead gateways."""
_QUEUE_ROWS: Final = 10_000
"""Rows in memory from which they are spilled at once: 10 s at 1,000 rows/s, about 5 MB. From twice
as many on new rows are dropped, which takes a full disk as well."""

_log: Final = logging.getLogger(__name__)
_PING: Final = encode("PING")
_T = TypeVar("_T")


class PredictionLog:
    """The log of one gateway process for one use case; lives on one event loop.

    Args:
        redis_url: Where the stream is.
        usecase: Names the stream.
        gateway: A name that no other process has or had.
        spill: Folder for spilled rows, shared by all gateways of a machine.
        queue_rows: Rows in memory from which they are spilled.
    """

    def __init__(
        self,
        redis_url: str,
        usecase: str,
        gateway: str,
        spill: Path,
        *,
        queue_rows: int = _QUEUE_ROWS,
    ) -> None:
        if not gateway or gateway.startswith(".") or "/" in gateway or "\0" in gateway:
            raise DataError(f"gateway name {gateway!r} cannot be a folder: use letters and digits")
        self._usecase, self._root = usecase, spill / usecase
        self._folder = self._root / gateway
        self._queue_rows = queue_rows
        self._link = RedisLink(redis_url, name=f"predictions-{gateway}")
        self._queue: deque[bytes] = deque()
        self._flying: list[bytes] = []
        """Taken from the queue, not yet in Redis or on disk."""
        self._sending: asyncio.Future[list[object]] | None = None
        self._wake = asyncio.Event()
        self._behind, self._level = asyncio.Event(), asyncio.Event()
        """Our own spill has rows, or has none."""
        self._awake = self._draining = self._closed = False
        self._trouble = self._losing = self._blind = False
        self._own: Spill | None = None
        self._adopted: list[Spill] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="spill")
        self._sequence = self._last = self._torn = 0
        self.written = 0
        """Rows that Redis acknowledged, replayed and adopted ones included."""
        self.spilled = 0
        """Rows that were written to disk."""
        self.dropped = 0
        """Rows that are lost: neither Redis nor the disk took them, or they cannot be packed."""

    @property
    def queued(self) -> int:
        """Rows in memory that are neither in Redis nor on disk yet."""
        return len(self._queue) + len(self._flying)

    @property
    def behind(self) -> bool:
        """Whether spilled rows wait for Redis."""
        return bool(self._adopted) or (self._own is not None and not self._own.empty)

    @property
    def torn(self) -> int:
        """Spilled rows that were found half-written or changed."""
        return self._torn + sum(spill.torn for spill in self._spills())

    @property
    def connected(self) -> bool:
        """Whether there is a connection to Redis."""
        return self._link.connected

    async def start(self) -> None:
        """Take the spill folder and begin to write.

        Raises:
            ServiceError: The spill folder cannot be written, or the gateway's name is in use.
        """
        self._own = await self._on_disk(lambda: Spill.create(self._folder))
        await self._link.start()
        for work in (self._write(self._own), self._replay(self._own)):
            task = asyncio.create_task(work, name=f"prediction log {self._usecase}")
            task.add_done_callback(_report)
            self._tasks.append(task)

    def next_sequence(self) -> int:
        """Return the sequence for the next row; put it before another one is asked for."""
        self._sequence += 1
        return self._sequence

    def put(self, row: Prediction) -> None:
        """Take a row; never waits and never raises.

        A row whose sequence is not above the last one's, which the archiver would take for a
        duplicate, gets the next sequence instead.
        """
        if row.sequence <= self._last:
            row = msgspec.structs.replace(row, sequence=self.next_sequence())
        try:
            packed = stream.pack(row)
        except (ValueError, OverflowError, TypeError) as error:
            self._drop(1, f"a row cannot be packed: {shorten(error)}")
            return
        self._last = row.sequence
        waiting = len(self._queue)
        if waiting >= self._queue_rows:
            if self._sending is not None:
                self._sending.cancel()  # Redis is too slow for this rate: to disk with them
            if waiting >= 2 * self._queue_rows or self._closed:
                self._drop(1, f"{waiting} rows wait in memory, neither Redis nor disk takes them")
                return
        self._queue.append(packed)
        if not self._awake:
            self._awake = True
            self._wake.set()

    async def drain(self, seconds: float) -> None:
        """End: when it returns, every row is in Redis or in the spill. Nothing may be put after.

        Args:
            seconds: Longest wait for Redis; what is left then is spilled.
        """
        own = self._own
        self._draining = True
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                if self._tasks:
                    await asyncio.wait(self._tasks[:1])
                if self._link.connected:
                    await self._level.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._closed, self._queue_rows = True, 0
        rest = [*self._flying, *self._queue]
        self._flying, self._queue = [], deque()
        if rest and not (own is not None and await self._append(own, rest)):
            self._drop(len(rest), "the gateway ends, and neither Redis nor the disk takes them")
        await self._link.close()
        for spill in self._spills():
            with contextlib.suppress(OSError):
                await self._on_disk(spill.close)
        self._disk.shutdown()

    async def _write(self, own: Spill) -> None:
        """Move rows from memory to Redis, or to the spill while it is not empty."""
        while True:
            if not self._queue:
                if self._draining:
                    return
                self._awake = False
                self._wake.clear()
                await self._wake.wait()
                continue  # woken to end, there may be nothing
            if len(self._queue) < _BATCH_ROWS and not self._draining:
                await asyncio.sleep(_LINGER_SECONDS)
            take = min(_BATCH_ROWS, len(self._queue))
            self._flying = [self._queue.popleft() for _ in range(take)]
            while not await self._keep(own, self._flying):  # noqa: ASYNC110  # a full disk that gets room tells nobody
                await asyncio.sleep(_FIRST_PAUSE_SECONDS)
            self._flying = []

    async def _keep(self, own: Spill, rows: list[bytes]) -> bool:
        if own.empty:
            try:
                await self._send(rows, direct=True)
            except ServiceError as error:
                self._say_trouble(error)
            else:
                self._say_recovery()
                return True
        return await self._append(own, rows)

    async def _append(self, own: Spill, rows: list[bytes]) -> bool:
        try:
            await self._on_disk(lambda: own.append(rows))
        except OSError as error:
            if not self._losing:
                _log.error("rows of the prediction log cannot be spilled: %s", shorten(error))
            self._losing = True
            return False
        self._losing = False
        self.spilled += len(rows)
        self._level.clear()
        self._behind.set()
        return True

    async def _replay(self, own: Spill) -> None:
        """Send spilled rows, our own first, then those of dead gateways."""
        loop = asyncio.get_running_loop()
        pause, look = _FIRST_PAUSE_SECONDS, 0.0
        while True:
            if loop.time() >= look and not self._adopted:
                self._adopted = await self._on_disk(self._adopt)
                look = loop.time() + _ADOPT_SECONDS
            if own.empty:
                self._level.set()
                self._behind.clear()
            spill = next((item for item in self._spills() if not item.empty), None)
            if spill is None:
                # Not wait_for: in 3.11 it swallows a cancellation that comes with the event.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, look - loop.time())):
                        await self._behind.wait()
                continue
            try:
                await self._replay_batch(spill)
            except (ServiceError, OSError) as error:
                self._say_trouble(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                pause = _FIRST_PAUSE_SECONDS
            if spill.empty and spill is not own:
                await self._let_go(spill)
            self._say_recovery()

    async def _replay_batch(self, spill: Spill) -> None:
        if self._trouble:  # a sink that hangs gets one PING a second, not one batch
            await self._ask(_PING, 1)
        if rows := await self._on_disk(lambda: spill.head(_BATCH_ROWS)):
            await self._send(rows, direct=False)
            await self._on_disk(lambda: spill.advance(len(rows)))

    async def _send(self, rows: list[bytes], *, direct: bool) -> None:
        stream.check(await self._ask(*stream.batch(self._usecase, rows), direct=direct), len(rows))
        self.written += len(rows)

    async def _ask(self, payload: bytes, replies: int, *, direct: bool = False) -> list[object]:
        future = self._link.send(payload, replies)
        self._sending = future if direct else self._sending
        try:
            await asyncio.wait({future}, timeout=_DEADLINE_SECONDS)
            if future.cancelled():
                raise ServiceError("Redis is too slow for the rows that come")
            if not future.done():
                raise ServiceError(f"Redis did not answer within {_DEADLINE_SECONDS:g} s")
            return future.result()
        finally:
            if direct:
                self._sending = None
            if not future.cancel() and not future.cancelled():
                future.exception()  # seen: nobody else will look

    def _adopt(self) -> list[Spill]:
        try:
            found = list(Spill.adopt(self._root))
        except OSError as error:  # no file handle is left, the folder was removed
            if not self._blind:
                text = "spilled rows of dead gateways in %s cannot be looked for: %s"
                _log.warning(text, self._root, shorten(error))
            self._blind = True
            return []
        self._blind = False
        return found

    async def _let_go(self, spill: Spill) -> None:
        """Forget adopted rows that Redis has taken."""
        self._adopted.remove(spill)
        self._torn += spill.torn
        try:
            await self._on_disk(spill.close)
        except OSError as error:
            _log.warning("%s cannot be removed: %s", spill.folder, shorten(error))

    def _spills(self) -> list[Spill]:
        return ([self._own] if self._own is not None else []) + self._adopted

    def _say_trouble(self, error: Exception) -> None:
        if not self._trouble:
            _log.warning("rows of the prediction log are spilled to %s: %s", self._root, error)
        self._trouble = True

    def _say_recovery(self) -> None:
        if self._trouble and not self.behind:
            self._trouble = False
            _log.warning("the prediction log has caught up: no spilled row is left")

    def _drop(self, rows: int, reason: str) -> None:
        self.dropped += rows
        if self.dropped == rows or self.dropped % 1000 == 0:  # the first, then a few
            _log.error("%d rows of the prediction log are lost: %s", self.dropped, reason)

    async def _on_disk(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("the prediction log has stopped: its rows will be lost", exc_info=error)
