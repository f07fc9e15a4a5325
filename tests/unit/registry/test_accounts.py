"""The registry of a cluster: the server that its image starts, and who may do what in it."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import SecretStr

from local.processes import HOST, end_group, free_port
from mlplatform.clients.registry import Registry
from mlplatform.clients.registry.accounts import USERS, Accounts, main, set_up
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


@contextlib.contextmanager
def _server(folder: Path, changed: Mapping[str, str] = MappingProxyType({})) -> Iterator[str]:
    """Run the server as its image starts it; give its address."""
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(START), str(port)],
            cwd=folder,
            env=_environment(folder, port) | dict(changed),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield f"http://{HOST}:{port}"
    finally:
        end_group(process, 20)


@pytest.fixture(scope="module")
def accounts(folder: Path) -> Iterator[Accounts]:
    """The administrator of a server."""
    with _server(folder) as url:
        admin = Accounts(_settings(url, "admin", "first-secret-1"))
        admin.wait()
        set_up(admin, [MODEL], PASSWORDS)
        yield admin


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


def test_a_changed_password_of_the_administrator_counts_from_the_next_start_on(
    accounts: Accounts, folder: Path, tmp_path: Path
) -> None:
    for name in ("registry.db", "accounts.db"):
        shutil.copyfile(folder / name, tmp_path / name)

    with _server(tmp_path, {"MLPLATFORM_REGISTRY_PASSWORD": "second-secret-1"}) as url:
        admin = Accounts(_settings(url, "admin", "second-secret-1"))
        admin.wait()

        assert "1" == admin.experiment(MODEL)
    with pytest.raises(ServiceError, match="Secret mlplatform-registry-admin"):
        Accounts(_settings(accounts.address, "admin", "second-secret-1")).experiment(MODEL)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("MLPLATFORM_REGISTRY_PASSWORD", "mlplatform-registry-admin"),
        ("MLFLOW_FLASK_SERVER_SECRET_KEY", "mlplatform-registry-server"),
        ("MLFLOW_SERVER_ALLOWED_HOSTS", "names that it is called by"),
    ],
)
def test_the_server_does_not_start_without_a_secret(name: str, told: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(START)],
        env=_environment(tmp_path, 1) | {name: ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert 1 == done.returncode
    assert name in done.stderr
    assert told in done.stderr


def test_the_setup_does_not_go_on_without_a_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLPLATFORM_ACCOUNT_TRAINER_PASSWORD", "x")
    monkeypatch.delenv("MLPLATFORM_ACCOUNT_OPERATOR_PASSWORD", raising=False)

    assert 1 == main()
    assert "the password in the Secret mlplatform-registry-operator" in capsys.readouterr().err
