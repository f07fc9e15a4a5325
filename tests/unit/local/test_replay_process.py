"""The replaying process goes as far as it is told, and ends in order; a stand-in answers it."""

import contextlib
import http.server
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from feature_repo import store as stores
from local.redis_server import redis_server
from tests.unit.local.test_replay import answer

pytestmark = pytest.mark.loop


class _Gateway(http.server.BaseHTTPRequestHandler):
    """Answers each request after a while, so that some are open at any time."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet
    disable_nagle_algorithm = True
    asked: list[str]

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(request["request_id"])
        time.sleep(0.1)
        body = msgspec.json.encode(
            json.loads(answer(0).body) | {"request_id": request["request_id"]}
        )
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def gateway(asked: list[str]) -> Iterator[str]:
    handler = type("Gateway", (_Gateway,), {"asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def replaying(folder: Path, gateway: str, root: Path) -> Iterator["subprocess.Popen[str]"]:
    """Replay two days of January, as far as the process is told on its standard input."""
    with redis_server(folder / "redis") as redis:
        stores.apply(stores.open_store(str(folder), redis.url))
        command = [
            sys.executable, "-m", "local.replay", "--usecase", "flight_delay",
            "--start", "2013-01-03T00:00:00Z", "--end", "2013-01-05T00:00:00Z", "--rate", "200",
            "--gateway", gateway, "--redis", redis.url, "--data-root", str(folder),
            "--out", str(folder / "answers.parquet"),
        ]  # fmt: skip
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=root, stdin=pipe, stdout=pipe, text=True) as process:
            yield process
            process.kill()


def ask(process: "subprocess.Popen[str]", until: str) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps({"until": until, "withheld": []}) + "\n")
    process.stdin.flush()


def said(process: "subprocess.Popen[str]") -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    yield from map(json.loads, process.stdout)


def test_a_replay_that_is_told_to_end_leaves_what_it_sent_in_its_ledger(
    gateway: str, asked: list[str], tmp_path: Path, root: Path
) -> None:
    with replaying(tmp_path, gateway, root) as process:
        ask(process, "2013-01-05T00:00:00+00:00")
        first = next(said(process))
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=60)[0].splitlines()

    last = json.loads(rest[-1])
    ledger = pl.read_parquet(tmp_path / "answers.parquet")
    assert 0 == process.returncode
    assert 0 < first["sent"] <= last["sent"] < last["total"]
    assert last["sent"] == last["answered"] == ledger.height
    assert sorted(asked) == sorted(ledger["request_id"])
    assert {200} == set(ledger["status"])


def test_a_replay_stands_still_between_stretches_and_ends_with_its_input(
    gateway: str, asked: list[str], tmp_path: Path, root: Path
) -> None:
    with replaying(tmp_path, gateway, root) as process:
        reached = []
        for until in ("2013-01-03T13:00:00+00:00", "2013-01-03T15:00:00+00:00"):
            ask(process, until)
            line = next(line for line in said(process) if "reached" in line)
            reached.append((line["reached"], line["event_time"] < until, line["answered"]))
            assert len(asked) == line["sent"] == line["answered"]
        process.communicate(timeout=60)

    (first, one, early), (second, other, late) = reached
    assert (first, second) == ("2013-01-03T13:00:00+00:00", "2013-01-03T15:00:00+00:00")
    assert one
    assert other
    assert 0 < early < late == pl.read_parquet(tmp_path / "answers.parquet").height
    assert 0 == process.returncode
