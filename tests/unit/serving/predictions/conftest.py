"""A real Redis for all tests here, a stream for each test, and rows to put into it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as vendor

from local.redis_server import Redis, redis_server
from mlplatform.clients import redis_sync
from mlplatform.clients.redis_sync import RedisSync
from mlplatform.contracts.prediction import Prediction
from serving.predictions import stream
from tests.unit.serving.predictions import rows

MakeRow = Callable[..., Prediction]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with redis_server(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture
def client(server: Redis) -> Iterator["vendor.Redis"]:
    with vendor.Redis.from_url(server.url) as connection:
        yield connection
        connection.flushall()


@pytest.fixture
def redis(server: Redis, client: "vendor.Redis") -> Redis:
    """The server, empty."""
    del client  # it empties the server after the test
    return server


@pytest.fixture
def rows_in(client: "vendor.Redis") -> Callable[[], list[Prediction]]:
    """The rows of the stream, as they lie in it."""

    def read() -> list[Prediction]:
        entries = client.xrange(stream.key("flights"))
        return [stream.unpack(fields[stream.FIELD]) for _, fields in entries]  # type: ignore[union-attr]

    return read


@pytest.fixture(scope="session")
def make_row() -> MakeRow:
    return rows.make_row


@pytest.fixture
def spill(tmp_path: Path) -> Path:
    return tmp_path / "spill"


@pytest.fixture
def commands(redis: Redis) -> Iterator[RedisSync]:
    with redis_sync.connect(redis.url) as connection:
        yield connection


@pytest.fixture
def add(client: "vendor.Redis") -> Callable[..., None]:
    """Appends rows to the stream, at ids of their own when `at` gives milliseconds."""

    def append(*rows: Prediction, at: int | None = None) -> None:
        for number, row in enumerate(rows):
            name = "*" if at is None else f"{at}-{number}"
            client.xadd(stream.key("flights"), {stream.FIELD: stream.pack(row)}, id=name)

    return append


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"
