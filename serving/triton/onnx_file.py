"""What an ONNX file may contain before any runtime opens it.

A signature says who made a file, not that loading it is harmless. An ONNX file can name other
files to read (external data, also `../`), and operators that only a foreign library provides;
other formats under the name `model.onnx` can run code when a tool guesses their type. This module
walks the protobuf fields itself, with the field numbers of onnx.proto3, and refuses all of that.

It needs no ONNX library, which the exporting process would otherwise carry for this alone.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from mlplatform.errors import ModelError

DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml"})
"""Operator sets of the ONNX standard that models of this platform use."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protobuf
_SIZES: Final = {_FIXED64: 8, _FIXED32: 4}
_DEEPEST: Final = 100  # nested messages; protobuf's own limit
_LONGEST_VARINT: Final = 10  # bytes of a 64-bit number

# onnx.proto3: field number → the message it holds. Fields that can reach no tensor, node or
# operator set (names, types, shapes, notes) are skipped.
_MESSAGES: Final[Mapping[str, Mapping[int, str]]] = {
    "Model": {7: "Graph", 8: "OperatorSet", 20: "Training", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "OperatorSet": {},
    "Tensor": {},
}  # fmt: skip
_DOMAIN_FIELD: Final = {"Node": 7, "OperatorSet": 1}
_EXTERNAL_FIELDS: Final = frozenset({13, 14})  # Tensor.external_data, Tensor.data_location
_GRAPH_FIELD: Final = 7  # of Model

_OTHER_FORMATS: Final = {
    b"\x80": "a Python pickle",
    b"\x1f\x8b": "a gzip archive",
    b"PK": "a zip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x7fELF": "a native library",
    b"\x89HDF": "an HDF5 file",
}
_RUNTIME_FORMAT: Final = slice(4, 8)  # "ORTM": onnxruntime's own format, which skips ONNX's checks


def refuse_unsafe(content: bytes) -> None:
    """Refuse a file that is no self-contained ONNX model of standard operators.

    Args:
        content: The file's bytes.

    Raises:
        ModelError: It is another format, broken, refers to other files, needs operators from
            outside the standard, or brings functions or training graphs.
    """
    for magic, kind in _OTHER_FORMATS.items():
        if content.startswith(magic):
            raise ModelError(f"model.onnx is {kind}, not an ONNX model: export the model again")
    if content[_RUNTIME_FORMAT] == b"ORTM":
        raise ModelError("model.onnx is in onnxruntime's own format: export it as ONNX")
    graphs = 0
    # (message, start, end, depth): a list instead of recursion, so that depth is ours to limit.
    pending = [("Model", 0, len(content), 0)]
    while pending:
        message, start, end, depth = pending.pop()
        if depth > _DEEPEST:
            raise ModelError(f"model.onnx nests deeper than {_DEEPEST} messages: refused")
        inner = _MESSAGES[message]
        for number, first, last in _fields(content, start, end):
            _refuse_field(message, number, content[first:last])
            if number in inner:
                pending.append((inner[number], first, last, depth + 1))
                graphs += message == "Model" and number == _GRAPH_FIELD
    if graphs != 1:
        raise ModelError(f"model.onnx holds {graphs} graphs, not one: it is no ONNX model")


def _refuse_field(message: str, number: int, value: bytes) -> None:
    if number == _DOMAIN_FIELD.get(message):
        domain = value.decode(errors="replace")
        if domain not in DOMAINS:
            raise ModelError(
                f"model.onnx uses operators of {domain[:60]!r}, which only a foreign library "
                "provides: models may use standard ONNX operators only"
            )
    elif message == "Tensor" and number in _EXTERNAL_FIELDS:
        # data_location 0 is the default, and protobuf's writers leave defaults out.
        raise ModelError(
            "model.onnx refers to data outside of the file: only the file itself is signed; "
            "export it with all weights inside"
        )
    elif message == "Model" and _MESSAGES[message].get(number) in {"Training", "Function"}:
        raise ModelError(
            "model.onnx brings its own functions or training graphs: export the inference graph"
        )


def _fields(content: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of the value of each field of a message."""
    position = start
    while position < end:
        tag, position = _varint(content, position, end)
        number, wire_type = tag >> 3, tag & 7
        first = position
        if wire_type == _VARINT:
            _, position = _varint(content, position, end)
        elif wire_type == _BYTES:
            length, first = _varint(content, position, end)
            position = first + length
        elif wire_type in _SIZES:
            position += _SIZES[wire_type]
        else:
            raise ModelError("model.onnx is no protobuf message: it is no ONNX model")
        if position > end or number == 0:
            raise ModelError("model.onnx is broken or cut off: download it again")
        yield number, first, position


def _varint(content: bytes, position: int, end: int) -> tuple[int, int]:
    value = 0
    for index in range(_LONGEST_VARINT):
        if position + index >= end:
            break
        byte = content[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004 (the last byte of a varint has its top bit clear)
            return value, position + index + 1
    raise ModelError("model.onnx is broken or cut off: download it again")
