"""The client of one Triton server: the only package that speaks its HTTP protocol.

One row costs 0.6 kB of request and a few microseconds of Python here: the request's head is built
once for each row count, the features travel as raw float32 (binary tensor extension), and the
answer's JSON is compared with the last good one before it is parsed. `wire` knows the bytes and
does no I/O; `link` is the asyncio side for the gateway, `probe` the blocking side for supervision.

It refuses what it did not ask for: chunked or compressed answers, answers of another model,
version, shape or length, values that are no probabilities, bytes that nobody waits for.
"""

from mlplatform.clients.triton.link import TritonLink
from mlplatform.clients.triton.probe import golden_answer, model_ready

__all__ = ["TritonLink", "golden_answer", "model_ready"]
