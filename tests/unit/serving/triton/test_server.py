"""A real Triton gives the golden answers, refuses what it should, and comes back when killed."""

import asyncio
import contextlib
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import local.triton_server
from local.supervisor import Supervisor
from local.triton_server import triton_program
from mlplatform.clients.triton import TritonLink, golden_answer, model_ready
from mlplatform.errors import ServiceError
from serving.triton.export import Export
from tests.unit.serving.triton.conftest import FEATURES, Running, Signed, free_ports, stubs

Floats = npt.NDArray[np.float32]
MODEL = ("flight_delay", 3)


def ask(url: str, rows: Floats) -> Floats:
    return golden_answer(url, *MODEL, rows, timeout_seconds=5)


def files(export: Export) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in export.folder.rglob("*") if path.is_file()}


def test_the_server_gives_the_golden_answers(running: Running) -> None:
    golden = running.export.golden

    assert golden.matches(ask(running.url, golden.features()))


def test_the_answers_are_those_of_the_formula(running: Running, rows: Floats) -> None:
    weights = np.linspace(0.01, 0.02, len(FEATURES))
    expected = 1 / (1 + np.exp(-np.nan_to_num(rows.astype(float)) @ weights))

    np.testing.assert_allclose(expected, ask(running.url, rows), rtol=0, atol=1e-6)


def test_callers_that_share_a_batch_get_their_own_answers(running: Running) -> None:
    rows = np.random.default_rng(3).normal(size=(400, len(FEATURES))).astype(np.float32)
    expected = np.concatenate(
        [ask(running.url, rows[start : start + 100]) for start in range(0, 400, 100)]
    )

    async def scenario() -> list[Floats]:
        link = TritonLink(running.url, *MODEL, connections=32)
        try:
            sizes = np.split(rows, np.cumsum(np.resize([1, 2, 5], 150))[:-1])
            return await asyncio.gather(*(link.infer(part) for part in sizes if len(part)))
        finally:
            await link.close()

    np.testing.assert_allclose(expected, np.concatenate(asyncio.run(scenario())), rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [1, 64, 256])
def test_every_number_of_rows_that_the_spec_allows_is_answered(
    running: Running, count: int
) -> None:
    assert count == len(ask(running.url, np.zeros((count, len(FEATURES)), np.float32)))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        pytest.param((257, len(FEATURES)), "max is 256|<= 256", id="too many rows"),
        pytest.param((1, len(FEATURES) - 1), "unexpected shape", id="a feature less"),
        pytest.param((1, len(FEATURES) + 1), "unexpected shape", id="a feature more"),
    ],
)
def test_rows_that_are_not_the_models_are_refused_with_the_reason(
    running: Running, shape: tuple[int, int], reason: str
) -> None:
    with pytest.raises(ServiceError, match=reason):
        ask(running.url, np.zeros(shape, np.float32))


@pytest.mark.parametrize(("name", "version"), [("flight_delay", 4), ("other", 3)])
def test_another_model_or_version_is_not_there(
    running: Running, rows: Floats, name: str, version: int
) -> None:
    assert not model_ready(running.url, name, version, timeout_seconds=5)
    with pytest.raises(ServiceError, match="unknown model"):
        golden_answer(running.url, name, version, rows, timeout_seconds=5)


@pytest.mark.parametrize("path", ["models/flight_delay/unload", "models/other/load"])
def test_nobody_can_load_or_unload_a_model(running: Running, rows: Floats, path: str) -> None:
    request = urllib.request.Request(f"{running.url}/v2/repository/{path}", b"{}")  # noqa: S310
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=5)  # noqa: S310
    caught.value.close()

    assert 5 == len(ask(running.url, rows))


def test_serving_writes_nothing_beside_the_model(running: Running, rows: Floats) -> None:
    ask(running.url, rows)
    beside = running.export.repository / "flight_delay" / "3"

    assert ["__pycache__", "model.onnx", "model.py"] == sorted(
        str(path.relative_to(beside)) for path in beside.rglob("*")
    )
    assert (beside / "__pycache__").is_file()


def test_the_server_listens_on_the_loopback_address_only(running: Running) -> None:
    listening = subprocess.run(
        [sys.executable, "-c", LISTENING, str(running.handle.pid)],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip

    assert ["0100007F", "0100007F"] == listening  # 127.0.0.1: HTTP and metrics


LISTENING = """
import os, sys
folder = f"/proc/{sys.argv[1]}/fd"
links = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]
sockets = {link[8:-1] for link in links if link.startswith("socket:[")}
for table in ("tcp", "tcp6"):
    for line in open(f"/proc/{sys.argv[1]}/net/{table}").read().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in sockets:
            print(fields[1].split(":")[0])
"""


def test_a_caller_that_gives_up_leaves_the_server_to_the_others(
    running: Running, rows: Floats
) -> None:
    async def scenario() -> Floats:
        link = TritonLink(running.url, *MODEL, connections=2)
        try:
            for _ in range(50):
                task = asyncio.create_task(link.infer(rows))
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            return await link.infer(rows)
        finally:
            await link.close()

    assert ask(running.url, rows).tolist() == asyncio.run(scenario()).tolist()


def test_a_hung_server_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(ServiceError, match="did not answer"):
            golden_answer(url, *MODEL, np.zeros((1, 1), np.float32), timeout_seconds=0.2)

        assert not model_ready(url, *MODEL, timeout_seconds=0.2)
        assert time.monotonic() - started < 2


def test_a_model_that_does_not_load_is_said_with_the_servers_log(
    signed: Signed, tmp_path: Path
) -> None:
    export = signed.export()
    model = export.repository / "flight_delay" / "3" / "model.onnx"
    model.chmod(0o644)
    model.write_bytes(b"broken after the export")
    port, metrics = free_ports(2)

    with Supervisor() as supervisor, pytest.raises(ServiceError, match="Protobuf parsing failed"):
        supervisor.start(triton_program(export, port, metrics, root=tmp_path / "server"))


def test_another_models_server_is_never_ready(
    running: Running, sign: Callable[..., Signed], tmp_path: Path
) -> None:
    other = sign(tmp_path)
    golden = other.export().golden
    wrong = golden.model_copy(update={"answers": tuple(1 - answer for answer in golden.answers)})
    port = int(running.url.rpartition(":")[2])
    program = triton_program(replace(other.export(), golden=wrong), port, 1, root=tmp_path / "root")

    assert running.handle.program.ready()
    assert not program.ready()


def test_a_server_that_is_not_installed_is_said(
    signed: Signed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local.triton_server, "_ENVIRONMENT", tmp_path / "nothing")

    with pytest.raises(ServiceError, match="run `make setup`"):
        triton_program(signed.export(), 1, 2, root=tmp_path)


@pytest.mark.parametrize("target", ["gpu", "tensorrt"])
def test_triton_understands_the_description_for_gpu_nodes(
    signed: Signed, tmp_path: Path, target: str
) -> None:
    inference = {"backend": "tensorrt" if target == "tensorrt" else "onnxruntime"}
    spec = signed.spec.model_copy(
        update={
            "serving": signed.spec.serving.model_copy(
                update={"inference": signed.spec.serving.inference.model_copy(update=inference)}
            )
        }
    )
    export = replace(signed, spec=spec).export("gpu")
    port, metrics = free_ports(2)

    # This machine's server has no onnxruntime backend: it reads the file and then says so.
    with (
        Supervisor() as supervisor,
        pytest.raises(
            ServiceError, match="unable to find backend library for backend 'onnxruntime'"
        ),
    ):
        supervisor.start(triton_program(export, port, metrics, root=tmp_path / "server"))


def test_what_a_killed_server_left_in_shared_memory_is_removed_before_the_next_starts(
    root: Path,
) -> None:
    prefix = f"mlplatform_test_{os.getpid()}_"
    left, used, others = (
        Path("/dev/shm", name)  # noqa: S108 (where shared memory is)
        for name in (f"{prefix}left", f"{prefix}used", f"other_{prefix}left")
    )
    try:
        for path in (left, used, others):
            path.write_bytes(bytes(4096))
        with used.open("r+b") as file, mmap.mmap(file.fileno(), 0):
            launch = str(root / "local" / "triton" / "launch.py")
            said = subprocess.run(
                [sys.executable, "-I", launch, prefix, "/bin/echo", "it", "runs"],
                check=True, capture_output=True, text=True,
            ).stdout  # fmt: skip

        assert "it runs\n" == said
        assert [False, True, True] == [path.exists() for path in (left, used, others)]
    finally:
        for path in (left, used, others):
            path.unlink(missing_ok=True)


def test_a_start_removes_the_shared_memory_of_no_server_at_another_port(
    signed: Signed, tmp_path: Path
) -> None:
    export = signed.export()

    def prefix(port: int) -> str:
        command = triton_program(export, port, 1, root=tmp_path).command
        name = command[command.index(str(local.triton_server._LAUNCH)) + 1]
        assert f"--backend-config=python,shm-region-prefix-name={name}" in command
        return name

    assert not prefix(80).startswith(prefix(8000))
    assert not prefix(8000).startswith(prefix(80))


@pytest.fixture(scope="module")
def victim(
    tmp_path_factory: pytest.TempPathFactory,
    sign: Callable[..., Signed],
    serve: Callable[[Export, Path], Running],
) -> Running:
    """The server that is killed; it is started beside a module that nobody should import."""
    folder = tmp_path_factory.mktemp("victim")
    (folder / "numpy.py").write_text("raise SystemExit('taken from the current folder')")
    with contextlib.chdir(folder):
        return serve(sign(folder).export(), folder / "server")


@pytest.mark.loop
@pytest.mark.parametrize(
    ("who", "kind"),
    [
        pytest.param("server", signal.SIGKILL, id="server killed"),
        pytest.param("stub", signal.SIGKILL, id="model process killed"),
        pytest.param("stub", signal.SIGSTOP, id="model process hangs"),
        pytest.param("server", signal.SIGSTOP, id="server hangs"),
    ],
)
def test_a_dead_or_hung_part_leads_to_a_new_server_with_the_same_answers(
    victim: Running, rows: Floats, who: str, kind: signal.Signals
) -> None:
    expected, kept = ask(victim.url, rows).tolist(), files(victim.export)
    old, restarts = victim.handle.pid, victim.handle.restarts
    os.kill(victim.stub if who == "stub" else old, kind)
    if who == "stub":  # why readiness alone is not asked
        assert model_ready(victim.url, *MODEL, timeout_seconds=1)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and victim.handle.restarts == restarts:
        time.sleep(0.02)

    assert victim.handle.wait_ready(20)
    assert (restarts + 1, True) == (victim.handle.restarts, victim.handle.pid != old)
    assert expected == ask(victim.url, rows).tolist()
    assert kept == files(victim.export)
    assert 1 == len(stubs(victim.handle.pid))
    assert not Path(f"/proc/{old}").exists()
