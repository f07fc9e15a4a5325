"""Supervised programs: started, restarted, ended. Redis is the program."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.processes import free_port
from local.redis_server import answers, redis_program
from local.supervisor import Handle, Program, Supervisor
from mlplatform.errors import ServiceError


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def redis(tmp_path: Path, port: int) -> Iterator[Handle]:
    with Supervisor() as supervisor:
        yield supervisor.start(redis_program(tmp_path, port))


def test_a_program_answers_when_it_has_been_started(redis: Handle, port: int) -> None:
    assert redis.healthy
    assert answers(port)
    assert 0 == redis.restarts


def test_a_killed_program_is_started_again(
    redis: Handle, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    first = redis.pid
    with caplog.at_level(logging.WARNING, logger="mlplatform.local"):
        os.kill(first, signal.SIGKILL)

        assert eventually(lambda: redis.restarts == 1 and redis.wait_ready(0.1))
    assert answers(port)
    assert first != redis.pid
    assert "redis is gone" in caplog.text


def test_a_program_that_hangs_is_killed_and_started_again(tmp_path: Path, port: int) -> None:
    impatient = redis_program(tmp_path, port)
    program = Program(
        name="redis",
        command=impatient.command,
        log=impatient.log,
        ready=lambda: answers(port, 0.2),
        patience_seconds=0.5,
    )
    with Supervisor() as supervisor:
        handle = supervisor.start(program)
        first = handle.pid
        os.kill(first, signal.SIGSTOP)

        assert eventually(lambda: handle.restarts == 1 and handle.wait_ready(0.1))
        assert not alive(first)


def test_everything_ends_with_the_block(tmp_path: Path, port: int) -> None:
    with Supervisor() as supervisor:
        pid = supervisor.start(redis_program(tmp_path, port)).pid

    assert not alive(pid)
    assert not answers(port)


def test_a_program_that_ends_at_once_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no such model'); raise SystemExit(3)"]
    program = Program("server", command, tmp_path / "log", ready=lambda: False)

    with Supervisor() as supervisor, pytest.raises(ServiceError, match="ended with 3") as caught:
        supervisor.start(program)
    assert "no such model" in str(caught.value)


def test_a_program_that_never_answers_is_an_error_and_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    program = Program("server", command, tmp_path / "log", ready=lambda: False, start_seconds=0.3)

    with Supervisor() as supervisor, pytest.raises(ServiceError, match="did not answer in time"):
        supervisor.start(program)


def test_a_missing_program_is_an_error_that_names_it(tmp_path: Path) -> None:
    program = Program("server", [str(tmp_path / "absent")], tmp_path / "log", ready=lambda: True)

    with Supervisor() as supervisor, pytest.raises(ServiceError, match="absent"):
        supervisor.start(program)


def test_programs_end_when_their_supervisor_is_killed(
    tmp_path: Path, port: int, root: Path
) -> None:
    code = (
        "import pathlib, sys, time\n"
        "from local.redis_server import redis_server\n"
        f"with redis_server(pathlib.Path({str(tmp_path)!r}), {port}):\n"
        "    print('up', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert "up" in parent.stdout.readline()
        parent.kill()

    assert eventually(lambda: not answers(port, 0.2))


def test_a_port_that_somebody_holds_is_refused_and_nothing_is_started(
    tmp_path: Path, redis: Handle, port: int
) -> None:
    with Supervisor() as supervisor, pytest.raises(ServiceError, match=f"port {port} on"):
        supervisor.start(redis_program(tmp_path / "second", port))
    assert redis.healthy
    assert 0 == redis.restarts


def test_a_question_that_raises_is_no_answer_and_the_watch_goes_on(
    tmp_path: Path, port: int
) -> None:
    broken = False

    def ready() -> bool:
        if broken:
            raise ValueError("not HTTP")
        return answers(port, 0.2)

    known = redis_program(tmp_path, port)
    program = Program("redis", known.command, known.log, ready, patience_seconds=0.3)
    with Supervisor() as supervisor:
        handle = supervisor.start(program)
        broken = True

        assert eventually(lambda: handle.restarts >= 1)
        broken = False
        assert handle.wait_ready(20)


def test_a_second_ctrl_c_does_not_stop_the_stopping(tmp_path: Path, root: Path) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    code = (
        "import pathlib, sys, time\n"
        "from local.supervisor import Program, Supervisor\n"
        f"command = [sys.executable, '-c', {stubborn!r}]\n"
        f"log = pathlib.Path({str(tmp_path)!r}, 'log')\n"
        "program = Program('server', command, log, ready=lambda: True, stop_seconds=1)\n"
        "with Supervisor() as supervisor:\n"
        "    print(supervisor.start(program).pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.3)  # the program sets its signal handler meanwhile; later is as good
        for _ in range(3):
            parent.send_signal(signal.SIGINT)
            time.sleep(0.1)
        parent.wait(20)

    assert not alive(pid)
