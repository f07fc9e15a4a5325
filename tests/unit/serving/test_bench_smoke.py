"""The harness of the serving benchmark: it counts what it says, and sees what goes wrong."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bench.serving import contest, processes, tables
from bench.serving.__main__ import compared
from bench.serving.chain import values
from bench.serving.contest import Contender, Run
from bench.serving.events import Requests
from bench.serving.generator import Outcome
from mlplatform.errors import ServiceError

_BURN = """
import sys, time
end = time.process_time() + 0.3
while time.process_time() < end:
    pass
print("burnt", flush=True)
sys.stdin.read()
"""
_PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {_BURN!r}])
"""


class _Server(ThreadingHTTPServer):
    """Answers each request with its own body; `/refuse` with 503."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        assert isinstance(self.server, _Server)
        self.server.seen.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(503 if self.path == "/refuse" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def contender(server: _Server, tmp_path: Path) -> Callable[[str], Contender]:
    bodies = tmp_path / "bodies.jsonl"
    bodies.write_text('{"score": 0.25}\n{"score": 0.75}\n')

    def make(path: str) -> Contender:
        return Contender(
            name=path,
            url=f"http://127.0.0.1:{server.server_port}",
            path=path,
            bodies=bodies,
            score=lambda answer: float(answer["score"]),
            parts={"all": (os.getpid(),)},  # the server is a thread of this process
        )

    return make


def _outcome(ms: list[float], cpu_ms: float, bodies: list[Any]) -> Outcome:
    return Outcome(
        ms=ms,
        late_ms=[0.1] * len(ms),
        failed=0,
        cpu={"all": cpu_ms * len(ms) / 1000},
        own_cpu=0.0,
        seconds=len(ms) / 50,
        strangers=0.0,
        bodies=[msgspec.json.encode(body) for body in bodies],
    )


def test_the_cpu_time_of_children_is_charged_to_the_tree() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        tree = processes.tree(parent.pid)
        together, alone = processes.cpu_seconds(tree), processes.cpu_seconds([parent.pid])
        parent.communicate(b"")

    assert 2 == len(tree)
    assert together - alone >= 0.3
    assert alone < 0.3


def test_a_process_that_has_gone_is_charged_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()

    assert processes.cpu_seconds([gone.pid]) == 0
    assert processes.command(gone.pid) == ""


def test_the_load_is_sent_on_schedule_and_each_answer_is_kept_in_order(
    contender: Callable[[str], Contender], server: _Server
) -> None:
    started = time.monotonic()
    found = contest.load(contender("/score"), rate=100, warm=10, count=30)

    assert time.monotonic() - started >= 0.4  # 40 requests, 10 ms apart
    assert 40 == len(server.seen)
    assert (30, 30, 0) == (len(found.ms), len(found.late_ms), found.failed)
    assert [b'{"score": 0.25}', b'{"score": 0.75}'] == found.bodies
    assert all(late <= ms for late, ms in zip(found.late_ms, found.ms, strict=True))
    assert found.own_cpu > 0
    assert found.cpu["all"] > 0


def test_a_closed_loop_sends_each_request_once_and_keeps_the_order(
    contender: Callable[[str], Contender], server: _Server
) -> None:
    found = contest.load(contender("/score"), warm=0, count=31, clients=4)

    assert 31 == len(server.seen) == len(found.ms)
    assert [b'{"score": 0.25}', b'{"score": 0.75}'] == found.bodies
    assert 0 < found.seconds < 31 * max(found.ms) / 1000


def test_refused_requests_are_counted_and_give_no_score(
    contender: Callable[[str], Contender],
) -> None:
    refusing = contender("/refuse")

    assert 5 == contest.load(refusing, rate=100, warm=0, count=5).failed
    with pytest.raises(ServiceError, match="did not answer 2 of 2 requests"):
        contest.scores(refusing, 2)


def test_scores_come_in_the_order_of_the_requests(contender: Callable[[str], Contender]) -> None:
    assert [0.25, 0.75] == contest.scores(contender("/score"), 2).tolist()


def test_each_contender_begins_a_round_in_its_turn(
    contender: Callable[[str], Contender], server: _Server
) -> None:
    runs = contest.contest(
        [contender("/a"), contender("/b")],
        rounds=2, rate=200, warm=0, count=2, say=lambda _: None,
    )  # fmt: skip

    assert ["/a", "/a", "/b", "/b", "/b", "/b", "/a", "/a"] == server.seen
    assert [2, 2] == [len(run.outcomes) for run in runs]


def test_the_same_vectors_reach_mlflow_with_null_for_missing(tmp_path: Path) -> None:
    vectors = np.array([[1.5, np.nan], [2.0, 3.0]], dtype=np.float32)
    wanted = Requests(({"flight_key": "a"}, {"flight_key": "b"}), vectors, ("x", "y"))
    events, inputs = wanted.write(tmp_path)

    assert ["a", "b"] == [
        msgspec.json.decode(line)["flight_key"] for line in events.read_bytes().splitlines()
    ]
    assert [{"x": [1.5], "y": [None]}, {"x": [2.0], "y": [3.0]}] == [
        msgspec.json.decode(line)["inputs"] for line in inputs.read_bytes().splitlines()
    ]


def test_the_chain_reads_feasts_answer_by_name() -> None:
    answer = {
        "metadata": {"feature_names": ["origin", "temp"]},
        "results": [{"values": ["EWR"]}, {"values": [41.5]}],
    }

    assert {"origin": "EWR", "temp": 41.5} == values(answer)


@pytest.mark.parametrize(
    ("ours", "theirs", "met"),
    [
        pytest.param(2.0, 8.0, True, id="exactly a quarter"),
        pytest.param(2.1, 8.0, False, id="more than a quarter"),
    ],
)
def test_the_tail_must_be_at_most_a_quarter_of_mlflows(
    ours: float, theirs: float, met: bool, contender: Callable[[str], Contender]
) -> None:
    def run(name: str, ms: float) -> Run:
        one = contender(name)
        return Run(one, [_outcome([ms] * 10, 0.5, [])] * 3)

    found = {one.name: one for one in compared([run("ours", ours), run("mlflow", theirs)], 50)}
    tail = found["mlflow, p99, whole request at 50 requests/s"]

    assert (ours, theirs, met) == (tail.ours, tail.peer, tail.met)


@pytest.mark.parametrize(
    ("cores", "warned"),
    [pytest.param(0.05, False, id="quiet"), pytest.param(0.8, True, id="busy")],
)
def test_a_busy_machine_is_named(
    cores: float, warned: bool, contender: Callable[[str], Contender]
) -> None:
    outcome = _outcome([1.0] * 4, 0.5, [])
    outcome.strangers = cores
    last = list(tables.latency([Run(contender("ours"), [outcome])]))[-1]

    assert f"used {cores:.2f} cores" in last
    assert warned == ("TOO MUCH" in last)


def test_the_profile_attributes_all_that_the_client_saw(
    contender: Callable[[str], Contender],
) -> None:
    hops = {"features_us": 200, "inference_us": 300, "decision_us": 10, "total_us": 600}
    ours = Run(contender("ours"), [_outcome([1.0] * 4, 0.5, [{"latency": hops}] * 2)] * 2)
    lines = list(tables.profile(ours, {"all": 5.0}))
    means = {line[2:32].strip(): line.split()[-1] for line in lines[1:6]}

    assert {
        "features": "200", "inference": "300", "decision": "10", "rest of the gateway": "90",
        "HTTP, loopback, client": "400",
    } == means  # fmt: skip
    assert ["500", "100", "400"] == lines[-1].split()[-3:]  # CPU: all, idle, rest
