"""Ports to services: a stand-in of kubectl listens where it says, until it is killed."""

import os
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.forwards import Kept, Service, forwarded
from deploy.target import Target
from mlplatform.errors import ServiceError

TARGET = Target("kind-mlplatform", "own")
STAND_IN = """#!/usr/bin/env python3
import http.server, os, pathlib, sys
folder = pathlib.Path(__file__).parent
with (folder / "log").open("a") as log:
    print(os.getpid(), *sys.argv[1:], file=log)
if (folder / "refuse").exists():
    sys.exit("error: unable to forward port because pod is not running")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"here")
    def log_message(self, *args):
        print("Handling connection", flush=True)
local = sys.argv[-1].partition(":")[0]
server = http.server.HTTPServer(("127.0.0.1", int(local or 0)), Handler)
print(f"Forwarding from 127.0.0.1:{server.server_port} -> 8080", flush=True)
server.serve_forever()
"""


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the stand-in."""
    program = tmp_path / "kubectl"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 (loopback)
        found: bytes = answer.read()
        return found


def calls(kubectl: Path) -> list[str]:
    log = kubectl / "log"
    return log.read_text().splitlines() if log.exists() else []


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_port_leads_to_the_service_for_the_length_of_a_block(kubectl: Path) -> None:
    with forwarded(TARGET, Service("Gateway", "mlplatform-gateway", 8080)) as url:
        assert b"here" == get(url)

    (call,) = calls(kubectl)
    assert "--context kind-mlplatform --namespace own port-forward --address 127.0.0.1" in call
    assert not alive(int(call.split()[0]))


def test_a_service_of_another_namespace_is_asked_for_there(kubectl: Path) -> None:
    with forwarded(TARGET, Service("Kubeflow", "ml-pipeline", 8888, namespace="kubeflow")):
        pass

    assert "--namespace kubeflow" in calls(kubectl)[0]


def test_a_service_without_a_pod_is_said(kubectl: Path) -> None:
    (kubectl / "refuse").touch()

    with (
        pytest.raises(ServiceError, match="no port leads to the service mlplatform-gateway: error"),
        forwarded(TARGET, Service("Gateway", "mlplatform-gateway", 8080)),
    ):
        pass


def test_many_connections_do_not_stop_it(kubectl: Path) -> None:
    del kubectl
    with forwarded(TARGET, Service("Gateway", "mlplatform-gateway", 8080)) as url:
        for _ in range(50):
            assert b"here" == get(url)


def test_a_forward_is_made_anew_when_its_pod_goes(
    kubectl: Path, monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    monkeypatch.setattr("deploy.forwards._PAUSE_SECONDS", 0.05)
    kept = Kept(TARGET, Service("Gateway", "gateway", 8080, "/", local=unused_port))
    try:
        wait(lambda: not kept.trouble)
        first = int(calls(kubectl)[0].split()[0])

        os.kill(first, signal.SIGKILL)

        wait(lambda: len(calls(kubectl)) >= 2 and not kept.trouble)
        assert b"here" == get(kept.url)
    finally:
        kept.close()
    assert not any(alive(int(call.split()[0])) for call in calls(kubectl))


def test_a_page_that_cannot_be_reached_says_why(
    kubectl: Path, monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    monkeypatch.setattr("deploy.forwards._PAUSE_SECONDS", 0.05)
    (kubectl / "refuse").touch()
    kept = Kept(TARGET, Service("Gateway", "gateway", 8080, local=unused_port))
    try:
        wait(lambda: "unable to forward" in kept.trouble)
        (kubectl / "refuse").unlink()

        wait(lambda: not kept.trouble)
    finally:
        kept.close()
