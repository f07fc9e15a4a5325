"""A real Redis for all rollouts here, and a world for each test."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from local.redis_server import redis_server
from tests.unit.serving.rollout.world import World, world_in


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis"), guarded=False) as server:
        yield server.url


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: hundreds of databases wait for no disk."""
    shared = Path("/dev/shm")  # noqa: S108 (a folder of our own in it)
    if not shared.is_dir():
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(dir=shared))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def make_world(memory: Path, redis_url: str) -> Iterator[Callable[[], World]]:
    """Makes a world of its own at each call; they share one Redis, which it empties."""
    with ExitStack() as stack:
        made = 0

        def make() -> World:
            nonlocal made
            made += 1
            return stack.enter_context(world_in(memory / str(made), redis_url))

        yield make


@pytest.fixture
def world(make_world: Callable[[], World]) -> World:
    return make_world()
