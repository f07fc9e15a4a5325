"""The registry of a cluster: the server that its image starts, and who may do what in it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from local.processes import HOST, end_group, free_port
from mlplatform.clients.registry import Registry
from mlplatform.clients.registry.accounts import USERS, Accounts, set_up
from mlplatform.errors import ServiceError
from mlplatform.settings import RegistrySettings

START = Path(__file__).parents[3] / "images" / "registry" / "start.py"
ADMIN = {"MLPLATFORM_REGISTRY_USERNAME": "admin", "MLPLATFORM_REGISTRY_PASSWORD": "first-secret-1"}
PASSWORDS = {user: f"{user}-secret-1" for user in USERS}
MODEL = "churn"
NOW = datetime(2013, 12, 31, 12, tzinfo=UTC)


def _environment(folder: Path, port: int) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if "MLFLOW" not in name} | {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/registry.db",
        "MLFLOW_AUTH_DATABASE_URI": f"sqlite:///{folder}/accounts.db",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a-key",
        "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"{HOST}:{port}",
        **ADMIN,
    }


def _settings(url: str, user: str, password: str) -> RegistrySettings:
    return RegistrySettings(
        tracking_uri=url, username=user, password=SecretStr(password), timeout_seconds=10
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("accounts")


@pytest.fixture(scope="module")
def accounts(folder: Path) -> Iterator[Accounts]:
    """The administrator of a server that was started as in its image."""
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(START), str(port)],
            cwd=folder,
            env=_environment(folder, port),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        admin = Accounts(_settings(f"http://{HOST}:{port}", "admin", "first-secret-1"))
        admin.wait()
        set_up(admin, [MODEL], PASSWORDS)
        yield admin
    finally:
        end_group(process, 20)


@pytest.fixture
def of(accounts: Accounts) -> Callable[[str], Registry]:
    """The registry as a user sees it."""
    return lambda user: Registry(_settings(accounts.address, user, PASSWORDS.get(user, "wrong")))


def test_setting_up_again_changes_nothing(accounts: Accounts) -> None:
    said = set_up(accounts, [MODEL], PASSWORDS)

    assert [f"user {user} is there, 0 permissions changed" for user in USERS] == said[1:]


def test_a_changed_password_is_the_users_from_the_next_setup_on(
    accounts: Accounts, of: Callable[[str], Registry]
) -> None:
    changed = PASSWORDS | {"monitor": "monitor-secret-2"}

    said = set_up(accounts, [MODEL], changed)

    assert "user monitor has the Secret's password again, 0 permissions changed" == said[-1]
    assert (
        Registry(_settings(accounts.address, "monitor", "monitor-secret-2")).newest("nothing")
        is None
    )
    set_up(accounts, [MODEL], PASSWORDS)
    assert of("monitor").newest("nothing") is None


def test_a_model_is_registered_by_the_trainer_and_promoted_by_the_operator(
    of: Callable[[str], Registry], make_work: Callable[..., Any]
) -> None:
    made = make_work(MODEL).run(of("trainer"))

    of("operator").set_alias(MODEL, "champion", made.version)
    of("operator").remove_alias(MODEL, "challenger")

    assert made.version == getattr(of("monitor").by_alias(MODEL, "champion"), "version", None)
    assert of("monitor").by_alias(MODEL, "challenger") is None


def test_a_registration_that_stopped_half_way_is_deleted_by_the_trainer(
    of: Callable[[str], Registry],
) -> None:
    trainer = of("trainer")
    run = trainer.start_run(MODEL, "half", {}, NOW)
    left = trainer.reserve(MODEL, run, digest="d", data_digest="d", tags={})

    assert trainer.discard(left)


@pytest.mark.parametrize(
    ("user", "forbidden"),
    [
        pytest.param("monitor", lambda it: it.set_alias(MODEL, "champion", 1), id="monitor-alias"),
        pytest.param("monitor", lambda it: it.start_run(MODEL, "x", {}, NOW), id="monitor-run"),
        pytest.param("operator", lambda it: it.start_run(MODEL, "x", {}, NOW), id="operator-run"),
        pytest.param("trainer", lambda it: it.remove_alias(MODEL, "champion"), id="trainer-alias"),
        pytest.param("nobody", lambda it: it.newest(MODEL), id="stranger"),
    ],
)
def test_a_user_may_not_do_what_another_role_does(
    user: str, forbidden: Callable[[Registry], object], of: Callable[[str], Registry]
) -> None:
    with pytest.raises(ServiceError, match=r"(?i)permission denied|not authenticated"):
        forbidden(of(user))
