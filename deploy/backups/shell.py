"""Programs inside a container: what goes in and what comes out are files of any size.

`kubectl exec` carries the bytes. It may end early without saying so, so whoever streams through it
compares sums or has the other end read what arrived; nothing here takes a good exit for a whole
file. Arguments hold no secret.
"""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, NamedTuple

from deploy.programs import find
from deploy.target import Target
from mlplatform.errors import ServiceError, shorten

_SECONDS: Final = 3600.0
"""Of one transfer: some 100 GB over a slow line."""
_LAST: Final = 600
"""Characters of what a program said at its end."""


class Said(NamedTuple):
    """What a program printed."""

    out: str
    """Empty where it went to a file."""
    err: str


class Shell:
    """Runs programs in one container.

    Args:
        target: Cluster and namespace.
        pod: Name.
        container: In it.
    """

    def __init__(self, target: Target, pod: str, container: str) -> None:
        self._place = ("--context", target.context, "--namespace", target.namespace)
        self._pod, self._container = pod, container

    def run(self, *command: str, given: Path | str = "", into: Path | None = None) -> Said:
        """Run a program to its end.

        Args:
            command: The program and its arguments.
            given: On its standard input: a file, or text.
            into: Where its standard output goes.

        Raises:
            ServiceError: It failed; what it has written to `into` is no result.
        """
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(_opened(given))
            err = stack.enter_context(tempfile.TemporaryFile())
            out = stack.enter_context(_writable(into))
            try:
                done = subprocess.run(
                    self._arguments(command), stdin=source, stdout=out, stderr=err,
                    timeout=_SECONDS, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired as error:
                raise ServiceError(f"{self._named(command)} took over {_SECONDS:.0f} s") from error
            said = Said("" if into else _text(out), _text(err))
        if done.returncode:
            raise self._failed(command, said.err or said.out)
        return said

    def lines(self, *command: str, given: Path | str = "") -> Iterator[str]:
        """Yield the lines that a program prints, as they come; to be read to the end.

        Raises:
            ServiceError: It failed.
        """
        with _opened(given) as source, tempfile.TemporaryFile() as err:
            with subprocess.Popen(
                self._arguments(command), stdin=source, stdout=subprocess.PIPE, stderr=err
            ) as process:
                if process.stdout is not None:
                    for line in process.stdout:
                        yield line.decode(errors="replace").rstrip("\n")
            if process.returncode:
                raise self._failed(command, _text(err))

    def _arguments(self, command: tuple[str, ...]) -> list[str]:
        container = ("--container", self._container)
        return [find("kubectl"), *self._place, "exec", "-i", self._pod, *container, "--", *command]

    def _named(self, command: tuple[str, ...]) -> str:
        return f"`{shorten(' '.join(command[-4:]))}` in {self._pod}"

    def _failed(self, command: tuple[str, ...], said: str) -> ServiceError:
        last = said.strip()[-_LAST:] or "it said nothing"
        return ServiceError(f"{self._named(command)} failed: {shorten(last)}")


@contextlib.contextmanager
def _opened(given: Path | str) -> Iterator[IO[bytes]]:
    if isinstance(given, Path):
        with given.open("rb") as file:
            yield file
        return
    # A file without a name: text may hold what no argument may.
    with tempfile.TemporaryFile() as file:
        file.write(given.encode())
        file.seek(0)
        yield file


def _writable(into: Path | None) -> IO[bytes]:
    return into.open("wb") if into else tempfile.TemporaryFile()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
