"""Becomes the program of its arguments, after removing what killed servers have left behind.

    launch.py PREFIX PROGRAM ARGUMENT...

A model server that is killed leaves its shared memory under a name that begins with the prefix,
which is its own and that of the servers before it at its place: another server may have made a
region that it does not map yet. A region that no process maps belongs to nobody. It runs in the
server's own Python, standard library only, and leaves regions alone that it may not look into.
"""  # noqa: INP001 (a script of another project, not a package)

import contextlib
import os
import sys
from pathlib import Path

REGIONS = Path("/dev/shm")  # noqa: S108 (where POSIX shared memory is on Linux)


def remove_left_regions(prefix: str) -> None:
    """Remove the shared memory of that prefix which no process maps."""
    left = {path.name: path for path in REGIONS.glob(f"{prefix}*")}
    if not left:
        return
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            mapped = maps.read_text(errors="replace")
        except OSError:  # it ended, or is somebody else's, whose regions have another prefix
            continue
        left = {name: path for name, path in left.items() if name not in mapped}
    for path in left.values():
        with contextlib.suppress(OSError):  # gone, or somebody else's after all
            path.unlink()


if __name__ == "__main__":
    remove_left_regions(sys.argv[1])
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 (the command is built by our caller)
