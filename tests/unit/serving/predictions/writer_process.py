"""A gateway's log in a process of its own, to be killed: URL SPILL GATEWAY LEDGER RATE.

Puts numbered rows at RATE per second until SIGTERM, then drains. Each row's number and the time at
which it was put (monotonic) are in the file LEDGER before the next row is put.
"""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from serving.predictions.log import PredictionLog
from tests.unit.serving.predictions.rows import make_row


async def main(url: str, spill: Path, gateway: str, ledger: Path, rate: float) -> None:
    log = PredictionLog(url, "flights", gateway, spill)
    await log.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    written = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    started, put = time.monotonic(), 0
    while not stop.is_set():
        while put < (time.monotonic() - started) * rate:
            put = log.next_sequence()
            os.write(written, f"{put} {time.monotonic()}\n".encode())
            log.put(make_row(put, gateway))
        await asyncio.sleep(0.004)
    await log.drain(10)
    sys.stdout.write(f"{log.written} {log.spilled} {log.dropped}\n")


if __name__ == "__main__":
    asyncio.run(
        main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), float(sys.argv[5]))
    )
