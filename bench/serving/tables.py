"""What a person reads of the comparison: latency, CPU, and where a request of ours spends both."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Final

import msgspec
import numpy as np

from bench.serving.contest import Run

QUIET_CORES: Final = 0.1
"""The servers whose turn it is not, and the kernel, use about half of it."""
QUIET_ADVICE: Final = ": TOO MUCH for these figures, run it again on a quiet machine"
_HOPS: Final = ("features_us", "inference_us", "decision_us")
_CLOCK: Final = "total_us"


def latency(runs: Sequence[Run]) -> Iterator[str]:
    """Yield latency and CPU time of each contender."""
    yield (
        f"{'':8}{'p50 ms':>9}{'p99 ms':>9}   {'p99 of the rounds':18}{'CPU ms/request':>15}"
        f"   {'of which':40}"
    )
    for run in runs:
        tails = run.percentile(99)
        parts = ", ".join(f"{part} {run.part_ms(part):.2f}" for part in run.contender.parts)
        yield (
            f"{run.contender.name:8}{run.pooled(50):9.2f}{run.pooled(99):9.2f}"
            f"   {f'{min(tails):.2f} to {max(tails):.2f}':18}{median(run.cpu_ms()):15.2f}   {parts}"
        )
    late = [ms for run in runs for one in run.outcomes for ms in one.late_ms]
    own = sum(one.own_cpu for run in runs for one in run.outcomes) * 1000 / len(late)
    yield (
        f"in each latency: the generator's own lateness, p50 {np.percentile(late, 50):.2f}, "
        f"p99 {np.percentile(late, 99):.2f} ms; its CPU, {own:.2f} ms/request, is in no sum"
    )
    yield strangers(runs)


def profile(ours: Run, idle: Mapping[str, float]) -> Iterator[str]:
    """Yield where the time of one of our requests goes, then where the CPU goes.

    Args:
        ours: Our run.
        idle: CPU per second of each part while nobody asks, milliseconds.
    """
    hops = _hops(ours)
    latencies = np.array(
        [ms * 1000 for one in ours.outcomes for ms in one.ms[: len(one.bodies)]], dtype=float
    )
    known = {hop.removesuffix("_us"): hops[hop] for hop in _HOPS}
    known["rest of the gateway"] = hops[_CLOCK] - sum(hops[hop] for hop in _HOPS)
    known["HTTP, loopback, client"] = latencies - hops[_CLOCK]
    yield f"{'time of a request, us':32}{'p50':>8}{'p99':>8}{'mean':>8}"
    for name, values in (known | {"what the client sees": latencies}).items():
        yield (
            f"  {name:30}{np.percentile(values, 50):8.0f}{np.percentile(values, 99):8.0f}"
            f"{values.mean():8.0f}"
        )
    yield f"{'CPU of a request, us':32}{'all':>8}{'idle':>8}{'rest':>8}   (idle: at no requests)"
    total = [0.0, 0.0]
    for part in ours.contender.parts:
        used, still = ours.part_ms(part) * 1000, idle[part] * median(ours.wall_ms())
        total = [total[0] + used, total[1] + still]
        yield f"  {part:30}{used:8.0f}{still:8.0f}{used - still:8.0f}"
    yield f"  {'all':30}{total[0]:8.0f}{total[1]:8.0f}{total[0] - total[1]:8.0f}"


def busy(runs: Sequence[Run], clients: int) -> Iterator[str]:
    """Yield what a request costs servers that are kept busy."""
    yield f"kept busy by {clients} clients, medians of the rounds"
    yield f"{'':8}{'requests/s':>12}{'requests/CPU s':>16}{'CPU ms/request':>16}   of which"
    for run in runs:
        cpu = median(run.cpu_ms())
        parts = ", ".join(f"{part} {run.part_ms(part):.2f}" for part in run.contender.parts)
        yield (
            f"{run.contender.name:8}{1000 / median(run.wall_ms()):12.0f}{1000 / cpu:16.0f}"
            f"{cpu:16.2f}   {parts}"
        )
    yield strangers(runs)


def strangers(runs: Sequence[Run]) -> str:
    """Return what else ran on the machine, and a warning when it was too much."""
    cores = [one.strangers for run in runs for one in run.outcomes]
    text = (
        f"everything else on this machine used {median(cores):.2f} cores meanwhile "
        f"(at most {max(cores):.2f})"
    )
    return text + (QUIET_ADVICE if median(cores) > QUIET_CORES else "")


def _hops(ours: Run) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Return the gateway's own times of the answers that were kept, microseconds."""
    taken = [msgspec.json.decode(body)["latency"] for one in ours.outcomes for body in one.bodies]
    return {hop: np.array([one[hop] for one in taken], dtype=float) for hop in (*_HOPS, _CLOCK)}
