"""A user without a name: what a container runs as that is given any number."""

import os

import pytest

_NOBODYS = 2**31 - 7
"""An ID of a user that no machine gives."""


def take_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process run as a user that neither the environment nor the machine names."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: _NOBODYS)
