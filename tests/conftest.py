"""Shared by all tests: the repository's root and a copy of it to plant things in."""

import shutil
import subprocess
from collections.abc import Callable
from importlib.util import cache_from_source
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cluster",
        action="store_true",
        help="run tests/cluster as well: they install the platform in the cluster of KUBECONFIG",
    )


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each file to one process, and all that starts from the loop's first model as well."""
    for item in items:
        shared = "registered" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("registered" if shared else str(item.path)))


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
