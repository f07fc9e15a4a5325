"""The Redis stream between the gateways and the archiver: what an entry is.

An entry has one field, `r`: the row as MessagePack. A batch of rows is one transaction: either all
of its rows are in the stream, in order, or none is. Without it Redis could refuse one row for want
of memory and take the next, and the archiver, which knows duplicates by their sequence, would take
the row that is repeated later for one.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from mlplatform.clients.redis_protocol import encode
from mlplatform.contracts.prediction import Prediction
from mlplatform.errors import ServiceError

FIELD: Final = b"r"

pack: Final = msgspec.msgpack.Encoder().encode
"""Row to bytes. Raises what msgspec raises for text that is no Unicode or integers beyond 64 bit"""

_MULTI: Final = encode("MULTI")
_EXEC: Final = encode("EXEC")
_unpack: Final = msgspec.msgpack.Decoder(Prediction).decode


def key(usecase: str) -> str:
    """Return the stream's key."""
    return f"predictions:{usecase}"


def unpack(content: bytes) -> Prediction:
    """Return the row in an entry.

    Raises:
        ValueError: It is no row; msgspec's errors are of this type.
    """
    return _unpack(content)


def batch(usecase: str, rows: Sequence[bytes]) -> tuple[bytes, int]:
    """Return the commands that append packed rows at once, and the number of their replies."""
    stream = key(usecase)
    commands = [encode("XADD", stream, "*", FIELD, row) for row in rows]
    return b"".join([_MULTI, *commands, _EXEC]), len(rows) + 2


def check(replies: Sequence[Any], rows: int) -> None:
    """Refuse the replies to a `batch` unless every row was appended.

    Raises:
        ServiceError: Redis refused the batch; nothing of it is in the stream.
    """
    refused = next((reply for reply in replies if isinstance(reply, Exception)), None)
    done = replies[-1]
    if refused is None and isinstance(done, list) and len(done) == rows:
        refused = next((reply for reply in done if isinstance(reply, Exception)), None)
        if refused is None:
            return
    raise ServiceError(
        f"Redis did not append {rows} rows of the prediction log: {refused or done!r}"
    )
