"""The blocking side, for supervision: one question on one connection, within one deadline.

It keeps no connection: a supervisor asks whether a new caller would be answered.
"""

import socket
import time
from typing import Final

from mlplatform.clients.triton.wire import Answer, Floats, Reader, Wire
from mlplatform.errors import ServiceError, shorten

_OK: Final = 200
_CHUNK: Final = 65536  # bytes of one read


def golden_answer(
    url: str, model: str, version: int, features: Floats, *, timeout_seconds: float
) -> Floats:
    """Return the probabilities [N] that a server gives for rows float32 [N, F].

    Args:
        url: `http://host:port`.
        model: Name of the model.
        version: Its version.
        features: The rows.
        timeout_seconds: Longest wait for the whole answer.

    Raises:
        DataError: The features are not float32 [N, F].
        ServiceError: There was no such answer in time.
    """
    wire = Wire(url, model, version)
    answer = _exchange(wire, wire.infer_request(features), timeout_seconds)
    return wire.probabilities(answer, len(features))


def model_ready(url: str, model: str, version: int, *, timeout_seconds: float) -> bool:
    """Return whether a server says in time that this version is ready.

    Raises:
        ServiceError: The address or the name could not be put into a request.
    """
    wire = Wire(url, model, version)
    try:
        return _exchange(wire, wire.ready_request(), timeout_seconds).status == _OK
    except ServiceError:
        return False


def _exchange(wire: Wire, payload: bytes, timeout_seconds: float) -> Answer:
    deadline = time.monotonic() + timeout_seconds
    reader = Reader(wire.name)
    try:
        with socket.create_connection((wire.host, wire.port), timeout_seconds) as connection:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            connection.sendall(payload)
            while (left := deadline - time.monotonic()) > 0:
                connection.settimeout(left)
                data = connection.recv(_CHUNK)
                if not data:
                    raise ServiceError(f"{wire.name} hung up before it had answered")
                if (answer := reader.feed(data)) is not None:
                    return answer
    except OSError as error:
        raise ServiceError(f"{wire.name} did not answer: {shorten(error)}") from error
    raise ServiceError(f"{wire.name} did not answer within {timeout_seconds:g} s")
