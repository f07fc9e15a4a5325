"""A stand-in for KFP's API server: the v2beta1 calls that we make, and their faults.

What it answers follows KFP's swagger file: lists leave out what is empty, errors are gRPC's JSON,
a multi-user installation insists on a namespace. It keeps what it was asked.
"""

import email
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

API = "/apis/v2beta1"


@dataclass
class KubeflowApi:
    """What the API server holds, and how it is to fail."""

    url: str = ""
    pipelines: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    experiments: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    recurring: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    """Method, path, query and body of each call."""
    tokens: list[str | None] = field(default_factory=list)
    packages: list[bytes] = field(default_factory=list)
    """Files that were uploaded, in order."""
    counted: int = 0
    multi_user: bool = False
    fault: str = ""
    """What happens to the next call that matches `fault_at`."""
    fault_at: tuple[str, str] = ("", "")
    released: threading.Event = field(default_factory=threading.Event)

    def upload(self, name: str, *versions: str) -> None:
        self.pipelines.append({"pipeline_id": f"id-of-{name}", "display_name": name})
        self.versions[f"id-of-{name}"] = [
            {"pipeline_version_id": version, "created_at": f"2026-01-0{number}T00:00:00Z"}
            for number, version in enumerate(versions, start=1)
        ]

    def breaks(self, fault: str, method: str, path: str) -> None:
        self.fault, self.fault_at = fault, (method, path)

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        parts = path.removeprefix(API).split("/")[1:]
        match method, parts:
            case "GET", _:
                return self._read(parts, query)
            case "POST", ["pipelines", "upload_version"]:
                return self._add_version(query, body)
            case "POST", ["recurringruns", switch]:
                run, _, how = switch.partition(":")
                return self._switch(run, how)
            case "DELETE", ["recurringruns", run]:
                self.recurring = [item for item in self.recurring if _id(item) != run]
                return 200, {}
        return self._make(parts[0], body)

    def _read(self, parts: list[str], query: dict[str, str]) -> tuple[int, Any]:
        match parts:
            case ["runs", run]:
                found = [item for item in self.runs if item["run_id"] == run]
                return (200, found[0]) if found else _error(404, 5, f"Run {run} not found")
            case ["pipelines", pipeline, "versions"]:
                newest = sorted(
                    self.versions.get(pipeline, []),
                    key=lambda version: str(version["created_at"]),
                    reverse=query.get("sort_by") == "created_at desc",
                )
                return 200, _listed("pipeline_versions", newest[: int(query["page_size"])])
            case ["recurringruns"]:
                return 200, _listed("recurringRuns", _filtered(self.recurring, query))
            case [kind]:
                if self.multi_user and kind != "pipelines" and "namespace" not in query:
                    return _error(400, 3, "Invalid input error: namespace is empty")
                return 200, _listed(kind, _filtered(getattr(self, kind), query))
        return _error(404, 5, "Not Found")

    def _make(self, kind: str, body: Any) -> tuple[int, Any]:
        if kind == "runs":
            made = {**body, "run_id": f"run-{len(self.runs) + 1}", "state": "PENDING"}
            self.runs.append(made)
            return 200, made
        if kind == "recurringruns":
            # As it answers: numbers of 64 bits are texts, and `status` says what `mode` asked for.
            status = f"{body['mode']}D"
            self.counted += 1
            made = {**body, "recurring_run_id": f"recurring-{self.counted}", "status": status}
            self.recurring.append(made)
            return 200, made
        if kind == "pipelines":
            self.upload(body["display_name"])
            return 200, self.pipelines[-1] | body
        made = {**body, "experiment_id": f"id-of-{body['display_name']}"}
        if made["experiment_id"] in [item["experiment_id"] for item in self.experiments]:
            return _error(409, 6, "Already exist error")
        self.experiments.append(made)
        return 200, made

    def _add_version(self, query: dict[str, str], package: Any) -> tuple[int, Any]:
        versions = self.versions[query["pipelineid"]]
        if query["name"] in [version.get("display_name") for version in versions]:
            return _error(409, 6, "Already exist error")
        made = {
            "pipeline_version_id": f"id-of-{query['name']}",
            "display_name": query["name"],
            "description": query.get("description"),
            "created_at": f"2026-02-01T00:00:{len(versions):02}Z",
        }
        versions.append(made)
        self.packages.append(package)
        return 200, made

    def _switch(self, run: str, how: str) -> tuple[int, Any]:
        (item,) = [item for item in self.recurring if _id(item) == run]
        item["status"] = f"{how.upper()}D"
        return 200, {}


def _id(item: dict[str, Any]) -> str:
    return str(item["recurring_run_id"])


def _error(status: int, code: int, message: str) -> tuple[int, Any]:
    return status, {"error": message, "code": code, "message": message, "details": []}


def _listed(name: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: items, "total_size": len(items)} if items else {}


def _filtered(items: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
    predicates = json.loads(query.get("filter", "{}")).get("predicates", [])
    for predicate in predicates:
        assert 1 == predicate["operation"], "it knows equality only"
        key, value = predicate["key"], predicate["stringValue"]
        items = [item for item in items if item.get(key) == value]
    return items


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: KubeflowApi

    def _handle(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        size = int(self.headers.get("Content-Length", 0))
        body = self._body(self.rfile.read(size)) if size else None
        self.api.asked.append((self.command, address.path, query, body))
        self.api.tokens.append(self.headers.get("Authorization"))
        fault = ""
        if (self.command, address.path) == self.api.fault_at:
            fault, self.api.fault = self.api.fault, ""
            self.api.fault_at = ("", "")
        self._fail(fault, lambda: self.api.answer(self.command, address.path, query, body))

    def _body(self, content: bytes) -> Any:
        """Return what was sent: JSON, or the file of a form."""
        kind = self.headers.get("Content-Type", "")
        if not kind.startswith("multipart/form-data"):
            return json.loads(content)
        head = f"Content-Type: {kind}\r\n\r\n".encode()
        form: Any = email.message_from_bytes(head + content)
        (part,) = form.get_payload()
        assert "uploadfile" == part.get_param("name", header="Content-Disposition")
        return part.get_payload(decode=True)

    def _fail(self, fault: str, answer: Any) -> None:
        match fault:
            case "503":
                self._send(503, b"upstream connect error", "text/plain")
            case "404 of a proxy":
                self._send(404, b"<html>404 page not found</html>", "text/html")
            case "login page":
                self._send(200, b"<html>Log in</html>", "text/html")
            case "redirect":
                self._send(302, b"", "text/html", Location=f"{self.api.url}/dex/auth")
            case "a list":
                self._send(200, b"[]", "application/json")
            case "slow":
                self.api.released.wait(30)
                self.close_connection = True
            case "lost":
                answer()  # it is done, and nobody hears of it
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            case _:
                status, found = answer()
                self._send(status, json.dumps(found).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815 (the library's names)

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[KubeflowApi]:
    """Serve an API that holds nothing."""
    api = KubeflowApi()
    handler = type("Handler", (_Handler,), {"api": api})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield api
    finally:
        api.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
