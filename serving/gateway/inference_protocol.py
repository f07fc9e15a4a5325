"""The Open Inference Protocol v2 over the same requests: existing clients can call the gateway.

A use case is a model whose inputs are the fields of a request. Whatever else servers offer under
/v2 (repositories, shared memory, tracing, statistics) is not there.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from mlplatform.contracts.usecase.operation import RequestField
from serving.gateway import tensors
from serving.gateway.answer import Answer
from serving.gateway.refusal import (
    INVALID,
    NOT_FOUND,
    NOT_JSON,
    WRONG_MEDIA,
    Headers,
    RefusedError,
)
from serving.gateway.request import EVENT_TIME, LONGEST_ID, REQUEST_ID, Batch
from serving.gateway.service import UseCaseService

Answered = Callable[[list[Answer]], tuple[Headers, bytes]]
"""Makes headers and body of the answers."""

_OK: Final = 200
_UNAVAILABLE: Final = 503
_TEXT: Final = (tensors.BYTES,)
_NUMBER: Final = ("INT64", "INT32", "FP64", "FP32")
_MOMENT: Final = (tensors.BYTES, "INT64")
_SHOWN: Final = {"string": "BYTES", "timestamp": "BYTES", "integer": "INT64", "float": "FP64"}
_OUTPUTS: Final = {
    "score": "FP32", "decision": "BOOL", "version": "INT64", "degraded": "BOOL", "fallback": "BOOL",
    "epoch": "INT64", "arm": "BYTES",
}  # fmt: skip
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Page:
    """What a path below /v2 answers."""

    method: str
    answer: Callable[[], tuple[int, bytes]]
    infer: UseCaseService | None = None
    """The use case that is asked for scores."""


class InferenceProtocol:
    """The paths below /v2.

    Args:
        services: The use cases.
        version: Of the code.
    """

    def __init__(self, services: Mapping[str, UseCaseService], version: str) -> None:
        self._services = services
        self._server = _encode(
            {
                "name": "mlplatform-gateway",
                "version": version,
                "extensions": ["binary_tensor_data"],
            }
        )

    def service(self, path: str) -> UseCaseService | None:
        """Return the use case that a path is about."""
        parts = path.split("/")
        return self._services.get(parts[3]) if parts[2:3] == ["models"] and parts[3:] else None

    def page(self, path: str) -> Page:
        """Return what a path answers.

        Raises:
            RefusedError: There is no such path, use case or version.
        """
        match path.split("/")[2:]:
            case []:
                return Page("GET", lambda: (_OK, self._server))
            case ["health", "live"]:
                return Page("GET", lambda: (_OK, b'{"live":true}'))
            case ["health", "ready"]:
                return Page("GET", lambda: _ready(self._services.values()))
            case ["models", name, *rest] if name in self._services:
                return _page_of(self._services[name], rest)
            case ["models", _, *_]:
                raise RefusedError(
                    NOT_FOUND, f"no such model; there are {', '.join(sorted(self._services))}"
                )
        raise RefusedError(NOT_FOUND, "this path of the protocol is not served")

    def read(self, service: UseCaseService, headers: Any, body: bytes) -> tuple[Batch, Answered]:
        """Return the rows of a request and what makes their answer.

        Raises:
            RefusedError: It is no inference request for this use case.
        """
        if headers.get("content-encoding", "identity") != "identity":
            raise RefusedError(WRONG_MEDIA, "send the body without a content-encoding")
        request, raw = tensors.decode(body, headers.get("inference-header-content-length"))
        outputs = tensors.wanted(request, tuple(_OUTPUTS))
        columns = tensors.columns(request, raw, service.requests.max_rows)
        batch = service.requests.convert(_rows(service, request.id, columns))
        name = service.name

        def answered(answers: list[Answer]) -> tuple[Headers, bytes]:
            head = {"model_name": name, "model_version": str(max(a.version for a in answers))}
            if request.id is not None:
                head["id"] = request.id
            found = [
                (output, _OUTPUTS[output], [getattr(answer, output) for answer in answers])
                for output in outputs
            ]
            payload, length = tensors.encode(head, found, outputs)
            if length is None:
                return [("content-type", "application/json")], payload
            return [
                ("content-type", "application/octet-stream"),
                ("inference-header-content-length", str(length)),
            ], payload

        return batch, answered


def _page_of(service: UseCaseService, rest: list[str]) -> Page:
    match rest:
        case ["infer"]:
            return Page("POST", lambda: (_OK, b""), service)
        case ["versions", version, *rest] if version not in map(str, service.versions):
            raise RefusedError(NOT_FOUND, "no such version is in the route")
        case [] | ["versions", _]:
            return Page("GET", lambda: (_OK, _described(service)))
        case ["ready"] | ["versions", _, "ready"]:
            return Page("GET", lambda: _ready([service]))
    raise RefusedError(
        NOT_FOUND, "this path of the protocol is not served; the route picks the version"
    )


def _ready(services: Any) -> tuple[int, bytes]:
    ready = all(service.ready for service in services)
    return (_OK, b'{"ready":true}') if ready else (_UNAVAILABLE, b'{"ready":false}')


def _described(service: UseCaseService) -> bytes:
    fields = {name: _SHOWN[field.type] for name, field in service.requests.fields.items()}
    fields |= {EVENT_TIME: tensors.BYTES, REQUEST_ID: tensors.BYTES}
    return _encode(
        {
            "name": service.name,
            "versions": [str(version) for version in service.versions],
            "platform": "mlplatform",
            "inputs": [{"name": n, "datatype": d, "shape": [-1]} for n, d in fields.items()],
            "outputs": [{"name": n, "datatype": d, "shape": [-1]} for n, d in _OUTPUTS.items()],
        }
    )


def _rows(
    service: UseCaseService, identity: str | None, columns: Mapping[str, tuple[str, list[Any]]]
) -> list[dict[str, Any]]:
    """Return the rows as JSON would have them."""
    fields = service.requests.fields
    found: dict[str, list[Any]] = {}
    for name, (datatype, values) in columns.items():
        field = fields.get(name) or _EXTRA.get(name)
        if field is None:
            raise RefusedError(
                INVALID,
                f"there is no input {name}; there are {', '.join((*fields, *_EXTRA))}",
                field=name,
            )
        found[name] = _values(name, field, datatype, values)
    count = len(next(iter(found.values())))
    if identity and REQUEST_ID not in found:
        if len(identity) > LONGEST_ID - 6:
            raise RefusedError(INVALID, f"id is longer than {LONGEST_ID - 6} characters")
        names = [identity] if count == 1 else [f"{identity}/{row}" for row in range(count)]
        found[REQUEST_ID] = names
    return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]


_EXTRA: Final = {
    EVENT_TIME: RequestField(type="timestamp", optional=True),
    REQUEST_ID: RequestField(type="string", optional=True),
}


def _values(name: str, field: RequestField, datatype: str, values: list[Any]) -> list[Any]:
    moment = field.type == "timestamp"
    kinds = _MOMENT if moment else _TEXT if field.type == "string" else _NUMBER
    if datatype not in kinds:
        raise RefusedError(
            NOT_JSON, f"input {name} must be {' or '.join(kinds)}, not {datatype}", field=name
        )
    if field.optional:
        values = [None if tensors.nothing(v, moment=moment) else v for v in values]
    if moment and datatype == "INT64":
        return [_moment(name, row, value) for row, value in enumerate(values)]
    if field.type in {"integer", "float"}:
        for row, value in enumerate(values):
            if isinstance(value, float) and not math.isfinite(value):
                raise RefusedError(
                    INVALID, f"input {name} has a value that is not finite", field=name, row=row
                )
    return values


def _moment(name: str, row: int, value: int | None) -> datetime | None:
    if value is None:
        return None
    try:
        return _EPOCH + timedelta(microseconds=value)
    except OverflowError:
        raise RefusedError(
            INVALID,
            f"input {name} has a value that is no time in microseconds since 1970",
            field=name,
            row=row,
        ) from None
