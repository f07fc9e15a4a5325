"""Every test starts without any of the platform's variables."""

import os

import pytest


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("MLPLATFORM_"):
            monkeypatch.delenv(name)
