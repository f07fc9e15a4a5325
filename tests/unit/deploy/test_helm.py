"""Helm as the commands see it: a stand-in on PATH says what Helm would."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.helm import Helm, Release
from deploy.target import Target
from mlplatform.errors import ServiceError, SettingsError

STAND_IN = """#!/bin/sh
echo "$@" >> "{log}"
cat "{answer}"
{end}
"""


def release(**fields: Any) -> dict[str, Any]:
    status = fields.pop("status", "deployed")
    return {"info": {"status": status}, "version": 3, "manifest": "a: 1\n", "config": {}} | fields


@pytest.fixture
def helm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts a helm on PATH that answers so, and returns the log of what it was called with."""

    def put(answer: object, *, fails: bool = False) -> Path:
        text = answer if isinstance(answer, str) else json.dumps(answer)
        (tmp_path / "answer").write_text(text)
        end = "exit 1" if fails else ""
        program = tmp_path / "helm"
        log = tmp_path / "log"
        answers = {"log": log, "answer": tmp_path / "answer", "end": end}
        program.write_text(STAND_IN.format(**answers))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return log

    return put


def test_the_context_and_the_namespace_are_named_in_every_call(helm: Callable[..., Path]) -> None:
    log = helm(release())

    Helm(Target("kind-mlplatform", "own")).current()

    assert "--kube-context kind-mlplatform --namespace own" in log.read_text()


def test_a_release_that_was_never_made_is_none(helm: Callable[..., Path]) -> None:
    helm("Error: release: not found", fails=True)

    assert Helm(Target("kind-mlplatform")).current() is None


def test_any_other_failure_is_said(helm: Callable[..., Path]) -> None:
    helm("Error: Kubernetes cluster unreachable", fails=True)

    with pytest.raises(ServiceError, match=r"`helm status mlplatform` failed: .*unreachable"):
        Helm(Target("kind-mlplatform")).current()


def test_values_come_from_files_and_crds_are_left_alone(helm: Callable[..., Path]) -> None:
    log = helm(release())

    Helm(Target("kind-mlplatform")).release([Path("a.yaml"), Path("b.yaml")])

    called = log.read_text()
    assert "--install --skip-crds --values a.yaml --values b.yaml" in called
    assert "--set" not in called
    assert "--wait" not in called


def test_a_plan_asks_the_server_and_writes_nothing(helm: Callable[..., Path]) -> None:
    log = helm(release())

    Helm(Target("kind-mlplatform")).planned([])

    assert "--dry-run=server" in log.read_text()


def test_a_machine_without_helm_is_told_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(SettingsError, match=r"helm is not on PATH.*helm\.sh"):
        Helm(Target("kind-mlplatform")).current()


@pytest.mark.parametrize(
    ("change", "equal"),
    [
        ({}, True),
        ({"version": 4}, True),
        ({"status": "pending-upgrade"}, True),
        ({"manifest": "a: 2\n"}, False),
        ({"config": {"gateway": {"replicas": 3}}}, False),
        ({"hooks": [{"manifest": "b: 1\n"}]}, False),
    ],
)
def test_releases_are_equal_when_they_ask_for_the_same(change: dict[str, Any], equal: bool) -> None:
    before, after = release(), release(**change)

    assert equal == Release.read(json.dumps(before)).equals(Release.read(json.dumps(after)))


@pytest.mark.parametrize(
    ("status", "pending"),
    [("deployed", False), ("failed", False), ("pending-install", True), ("uninstalling", True)],
)
def test_a_release_whose_helm_was_killed_is_pending(status: str, pending: bool) -> None:
    assert pending == Release.read(json.dumps(release(status=status))).pending
