"""The command of experiments: a plan, a reading of the newest rollout, and clear refusals."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from feature_repo import catalog
from local.experiment import main
from local.workspace import Workspace
from mlplatform.contracts.rollout import Version
from mlplatform.contracts.usecase.operation import Guardrail
from serving.rollout import machine
from serving.rollout.store import RolloutStore

USECASE = "flight_delay"
SIZE = ["size", "--baseline", "0.5", "--effect", "0.25", "--power", "0.9"]


def test_the_size_and_its_duration_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main([*SIZE, "--per-day", "77"])

    # R's power.prop.test gives 76.7 in each arm.
    assert "154 entities, 2.0 days: 77 for the champion, 77 for the" in capsys.readouterr().out


def test_a_plan_that_cannot_be_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main([*SIZE, "--weight", "0"])
    assert "weight must lie between 0 and 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("exists", "message"),
    [
        pytest.param(False, "nothing has run in", id="no workspace"),
        pytest.param(True, "has had no rollout", id="no rollout"),
    ],
)
def test_without_a_rollout_there_is_nothing_to_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], exists: bool, message: str
) -> None:
    root = tmp_path if exists else tmp_path / "nowhere"

    assert 1 == main(["read", "--root", str(root)])
    assert message in capsys.readouterr().out


def test_a_rollout_that_nobody_has_entered_is_read_without_a_claim(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace(tmp_path)
    workspace.predictions.mkdir(parents=True)
    plan = catalog.load(USECASE).spec.rollout.model_copy(
        update={"guardrails": (Guardrail(metric="error_rate", margin=0.01),)}
    )
    champion, challenger = Version(version=1, digest="a"), Version(version=2, digest="b")
    now = datetime.now(UTC)
    rollout = machine.start(USECASE, 1, challenger, champion, plan, 2, now, "ada", "an A/B test")
    RolloutStore(workspace.ledger_url).write(rollout, revision=0)
    options = ["--metric", "error_rate", "--baseline", "0.01", "--effect", "0.01"]

    assert 0 == main(["read", "--root", str(tmp_path), *options])
    out = capsys.readouterr().out
    assert "rollout flight_delay/1, error_rate" in out
    assert "0 of 2,3" in out
    assert "planned entities of the champion" in out
    assert "-1.00000 to +1.00000" in out
