"""How the gateway's processes start, survive and end."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path

import msgspec
import pytest

from serving.route import acknowledgement_key
from tests.unit.serving.gateway.conftest import Model, RedisProcess
from tests.unit.serving.gateway.stack import (
    AT_US,
    ROOT,
    SCORE,
    USECASE,
    Gateway,
    Store,
    request,
    route,
    wait_for,
)

MakeGateway = Callable[..., Gateway]


@pytest.fixture
def store(redis: RedisProcess, champion: Model) -> Iterator[Store]:
    with closing(Store(redis.url)) as found:
        found.publish(route(("champion", 1.0, champion.url, champion.served)))
        found.features(champion.served, request(), AT_US)
        yield found


class Clients(threading.Thread):
    """A client that keeps its connection, and leaves when it is told to, as a good one does."""

    def __init__(self, gateway: Gateway, name: str) -> None:
        super().__init__()
        self._gateway, self._prefix = gateway, name
        self.answered: list[str] = []
        self.lost: list[str] = []
        self.told = 0.0
        """When an answer first said that the server is going."""

    def run(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._gateway.port, timeout=10)
        number = 0
        # For half a second after it was told it comes back on new connections: they are taken too.
        while not self.told or time.monotonic() < self.told + 0.5:
            name = f"{self._prefix}-{number}"
            number += 1
            body = msgspec.json.encode(request(request_id=name))
            try:
                connection.request("POST", SCORE, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                assert 200 == answer.status
                self.answered.append(name)
                if answer.getheader("connection") == "close":
                    self.told = self.told or time.monotonic()
            except OSError:
                self.lost.append(name)
            time.sleep(0.005)
        connection.close()


def test_sigterm_under_load_loses_no_request_and_no_row(
    make_gateway: MakeGateway, store: Store
) -> None:
    gateway = make_gateway(store.url)
    clients = [Clients(gateway, f"client-{number}") for number in range(6)]
    for client in clients:
        client.start()
    wait_for(lambda: all(len(client.answered) > 20 for client in clients))
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGTERM)
    wait_for(lambda: gateway.get("/readyz").status == 503)
    for client in clients:
        client.join()

    assert 0 == gateway.process.wait(10)
    assert [] == [name for client in clients for name in client.lost]
    answered = {name for client in clients for name in client.answered}
    rows = [row.request_id for row in store.rows()]
    assert sorted(answered) == sorted(rows)


def stalled(gateway: Gateway) -> socket.socket:
    """Return a connection of a client that asks and asks, and reads none of the answers."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", gateway.port))
    client.settimeout(0.3)
    try:
        while True:
            client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    except TimeoutError:  # the gateway waits for it to read
        return client


def acknowledgements(store: Store) -> list[bytes]:
    found: list[bytes] = store.client.execute("KEYS", acknowledgement_key(USECASE, "*"))
    return found


@pytest.mark.loop
def test_a_client_that_does_not_read_keeps_neither_rows_nor_the_acknowledgement(
    make_gateway: MakeGateway, store: Store
) -> None:
    gateway = make_gateway(store.url, drain_seconds=4)
    assert gateway.process is not None
    names = [f"stalled-{number}" for number in range(20)]
    with closing(stalled(gateway)):
        for name in names:
            assert 200 == gateway.score(request(request_id=name)).status
        wait_for(lambda: acknowledgements(store))
        gateway.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "drained" in gateway.log.read_text(), 4)

        assert gateway.process.poll() is None  # it still waits for the client
        assert [] == acknowledgements(store)
        assert set(names) <= {row.request_id for row in store.rows()}
        assert 1 == gateway.process.wait(12)
    assert "their clients do not read" in gateway.log.read_text()


@pytest.mark.loop
def test_a_request_that_is_open_at_sigterm_is_answered_and_logged(
    make_gateway: MakeGateway, store: Store
) -> None:
    gateway = make_gateway(store.url)
    assert gateway.process is not None
    body = msgspec.json.encode(request(request_id="slow"))
    head = f"POST {SCORE} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:20])
        gateway.get("/livez")  # what was sent before is being read
        gateway.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not accepts(gateway))
        time.sleep(0.7)  # longer than it gives its connections to end
        client.sendall(body[20:])

        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert 0 == gateway.process.wait(10)
    assert ["slow"] == [row.request_id for row in store.rows()]


def accepts(gateway: Gateway) -> bool:
    try:
        return bool(gateway.get("/livez").status)
    except OSError:
        return False


@pytest.mark.loop
def test_rows_that_redis_does_not_take_are_on_disk_when_it_ends(
    make_gateway: MakeGateway, store: Store, redis: RedisProcess
) -> None:
    gateway = make_gateway(store.url, drain_seconds=2)
    store.close()
    redis.kill()
    names = [f"spilled-{number}" for number in range(30)]
    for name in names:
        assert 200 == gateway.score(request(request_id=name)).status
    assert 0 == gateway.stop()

    spilled = b"".join(path.read_bytes() for path in gateway.spill.rglob("*.log"))
    assert all(f"{name}".encode() in spilled for name in names)

    redis.start()
    successor = make_gateway(store.url)  # adopts what the dead one left
    wait_for(lambda: set(names) <= {row.request_id for row in store.rows()})
    assert 0 == successor.stop()


@pytest.mark.loop
def test_a_signal_to_the_whole_group_ends_it_in_order(tmp_path: Path, store: Store) -> None:
    gateway = Gateway(tmp_path, store.url)
    gateway.start()
    assert gateway.process is not None
    (worker,) = gateway.workers()

    assert os.getpgid(worker) != os.getpgid(gateway.process.pid)
    assert 0 == gateway.stop()
    assert "Unexpected exit" not in gateway.log.read_text()
    assert not Path(f"/proc/{worker}").exists()


def test_the_gateway_as_it_is_started_for_real_answers(
    make_gateway: MakeGateway, store: Store
) -> None:
    gateway = make_gateway(store.url, module="serving.gateway")

    assert 200 == gateway.score(request()).status
    assert 0 == gateway.stop()


def test_a_killed_worker_is_replaced(make_gateway: MakeGateway, store: Store) -> None:
    gateway = make_gateway(store.url)
    (worker,) = gateway.workers()
    os.kill(worker, signal.SIGKILL)

    wait_for(lambda: gateway.workers() not in ([], [worker]))
    wait_for(lambda: gateway.answers("/readyz"))
    assert 200 == gateway.score(request()).status


@pytest.mark.loop
def test_workers_end_when_the_first_process_is_killed(
    make_gateway: MakeGateway, store: Store
) -> None:
    gateway = make_gateway(store.url)
    (worker,) = gateway.workers()
    assert gateway.process is not None
    gateway.process.kill()

    wait_for(lambda: not Path(f"/proc/{worker}").exists() or _is_dead(worker))


def test_a_worker_whose_background_task_has_ended_is_replaced(
    make_gateway: MakeGateway, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = tmp_path / "now"
    monkeypatch.setenv("FAIL_WHEN", str(now))
    gateway = make_gateway(store.url, module="tests.unit.serving.gateway.failing_gateway")
    (worker,) = gateway.workers()
    assert 200 == gateway.score(request(request_id="before")).status
    now.touch()

    wait_for(lambda: gateway.workers() not in ([], [worker]))
    wait_for(lambda: accepts(gateway) and gateway.answers("/readyz"))
    assert "watching the model servers of flight_delay has ended" in gateway.log.read_text()
    assert "it was planned" in gateway.log.read_text()
    assert ["before"] == [row.request_id for row in store.rows()]
    assert 0 == gateway.stop()


def test_more_than_a_thousand_idle_connections_keep_nobody_out(
    make_gateway: MakeGateway, store: Store
) -> None:
    gateway = make_gateway(store.url)
    with ExitStack() as idle:
        for _ in range(1200):
            idle.enter_context(socket.create_connection(("127.0.0.1", gateway.port), 5))
        started = time.monotonic()

        assert 200 == gateway.score(request()).status
        assert time.monotonic() - started < 2.5  # idle ones are closed after five seconds


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [(300, 20_000, (4096, 4352)), (300, 1000, (744, 1000)), (200, 200, (128, 200))],
    ids=["the limit is raised", "to the hard one", "and some are always taken"],
)
def test_connections_leave_room_for_other_files(
    soft: int, hard: int, expected: tuple[int, int]
) -> None:
    program = (
        "import resource as r; from serving.gateway.process import allowed_connections as allowed; "
        f"r.setrlimit(r.RLIMIT_NOFILE, ({soft}, {hard})); "
        "print(allowed(), r.getrlimit(r.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert expected == tuple(map(int, done.stdout.split()))


def _is_dead(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def run(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "serving.gateway", *arguments],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_it_says_where_its_settings_come_from() -> None:
    done = run("--help")

    assert 0 == done.returncode
    assert "MLPLATFORM_GATEWAY_" in done.stdout


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        pytest.param(
            {"MLPLATFORM_GATEWAY_USECASES": '["nobody"]'}, "no use case 'nobody'", id="use case"
        ),
        pytest.param({"MLPLATFORM_GATEWAY_PORT": "0"}, "MLPLATFORM_GATEWAY_PORT", id="port"),
        pytest.param(
            {"MLPLATFORM_REDIS_URL": "http://:hush@x"}, "MLPLATFORM_REDIS_URL", id="address"
        ),
        pytest.param(
            {"MLPLATFORM_GATEWAY_WORKRES": "2"}, "MLPLATFORM_GATEWAY_WORKERS", id="a typo"
        ),
    ],
)
def test_it_does_not_start_with_wrong_settings_and_says_which(
    settings: dict[str, str], said: str
) -> None:
    done = run(**settings)

    assert 2 == done.returncode
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "hush" not in done.stderr


def test_a_second_gateway_does_not_share_the_port_unsaid(
    make_gateway: MakeGateway, store: Store, tmp_path: Path
) -> None:
    first = make_gateway(store.url)
    done = run(
        MLPLATFORM_GATEWAY_PORT=str(first.port), MLPLATFORM_GATEWAY_SPILL=str(tmp_path / "other")
    )

    assert 2 == done.returncode
    assert f"127.0.0.1:{first.port} is in use" in done.stderr
    assert "Traceback" not in done.stderr
    assert 0 == first.stop()
    first.start()  # connections in TIME_WAIT do not count


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_spill_that_cannot_be_written_is_refused_at_the_start(
    tmp_path: Path, workers: str
) -> None:
    (tmp_path / "file").touch()
    done = run(MLPLATFORM_GATEWAY_SPILL=str(tmp_path / "file"), MLPLATFORM_GATEWAY_WORKERS=workers)

    assert 2 == done.returncode
    assert "MLPLATFORM_GATEWAY_SPILL" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_gateway_loads_neither_feast_nor_data_frames() -> None:
    program = (
        "import sys, serving.gateway.process, feature_repo.catalog as c; "
        "c.load_serving('flight_delay'); print(sorted({'feast', 'polars', 'pandas', 'pyarrow', "
        "'mlflow', 'onnxruntime', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert "[]" == done.stdout.strip()
