"""What a caller sees when the registry is away, slow, refuses or holds something foreign."""

import base64
import http.server
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from pydantic import SecretStr

from local.mlflow_server import Server
from mlplatform.clients.registry import Registry
from mlplatform.errors import NotFoundError, ServiceError
from mlplatform.settings import RegistrySettings

RegistryOf = Callable[[str], Registry]


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_an_absent_server_is_told_within_seconds(registry_of: RegistryOf) -> None:
    registry = registry_of(f"http://127.0.0.1:{_closed_port()}")

    for _ in range(2):  # the first one imports MLflow as well
        started = time.perf_counter()
        with pytest.raises(ServiceError, match=r"MLflow server at http://127.0.0.1:\d+ running"):
            registry.by_alias("model", "champion")

    assert 5 > time.perf_counter() - started


def test_a_server_that_accepts_but_never_answers_is_told_within_seconds(
    registry_of: RegistryOf,
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        registry = registry_of(f"http://127.0.0.1:{silent.getsockname()[1]}")

        started = time.perf_counter()
        with pytest.raises(ServiceError, match="looking up model@champion failed"):
            registry.by_alias("model", "champion")

    assert 8 > time.perf_counter() - started


def test_a_server_that_refuses_the_host_name_is_a_service_error(
    server: Server, registry_of: RegistryOf
) -> None:
    port = server.url.rpartition(":")[2]

    with pytest.raises(ServiceError, match="do the user and password fit"):
        registry_of(f"http://127.1:{port}").by_alias("model", "champion")


def test_a_vendor_exception_stays_only_as_the_cause(registry_of: RegistryOf) -> None:
    registry = registry_of(f"http://127.0.0.1:{_closed_port()}")

    with pytest.raises(ServiceError) as caught:
        registry.find_by_digest("model", "d" * 64, "e" * 64)

    assert caught.value.__cause__ is not None
    assert "mlflow" in type(caught.value.__cause__).__module__


def test_the_password_does_not_reach_the_message_nor_the_environment(
    registry_of: RegistryOf,
) -> None:
    registry = registry_of(f"http://127.0.0.1:{_closed_port()}")

    with pytest.raises(ServiceError) as caught:
        registry.by_alias("model", "champion")

    assert "secret" not in str(caught.value)
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda registry: registry.get("absent", 1), id="version"),
        pytest.param(lambda registry: registry.set_alias("absent", "champion", 1), id="alias"),
        pytest.param(
            lambda registry: registry.download("absent", 1, Path("build/absent")), id="download"
        ),
    ],
)
def test_an_absent_model_is_not_found(
    registry: Registry, ask: Callable[[Registry], object]
) -> None:
    with pytest.raises(NotFoundError, match="absent"):
        ask(registry)


def test_an_absent_model_has_no_alias_and_no_digest(registry: Registry) -> None:
    assert None is registry.by_alias("absent", "champion")
    assert None is registry.find_by_digest("absent", "d" * 64, "e" * 64)


def test_a_version_that_somebody_else_registered_is_not_taken_for_ours(
    registry: Registry, server: Server
) -> None:
    client = mlflow.MlflowClient(server.url, server.url)
    client.create_registered_model("foreign_model")
    run = client.create_run("0").info
    source = f"{run.artifact_uri}/model"
    client.create_model_version("foreign_model", source, run.run_id, await_creation_for=0)
    client.set_registered_model_alias("foreign_model", "champion", "1")

    with pytest.raises(ServiceError, match="was not registered by this platform"):
        registry.by_alias("foreign_model", "champion")
    with pytest.raises(NotFoundError, match="was never completed"):
        registry.set_alias("foreign_model", "champion", 1)


def test_a_pending_version_cannot_get_an_alias(registry: Registry, make_work: Any) -> None:
    work = make_work("pending_model")
    run_id = registry.start_run("pending_model", "xgboost", {}, work.training_set.window.end)
    reserved = registry.reserve(
        "pending_model", run_id, digest="d" * 64, data_digest="e" * 64, tags={}
    )

    with pytest.raises(NotFoundError, match="was never completed"):
        registry.set_alias("pending_model", "champion", reserved.version)
    assert None is registry.find_by_digest("pending_model", "d" * 64, "e" * 64)


def test_a_registration_that_was_overtaken_cannot_complete(
    registry: Registry, make_work: Any
) -> None:
    now = make_work("race_model").training_set.window.end
    reserved = [
        registry.reserve(
            "race_model",
            registry.start_run("race_model", "xgboost", {}, now),
            digest="d" * 64,
            data_digest="e" * 64,
            tags={},
        )
        for _ in range(2)
    ]

    with pytest.raises(NotFoundError, match="completing version 1 of race_model"):
        registry.complete(reserved[0], "s" * 64)
    assert 2 == registry.complete(reserved[1], "s" * 64).version


def test_the_page_of_a_version_is_there(registry: Registry, make_work: Any) -> None:
    ref = make_work("page_model").run(registry)

    assert registry.url(ref).endswith("/#/models/page_model/versions/1")


class _Asked(http.server.BaseHTTPRequestHandler):
    """Knows nothing, and keeps who asked."""

    who: list[str | None]

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self.who.append(self.headers["Authorization"])
        body = b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such model"}'
        self.send_response(404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_the_password_is_sent_without_a_write_that_other_threads_read_without_a_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    who: list[str | None] = []
    written: list[object] = []
    handler = type("Asked", (_Asked,), {"who": who})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        settings = RegistrySettings(
            tracking_uri=url, username="ana", password=SecretStr("secret"), timeout_seconds=5
        )
        registry = Registry(settings)
        registry.by_alias("model", "champion")  # MLflow is imported
        for name in ("putenv", "unsetenv"):  # of the C library
            monkeypatch.setattr(os, name, lambda *call: written.append(call))
        registry.by_alias("model", "champion")
        server.shutdown()
        thread.join()

    basic = base64.b64encode(b"ana:secret").decode()
    assert {f"Basic {basic}"} == set(who)
    assert [] == written
