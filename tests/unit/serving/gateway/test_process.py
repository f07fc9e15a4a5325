"""How the gateway's processes start, survive and end."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import msgspec
import pytest

from tests.unit.serving.gateway.conftest import Model, RedisProcess
from tests.unit.serving.gateway.stack import (
    AT_US,
    ROOT,
    SCORE,
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
