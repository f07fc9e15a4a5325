"""A stand-in for a model server: it misbehaves in ways that a real one cannot be asked for.

It speaks as much of Triton's HTTP as the gateway uses. Where a real server can show a fault (it is
killed, stopped, or was never there) the tests use the real one.
"""

import http.server
import json
import threading
import time
from typing import Any, Self

import numpy as np


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: two would wait for each other's acknowledgement
    disable_nagle_algorithm = True
    owner: "StandIn"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self._send(200 if self.owner.ready else 400, b"", {})

    def do_POST(self) -> None:
        self.owner.asked += 1
        body = self.rfile.read(int(self.headers["content-length"]))
        header = json.loads(body[: int(self.headers["inference-header-content-length"])])
        rows = header["inputs"][0]["shape"][0]
        self.owner.rows.append(rows)
        time.sleep(_PAUSES.get(self.owner.mode, 0))
        if self.owner.mode == "close":
            self.close_connection = True
        elif self.owner.mode == "refuse":
            self._send(500, b'{"error":"out of memory at 0x7f"}', {})
        else:
            self._score(rows)

    def _score(self, rows: int) -> None:
        mode = self.owner.mode
        _, _, _, model, _, version, _ = self.path.split("/")
        score = {"nan": np.nan, "beyond": 1.5}.get(mode, self.owner.score)
        tensor = np.full(rows + (mode == "longer"), score, np.float32).tobytes()
        output = {
            "name": "probability",
            "datatype": "FP32",
            "shape": [rows + (mode == "shape"), 1],
            "parameters": {"binary_data_size": len(tensor)},
        }
        answer = {"model_name": model, "model_version": version, "outputs": [output]}
        head = b"<html>" if mode == "text" else json.dumps(answer).encode()
        self._send(200, head + tensor, {"Inference-Header-Content-Length": str(len(head))})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # the gateway waits no longer
            self.close_connection = True


class StandIn:
    """A server whose answers a test chooses.

    Args:
        score: What it answers for each row.
    """

    def __init__(self, score: float = 0.5) -> None:
        self.score = score
        self.mode = "good"
        self.ready = True
        self.asked = 0
        self.rows: list[int] = []
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


_PAUSES = {"hang": 2.0}
"""Seconds; the gateway waits for 0.2."""
