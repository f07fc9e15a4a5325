"""Online serving beside its peers: `python -m bench.serving` (`make demo` first), five minutes.

The whole request: features, score, route, decision and prediction log of ours, through
`local.serving`, against `mlflow models serve` scoring alone and against the chain that people build
(`feast serve`, FastAPI, MLflow); below all of them a floor. Same events, same feature vectors, the
same two cores, in turn; scores are compared before any time counts. Open loop, latency from the
intended moment, CPU of all processes of a contender.

Then feature reads beside Feast's (`bench.features`). Writes `build/bench/serving.json` and exits
with 1 when scores differ, a request failed or a goal is missed.
"""

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import report
from bench.features import __main__ as features
from bench.serving import contest, events, peers, processes, tables
from bench.serving.contest import Contender, Run
from feature_repo import catalog
from local.serving import Serving, serving
from local.summary import Summary
from local.supervisor import Handle, Supervisor
from local.workspace import Workspace
from mlplatform.errors import NotFoundError, PlatformError

P99_GOAL: Final = 4.0
"""p99 of MLflow scoring alone over ours with everything: ours takes at most a quarter."""
CPU_GOAL: Final = 10.0
"""Requests per CPU second of ours over those of the chain."""

EARLIER: Final = timedelta(hours=12)
"""Before the demo's moment (four in the morning in New York): an afternoon has all features."""
RATES: Final = (250, 500, 750, 1000, 1500, 2000, 3000)
"""Requests per second that ours is tried with, until one is too much."""
CLIENTS: Final = 8
"""Of the closed loop: enough to keep two cores busy, whoever answers."""
BUSY_ROUNDS: Final = 3
LIMIT_MS: Final = 50.0
_STEP_SECONDS: Final = 2.0
_BUSY_SECONDS: Final = 1.5
_SINGLE_SECONDS: Final = 1.0
_IDLE_SECONDS: Final = 3.0
_WARM_SECONDS: Final = 1.0
_LARGEST: Final = 200
"""Different requests."""


@dataclass(frozen=True)
class _Stage:
    """Everything that runs."""

    ours: Contender
    others: tuple[Contender, ...]
    handles: tuple[Handle, ...]
    """Of all servers."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both halves; return the exit status."""
    asked = _parser().parse_args(arguments)
    started = time.perf_counter()
    results: list[report.Comparison] = []
    try:
        wrong = _requests(asked, results)
    except PlatformError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not asked.requests_only:
        _say("\nfeature reads")
        try:
            results += features.measure()
        except features.DifferError as error:
            print(f"error: {error}", file=sys.stderr)
            wrong = True
    report.write(asked.output, results)
    _say("")
    for one in results:
        _say(report.line(one))
    _say(f"wrote {asked.output} after {time.perf_counter() - started:.0f} s")
    return 1 if wrong or any(one.met is False for one in results) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=__doc__)
    parser.add_argument("--usecase", default="flight_delay", help="a folder under usecases/")
    parser.add_argument("--root", type=Path, default=Path("build/demo"), help="of `make demo`")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5, help="of each run (%(default)s)")
    parser.add_argument("--rate", type=float, default=50, help="requests/s (%(default)s)")
    parser.add_argument("--no-highest", action="store_true", help="leave the highest rate out")
    parser.add_argument("--requests-only", action="store_true", help="leave feature reads out")
    parser.add_argument(
        "--output", type=Path, default=peers.ROOT / "build/bench/serving.json",
        help="where results go",
    )  # fmt: skip
    return parser


def _requests(asked: argparse.Namespace, results: list[report.Comparison]) -> bool:
    """Measure whole requests; return whether scores differ or requests failed."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-serving-")))
        workspace = _copy(Workspace(asked.root), scratch)
        stage = _stage(asked, workspace, scratch, stack)
        everybody = (stage.ours, *stage.others)
        differ = _scores_differ(everybody)
        _say(f"{asked.rounds} rounds of {asked.seconds:g} s each at {asked.rate:g} requests/s")
        runs = contest.contest(
            everybody,
            rounds=asked.rounds,
            rate=asked.rate,
            warm=round(_WARM_SECONDS * asked.rate),
            count=round(asked.seconds * asked.rate),
            say=_say,
        )
        idle = contest.idle(stage.ours, _IDLE_SECONDS)
        busy = contest.saturate(
            everybody, rounds=BUSY_ROUNDS, seconds=_BUSY_SECONDS, clients=CLIENTS
        )
        single = contest.saturate(everybody, rounds=BUSY_ROUNDS, seconds=_SINGLE_SECONDS, clients=1)
        best = None if asked.no_highest else _highest(stage.ours)
        restarted = [handle.program.name for handle in stage.handles if handle.restarts]
    failed = sum(run.failed for run in (*runs, *busy, *single))
    _say("")
    _print(tables.latency(runs))
    _say(f"requests that failed: {failed}\n")
    _say(f"a request of ours at {asked.rate:g} requests/s: servers and caches are cold")
    _print(tables.profile(runs[0], idle))
    _say("\na request of ours right after the one before, one client: they are warm")
    _print(tables.profile(single[0], idle))
    results += compared(runs, asked.rate)
    _say("\none client, one request after the other")
    _print(tables.latency(single))
    results += _compared_single(single)
    _say("")
    _print(tables.busy(busy, CLIENTS))
    results += _compared_busy(busy)
    if best is not None:
        _say(f"ours, highest rate tried with p99 < {LIMIT_MS:g} ms: {best:g} requests/s")
    if restarted:
        _say(f"WRONG: restarted meanwhile, so the figures do not count: {', '.join(restarted)}")
    return differ or bool(failed or restarted)


def _copy(demo: Workspace, scratch: Path) -> Workspace:
    """Return a copy of what `make demo` left: the benchmark's traffic is not the demo's.

    Raises:
        NotFoundError: It has not run.
    """
    if not demo.summary.is_file():
        raise NotFoundError(f"there is no {demo.summary}: run `make demo` first")
    copied = scratch / "platform"
    with demo.lock():
        left_out = {demo.predictions, demo.redis, demo.replay, demo.spill, demo.models}
        shutil.copytree(
            demo.root,
            copied,
            ignore=lambda folder, names: [n for n in names if Path(folder, n) in left_out],
        )
    return Workspace(copied)


def _stage(
    asked: argparse.Namespace, workspace: Workspace, scratch: Path, stack: contextlib.ExitStack
) -> _Stage:
    """Start every server; all end with the stack."""
    code = catalog.load(asked.usecase)
    summary = Summary.model_validate_json(workspace.run_summary.read_bytes())
    moment = datetime.fromisoformat(summary.as_of) - EARLIER
    running = stack.enter_context(serving(workspace, code, moment, _step))
    model = running.model
    wanted = events.requests(code, model, moment, running.redis_url, _LARGEST)
    events.fill_floor(wanted, running.redis_url)
    bodies, vectors = wanted.write(scratch)
    supervisor = stack.enter_context(Supervisor())
    onnx = peers.scoring_model(workspace, model.name, model.version, scratch)
    mlflow = peers.scoring_server(supervisor, onnx, scratch)
    feast = peers.feature_server(supervisor, workspace, running.redis_url, scratch)
    about = {
        "BENCH_USECASE": asked.usecase,
        "BENCH_SERVICE": code.spec.feature_service,
        "BENCH_FEATURES": ",".join(model.features),
    }
    chain = peers.chain(supervisor, feast, mlflow, about, scratch)
    floor = peers.floor(supervisor, running.redis_url, onnx / "model.onnx", scratch)
    _step("peers", "mlflow models serve, feast serve, FastAPI and the floor answer")
    redis = processes.tree(running.redis.pid)
    scoring = processes.tree(mlflow.handle.pid)
    return _Stage(
        ours=Contender("ours", running.url, f"/v1/{asked.usecase}/score", bodies, _plain,
                       _parts(running)),
        others=(
            Contender("mlflow", mlflow.url, "/invocations", vectors, _predicted,
                      {"mlflow": scoring}),
            Contender("chain", chain.url, "/score", bodies, _plain,
                      {"feast": processes.tree(feast.handle.pid), "redis": redis,
                       "fastapi": processes.tree(chain.handle.pid), "mlflow": scoring}),
            Contender("floor", floor.url, "/", bodies, _plain,
                      {"floor": processes.tree(floor.handle.pid), "redis": redis}),
        ),
        handles=(running.gateway, running.redis, running.triton, running.archiver,
                 mlflow.handle, feast.handle, chain.handle, floor.handle),
    )  # fmt: skip


def _parts(running: Serving) -> dict[str, tuple[int, ...]]:
    triton = processes.tree(running.triton.pid)
    stub = tuple(pid for pid in triton if "python_backend_stub" in processes.command(pid))
    return {
        "gateway": processes.tree(running.gateway.pid),
        "redis": processes.tree(running.redis.pid),
        "triton": tuple(pid for pid in triton if pid not in stub),
        "model": stub,
        "archiver": processes.tree(running.archiver.pid),
    }


def _plain(answer: Any) -> float:
    return float(answer["score"])


def _predicted(answer: Any) -> float:
    return float(answer["predictions"][0]["probability"])


def _scores_differ(everybody: Sequence[Contender]) -> bool:
    """Compare the scores of all different requests with ours."""
    count = len(everybody[0].bodies.read_bytes().splitlines())
    found = [contest.scores(contender, count) for contender in everybody]
    differ = False
    for contender, scores in zip(everybody, found, strict=True):
        apart = np.abs(scores - found[0])
        wrong = int((~(apart <= contest.TOLERANCE)).sum())  # NaN is wrong too
        differ |= bool(wrong)
        _say(f"  {contender.name}: {wrong} of {count} scores differ, at most {apart.max():.1e}")
    return differ


def compared(runs: Sequence[Run], rate: float) -> list[report.Comparison]:
    """Return ours, the first run, beside each of the others."""
    ours, others = runs[0], runs[1:]
    found = []
    for run in others:
        name = run.contender.name
        goals = {"mlflow": (None, P99_GOAL, None), "chain": (None, None, CPU_GOAL)}
        middle, tail, cpu = goals.get(name, (None, None, None))
        for what, mine, theirs, goal in (
            ("p50", ours.percentile(50), run.percentile(50), middle),
            ("p99", ours.percentile(99), run.percentile(99), tail),
            ("CPU per request", ours.cpu_ms(), run.cpu_ms(), cpu),
        ):
            title = f"{name}, {what}, whole request at {rate:g} requests/s"
            found.append(report.compare(title, mine, theirs, "ms", goal))
    return found


def _compared_single(runs: Sequence[Run]) -> Iterator[report.Comparison]:
    ours, others = runs[0], runs[1:]
    for run in others:
        for share in (50, 99):
            title = f"{run.contender.name}, p{share}, whole request, one after the other"
            yield report.compare(title, ours.percentile(share), run.percentile(share), "ms")


def _compared_busy(runs: Sequence[Run]) -> Iterator[report.Comparison]:
    ours, others = runs[0], runs[1:]
    for run in others:
        name = run.contender.name
        goal = CPU_GOAL if name == "chain" else None
        title = f"{name}, CPU per request, whole request, kept busy by {CLIENTS} clients"
        yield report.compare(title, ours.cpu_ms(), run.cpu_ms(), "ms", goal)
        title = f"{name}, time between answers, whole request, kept busy by {CLIENTS} clients"
        yield report.compare(title, ours.wall_ms(), run.wall_ms(), "ms")


def _highest(ours: Contender) -> float:
    """Return the highest rate before the one that is too much, twice: p99 or a lost request."""
    best = 0.0
    for rate in RATES:
        for _ in range(2):
            one = contest.load(
                ours, rate=rate, warm=round(rate / 2), count=round(rate * _STEP_SECONDS)
            )
            if not one.failed and float(np.percentile(one.ms, 99)) < LIMIT_MS:
                best = rate
                break
        else:
            return best
    return best


def _step(step: str, text: str) -> None:
    _say(f"{step}: {text}")


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        _say(line)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
