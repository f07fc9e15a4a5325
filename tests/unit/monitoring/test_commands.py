"""The command line: what a CronJob and a person type, over real files and a real database."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlplatform.contracts.retrain import Finding
from mlplatform.ledger import Ledger
from mlplatform.reviews import ReviewStore
from monitoring.__main__ import main
from monitoring.requests import RequestStore, notice
from monitoring.review import select
from tests.unit.monitoring.days import CODE, archive, day, traffic

NAME = CODE.spec.name
USECASE = ("--usecase", NAME)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The commands take over signals; give them back."""
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)}
    yield
    for kind, handler in before.items():
        signal.signal(kind, handler)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of its own for all that the commands read and write; no server runs."""
    for name, value in {
        "LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db",
        "MONITORING_ROOT": tmp_path / "out",
        "ARCHIVE_ROOT": tmp_path / "archive",
        "REGISTRY_TRACKING_URI": "http://127.0.0.1:9",
        "KUBEFLOW_ENDPOINT": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(f"MLPLATFORM_{name}", str(value))
    return tmp_path


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(place: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    del place

    def typed(*words: str) -> tuple[int, str, str]:
        code = main([*words])
        out, err = capsys.readouterr()
        return code, out, err

    return typed


def drifted(place: Path, *, approval: bool) -> str:
    """Have two windows drift; return the key of the request that comes of it."""
    url = f"sqlite:///{place}/ledger.db"
    found = [
        Finding(
            usecase=NAME,
            watch="inputs",
            window=day(number),
            cause="input_drift",
            blamed=("temp",),
            judged_at=day(number).end,
        )
        for number in range(2)
    ]
    history = notice(
        RequestStore(url),
        Ledger(url),
        NAME,
        found,
        CODE.spec.monitoring.model_copy(update={"approval": approval}),
        day(1).end,
    )
    assert history.last is not None
    return history.last.request.key


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(("status", "--usecase", "nothing"), "no use case 'nothing'", id="use case"),
        pytest.param(("judge", *USECASE, "--window", "may"), "write a time like", id="no time"),
        pytest.param(
            ("judge", *USECASE, "--window", "2013-05-30T07:00"), "no window", id="no window's start"
        ),
        pytest.param(
            ("judge", *USECASE, "--window", "2913-05-30"), "judge it when it has ended", id="future"
        ),
        pytest.param(("approve", *USECASE, "--reason", "yes"), "trigger", id="never asked"),
        pytest.param(
            ("review", "answer", "x", *USECASE, "--label", "1", "--reviewer", "ana"),
            "x",
            id="never queued",
        ),
        pytest.param(("rules", *USECASE, "--out", "/no/such/folder"), "/no/such", id="no folder"),
    ],
)
def test_what_cannot_be_done_is_said_and_ends_with_1(
    run: Run, words: tuple[str, ...], said: str
) -> None:
    code, out, err = run(*words)

    assert (1, "") == (code, out)
    assert said in err


@pytest.mark.parametrize(
    "words",
    [
        pytest.param((), id="nothing"),
        pytest.param(("judge",), id="no use case"),
        pytest.param(("deny", *USECASE), id="no reason"),
        pytest.param(("review", "answer", "x", *USECASE, "--label", "2"), id="no label"),
        pytest.param(("metrics", *USECASE, "--port", "65536"), id="no port"),
    ],
)
def test_what_is_no_command_is_refused_with_2(words: tuple[str, ...], place: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words])

    assert 2 == ended.value.code
    assert not (place / "ledger.db").exists()


def test_nothing_is_due_where_nothing_was_served(run: Run) -> None:
    assert (0, f"{NAME}: no window is due\n") == run("judge", *USECASE)[:2]


def test_a_registry_that_is_away_leaves_the_window_due(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPLATFORM_REGISTRY_TIMEOUT_SECONDS", "1")
    archive(place / "archive", 0, traffic(0))
    code, out, err = run("judge", *USECASE, "--window", f"{day(0).start:%Y-%m-%d}")

    assert (1, "") == (code, out)
    assert "ServiceError" in err
    assert not list((place / "out").rglob("report.json"))


def test_windows_before_any_model_are_judged_each_once(run: Run, place: Path) -> None:
    rules = traffic(0, arm=["rules"] * 150, version=0, fallback=[True] * 150)
    archive(place / "archive", 0, rules)
    first, second = run("judge", *USECASE), run("judge", *USECASE)

    assert 0 == first[0]
    lines = [line for line in first[1].splitlines() if "inconclusive" in line]
    assert 14 == len(lines)  # the newest; years have passed since
    assert (0, f"{NAME}: no window is due\n") == second[:2]


def test_windows_before_one_that_a_person_judged_are_still_due(run: Run) -> None:
    named = [f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%d}" for days in (10, 3)]
    for start in named:
        assert 0 == run("judge", *USECASE, "--window", start)[0]
    out = run("judge", *USECASE)[1]

    starts = [line[:10] for line in out.splitlines() if "inconclusive" in line]
    assert 8 == len(starts)  # of ten whole days the other ones
    assert set(named).isdisjoint(starts)
    assert f"{NAME}: no window is due\n" == run("judge", *USECASE)[1]


def test_the_status_says_what_is_waited_for(run: Run, place: Path) -> None:
    before = run("status", *USECASE)
    key = drifted(place, approval=True)
    code, out, _ = run("status", *USECASE)

    assert (0, 0) == (before[0], code)
    assert key not in before[1]
    assert key in out
    assert "temp" in out
    assert "0 decisions wait for a person" in out


@pytest.mark.parametrize(("order", "phase"), [("approve", "ready"), ("deny", "denied")])
def test_a_person_decides_on_a_request_by_its_first_digits(
    run: Run, place: Path, order: str, phase: str
) -> None:
    key = drifted(place, approval=True)
    code, out, err = run(order, key[:8], *USECASE, "--reason", "as discussed", "--actor", "ana")

    assert (0, "") == (code, err)
    assert f"request {key} is {phase}" in out
    last = Ledger(f"sqlite:///{place}/ledger.db").last(NAME, "retrain")
    assert last is not None
    assert ("ana", "as discussed") == (last.decision.actor, last.decision.reason)
    again = run(order, key[:8], *USECASE, "--reason", "again", "--actor", "ana")
    assert 1 == again[0]


def test_the_trigger_takes_one_step_and_says_when_the_orchestrator_is_away(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPLATFORM_KUBEFLOW_TIMEOUT_SECONDS", "1")
    idle = run("trigger", *USECASE, "--once")
    drifted(place, approval=False)
    code, _, err = run("trigger", *USECASE, "--once")

    assert 0 == idle[0]
    assert 1 == code
    assert "ServiceError" in err
    stored = RequestStore(f"sqlite:///{place}/ledger.db").read(NAME)
    assert stored is not None
    assert stored.history.in_flight is not None  # nothing is lost


def test_decisions_are_listed_and_answered(run: Run, place: Path) -> None:
    rows = traffic(0)
    items = select(CODE.spec, rows, day(0))
    ReviewStore(f"sqlite:///{place}/ledger.db").add(items)
    request = items[0].request_id
    code, out, _ = run("review", "list", *USECASE, "--limit", "3")

    assert 0 == code
    assert f"3 of {len(items)} decisions" in out
    answer = ("review", "answer", request, *USECASE, "--label", "1", "--reviewer", "ana")
    assert 0 == run(*answer)[0]
    assert request not in run("review", "list", *USECASE)[1]


def test_the_alert_rules_are_written_to_a_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"

    assert (0, "", "") == run("rules", *USECASE, "--out", str(path))
    assert path.read_text().startswith("groups:")


def test_a_clusters_alert_rules_need_no_use_case(run: Run) -> None:
    code, out, _ = run("rules", "--cluster")

    assert 0 == code
    assert "name: mlplatform-cluster" in out


def test_metrics_are_served_until_sigterm(place: Path, root: Path) -> None:
    del place
    command = [sys.executable, "-m", "monitoring", "metrics", *USECASE, "--port", "0"]
    with subprocess.Popen(
        command, cwd=root, env=dict(os.environ), stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        said = server.stdout.readline()
        with urllib.request.urlopen(said.split()[-1], timeout=10) as page:  # noqa: S310  (ours)
            text = page.read().decode()
        server.send_signal(signal.SIGTERM)

        assert 0 == server.wait(10)
    assert "mlplatform_monitor" in text
