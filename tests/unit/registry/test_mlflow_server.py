"""The local MLflow server: ready when it says so, gone when the block ends."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local import mlflow_server as module
from local.mlflow_server import Server, mlflow_server
from mlplatform.errors import ServiceError

ROOT = Path(__file__).parents[3]


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _status(server: Server, host: str) -> int:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=5)
    connection.request(
        "GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", headers={"Host": host}
    )
    status = connection.getresponse().status
    connection.close()
    return status


def _root(server: Server) -> Path:
    return Path(f"/proc/{server.pid}/cwd").resolve()


def test_a_second_start_for_the_same_store_uses_the_running_server(server: Server) -> None:
    with mlflow_server(_root(server)) as again:
        seen = again

    assert (server.url, server.pid, False) == (seen.url, seen.pid, seen.started)
    assert _alive(server.pid)


def test_another_port_for_a_running_store_is_refused(server: Server) -> None:
    with (
        pytest.raises(ServiceError, match="already runs at"),
        mlflow_server(_root(server), port=1),
    ):
        pytest.fail("a second server on one database")


def test_only_the_exact_host_names_are_answered(server: Server) -> None:
    port = server.url.rpartition(":")[2]
    hosts = [
        f"127.0.0.1:{port}",
        f"localhost:{port}",
        "evil.example",
        f"evil.example:{port}",
        "10.0.0.1",
    ]

    assert [200, 200, 403, 403, 403] == [_status(server, host) for host in hosts]


def test_it_listens_on_the_loopback_address_only(server: Server) -> None:
    port = int(server.url.rpartition(":")[2])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}

    assert {f"0100007F:{port:04X}"} == listening


def test_a_port_held_by_something_else_is_refused_at_once(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with (
            pytest.raises(ServiceError, match=f"port {port} on 127.0.0.1 cannot be used"),
            mlflow_server(tmp_path, port=port),
        ):
            pytest.fail("started on a port that is taken")


def test_a_server_that_dies_while_starting_shows_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('the disk is full')"]
    monkeypatch.setattr(module, "_command", lambda _port: command)

    with pytest.raises(ServiceError, match=r"(?s)ended with status 1.*the disk is full"):  # noqa: SIM117 (the block must not run)
        with mlflow_server(tmp_path):
            pytest.fail("a dead server was taken for a ready one")


def test_a_server_that_never_answers_is_stopped_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pid"
    code = f"import os, time; open({str(pids)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    monkeypatch.setattr(module, "_command", lambda _port: [sys.executable, "-c", code])

    with pytest.raises(ServiceError, match="did not answer in time"):  # noqa: SIM117 (as above)
        with mlflow_server(tmp_path, timeout_seconds=1):
            pytest.fail("a hung server was taken for a ready one")
    assert not _alive(int(pids.read_text()))


def test_a_stale_address_of_a_dead_server_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text('{"url": "http://127.0.0.1:9", "pid": 999999999}')

    assert None is module._running(tmp_path)


def test_an_address_that_belongs_to_another_process_is_not_believed(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "server.json").write_text(f'{{"url": "{server.url}", "pid": {os.getpid()}}}')

    assert None is module._running(tmp_path)


def test_ctrl_c_ends_the_server_with_its_group(tmp_path: Path) -> None:
    code = (
        "import time; from pathlib import Path; from local.mlflow_server import mlflow_server\n"
        f"with mlflow_server(Path({str(tmp_path / 'store')!r})) as server:\n"
        "    print(server.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        running = _alive(pid)
        process.send_signal(signal.SIGINT)
        process.wait(20)

    deadline = time.perf_counter() + 5
    while _alive(pid) and time.perf_counter() < deadline:
        time.sleep(0.05)
    assert running
    assert not _alive(pid)
    assert not (tmp_path / "store" / "server.json").exists()
