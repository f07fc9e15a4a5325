"""A real Redis for all tests here, a stream for each test, and rows to put into it."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as vendor

from local.redis_server import Redis, redis_server
from mlplatform.contracts.prediction import Prediction
from serving.predictions import stream

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
    def make(sequence: int, gateway: str = "gateway-1", **other: object) -> Prediction:
        content: dict[str, object] = {
            "gateway": gateway,
            "sequence": sequence,
            "request_id": f"{gateway}:{sequence}",
            "usecase": "flights",
            "event_time": 1_388_534_400_000_000 + sequence,
            "received_at": 1_700_000_000_000_000 + sequence,
            "entity": f"AA|{sequence}",
            "request": {"carrier": "AA", "number": sequence, "delay": None, "distance": 1.5},
            "arm": "champion",
            "version": 3,
            "epoch": 7,
            "service": "flights_v1",
            "features": struct.pack("<3f", sequence, float("nan"), 0.5),
            "feature_times": (1_388_534_300_000_000, 0),
            "score": 0.25,
            "decision": False,
            "degraded": True,
            "fallback": False,
            "reasons": ("stale:weather",),
            "total_us": 900,
            "features_us": 200,
            "inference_us": 300,
            "decision_us": 50,
        }
        return Prediction(**{**content, **other})  # type: ignore[arg-type]

    return make


@pytest.fixture
def spill(tmp_path: Path) -> Path:
    return tmp_path / "spill"
