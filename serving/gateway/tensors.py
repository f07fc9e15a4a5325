"""Tensors of the Open Inference Protocol v2, as JSON or with the binary extension.

A request is a JSON header, alone or followed by the raw tensors that it announces. Everything in it
comes from outside: lengths and shapes are checked against each other and against the body before
a value is read. It refuses shared memory and any other parameter that names memory of this machine.
"""

import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from serving.gateway.refusal import NOT_JSON, RefusedError

_LENGTH: Final = struct.Struct("<I")
_DTYPES: Final[Mapping[str, str]] = {
    "INT64": "<i8", "INT32": "<i4", "FP64": "<f8", "FP32": "<f4", "BOOL": "?",
}  # fmt: skip
BYTES: Final = "BYTES"
_DIGITS: Final = re.compile("[0-9]{1,9}")
_BINARY: Final = "binary_data"
_SIZE: Final = "binary_data_size"
_Parameters = dict[str, str | int | float | bool]


class Tensor(msgspec.Struct):
    """One input."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: _Parameters = {}


class Wanted(msgspec.Struct):
    """One output that is asked for."""

    name: str
    parameters: _Parameters = {}


class Inference(msgspec.Struct):
    """A request."""

    inputs: list[Tensor]
    id: str | None = None
    outputs: list[Wanted] | None = None
    parameters: _Parameters = {}


_read: Final = msgspec.json.Decoder(Inference).decode
_encode: Final = msgspec.json.Encoder().encode


def decode(body: bytes, header_length: str | None) -> tuple[Inference, bytes]:
    """Return the request in a body and the bytes of its binary tensors.

    Args:
        body: The whole body.
        header_length: Of `Inference-Header-Content-Length`; None: all of it is JSON.

    Raises:
        RefusedError: It is no such request.
    """
    length = len(body)
    if header_length is not None:
        if not _DIGITS.fullmatch(header_length):
            raise RefusedError(NOT_JSON, "Inference-Header-Content-Length is not a number of bytes")
        length = int(header_length)
        if length > len(body):
            raise RefusedError(
                NOT_JSON, f"Inference-Header-Content-Length is beyond the {len(body)} bytes sent"
            )
    try:
        return _read(body[:length]), body[length:]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(NOT_JSON, f"not an inference request: {error}") from None


def columns(request: Inference, raw: bytes, max_rows: int) -> dict[str, tuple[str, list[Any]]]:
    """Return the datatype and the values [N] of each input.

    Raises:
        RefusedError: Shapes, sizes and data do not fit each other.
    """
    found: dict[str, tuple[str, list[Any]]] = {}
    start, rows = 0, None
    for tensor in request.inputs:
        if tensor.name in found:
            raise RefusedError(NOT_JSON, f"input {tensor.name} comes twice")
        count = _rows(tensor, max_rows)
        if rows is not None and count != rows:
            raise RefusedError(
                NOT_JSON, f"input {tensor.name} has {count} rows where others have {rows}"
            )
        rows = count
        size = _binary_size(tensor, len(raw) - start)
        if size is None:
            values = _json_values(tensor, count)
        else:
            values = _binary_values(tensor, raw[start : start + size], count)
            start += size
        found[tensor.name] = (tensor.datatype, values)
    if not found:
        raise RefusedError(NOT_JSON, "there are no inputs")
    if start != len(raw):
        raise RefusedError(NOT_JSON, f"{len(raw) - start} bytes belong to no input")
    return found


def _binary_size(tensor: Tensor, left: int) -> int | None:
    """Return how many of the bytes that are left belong to an input; None: its data are JSON."""
    if tensor.datatype != BYTES and tensor.datatype not in _DTYPES:
        raise RefusedError(
            NOT_JSON, f"input {tensor.name} has datatype {tensor.datatype}, which is not known"
        )
    if foreign := set(tensor.parameters) - {_SIZE}:
        raise RefusedError(
            NOT_JSON, f"input {tensor.name} has the parameter {min(foreign)}, which is refused"
        )
    size = tensor.parameters.get(_SIZE)
    if size is None:
        return None
    if tensor.data is not None:
        raise RefusedError(NOT_JSON, f"input {tensor.name} has data twice")
    if type(size) is not int or not 0 <= size <= left:
        raise RefusedError(NOT_JSON, f"input {tensor.name} is longer than what was sent")
    return size


def encode(
    head: dict[str, Any],
    outputs: Sequence[tuple[str, str, list[Any]]],
    binary: Mapping[str, bool],
) -> tuple[bytes, int | None]:
    """Return an answer's body, and the length of its JSON if binary tensors follow it.

    Args:
        head: Its fields besides the outputs.
        outputs: Name, datatype and values [N] of each output.
        binary: Which outputs go as binary tensors.
    """
    described, parts = [], []
    for name, datatype, values in outputs:
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": [len(values)]}
        if binary.get(name):
            part = _bytes(datatype, values)
            tensor["parameters"] = {_SIZE: len(part)}
            parts.append(part)
        else:
            tensor["data"] = values
        described.append(tensor)
    header = _encode({**head, "outputs": described})
    return b"".join([header, *parts]), len(header) if parts else None


def _bytes(datatype: str, values: list[Any]) -> bytes:
    """Return values as a binary tensor; each text has its length in front."""
    if datatype != BYTES:
        return np.array(values, _DTYPES[datatype]).tobytes()
    texts = [value.encode() for value in values]
    return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))


def wanted(request: Inference, names: Sequence[str]) -> dict[str, bool]:
    """Return the outputs that are asked for, and whether each goes as a binary tensor.

    Raises:
        RefusedError: An output is not known, or its parameters are refused.
    """
    by_default = request.parameters.get("binary_data_output", False) is True
    if request.outputs is None:
        return dict.fromkeys(names, by_default)
    found: dict[str, bool] = {}
    for output in request.outputs:
        if output.name not in names:
            raise RefusedError(
                NOT_JSON, f"there is no output {output.name}; there are {', '.join(names)}"
            )
        if foreign := set(output.parameters) - {_BINARY}:
            raise RefusedError(
                NOT_JSON, f"output {output.name} has the parameter {min(foreign)}, which is refused"
            )
        found[output.name] = output.parameters.get(_BINARY, by_default) is True
    return found


def _rows(tensor: Tensor, max_rows: int) -> int:
    """Return N of a shape [N] or [N, 1]."""
    shape = tensor.shape
    if len(shape) not in {1, 2} or shape[1:] not in ([], [1]) or not 1 <= shape[0] <= max_rows:
        raise RefusedError(
            NOT_JSON, f"input {tensor.name} must have the shape [N], N from 1 to {max_rows}"
        )
    return shape[0]


def _json_values(tensor: Tensor, count: int) -> list[Any]:
    values = tensor.data
    if values is None:
        raise RefusedError(NOT_JSON, f"input {tensor.name} has no data")
    if len(tensor.shape) > 1 and values and isinstance(values[0], list):  # rows of one value
        values = [
            value[0] if isinstance(value, list) and len(value) == 1 else value for value in values
        ]
    if len(values) != count:
        raise RefusedError(
            NOT_JSON, f"input {tensor.name} has {len(values)} values where its shape says {count}"
        )
    kinds: tuple[type, ...] = (int, float)
    if tensor.datatype == BYTES:
        kinds = (str,)
    elif tensor.datatype == "BOOL":
        kinds = (bool,)
    elif tensor.datatype.startswith("INT"):
        kinds = (int,)
    if not all(value is None or type(value) in kinds for value in values):
        raise RefusedError(
            NOT_JSON, f"input {tensor.name} has values that are no {tensor.datatype}"
        )
    return values


def _binary_values(tensor: Tensor, raw: bytes, count: int) -> list[Any]:
    if tensor.datatype == BYTES:
        return _texts(tensor.name, raw, count)
    dtype = np.dtype(_DTYPES[tensor.datatype])
    if len(raw) != count * dtype.itemsize:
        raise RefusedError(
            NOT_JSON,
            f"input {tensor.name} has {len(raw)} bytes where its shape says "
            f"{count * dtype.itemsize}",
        )
    if dtype.kind == "b":
        return [value != 0 for value in raw]
    return list(np.frombuffer(raw, dtype).tolist())


def _texts(name: str, raw: bytes, count: int) -> list[Any]:
    found: list[Any] = []
    start = 0
    try:
        while start < len(raw) and len(found) < count:
            (length,) = _LENGTH.unpack_from(raw, start)
            start += _LENGTH.size
            if length > len(raw) - start:
                raise RefusedError(NOT_JSON, f"input {name} has a string beyond its end")
            found.append(raw[start : start + length].decode("utf-8"))
            start += length
    except (struct.error, UnicodeDecodeError):
        raise RefusedError(NOT_JSON, f"input {name} holds no strings in UTF-8") from None
    if start != len(raw) or len(found) != count:
        raise RefusedError(NOT_JSON, f"input {name} does not hold {count} strings")
    return found


def nothing(value: Any, *, moment: bool = False) -> bool:
    """Return whether a value stands for null: JSON's, an empty string, NaN, or numpy's NaT."""
    if value is None or value == "":
        return True
    if isinstance(value, float):
        return math.isnan(value)
    return moment and value == np.iinfo(np.int64).min
