"""The HTTP side: which path means what, reading bodies within bounds, and answering every error.

It is one RSGI application for granian. It knows no use case by name and nothing of models; it
refuses bodies that are too long, too slow or of another media type before anybody parses them.
Errors say what the client can do about it and nothing about the inside.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter_ns
from typing import Any, Final, Protocol

import msgspec

from serving.gateway import refusal
from serving.gateway.inference_protocol import InferenceProtocol
from serving.gateway.metrics import Metrics
from serving.gateway.refusal import Headers, RefusedError
from serving.gateway.service import UseCaseService, answers

_BODY_SECONDS: Final = 5.0
"""For a whole body; a client that sends a megabyte needs 2 Mbit/s."""
_LARGE: Final = 16_384
"""Bytes; a longer body, or one of unknown length, is not read where it would be refused anyway."""
_OK: Final = 200
_UNAVAILABLE: Final = 503
_BROKEN: Final = 500
_SORRY: Final = "the request could not be answered"
_JSON: Final = ("content-type", "application/json")
_TEXT: Final = ("content-type", "text/plain; version=0.0.4; charset=utf-8")
_CLOSE: Final = ("connection", "close")
_UNREAD: Final = {refusal.TOO_LARGE, refusal.TOO_SLOW}
"""The rest of the body is still to come: the connection cannot carry another request."""

_encode: Final = msgspec.json.Encoder().encode
_log: Final = logging.getLogger(__name__)


class RequestHeaders(Protocol):
    """Headers of a request; names in lower case."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return a header's value."""


class Scope(Protocol):
    """What granian says of a request."""

    @property
    def method(self) -> str:
        """GET, POST and so on."""

    @property
    def path(self) -> str:
        """The path, without the query."""

    @property
    def headers(self) -> RequestHeaders:
        """Its headers."""


class Connection(Protocol):
    """Where granian gives a request's body and takes the answer."""

    def __call__(self) -> Awaitable[bytes]:
        """Read the whole body."""

    def __aiter__(self) -> Any:
        """Read the body in chunks."""

    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer."""


_Page = Callable[[], tuple[int, tuple[str, str], bytes]]


class Application:
    """The gateway's paths.

    Args:
        services: The use cases.
        metrics: Of this process.
        openapi: The description of the paths, as JSON.
        version: Of the code, for clients that ask.
        max_body_bytes: Longest body.
        draining: Whether this process is about to end.
    """

    def __init__(
        self,
        services: Mapping[str, UseCaseService],
        metrics: Metrics,
        openapi: bytes,
        version: str,
        max_body_bytes: int,
        draining: Callable[[], bool],
    ) -> None:
        self._services, self._metrics = services, metrics
        self._max_body, self._draining = max_body_bytes, draining
        self._scores = {f"/v1/{name}/score": service for name, service in services.items()}
        self._protocol = InferenceProtocol(services, version)
        self._index = _encode(
            {
                "service": "mlplatform gateway",
                "score": sorted(self._scores),
                "describe": "/openapi.json",
                "health": ["/livez", "/readyz", "/metrics"],
                "open_inference_protocol": "/v2",
            }
        )
        self._pages: dict[str, _Page] = {
            "/": lambda: (_OK, _JSON, self._index),
            "/livez": lambda: (_OK, _JSON, b'{"alive":true}'),
            "/readyz": self._readiness,
            "/metrics": self._measured,
            "/openapi.json": lambda: (_OK, _JSON, openapi),
        }

    async def __call__(self, scope: Scope, connection: Connection) -> None:
        """Answer one request."""
        started = perf_counter_ns()
        path = scope.path
        service = self._scores.get(path)
        try:
            if service is not None:
                await self._score(scope, connection, service, started)
            elif path in self._pages:
                _expect(scope, "GET")
                status, kind, body = self._pages[path]()
                self._answer(connection, status, [kind], body)
            elif path == "/v2" or path.startswith("/v2/"):
                await self._speak(scope, connection, started)
            else:
                self._refuse(connection, _unknown_path(path, self._scores), None)
        except RefusedError as error:
            self._refuse(connection, error, service)
        except Exception:  # noqa: BLE001  # the last line: no request may end the process
            _log.exception("a request to %s failed", path[:100])
            found = {"message": _SORRY, "field": None, "row": None}
            self._fail(connection, service, found)

    async def _score(
        self, scope: Scope, connection: Connection, service: UseCaseService, started: int
    ) -> None:
        _expect(scope, "POST")
        _expect_json(scope.headers)
        body = await self._body(scope, connection, service)
        batch = service.requests.parse(body)
        parts = await service.score(batch, started)
        found = answers(parts)
        try:
            payload = _encode(found[0] if batch.single else found)
            self._answer(connection, _OK, [_JSON], payload)
            service.metrics.status(_OK)
        finally:  # also where the client has gone
            service.finish(parts)

    async def _speak(self, scope: Scope, connection: Connection, started: int) -> None:
        """Answer by the Open Inference Protocol, whose errors look different."""
        try:
            page = self._protocol.page(scope.path)
            _expect(scope, page.method)
            if page.infer is None:
                status, body = page.answer()
                self._answer(connection, status, [_JSON], body)
                return
            body = await self._body(scope, connection, page.infer)
            batch, answer = self._protocol.read(page.infer, scope.headers, body)
            parts = await page.infer.score(batch, started)
            try:
                headers, payload = answer(answers(parts))
                self._answer(connection, _OK, headers, payload)
                page.infer.metrics.status(_OK)
            finally:
                page.infer.finish(parts)
        except RefusedError as error:
            service = self._protocol.service(scope.path)
            if service is not None:
                service.metrics.status(error.status)
            where = "" if error.row is None else f"row {error.row}: "
            self._answer(
                connection,
                error.status,
                [_JSON, *error.headers],
                _encode({"error": f"{where}{error}"}),
                close=error.status in _UNREAD,
            )
        except Exception:  # noqa: BLE001  # as above; its errors look different
            _log.exception("a request to %s failed", scope.path[:100])
            self._fail(connection, self._protocol.service(scope.path), _SORRY)

    async def _body(self, scope: Scope, connection: Connection, service: UseCaseService) -> bytes:
        length = scope.headers.get("content-length")
        if length is not None and (not length.isdecimal() or int(length) > self._max_body):
            raise self._too_large()
        if length is None or int(length) > _LARGE:
            self._expect_room_unread(service)
        body = await self._read(connection, length)
        service.expect_room()  # before the body costs more than its reading
        return body

    def _expect_room_unread(self, service: UseCaseService) -> None:
        try:
            service.expect_room()
        except RefusedError as error:
            error.headers.append(_CLOSE)  # the body is still to come
            raise

    async def _read(self, connection: Connection, length: str | None) -> bytes:
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                if length is not None:
                    return await connection()
                chunks, size = [], 0
                async for chunk in connection:
                    size += len(chunk)
                    if size > self._max_body:
                        raise self._too_large()
                    chunks.append(chunk)
                return b"".join(chunks)
        except TimeoutError:
            raise RefusedError(
                refusal.TOO_SLOW, f"the body did not come within {_BODY_SECONDS:g} s; send it again"
            ) from None
        except RuntimeError as error:  # granian's errors of a connection that has ended
            raise RefusedError(refusal.NOT_JSON, "the body ended early") from error

    def _too_large(self) -> RefusedError:
        return RefusedError(
            refusal.TOO_LARGE,
            f"the body is longer than {self._max_body} bytes; send fewer rows at once",
        )

    def _readiness(self) -> tuple[int, tuple[str, str], bytes]:
        draining = self._draining()
        ready = not draining and all(service.ready for service in self._services.values())
        state = {
            "ready": ready,
            "draining": draining,
            "usecases": {name: service.state() for name, service in self._services.items()},
        }
        return (_OK if ready else _UNAVAILABLE), _JSON, _encode(state)

    def _measured(self) -> tuple[int, tuple[str, str], bytes]:
        for service in self._services.values():
            service.refresh()
        return _OK, _TEXT, self._metrics.text()

    def _refuse(
        self, connection: Connection, error: RefusedError, service: UseCaseService | None
    ) -> None:
        if service is not None:
            service.metrics.status(error.status)
        found = {"message": str(error), "field": error.field, "row": error.row}
        headers = [_JSON, *error.headers]
        close = error.status in _UNREAD
        self._answer(connection, error.status, headers, _encode({"error": found}), close=close)

    def _fail(self, connection: Connection, service: UseCaseService | None, found: Any) -> None:
        if service is not None:
            service.metrics.status(_BROKEN)
        self._answer(connection, _BROKEN, [_JSON], _encode({"error": found}))

    def _answer(
        self,
        connection: Connection,
        status: int,
        headers: Headers,
        body: bytes,
        *,
        close: bool = False,
    ) -> None:
        if close or self._draining():
            headers = [*headers, _CLOSE]
        try:
            connection.response_bytes(status, headers, body)
        except RuntimeError:  # granian's errors of a connection that has ended
            _log.debug("a client left before its answer")


def _expect(scope: Scope, method: str) -> None:
    if scope.method != method:
        raise RefusedError(
            refusal.WRONG_METHOD,
            f"this path answers {method} only",
            headers=[("allow", method)],
        )


def _expect_json(headers: RequestHeaders) -> None:
    kind = headers.get("content-type")
    if kind != "application/json":
        name, _, rest = (kind or "").partition(";")
        charset = rest.strip().lower().removeprefix("charset=").strip('"')
        if name.strip().lower() != "application/json" or charset not in {"", "utf-8"}:
            raise RefusedError(
                refusal.WRONG_MEDIA, "send the body as content-type: application/json, in UTF-8"
            )
    if headers.get("content-encoding", "identity") != "identity":
        raise RefusedError(refusal.WRONG_MEDIA, "send the body without a content-encoding")


def _unknown_path(path: str, scores: Mapping[str, Any]) -> RefusedError:
    if path.startswith("/v1/") and path.endswith("/score"):
        return RefusedError(
            refusal.NOT_FOUND, f"no such use case; this gateway answers {', '.join(sorted(scores))}"
        )
    return RefusedError(refusal.NOT_FOUND, "no such path; /openapi.json describes those there are")
