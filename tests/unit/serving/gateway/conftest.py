"""Real servers that a test can kill, pause and start again."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from feature_repo import catalog
from feature_repo import layout as layouts
from local.processes import free_port
from local.redis_server import answers, redis_program
from local.supervisor import Handle, Supervisor
from local.triton_server import triton_program
from mlplatform import signing
from mlplatform.contracts import Manifest, ModelRef, ServedModel
from serving.triton.export import Export, export_signed
from tests.unit.serving.gateway.stack import AT, AT_US, USECASE, Gateway, Store, request, route
from tests.unit.serving.triton.conftest import logistic
from tests.unit.signing.filler import fill
from usecases.flight_delay.features import FEATURES


class RedisProcess:
    """A redis-server without a supervisor: the test decides when it runs."""

    def __init__(self, root: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [*redis_program(root, self.port).command, *options]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not self._listens():
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.01)

    def _listens(self) -> bool:
        return answers(self.port) or ("--requirepass" in self._command and self._refuses())

    def _refuses(self) -> bool:
        return b"NOAUTH" in self.command("PING")

    def command(self, *parts: str) -> bytes:
        """Return what redis-cli's protocol answers, raw, without a client's help."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                connection.sendall(" ".join(parts).encode() + b"\r\n")
                return connection.recv(65536)
        except OSError:
            return b""

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(10)

    def signal(self, kind: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, kind)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGCONT)
            self.kill()


@pytest.fixture
def make_redis(tmp_path: Path) -> Iterator[Callable[..., RedisProcess]]:
    """Starts servers with more options; all end with the test."""
    started: list[RedisProcess] = []

    def make(*options: str) -> RedisProcess:
        redis = RedisProcess(tmp_path / f"redis-{len(started)}", *options)
        started.append(redis)
        redis.start()
        return redis

    yield make
    for redis in started:
        redis.stop()


@pytest.fixture
def redis(make_redis: Callable[..., RedisProcess]) -> RedisProcess:
    return make_redis()


@dataclass(frozen=True)
class Model:
    """A model version on a running Triton server."""

    served: ServedModel
    url: str
    handle: Handle


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, float], Export]:
    """Exports versions of a logistic model over the use case's own features."""
    folder = tmp_path_factory.mktemp("exports")
    keys = signing.KeyPair(folder / "key.pem", folder / "key.pub")
    signing.create_key_pair(keys.private, keys.public)

    def export(version: int, weight: float) -> Export:
        directory = folder / f"signed-{version}"
        directory.mkdir()
        content = logistic(len(FEATURES), weight=weight).SerializeToString()
        (directory / "model.onnx").write_bytes(content)
        fill(directory)
        layout = layouts.load(USECASE)
        manifest = Manifest(
            name=USECASE,
            version=version,
            run_id=f"run-{version}",
            model_digest=signing.file_digest(directory / "model.onnx"),
            data_digest="d" * 64,
            git_commit="0123abc",
            feature_service=layout.service,
            features=FEATURES,
            created_at=AT,
        )
        signing.write_manifest(directory, manifest)
        ref = ModelRef(
            name=USECASE,
            version=version,
            digest=manifest.model_digest,
            uri=f"models:/{USECASE}/{version}/signed",
            signature=signing.sign(directory, keys.private),
            run_id=manifest.run_id,
            created=True,
            registered_at=AT,
        )
        return export_signed(
            directory,
            ref,
            spec=catalog.spec(USECASE),
            layout=layout,
            request_features=FEATURES,
            public_key=keys.public,
            target="embedded",
            out=folder / "out",
        )

    return export


@pytest.fixture(scope="session")
def triton(
    tmp_path_factory: pytest.TempPathFactory, exported: Callable[[int, float], Export]
) -> Iterator[Callable[[int, float], Model]]:
    """Starts model servers under supervision; all end with the session."""
    root = tmp_path_factory.mktemp("triton")
    with Supervisor() as supervisor:

        def start(version: int, weight: float) -> Model:
            export, port = exported(version, weight), free_port()
            handle = supervisor.start(triton_program(export, port, free_port(), root=root))
            return Model(export.served, f"http://127.0.0.1:{port}", handle)

        yield start


@pytest.fixture(scope="session")
def champion(triton: Callable[[int, float], Model]) -> Model:
    """Version 3."""
    return triton(3, 0.01)


@pytest.fixture(scope="module")
def module_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("module")


@pytest.fixture(scope="module")
def module_redis(module_path: Path) -> Iterator[RedisProcess]:
    """One server for the tests of a module, which leave it running."""
    process = RedisProcess(module_path / "redis")
    process.start()
    yield process
    process.stop()


@pytest.fixture
def make_gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Starts gateways; all end with the test."""
    started: list[Gateway] = []

    def make(redis_url: str, path: str = "/readyz", **settings: Any) -> Gateway:
        gateway = Gateway(tmp_path, redis_url, **settings)
        started.append(gateway)
        gateway.start(path)
        return gateway

    yield make
    for gateway in started:
        gateway.kill()


@pytest.fixture(scope="session")
def session_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    process = RedisProcess(tmp_path_factory.mktemp("redis"))
    process.start()
    yield process
    process.stop()


@pytest.fixture(scope="session")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, session_redis: RedisProcess, champion: Model
) -> Iterator[Gateway]:
    """One gateway for the tests that leave it as it was: a champion, features of one flight."""
    with closing(Store(session_redis.url)) as store:
        store.publish(route(("champion", 1.0, champion.url, champion.served)))
        store.features(champion.served, request(), AT_US)
    running = Gateway(tmp_path_factory.mktemp("gateway"), session_redis.url)
    running.start()
    yield running
    running.kill()
