"""Stands for a model server in a pod, with no more than Python: `export …` and then `serve`.

`export` is given what the operator appends for the init container, and leaves the version for
`serve`, which answers as a logistic model of that version's weight does. /stub/weights.json says
which weight; a version without one is refused.
"""

import json
import math
import struct
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WEIGHTS = Path("/stub/weights.json")
VERSION = Path("/models/version")


def export(arguments: list[str]) -> int:
    version = arguments[arguments.index("--version") + 1]
    if version not in json.loads(WEIGHTS.read_text()):
        Path("/dev/termination-log").write_text(f"version {version}: its signature is not valid")
        return 1
    VERSION.write_text(version)
    return 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    weight = 0.0

    def do_GET(self) -> None:
        self.answer({}, b"")

    def do_POST(self) -> None:
        start = int(self.headers["Inference-Header-Content-Length"])
        body = self.rfile.read(int(self.headers["Content-Length"]))
        rows, width = json.loads(body[:start])["inputs"][0]["shape"]
        values = struct.unpack(f"<{rows * width}f", body[start:])
        answers = [self.score(values[row * width : (row + 1) * width]) for row in range(rows)]
        tensor = struct.pack(f"<{rows}f", *answers)
        parts = self.path.strip("/").split("/")
        model, version = parts[2], parts[4]
        head = json.dumps(
            {
                "model_name": model,
                "model_version": version,
                "outputs": [
                    {
                        "name": "probability",
                        "datatype": "FP32",
                        "shape": [rows, 1],
                        "parameters": {"binary_data_size": len(tensor)},
                    }
                ],
            }
        ).encode()
        self.answer({"Inference-Header-Content-Length": str(len(head))}, head + tensor)

    def score(self, row: tuple[float, ...]) -> float:
        steps = max(len(row) - 1, 1)
        weights = [self.weight * (1 + index / steps) for index in range(len(row))]
        total = sum(w * v for w, v in zip(weights, row, strict=True) if not math.isnan(v))
        return 1 / (1 + math.exp(-max(min(total, 60.0), -60.0)))

    def answer(self, headers: dict[str, str], body: bytes) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def serve() -> None:
    Handler.weight = json.loads(WEIGHTS.read_text())[VERSION.read_text()]
    ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()  # noqa: S104


if __name__ == "__main__":
    if sys.argv[1] == "export":
        sys.exit(export(sys.argv[2:]))
    serve()
