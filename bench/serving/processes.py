"""CPU time of servers: what a process and all its descendants have used.

A contender is charged for everything that works for its requests, in whatever process: the
supervised program, the workers that it starts, Redis. Linux only, out of /proc.

The kernel's own count per thread is read, in nanoseconds: the ticks of /proc/PID/stat, 10 ms each,
are too coarse for a server that needs 0.3 ms per request. Time of threads that have ended is not
in it; the servers here keep theirs.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

_NANOSECOND: Final = 1e-9
_PROC: Final = Path("/proc")


def tree(root: int) -> tuple[int, ...]:
    """Return a process and its descendants, as they are now."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (parent := _parent(entry)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:  # grows while it is walked
        found += children.get(pid, [])
    return tuple(found)


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return what these processes have used since they started, user and system; 0 for the dead."""
    return sum(map(_used, pids))


def sample(groups: Mapping[str, Iterable[int]]) -> dict[str, float]:
    """Return the CPU seconds of each group of processes."""
    return {name: cpu_seconds(pids) for name, pids in groups.items()}


def machine_seconds() -> float:
    """Return what all processes of the machine have used, and what its host has taken away."""
    names = (_PROC / "stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _idle, _waiting, interrupts, soft, stolen = map(int, names[:8])
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def command(pid: int) -> str:
    """Return the command line of a process; empty when it has gone."""
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _parent(entry: Path) -> int | None:
    try:
        # After the name, which may hold spaces and brackets: state, parent.
        return int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, ValueError):
        return None


def _used(pid: int) -> float:
    total = 0
    with contextlib.suppress(OSError):  # the process has ended
        for thread in (_PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(OSError):
                total += int((thread / "schedstat").read_bytes().split()[0])
    return total * _NANOSECOND
