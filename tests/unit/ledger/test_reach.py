"""A ledger that cannot be reached says so, what to do, and no password."""

import sqlite3
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from mlplatform.contracts import Decision
from mlplatform.errors import PlatformError, ServiceError, SettingsError
from mlplatform.ledger import Ledger
from mlplatform.ledger.__main__ import main

Decide = Callable[..., Decision]
Execute = Callable[..., None]


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        pytest.param(
            "postgresql://ledger:hunter2@127.0.0.1:1/ledger",
            ServiceError,
            r"the ledger at postgresql://ledger@127\.0\.0\.1:1/ledger cannot be reached: .*"
            r"start the database, or set MLPLATFORM_LEDGER_URL",
            id="nobody listens",
        ),
        pytest.param(
            "postgres://127.0.0.1:1/ledger?password=hunter2&connect_timeout=3",
            ServiceError,
            "cannot be reached",
            id="password as an option",
        ),
        pytest.param(
            "postgresql://ledger:hunter2@127.0.0.1:port/ledger",
            SettingsError,
            "the ledger's URL cannot be read",
            id="a port that is no number",
        ),
        pytest.param(
            "postgresql://ledger:hunter2/2@127.0.0.1/ledger",
            PlatformError,
            "ledger",
            id="a password that must be encoded",
        ),
        pytest.param(
            "hunter2", SettingsError, "the ledger's URL cannot be read", id="no URL at all"
        ),
        pytest.param(
            "mysql://ledger:hunter2@127.0.0.1/ledger",
            SettingsError,
            "cannot be kept in mysql://ledger@127.0.0.1/ledger: write sqlite:///",
            id="another database",
        ),
        pytest.param("sqlite://", SettingsError, "cannot be kept in", id="in memory"),
        pytest.param("sqlite:///:memory:", SettingsError, "cannot be kept in", id="in memory too"),
        pytest.param(
            "sqlite:////proc/none/ledger.db",
            ServiceError,
            "cannot be created",
            id="a folder that cannot be made",
        ),
        pytest.param("sqlite:////tmp", ServiceError, "cannot be reached", id="a folder"),
    ],
)
def test_a_database_out_of_reach_is_named_without_its_password(
    url: str, kind: type[PlatformError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        Ledger(url)

    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("not a database " * 100)

    with pytest.raises(ServiceError, match="file is not a database"):
        Ledger(f"sqlite:///{path}")


def test_a_url_may_come_as_a_secret(tmp_path: Path) -> None:
    ledger = Ledger(SecretStr(f"sqlite:///{tmp_path}/ledger.db"))

    assert ledger.verify() == 0


def test_a_ledger_shows_no_password(url: str) -> None:
    shown = str(Ledger(url))

    assert "unused" not in shown
    assert shown.startswith("ledger ")


def test_a_locked_database_is_not_written_and_says_so(
    tmp_path: Path, decide: Decide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlplatform.ledger.database._LOCK_SECONDS", 0.1)
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(ServiceError, match="database is locked"):
        ledger.append(decide("a"))

    other.execute("ROLLBACK")
    other.close()
    assert ledger.append(decide("a")).seq == 1


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)  # SQLite has no users
def test_a_user_without_rights_is_refused_with_what_to_look_at(
    url: str, decide: Decide, execute: Execute
) -> None:
    Ledger(url).append(decide("a"))
    execute("CREATE USER reader")
    execute("GRANT SELECT ON ledger_entries, ledger_head TO reader")
    try:
        reader = Ledger(url.replace("ledger:unused", "reader:unused"))

        assert reader.verify() == 1
        with pytest.raises(ServiceError, match=r"permission denied .* look at the rights"):
            reader.append(decide("b"))
    finally:
        execute("DROP OWNED BY reader")
        execute("DROP USER reader")


def test_reading_makes_no_ledger_where_there_is_none(url: str) -> None:
    for _ in range(2):
        with pytest.raises(ServiceError, match="there is no ledger at"):
            Ledger(url, create=False)


def test_verify_prints_the_rows_and_a_head_to_keep(
    url: str,
    decide: Decide,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLPLATFORM_LEDGER_URL", url)
    ledger = Ledger(url)
    digest = ledger.append(decide("a")).hash

    assert main(["verify"]) == 0
    output = capsys.readouterr().out
    assert "1 rows, the chain is whole" in output
    assert f"head 1:{digest} " in output
    assert "unused" not in output
    assert main(["verify", "--known", f"1:{digest}"]) == 0
    assert main(["verify", "--known", f"2:{digest}"]) == 1
    assert "the chain is BROKEN: row 2 was removed from the end" in capsys.readouterr().err


def test_show_prints_a_line_for_each_decision(
    url: str,
    decide: Decide,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLPLATFORM_LEDGER_URL", url)
    ledger = Ledger(url)
    ledger.append(decide("a"))
    ledger.append(decide("b", usecase="other", reason="first line\nsecond line"))

    assert main(["show", "--usecase", "other"]) == 0
    assert [
        "    2  2013-12-31 23:59:59Z  other  gate  xgboost: accepted: first line second line"
    ] == capsys.readouterr().out.splitlines()
    assert main(["show", "--kind", "run", "--limit", "5"]) == 0
    assert "no such decisions" in capsys.readouterr().out


def test_the_command_fails_clearly_where_there_is_no_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLPLATFORM_LEDGER_URL", f"sqlite:///{tmp_path}/ledger.db")

    assert main(["show"]) == 2
    assert "there is no ledger at" in capsys.readouterr().err
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("argument", ["--limit=0", "--limit=x", "--kind=other"])
def test_the_command_refuses_malformed_arguments(
    argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["show", argument])

    assert "usage:" in capsys.readouterr().err
