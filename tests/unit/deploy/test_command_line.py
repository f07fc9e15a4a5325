"""The commands and their arguments; what each target of make calls."""

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import __main__ as commands
from deploy.__main__ import _WORK, main
from deploy.command_line import parser

ROOT = Path(__file__).parents[3]
ASKED = {
    "CONTEXT": "current", "ENV": "dev", "NAMESPACE": "own", "PROFILE": "full", "YES": "1",
    "VALUES": "own.yaml",
    "CLUSTER": "1", "CONTAINER_TOOL": "podman", "AS_OF": "2026-01-01", "KEY": "k", "TRAIN": "0",
    "OUT": "folder", "FROM": "folder", "PARTS": "ledger registry", "REPLACE": "1", "SECRETS": "1",
}  # fmt: skip
"""Every variable that changes what a command is given."""


def targets() -> list[str]:
    """Return the targets that call a command."""
    text = (ROOT / "Makefile").read_text()
    found = re.findall(
        r"^([a-z-]+): setup.*\n\t@\$\(BIN\)/python -m deploy (\w+)", text, re.MULTILINE
    )
    return [target for target, command in found if command != "images"]


def called(target: str, asked: dict[str, str]) -> list[str]:
    """Return the arguments that a target gives its command."""
    variables = [f"{name}={value}" for name, value in asked.items()]
    shown = subprocess.run(
        ["make", "--dry-run", target, *variables],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    (line,) = [line for line in shown.splitlines() if "-m deploy " in line]
    return shlex.split(line.partition("-m deploy ")[2])


@pytest.mark.parametrize("asked", [{"FROM": "folder"}, ASKED], ids=["bare", "with everything"])
@pytest.mark.parametrize("target", targets())
def test_each_target_gives_its_command_what_it_takes(target: str, asked: dict[str, str]) -> None:
    options = parser(_WORK, None).parse_args(called(target, asked))

    assert _WORK[target] is options.run


def test_a_bare_command_names_no_cluster() -> None:
    assert ["deploy", "--namespace", "mlplatform", "--profile", "minimal"] == called("deploy", {})


def test_every_command_has_a_target() -> None:
    assert set(_WORK) == set(targets())


@pytest.fixture(autouse=True)
def signals_are_as_before() -> Iterator[None]:
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for kind, handler in before.items():
        signal.signal(kind, handler)


def test_a_command_that_is_asked_to_end_ends_in_order(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(*_: object) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        return 0

    monkeypatch.setattr(commands, "_WORK", dict(_WORK) | {"status": work})

    assert 130 == main(["status"])
    assert "goes on from here" in capsys.readouterr().out


def test_what_cannot_be_done_is_said_in_one_line_and_the_status(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text("apiVersion: v1\nkind: Config\ncontexts: [{name: production, context: {}}]\n")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config))

    status = main(["status"])

    said = capsys.readouterr().out
    assert 1 == status
    assert said.startswith("error: kubeconfig has no context kind-mlplatform")
    assert "(production)" in said
