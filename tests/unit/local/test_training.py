"""A run that was made from the same data, code and spec is found, whatever came after it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from local.training import _same_run
from local.workspace import Workspace
from mlplatform.contracts import Decision
from mlplatform.ledger import Ledger

USECASE = "flight_delay"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path)
    made.mlflow.mkdir()
    (made.mlflow / "mlflow.db").touch()
    return made


def ended(ledger: Ledger, run: str, identity: str, verdict: str, usecase: str = USECASE) -> None:
    ledger.append(
        Decision(
            key=f"{usecase}/run/{run}",
            usecase=usecase,
            kind="run",
            subject=run,
            verdict=verdict,
            reason="a test",
            evidence={"identity": identity},
            actor="test",
            at=datetime(2013, 6, 1, tzinfo=UTC),
        )
    )


@pytest.mark.parametrize(
    ("identity", "found"),
    [
        pytest.param("first", "run-1", id="registered, before others"),
        pytest.param("second", "run-2", id="rejected"),
        pytest.param("twice", "run-4", id="the last of two"),
        pytest.param("broken", None, id="failed"),
        pytest.param("another", None, id="never made"),
    ],
)
def test_the_last_run_that_would_end_the_same_way_is_found(
    workspace: Workspace, identity: str, found: str | None
) -> None:
    ledger = Ledger(workspace.ledger_url)
    ended(ledger, "run-1", "first", "registered")
    ended(ledger, "run-2", "second", "rejected")
    ended(ledger, "run-3", "twice", "registered")
    ended(ledger, "run-4", "twice", "registered")
    ended(ledger, "run-5", "broken", "failed")
    ended(ledger, "run-6", "another", "registered", usecase="other")

    assert found == _same_run(workspace, ledger, USECASE, identity)


def test_without_the_registry_that_it_spoke_to_a_run_counts_as_never_made(
    workspace: Workspace,
) -> None:
    ledger = Ledger(workspace.ledger_url)
    ended(ledger, "run-1", "first", "registered")
    (workspace.mlflow / "mlflow.db").unlink()

    assert None is _same_run(workspace, ledger, USECASE, "first")
