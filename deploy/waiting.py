"""Waits until the platform's workloads are ready, and says what each of them waits for.

A line is printed when something new is learnt, so that a person who looks away for a minute finds
the story on the screen and not the last state of a spinner.
"""

import time
from collections.abc import Callable, Iterable
from typing import Final

from deploy.progress import Progress
from deploy.workloads import Look, Workload
from mlplatform.errors import ServiceError

_POLL_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 4.0
"""What is so for a shorter time is not worth a line."""


def wait(
    progress: Progress,
    look: Callable[[], Look],
    *,
    without: Iterable[str] = (),
    timeout_seconds: float,
    now: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> str:
    """Return when every workload of the release is ready, in words how many those are.

    Args:
        progress: Where what is learnt is said.
        look: Looks at the namespace.
        without: Components that are not waited for.
        timeout_seconds: Longest wait.
        now: A clock; tests turn it.
        pause: Sleeps; tests do not.

    Raises:
        ServiceError: It took longer, or a Job has given up; with what is missing.
    """
    left_out = tuple(without)
    started = now()
    said: dict[str, str] = {}
    seen: dict[str, tuple[str, float]] = {}
    ready: set[str] = set()
    while True:
        found = look()
        waiting = found.waiting(left_out)
        for done in _new(found, left_out, ready):
            if said:  # only where somebody was told that it waits
                progress.say("ready", done)
        if not waiting:
            return f"{len(ready)} workloads are ready"
        refuse_failed(waiting)
        for name, text in lines(found, waiting):
            if seen.get(name, ("",))[0] != text:
                seen[name] = (text, now())
            lasts = now() - seen[name][1] > _PATIENCE_SECONDS
            if lasts and said.get(name) != text:
                said[name] = text
                progress.say("waits", f"{name}: {text}", style="yellow")
        if now() - started > timeout_seconds:
            raise ServiceError(
                f"not ready within {timeout_seconds:.0f} s:\n"
                + "\n".join(f"  {name}: {text}" for name, text in lines(found, waiting))
                + "\n`make doctor` looks closer; the same command goes on from here"
            )
        pause(_POLL_SECONDS)


def refuse_failed(waiting: Iterable[Workload]) -> None:
    """Refuse Jobs that have given up: no waiting helps.

    Raises:
        ServiceError: There is one; with what its pods say.
    """
    for workload in waiting:
        if workload.failed:
            said = "; ".join(str(held.trouble) for held in workload.held)
            raise ServiceError(
                f"the Job {workload.name} has given up: {workload.failed}"
                + (f" ({said})" if said else "")
                + f"; `kubectl logs job/{workload.name}` has more; mend it and deploy again, which "
                "starts it anew"
            )


def lines(found: Look, waiting: Iterable[Workload]) -> list[tuple[str, str]]:
    """Return what each workload and claim waits for, by name."""
    said = []
    for workload in waiting:
        reasons = list(dict.fromkeys(str(held.trouble) for held in workload.held))
        text = "; ".join(reasons) or "its pods are being made"
        share = f"{workload.ready} of {workload.desired} ready, "
        said.append((workload.name, (share if workload.desired > 1 else "") + text))
    return said + [(held.name, str(held.trouble)) for held in found.claims]


def _new(found: Look, left_out: tuple[str, ...], ready: set[str]) -> list[str]:
    """Return the names of workloads that have become ready, and remember them."""
    well = {
        w.name for w in found.workloads if w.released and w.well and w.component not in left_out
    }
    new = sorted(well - ready)
    ready.clear()
    ready.update(well)
    return new
