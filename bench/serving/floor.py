"""The floor: what no gateway can be below that parses HTTP, reads Redis and runs the model.

One process: granian's RSGI, one GET of the finished feature vector, one ONNX run. It validates,
routes, logs and measures nothing, knows no deadline and has no other answer than a score.
"""

import os
from typing import Any

import msgspec
import numpy as np

from mlplatform.clients.redis_link import RedisLink
from mlplatform.clients.redis_protocol import encode


class Floor:
    """The RSGI application; granian calls it once for each request."""

    def __init__(self, redis_url: str, model: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._run = session.run
        self._redis = RedisLink(redis_url, name="bench-floor")

    def __rsgi_init__(self, loop: Any) -> None:
        """Connect; granian calls it when its loop is there."""
        loop.run_until_complete(self._redis.start())

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer one request."""
        if scope.method != "POST":
            protocol.response_str(200 if self._redis.connected else 503, [], "")
            return
        body = await protocol()
        key = msgspec.json.decode(body, type=Key).flight_key
        (vector,) = await self._redis.send(encode("GET", floor_key(key)), 1)
        rows = np.frombuffer(vector, np.float32)[None, :]
        score = float(self._run(["probability"], {"features": rows})[0][0, 0])
        content = msgspec.json.encode({"score": score})
        protocol.response_bytes(200, [("content-type", "application/json")], content)


class Key(msgspec.Struct):
    """The one field of a request that the floor reads."""

    flight_key: str


def floor_key(flight_key: str) -> str:
    """Return where the finished vector of a request lies."""
    return f"bench:floor:{flight_key}"


def create() -> Floor:
    """Return the application; what it needs is in the environment."""
    return Floor(os.environ["BENCH_REDIS_URL"], os.environ["BENCH_MODEL"])
