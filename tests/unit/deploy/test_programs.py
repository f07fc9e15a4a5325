"""Calling other programs."""

import pytest

from deploy.programs import call, find
from mlplatform.errors import ServiceError, SettingsError


def test_a_program_says_what_it_printed() -> None:
    assert "hello\n" == call("echo", "hello")


def test_what_is_given_is_on_its_standard_input() -> None:
    assert "given" == call("cat", given="given")


def test_settings_are_added_to_the_environment() -> None:
    assert "yes\n" == call("sh", "-c", 'echo "$SAID"', settings={"SAID": "yes"})


def test_a_failure_says_its_error_and_not_its_warnings() -> None:
    script = 'echo "WARNING: old" >&2; echo "Error: no such release" >&2; exit 3'

    with pytest.raises(ServiceError, match=r"`sh -c echo.*failed: Error: no such release$"):
        call("sh", "-c", script)


def test_a_program_that_hangs_is_ended() -> None:
    with pytest.raises(ServiceError, match="did not end within 0 s"):
        call("sleep", "60", timeout_seconds=0.1)


def test_a_program_that_is_not_installed_says_where_it_is_found() -> None:
    with pytest.raises(SettingsError, match="no-such-program is not on PATH"):
        find("no-such-program")
