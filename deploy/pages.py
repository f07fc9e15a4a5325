"""`make ui`: ports of this machine to every page of the platform, and a page of links to them."""

import http.server
from collections.abc import Callable, Sequence
from typing import Any, Final

from rich.console import Console

from deploy.forwards import HOST, Kept, Service
from deploy.links_page import Link, page
from deploy.target import Target
from mlplatform.clients.kubernetes import SERVICES, Cluster
from mlplatform.errors import ServiceError

PORT: Final = 8800
"""Of the page of links."""

_TEXTS: Final = {
    "mlplatform-gateway": "OpenAPI of the scoring service; /readyz says which route it follows",
    "mlplatform-registry": "experiments, runs and registered models; user and password are in the "
    "Secret mlplatform-registry-admin",
    "mlplatform-metrics": "the monitor's findings, as Prometheus reads them",
    "ml-pipeline-ui": "pipelines and their runs; a run can be started here",
    "prometheus-operated": "metrics and alerts",
}
SERVED: Final = (
    Service("Gateway", "mlplatform-gateway", 8080, "/openapi.json", local=8801),
    Service("MLflow", "mlplatform-registry", 5000, local=8802),
    Service("Monitor's metrics", "mlplatform-metrics", 9108, "/metrics", local=8803),
    Service("Kubeflow Pipelines", "ml-pipeline-ui", 80, local=8804),
    Service("Prometheus", "prometheus-operated", 9090, namespace="monitoring", local=8805),
)
"""Pages that may be there; those of the platform have a port of their own whatever else runs."""


def present(cluster: Cluster) -> list[Service]:
    """Return the services that this cluster has.

    Raises:
        ServiceError: The API server is away, or there is no platform.
    """
    found = [s for s in SERVED if cluster.find(SERVICES, s.name, namespace=s.namespace)]
    rays = [
        Service(f"Ray of {name}", name, 8265, local=8806 + number)
        for number, name in enumerate(_ray_heads(cluster))
    ]
    if not any(not service.namespace for service in found):
        raise ServiceError(
            f"there is no platform in the namespace {cluster.namespace}: `make deploy` installs it"
        )
    return found + rays


def _ray_heads(cluster: Cluster) -> list[str]:
    """Return the services of Ray clusters that run now, one for each training."""
    names = [body["metadata"]["name"] for body in cluster.list(SERVICES)]
    return [name for name in names if name.endswith("-head-svc")]


def links(kept: Sequence[Kept]) -> list[Link]:
    """Return what the page shows."""
    return [
        Link(k.service.title, k.url, _TEXTS.get(k.service.name, "jobs and actors"), k.trouble)
        for k in kept
    ]


def serve(console: Console, target: Target) -> None:
    """Forward ports and serve the page of links until Ctrl-C.

    Raises:
        ServiceError: The API server is away, there is no platform, or the port is taken.
    """
    cluster = Cluster.connect(target.namespace, target.context)
    kept = [Kept(target, service) for service in present(cluster)]
    try:
        title = f"mlplatform in {target.namespace} of {target.context}"
        with links_server(lambda: page(title, links(kept))) as server:
            console.print(f"http://{HOST}:{PORT}   all pages; Ctrl-C ends it", highlight=False)
            for one in kept:
                console.print(f"  {one.url:<40} {one.service.title}", highlight=False)
            server.serve_forever()
    finally:
        for one in kept:
            one.close()


def links_server(content: Callable[[], str], port: int = PORT) -> http.server.ThreadingHTTPServer:
    """Return a server of one page on the loopback address.

    Raises:
        ServiceError: The port is taken.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = content().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base's name)
            """Say nothing: a person looks at the page, not at the terminal."""

    try:
        server = http.server.ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        raise ServiceError(
            f"port {port} of {HOST} is taken ({error.strerror}): end what holds it, another "
            "`make ui` perhaps"
        ) from error
    return server
