"""The page of links."""

import threading
import urllib.request

import pytest

from deploy.links_page import Link, page
from deploy.pages import SERVED, links_server
from mlplatform.errors import ServiceError


def test_a_page_that_answers_is_a_link_and_another_says_why_not() -> None:
    html = page(
        "mlplatform",
        [
            Link("Gateway", "http://127.0.0.1:8801/openapi.json", "scores"),
            Link("MLflow", "http://127.0.0.1:8802/", "models", "its pod went; connecting anew"),
        ],
    )

    assert '<a href="http://127.0.0.1:8801/openapi.json">Gateway</a>' in html
    assert "its pod went; connecting anew" in html
    assert "http://127.0.0.1:8802/" not in html


def test_what_a_cluster_says_cannot_become_markup() -> None:
    html = page("<b>", [Link("<script>", 'http://127.0.0.1/"onclick="', "<i>", "")])

    assert "<script>" not in html
    assert '"onclick="' not in html
    assert "<b>" not in html


def test_the_page_is_served_anew_each_time(unused_port: int) -> None:
    said = iter(["first", "second"])
    with links_server(lambda: next(said), unused_port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        found = []
        for _ in range(2):
            with urllib.request.urlopen(f"http://127.0.0.1:{unused_port}/", timeout=5) as answer:
                found.append(answer.read().decode())
        server.shutdown()
        thread.join()

    assert ["first", "second"] == found


def test_a_port_that_is_taken_is_said(unused_port: int) -> None:
    with (
        links_server(lambda: "", unused_port),
        pytest.raises(ServiceError, match=rf"port {unused_port} of 127\.0\.0\.1 is taken"),
    ):
        links_server(lambda: "", unused_port)


def test_no_two_pages_share_a_port() -> None:
    ports = [service.local for service in SERVED]

    assert len(ports) == len(set(ports))
