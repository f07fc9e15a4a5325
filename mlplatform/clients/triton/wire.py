"""The bytes of Triton's HTTP protocol, without any I/O: requests out, answers in.

Format: HTTP/1.1 and the KServe v2 protocol with Triton's binary tensor extension. A request is a
JSON header followed by the raw tensor; `Inference-Header-Content-Length` says where it begins.

It accepts the small part of HTTP that Triton uses (a status, a length, a body) and refuses the
rest, because an answer that can be read in two ways can be taken for another request's answer.
"""

import functools
import re
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
import numpy as np
import numpy.typing as npt

from mlplatform.errors import DataError, ServiceError, shorten

Floats = npt.NDArray[np.float32]

_INPUT: Final = "features"
_OUTPUT: Final = "probability"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([2-5][0-9]{2})(?: [^\r\n]*)?")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*?)[ \t]*")
_LENGTH: Final = re.compile(rb"[0-9]{1,7}")
_HEAD_LIMIT: Final = 8192
"""Bytes of an answer's head; Triton's own are about 150."""
_BODY_LIMIT: Final = 1_048_576
"""Bytes of an answer's body: 60 times the answer for the 4,096 rows that a spec allows."""
_KNOWN_LIMIT: Final = 512
"""Row counts whose heads are kept; beyond them they are built and read again."""
_OK: Final = 200


class Answer(NamedTuple):
    """One complete HTTP answer."""

    status: int
    keep: bool
    """The connection may carry the next request."""
    header_length: int | None
    """Where the tensors begin; None: the body has no tensors."""
    body: bytes


class _Head(NamedTuple):
    status: int
    keep: bool
    header_length: int | None
    length: int


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any]


class _Inferred(msgspec.Struct):
    model_name: str
    model_version: str
    outputs: list[_Tensor]


class _Refusal(msgspec.Struct):
    error: str


_READ_INFERRED: Final = msgspec.json.Decoder(_Inferred)
_READ_REFUSAL: Final = msgspec.json.Decoder(_Refusal)


class Wire:
    """Requests to, and answers of, one version of one model on one server.

    Args:
        url: `http://host:port`.
        model: Name of the model.
        version: Its version.

    Raises:
        ServiceError: The address or the name could not be put into a request.
    """

    def __init__(self, url: str, model: str, version: int) -> None:
        try:
            address = urlsplit(url)
            host, port = address.hostname, address.port
        except ValueError:
            host = port = None
        if not host or not port or not re.fullmatch(r"http://[^\s@/?#]+/?", url):
            raise ServiceError(f"{url!r} is not the address of a Triton server: http://host:port")
        if not _NAME.fullmatch(model):
            raise ServiceError(f"{model!r} is not the name of a model: letters, digits, _ . -")
        self.host, self.port = host, port
        self.name = f"{model} version {int(version)} at {address.netloc}"
        self._model, self._version = model, str(int(version))
        self._path = f"/v2/models/{model}/versions/{self._version}"
        self._fixed = f"HTTP/1.1\r\nHost: {address.netloc}\r\n"
        self._heads: dict[tuple[int, int], bytes] = {}
        self._known: dict[int, bytes] = {}

    def ready_request(self) -> bytes:
        """Return the question whether the model is ready."""
        return f"GET {self._path}/ready {self._fixed}\r\n".encode()

    def infer_request(self, features: Floats) -> bytes:
        """Return the question for the probabilities of rows [N, F].

        Raises:
            DataError: The features are not float32 [N, F] with at least one row and column.
        """
        if features.dtype != np.float32 or features.ndim != 2 or not features.size:  # noqa: PLR2004 ([N, F])
            raise DataError(
                f"features must be float32 [N, F] with at least one row, not {features.dtype} "
                f"{list(features.shape)}: build them with the model's feature list"
            )
        rows, width = features.shape
        head = self._heads.get((rows, width)) or self._head(rows, width)
        return head + features.astype("<f4", copy=False).tobytes()

    def probabilities(self, answer: Answer, rows: int) -> Floats:
        """Return the probabilities [N] out of the answer to a request of N rows.

        Raises:
            ServiceError: Triton refused, or the answer is not that of this model to N rows.
        """
        status, _, start, body = answer
        if status != _OK:
            raise ServiceError(f"Triton refused {self.name} ({status}): {_reason(body)}")
        if start is None or body[:start] != self._known.get(rows):
            self._check(b"" if start is None else body[:start], rows)
            start = start or 0
        if len(body) - start != 4 * rows:
            raise ServiceError(
                f"the answer of {self.name} holds {len(body) - start} bytes of tensor, not the "
                f"{4 * rows} of {rows} rows: it is not for this request"
            )
        found: Floats = np.frombuffer(body, "<f4", rows, start)
        if not (found.min() >= 0 and found.max() <= 1):  # NaN compares as False
            raise ServiceError(
                f"{self.name} answered {shorten(found[:5].tolist())}, which are no probabilities: "
                "roll this version back"
            )
        return found

    def _head(self, rows: int, width: int) -> bytes:
        size = 4 * rows * width
        header = msgspec.json.encode(
            {
                "inputs": [
                    {
                        "name": _INPUT,
                        "datatype": "FP32",
                        "shape": [rows, width],
                        "parameters": {"binary_data_size": size},
                    }
                ],
                "outputs": [{"name": _OUTPUT, "parameters": {"binary_data": True}}],
            }
        )
        head = (
            f"POST {self._path}/infer {self._fixed}"
            "Content-Type: application/octet-stream\r\n"
            f"Inference-Header-Content-Length: {len(header)}\r\n"
            f"Content-Length: {len(header) + size}\r\n\r\n"
        ).encode() + header
        _remember(self._heads, (rows, width), head)
        return head

    def _check(self, header: bytes, rows: int) -> None:
        """Refuse a header that is not this model's answer to so many rows; keep a good one."""
        try:
            found = _READ_INFERRED.decode(header)
            (tensor,) = found.outputs
        except (msgspec.MsgspecError, ValueError) as error:
            raise ServiceError(
                f"the answer of {self.name} cannot be read ({shorten(error)}): is it a Triton?"
            ) from error
        given = (
            found.model_name, found.model_version, tensor.name, tensor.datatype, tensor.shape,
            tensor.parameters.get("binary_data_size"),
        )  # fmt: skip
        wanted = (self._model, self._version, _OUTPUT, "FP32", [rows, 1], 4 * rows)
        if given != wanted:
            raise ServiceError(
                f"the answer of {self.name} to {rows} rows is of {shorten(given)}, not of "
                f"{wanted}: it is of another model or request"
            )
        _remember(self._known, rows, header)


class Reader:
    """Collects the bytes of one answer after the other, however they are split.

    Args:
        name: Who is asked, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._buffer = bytearray()
        self._head: _Head | None = None

    @property
    def begun(self) -> bool:
        """Whether a part of an answer was read."""
        return bool(self._buffer) or self._head is not None

    def feed(self, data: bytes) -> Answer | None:
        """Take what was received; return the answer when it is complete.

        Raises:
            ServiceError: The bytes are no answer that can be trusted; the connection must be
                closed.
        """
        self._buffer += data
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end > _HEAD_LIMIT or (end < 0 and len(self._buffer) > _HEAD_LIMIT):
                raise ServiceError(f"{self._name} sent a head beyond {_HEAD_LIMIT} bytes")
            if end < 0:
                return None
            try:
                self._head = _parse(bytes(self._buffer[:end]))
            except ValueError as error:
                raise ServiceError(f"{self._name} sent {error}: refused") from None
            del self._buffer[: end + 4]
        status, keep, header_length, length = self._head
        if len(self._buffer) > length:
            raise ServiceError(f"{self._name} sent more bytes than it announced: refused")
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer)
        self._buffer.clear()
        self._head = None
        return Answer(status, keep, header_length, body)


@functools.lru_cache(maxsize=64)  # a server sends the same few heads again and again
def _parse(head: bytes) -> _Head:
    first, *lines = head.split(b"\r\n")
    if not (status := _STATUS.fullmatch(first)):
        raise ValueError(f"{first[:40]!r}, which is no status line")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        if not (field := _FIELD.fullmatch(line)):
            raise ValueError(f"{line[:40]!r}, which is no header")
        name = field[1].lower()
        if name in fields:
            raise ValueError(f"two headers {name.decode()}")
        fields[name] = field[2]
    for name in (b"transfer-encoding", b"content-encoding"):
        if name in fields:
            raise ValueError(f"a {name.decode()} ({fields[name][:40]!r})")
    lengths = [fields.get(name) for name in (b"content-length", b"inference-header-content-length")]
    if lengths[0] is None or not all(
        _LENGTH.fullmatch(text) for text in lengths if text is not None
    ):
        raise ValueError("no plain length of its body")
    length = int(lengths[0])
    header_length = None if lengths[1] is None else int(lengths[1])
    if length > _BODY_LIMIT or (header_length or 0) > length:
        raise ValueError(f"lengths that cannot be true ({length}, header {header_length})")
    keep = status[1] == b"1" and b"close" not in fields.get(b"connection", b"").lower()
    return _Head(int(status[2]), keep, header_length, length)


def _reason(body: bytes) -> str:
    try:
        return shorten(_READ_REFUSAL.decode(body).error)
    except msgspec.MsgspecError:
        return shorten(body[:200].decode(errors="replace"))


def _remember(known: dict[Any, bytes], key: Any, value: bytes) -> None:
    if len(known) >= _KNOWN_LIMIT:
        known.clear()
    known[key] = value
