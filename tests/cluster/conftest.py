"""Tests that need a Kubernetes cluster: `make test-cluster`, in whatever KUBECONFIG names.

They install the platform in namespaces of their own, break it on purpose, and remove it. What
clients saw meanwhile is printed as a table at the end.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlplatform.clients.kubernetes import NAMESPACES, Cluster
from tests.cluster.clients import Answers
from tests.cluster.installation import NAMESPACE, Installation
from tests.cluster.values import TRAINED, VALUES
from tests.cluster.volumes import volumes

_HERE = Path(__file__).parent
_SECONDS = 1500
"""Of one test: images are pulled and models trained, on two cores."""
_FIRST = ("test_loop.py", "test_faults.py")
_LAST = ("test_gpu.py", "test_destroy.py")
"""One installation is lived through by all; these come before and after the other files."""
_ROWS: list[tuple[str, Answers, str]] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run these tests only where somebody says so: a KUBECONFIG may name a cluster in use."""
    asked = config.getoption("--cluster")
    for item in items:
        if not item.path.is_relative_to(_HERE):
            continue
        item.add_marker(pytest.mark.cluster)
        item.add_marker(pytest.mark.timeout(_SECONDS))
        if not asked:
            reason = "installs the platform in the cluster of KUBECONFIG: `make test-cluster`"
            item.add_marker(pytest.mark.skip(reason=f"{reason} (pytest --cluster)"))
    items.sort(key=lambda item: _turn(item.path.name))


def _turn(name: str) -> int:
    if name in _FIRST:
        return _FIRST.index(name) - len(_FIRST)
    return 1 + _LAST.index(name) if name in _LAST else 0


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what clients saw while things were broken."""
    if not _ROWS:
        return
    terminalreporter.section("what clients saw")
    head = ("what happened", "requests", "lost", "refused", "by the rules", "degraded", "and then")
    rows = [head, *(_row(*row) for row in _ROWS)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.write_line("  ".join(cells).rstrip())


def _row(what: str, answers: Answers, then: str) -> tuple[str, ...]:
    scored = [one for _, one in answers.scored]
    counts = (
        len(answers.all),
        answers.lost,
        answers.refused,
        sum(one.fallback for one in scored),
        sum(one.degraded for one in scored),
    )
    return (what, *map(str, counts), then)


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Iterator[list[tuple[Answers, str]]]:
    """What a test appends is a row of the table, under the test's name."""
    found: list[tuple[Answers, str]] = []
    yield found
    name = request.node.name.removeprefix("test_").replace("_", " ")
    _ROWS.extend((name, answers, then) for answers, then in found)


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster of KUBECONFIG, seen from its default namespace."""
    assert os.environ.get("KUBECONFIG"), "set KUBECONFIG to the cluster that the tests may use"
    return Cluster.connect()


@pytest.fixture(scope="session")
def storage(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Gives a cluster without a default StorageClass what the platform's claims need."""
    if _there(cluster):
        yield
        return
    with volumes(cluster, tmp_path_factory.mktemp("volumes")):
        yield


@pytest.fixture(scope="session")
def platform(
    cluster: Cluster, storage: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """The platform, deployed by the command that users have into a cluster without it.

    With KEEP=1 in the environment one that is there is used and left: for whoever writes a test.
    """
    del storage
    made = Installation(Cluster.connect(NAMESPACE), tmp_path_factory.mktemp("platform"))
    if _there(cluster):
        yield made.found()
        return
    if cluster.find(NAMESPACES, NAMESPACE) is not None:
        made.command("destroy", "--yes")
    began = time.monotonic()
    made.said = made.at(TRAINED).deploy(VALUES)
    made.seconds = time.monotonic() - began
    yield made
    if cluster.find(NAMESPACES, NAMESPACE) is not None:
        made.command("destroy", "--yes")


def _there(cluster: Cluster) -> bool:
    return bool(os.environ.get("KEEP")) and cluster.find(NAMESPACES, NAMESPACE) is not None
