"""One server for each version, started and ended as asked. Redis is the server, as for the
supervisor: what a pool does is the same for every program.
"""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.redis_server import answers, redis_program
from local.server_pool import ServerPool
from local.supervisor import Program
from mlplatform.contracts import OnlineField, OnlineGroup, OnlineLayout, OnlineView, ServedModel
from mlplatform.contracts.rollout import Version
from mlplatform.errors import ModelError, NotFoundError, ServiceError
from serving.triton.export import Export
from serving.triton.golden import Golden
from tests.unit.local.test_supervisor import alive, eventually

LAYOUT = OnlineLayout(
    project="tests",
    service="flights_v1",
    groups=(
        OnlineGroup(
            keys=("origin",),
            views=(
                OnlineView(
                    name="weather",
                    ttl_seconds=None,
                    fields=(OnlineField(name="wind", dtype="float32"),),
                ),
            ),
        ),
    ),
)
ONE, TWO = Version(version=1, digest="1" * 64), Version(version=2, digest="2" * 64)


class Platform:
    """A registry that can be away or refuse, and servers whose starts are counted."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.exports: list[int] = []
        self.refusal: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.broken_starts = 0

    def export(self, version: int) -> Export:
        self.exports.append(version)
        self.gate.wait(20)
        if self.refusal is not None:
            raise self.refusal
        model = ServedModel(
            name="flights",
            version=version,
            digest=str(version) * 64,
            features=("wind",),
            threshold=0.5,
            layout=LAYOUT,
        )
        return Export(self.root, self.root, model, Golden(rows=((1.0,),), answers=(0.5,)))

    def program(self, export: Export, port: int, metrics_port: int) -> Program:
        del metrics_port
        program = redis_program(self.root / f"v{export.served.version}-{port}", port)
        if self.broken_starts:
            self.broken_starts -= 1
            program.command[:] = ["/bin/false"]
        return program


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path)


@pytest.fixture
def pool(platform: Platform) -> Iterator[ServerPool]:
    with ServerPool(platform.export, platform.program) as running:
        yield running


def state(pool: ServerPool, version: Version) -> str:
    return pool.look(version).status.state


def port(pool: ServerPool, version: Version) -> int:
    return int(pool.look(version).status.url.rpartition(":")[2])


def started(pool: ServerPool, *versions: Version) -> None:
    pool.ensure(versions)
    for version in versions:
        pool.wait(version, 20)


def test_a_version_is_started_in_the_background(platform: Platform, pool: ServerPool) -> None:
    platform.gate.clear()
    assert "absent" == state(pool, ONE)

    pool.ensure((ONE,))
    assert "starting" == state(pool, ONE)

    platform.gate.set()
    served = pool.wait(ONE, 20)
    assert ("ready", served) == (state(pool, ONE), pool.look(ONE).served)
    assert ONE.digest == served.digest
    assert answers(port(pool, ONE))


def test_asking_again_starts_nothing_and_leaves_the_servers_as_they_are(
    platform: Platform, pool: ServerPool
) -> None:
    started(pool, ONE, TWO)
    pids = [pool.handle(version).pid for version in (ONE, TWO)]

    for _ in range(3):
        pool.ensure((TWO, ONE))

    assert pids == [pool.handle(version).pid for version in (ONE, TWO)]
    assert [1, 2] == sorted(platform.exports)


def test_a_version_that_is_not_asked_for_any_more_is_ended_and_the_other_stays(
    pool: ServerPool,
) -> None:
    started(pool, ONE, TWO)
    old, kept = pool.handle(ONE).pid, pool.handle(TWO).pid

    pool.ensure((TWO,))

    assert "absent" == state(pool, ONE)
    assert eventually(lambda: not alive(old))
    assert alive(kept)
    with pytest.raises(NotFoundError, match="version 1 has no server"):
        pool.handle(ONE)


def test_a_refused_version_has_failed_for_good_until_it_is_asked_for_anew(
    platform: Platform, pool: ServerPool
) -> None:
    platform.refusal = ModelError("the signature does not match")
    pool.ensure((ONE,))
    with pytest.raises(ModelError, match="the signature does not match"):
        pool.wait(ONE, 20)

    pool.ensure((ONE,))
    assert "failed" == state(pool, ONE)
    assert "the signature does not match" in pool.look(ONE).status.detail
    assert [1] == platform.exports

    platform.refusal = None
    pool.ensure(())
    started(pool, ONE)
    assert [1, 1] == platform.exports


def test_a_registry_with_another_model_under_the_number_is_refused(pool: ServerPool) -> None:
    swapped = Version(version=1, digest="f" * 64)
    pool.ensure((swapped,))

    with pytest.raises(ModelError, match=r"has digest 1111.*but ffff.* was asked for"):
        pool.wait(swapped, 20)
    assert "failed" == state(pool, swapped)


def test_a_version_that_nobody_registered_has_failed(platform: Platform, pool: ServerPool) -> None:
    platform.refusal = NotFoundError("there is no version 1")
    pool.ensure((ONE,))

    with pytest.raises(NotFoundError, match="there is no version 1"):
        pool.wait(ONE, 20)


def test_a_registry_that_is_away_is_asked_again(
    platform: Platform, pool: ServerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local.server_pool._PAUSE_SECONDS", 0.01)
    platform.refusal = ServiceError("MLflow cannot be reached")
    pool.ensure((ONE,))
    assert eventually(lambda: len(platform.exports) > 1)
    assert ("starting", "MLflow cannot be reached") == (
        state(pool, ONE), pool.look(ONE).status.detail,
    )  # fmt: skip

    platform.refusal = None
    pool.wait(ONE, 20)


def test_a_server_that_does_not_start_is_tried_again_and_then_has_failed(
    platform: Platform, pool: ServerPool
) -> None:
    platform.broken_starts = 2
    started(pool, ONE)

    platform.broken_starts = 3
    pool.ensure((TWO,))
    with pytest.raises(ServiceError, match="redis ended with 1 while starting"):
        pool.wait(TWO, 20)
    assert "failed" == state(pool, TWO)


def test_a_killed_server_comes_back_where_it_was_and_stays_ready(pool: ServerPool) -> None:
    started(pool, ONE)
    before, old = pool.look(ONE), pool.handle(ONE).pid

    os.kill(old, signal.SIGKILL)

    assert eventually(lambda: pool.handle(ONE).restarts == 1 and pool.handle(ONE).healthy)
    assert before == pool.look(ONE)
    assert answers(port(pool, ONE))


@pytest.mark.parametrize("leave", ["the pool ends", "another version is asked for"])
def test_a_server_that_is_let_go_while_it_starts_is_ended(
    platform: Platform, leave: str, tmp_path: Path
) -> None:
    said = tmp_path / "pid"
    never = ["/bin/sh", "-c", f"echo $$ > {said}; sleep 60"]

    def program(export: Export, port: int, metrics_port: int) -> Program:
        made = platform.program(export, port, metrics_port)
        made.command[:] = never if export.served.version == ONE.version else made.command
        return made

    with ServerPool(platform.export, program) as pool:
        pool.ensure((ONE,))
        assert eventually(lambda: said.exists() and said.read_text() != "")
        pid = int(said.read_text())
        if leave != "the pool ends":
            started(pool, TWO)
            assert eventually(lambda: not alive(pid))

    assert not alive(pid)


def test_the_pools_end_ends_every_server(platform: Platform) -> None:
    with ServerPool(platform.export, platform.program) as pool:
        started(pool, ONE, TWO)
        pids = [pool.handle(version).pid for version in (ONE, TWO)]
        pool.ensure((TWO,))

    assert [] == [pid for pid in pids if alive(pid)]
    assert [] == [name for name in names() if name.startswith("server of version")]


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]
