"""What the kubelet is told."""

import json
import urllib.error
import urllib.request

import pytest

from mlplatform.errors import ServiceError
from serving.operator.health import Health


def ask(port: int, path: str) -> tuple[int, dict[str, str]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_who_lives_says_so_and_who_has_trouble_says_which() -> None:
    trouble = {"/livez": "", "/readyz": "the lease was not looked at yet"}
    questions = {"/livez": lambda: trouble["/livez"], "/readyz": lambda: trouble["/readyz"]}
    with Health("127.0.0.1", 0, questions) as health:
        found = [ask(health.port, path) for path in ("/livez", "/readyz", "/other")]
        trouble["/readyz"] = ""
        after = ask(health.port, "/readyz")

    assert [
        (200, {"status": "ok"}),
        (503, {"trouble": "the lease was not looked at yet"}),
        (404, {"trouble": "there is no /other"}),
    ] == found
    assert (200, {"status": "ok"}) == after


def test_a_port_that_is_taken_names_the_setting() -> None:
    with (
        Health("127.0.0.1", 0, {}) as first,
        pytest.raises(ServiceError, match="MLPLATFORM_OPERATOR_HEALTH_PORT"),
    ):
        Health("127.0.0.1", first.port, {})
