"""Faults under load: what clients see while a server is killed, stopped or paused.

    python -m bench.faults          (`make bench-faults`; `make demo` first)

Requests arrive at an even pace, open loop, latency from the intended moment. In the middle a fault
is injected into the real process. Every request must be answered within the total budget plus
50 ms and marked for what it is, and the platform must come back by itself. At the end the archive
must hold each answer exactly once.
"""

import argparse
import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import polars as pl
import uvloop

from feature_repo import catalog, predictions
from local.interrupts import interrupts
from local.load import Answer, Client, open_loop
from local.serving import Serving, serving
from local.summary import Summary
from local.tally import scored_of
from local.traffic import rfc3339, traffic
from local.workspace import Workspace
from serving.gateway.answer import Answer as Scored

ALLOWANCE_MS: Final = 50.0
"""Beyond the total budget, while something is broken."""
_BEFORE_SECONDS: Final = 3.0
_STEADY: Final = 100
"""Good answers in a row after which the platform has recovered; a second at 100 requests/s."""


@dataclass(frozen=True)
class Fault:
    """Something that is done to a server."""

    name: str
    inject: Callable[[Serving], None]
    undo: Callable[[Serving], None] | None
    undo_seconds: float
    reason: str
    """What begins each of the reasons that answers must carry meanwhile."""


@dataclass(frozen=True)
class Outcome:
    """What clients saw of one fault; milliseconds from the intended moment."""

    fault: str
    sent: int
    answered: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    within: bool
    """All within the total budget plus the allowance."""
    marked: int
    """Answers marked degraded or fallback after the fault, for its reason."""
    others: dict[str, int]
    """Reasons that the fault does not explain, and how often they were given."""
    recovered_seconds: float | None
    """From the fault to the last answer marked for its reason before `_STEADY` that are not;
    None: not by itself."""


def _stub(running: Serving) -> int:
    """Return the process that runs the model inside Triton's Python backend."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == running.triton.pid and b"python_backend_stub" in command:
            return int(entry.name)
    raise LookupError(f"Triton {running.triton.pid} runs no Python backend")


def _kill(pid: int, kind: signal.Signals) -> None:
    os.kill(pid, kind)


FAULTS: Final = (
    Fault("kill -9 of Triton", lambda s: _kill(s.triton.pid, signal.SIGKILL), None, 0, "inference"),
    Fault("kill -9 of the Python backend", lambda s: _kill(_stub(s), signal.SIGKILL), None, 0,
          "inference"),
    Fault("SIGSTOP of Triton", lambda s: _kill(s.triton.pid, signal.SIGSTOP), None, 0, "inference"),
    Fault("kill -9 of Redis", lambda s: _kill(s.redis.pid, signal.SIGKILL), None, 0, "features"),
    Fault("Redis paused for 5 s", lambda s: _kill(s.redis.pid, signal.SIGSTOP),
          lambda s: _kill(s.redis.pid, signal.SIGCONT), 5, "features"),
    Fault("kill -9 of the archiver", lambda s: _kill(s.archiver.pid, signal.SIGKILL), None, 0, ""),
)  # fmt: skip


def bodies(code: catalog.UseCaseCode, moment: datetime, prefix: str) -> Iterator[bytes]:
    """Yield requests without end: the flights after a moment, asked a minute after it."""
    known = list(traffic(code, moment, moment + timedelta(hours=3)).events())
    at = rfc3339(moment + timedelta(minutes=1))
    number = 0
    while True:
        request = known[number % len(known)]
        number += 1
        yield msgspec.json.encode(
            request | {"event_timestamp": at, "request_id": f"{prefix}-{number}"}
        )


async def _load(
    running: Serving,
    requests: Iterator[bytes],
    fault: Fault,
    per_second: float,
    seconds: float,
) -> tuple[list[Answer], float]:
    """Return the answers and when the fault was injected, on the monotonic clock."""
    loop, injected = asyncio.get_running_loop(), 0.0

    def inject() -> None:
        nonlocal injected
        injected = time.monotonic()
        fault.inject(running)
        if fault.undo is not None:
            loop.call_later(fault.undo_seconds, fault.undo, running)

    loop.set_exception_handler(_raise)
    loop.call_later(_BEFORE_SECONDS, inject)
    count = int((_BEFORE_SECONDS + seconds) * per_second)
    async with Client(running.url) as client:
        path = f"/v1/{running.usecase}/score"
        payloads = [client.request(path, next(requests)) for _ in range(count)]
        answers = await open_loop(client, payloads, per_second)
    return answers, injected


def _raise(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """End the run when the fault could not be injected: it would pass as harmless."""
    error = context.get("exception")
    raise SystemExit(f"the fault could not be injected: {error or context['message']}")


def run(
    running: Serving,
    requests: Iterator[bytes],
    fault: Fault,
    *,
    limit_ms: float,
    per_second: float = 100,
    seconds: float = 12,
) -> Outcome:
    """Inject one fault under load and return what clients saw."""
    answers, injected = uvloop.run(_load(running, requests, fault, per_second, seconds))
    millis = np.array([answer.seconds * 1000 for answer in answers])
    scored = [scored_of(answer) for answer in answers]
    after = [(a, s) for a, s in zip(answers, scored, strict=True) if s and a.due >= injected - 0.1]
    marks = [s for _, s in after if s.fallback or s.degraded]
    reasons = Counter(reason for s in marks for reason in s.reasons)
    explained = {r for r in reasons if fault.reason and r.startswith(fault.reason)}
    return Outcome(
        fault=fault.name,
        sent=len(answers),
        answered=sum(s is not None for s in scored),
        p50_ms=round(float(np.percentile(millis, 50)), 2),
        p99_ms=round(float(np.percentile(millis, 99)), 2),
        max_ms=round(float(millis.max()), 2),
        within=bool(millis.max() <= limit_ms),
        marked=sum(any(r in explained for r in s.reasons) for s in marks),
        others={r: n for r, n in reasons.items() if r not in explained},
        recovered_seconds=_recovered(after, injected, explained),
    )


def _recovered(
    after: list[tuple[Answer, Scored]], injected: float, explained: set[str]
) -> float | None:
    steady, since, shown = 0, injected, not explained
    for answer, scored in after:
        if explained.intersection(scored.reasons):
            steady, since, shown = 0, answer.done, True
        else:
            steady += 1
            if shown and steady >= _STEADY:  # what comes later on a busy machine is no sign of it
                return round(since - injected, 2)
    return None


def archived_once(workspace: Workspace, usecase: str, prefix: str, expected: int) -> int:
    """Return how many of the expected rows the archive holds exactly once; waits a minute."""
    deadline = time.monotonic() + 60
    while True:
        rows = predictions.read(workspace.predictions, usecase)
        mine = rows.filter(pl.col("request_id").str.starts_with(prefix))
        once = mine.group_by("request_id").len().filter(pl.col("len") == 1).height
        if once >= expected or mine.height > expected or time.monotonic() > deadline:
            return once
        time.sleep(0.5)


def main() -> None:
    """Run all faults and print what clients saw; ends with 1 when an answer was lost."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    parser.add_argument("--usecase", default="flight_delay", help="a folder under usecases/")
    parser.add_argument("--root", type=Path, default=Path("build/demo"), help="of `make demo`")
    parser.add_argument("--rate", type=float, default=100, help="requests/s (%(default)s)")
    parser.add_argument("--seconds", type=float, default=15, help="after each fault (%(default)s)")
    options = parser.parse_args()
    workspace = Workspace(options.root)
    summary = Summary.model_validate_json(workspace.run_summary.read_bytes())
    code, moment = catalog.load(options.usecase), datetime.fromisoformat(summary.as_of)
    limit = code.spec.serving.latency_ms.total + ALLOWANCE_MS
    prefix = f"fault-{time.time_ns()}"
    outcomes = []
    interrupts()
    with (
        workspace.lock(),
        serving(workspace, code, moment, lambda step, text: print(f"{step}: {text}")) as running,
    ):
        requests = bodies(code, moment, prefix)
        for fault in FAULTS:
            found = run(
                running, requests, fault,
                limit_ms=limit, per_second=options.rate, seconds=options.seconds,
            )  # fmt: skip
            outcomes.append(found)
            print(found, flush=True)
        answered = sum(found.answered for found in outcomes)
        once = archived_once(workspace, options.usecase, prefix, answered)
    print(f"{answered:,} answered, {once:,} in the archive exactly once")
    out = Path("build/bench/faults.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        json.dumps(
            {
                "limit_ms": limit,
                "answered": answered,
                "archived_once": once,
                "faults": [asdict(found) for found in outcomes],
            },
            indent=2,
        )
    )

    lost = [f.fault for f in outcomes if f.answered < f.sent or f.recovered_seconds is None]
    if lost or once != answered:
        raise SystemExit(f"not survived: {', '.join(lost) or 'the log'}")
    if late := [f.fault for f in outcomes if not f.within]:
        print(f"beyond {limit:g} ms: {', '.join(late)}")


if __name__ == "__main__":
    main()
