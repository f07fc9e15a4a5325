"""Shared by all tests: the repository's root and a copy of it to plant things in."""

import shutil
import subprocess
from collections.abc import Callable
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cluster",
        action="store_true",
        help="run tests/cluster as well: they install the platform in the cluster of KUBECONFIG",
    )


class _ByFile(LoadFileScheduling):  # type: ignore[misc]
    """Each file in one process, and all of the loop, whose tests start from one trained model."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "tests/loop" if file.startswith("tests/loop/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    return _ByFile(config, log)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def copy_repository() -> Callable[[Path], Path]:
    """Copies what git knows or would know of the repository, without what runs have made."""

    def copy(target: Path) -> Path:
        names = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split("\0")
        for name in filter(None, names):
            if (ROOT / name).exists():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target / name)
                compiled = Path(cache_from_source(name))
                if name.endswith(".py") and (ROOT / compiled).exists():
                    # Python knows it by the source's time and size, which the copy keeps.
                    (target / compiled).parent.mkdir(exist_ok=True)
                    shutil.copy2(ROOT / compiled, target / compiled)
        return target

    return copy
