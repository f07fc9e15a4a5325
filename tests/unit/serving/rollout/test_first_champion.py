"""The first version serves without a comparison, once, and the demo knows that one does."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from local.workspace import Workspace
from mlplatform.clients.registry import Registry
from mlplatform.contracts import ModelRef
from mlplatform.errors import NotFoundError
from mlplatform.ledger import Ledger
from serving.rollout.first_champion import first_champion

USECASE = "flight_delay"


class Aliases(Registry):
    """A registry of complete versions, as far as aliases go."""

    def __init__(self, **versions: int) -> None:
        self.versions = versions

    def by_alias(self, name: str, alias: str) -> ModelRef | None:
        if alias not in self.versions:
            return None
        return ModelRef(
            name=name,
            version=self.versions[alias],
            digest="d" * 64,
            uri="models:/x",
            signature="s" * 64,
            run_id="r",
            created=False,
            registered_at=datetime(2013, 6, 1, tzinfo=UTC),
        )

    def set_alias(self, name: str, alias: str, version: int) -> None:
        del name
        self.versions[alias] = version


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path)
    made.mlflow.mkdir()
    (made.mlflow / "mlflow.db").touch()
    return made


def test_the_challenger_becomes_the_first_champion_once(workspace: Workspace) -> None:
    registry, ledger = Aliases(challenger=1), Ledger(workspace.ledger_url)
    found = [first_champion(registry, ledger, USECASE) for _ in range(2)]

    assert [1, 1] == [version.version for version in found]
    assert {"challenger": 1, "champion": 1} == registry.versions
    assert ["promoted"] == [row.decision.verdict for row in ledger.entries(USECASE, "route")]


def test_a_champion_that_is_there_stays_whoever_challenges_it(workspace: Workspace) -> None:
    registry, ledger = Aliases(champion=2, challenger=3), Ledger(workspace.ledger_url)

    assert 2 == first_champion(registry, ledger, USECASE).version
    assert 0 == ledger.verify()


def test_without_a_version_the_next_step_is_named(workspace: Workspace) -> None:
    with pytest.raises(NotFoundError, match="run `make demo`"):
        first_champion(Aliases(), Ledger(workspace.ledger_url), USECASE)
