"""What the kubelet asks: does the process live, and has it spoken with the API server."""

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from mlplatform.errors import ServiceError, shorten

Question = Callable[[], str]
"""Returns what is wrong; empty: nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing of a caller that did not wait for its answer."""


class Health:
    """An HTTP server with `/livez` and `/readyz`; a context manager.

    Args:
        host: Address to listen on.
        port: Port; 0 takes a free one.
        questions: By path.

    Raises:
        ServiceError: The port is taken.
    """

    def __init__(self, host: str, port: int, questions: dict[str, Question]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                question = questions.get(self.path)
                wrong = f"there is no {self.path}" if question is None else question()
                status = HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK
                body = json.dumps({"trouble": wrong} if wrong else {"status": "ok"}).encode()
                self.send_response(HTTPStatus.NOT_FOUND if question is None else status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing: the kubelet asks every few seconds."""

        try:
            self._server = _Server((host, port), Handler)
        except OSError as error:
            raise ServiceError(
                f"{host}:{port} cannot be listened on: {shorten(error)}; set "
                "MLPLATFORM_OPERATOR_HEALTH_PORT"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="health", daemon=True
        )

    @property
    def port(self) -> int:
        """That it listens on."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
