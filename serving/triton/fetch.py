"""Fetch a registered version for the server beside it: `python -m serving.triton.fetch …`.

The init container of a model server's pod. It downloads the version, verifies signature, name,
version and digest, and leaves what Triton is to serve in OUT/repository. Nothing is left where
anything is refused, so the server never starts then.

It ends with 1 where the model is refused: no other try would change that. A registry that is away
ends it with 75 (EX_TEMPFAIL) and a wrong setting with 2; the kubelet tries again. The reason is on
stderr and in the container's termination message, where the operator reads it.
"""

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import Final

from feature_repo import catalog
from feature_repo import layout as layouts
from mlplatform.clients.registry import Registry
from mlplatform.errors import ModelError, NotFoundError, PlatformError, ServiceError
from mlplatform.settings import RegistrySettings, SigningSettings
from serving.triton.config import Target
from serving.triton.export import Export, export

_REFUSED: Final = 1
_WRONG: Final = 2
_AWAY: Final = 75
_TARGETS: Final[dict[str, Target]] = {"embedded": "embedded", "server": "gpu"}
"""By what runs it: the CPU server with its Python backend, or Triton's own backends on a GPU."""
_TERMINATION_LOG: Final = Path("/dev/termination-log")
_TERMINATION_BYTES: Final = 4096
"""The kubelet reads no more."""


def main(arguments: list[str] | None = None, *, log: Path = _TERMINATION_LOG) -> int:
    """Run the command line; return 0, or an exit code as above."""
    options = _parser().parse_args(arguments)
    try:
        found = fetch(
            options.usecase, options.version, options.digest, _TARGETS[options.target], options.out
        )
    except PlatformError as error:
        _tell(str(error), log)
        if isinstance(error, ModelError | NotFoundError):
            return _REFUSED
        return _AWAY if isinstance(error, ServiceError) else _WRONG
    sys.stdout.write(f"{found.served.name} version {found.served.version} is in {found.folder}\n")
    return 0


def fetch(usecase: str, version: int, digest: str, target: Target, out: Path) -> Export:
    """Export a version and point OUT/repository at it.

    Raises:
        ModelError: It is refused, or is not the model of this digest.
        PlatformError: The registry is away, or a setting is wrong.
    """
    code = catalog.load(usecase)
    found = export(
        Registry(RegistrySettings.load()),
        usecase,
        version,
        spec=code.spec,
        layout=layouts.load(usecase),
        request_features={name for group in code.groups.values() for name in group},
        public_key=SigningSettings.load().public_key,
        target=target,
        out=out,
    )
    if found.served.digest != digest.removeprefix("sha256:"):
        raise ModelError(
            f"version {version} of {usecase} has digest {found.served.digest}, but {digest} was "
            "asked for: the registry holds another model than the one that was judged; ask for it "
            "anew"
        )
    _point(out / "repository", found.repository)
    return found


def _point(link: Path, to: Path) -> None:
    """Make a link, relative and in one step: the server may have another path to the volume."""
    scratch = link.with_name(f".{link.name}-{os.getpid()}")
    try:
        scratch.unlink(missing_ok=True)
        scratch.symlink_to(os.path.relpath(to, link.parent.resolve()))
        scratch.replace(link)
    except OSError as error:
        raise ServiceError(f"{link} cannot be made: {error}") from error


def _tell(reason: str, log: Path) -> None:
    sys.stderr.write(f"{reason}\n")
    with contextlib.suppress(OSError):  # there is none outside of a pod
        if log.exists():
            log.write_bytes(reason.encode()[:_TERMINATION_BYTES])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.triton.fetch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--usecase", required=True, help="a folder under usecases/")
    parser.add_argument("--version", type=int, required=True, help="registered version")
    parser.add_argument("--digest", required=True, help="SHA-256 of its model.onnx")
    parser.add_argument("--target", choices=sorted(_TARGETS), default="embedded")
    parser.add_argument("--out", type=Path, required=True, help="folder of the export")
    return parser


if __name__ == "__main__":
    sys.exit(main())
