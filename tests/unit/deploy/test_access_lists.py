"""Redis's users: what each may touch, and that no password is written down."""

import hashlib
import re

import pytest

from deploy.access_lists import USERS, access_list

PASSWORDS = {user: f"word-of-{user}" for user in USERS}


def line(user: str) -> str:
    return next(
        row for row in access_list(PASSWORDS).splitlines() if row.startswith(f"user {user}")
    )


def test_the_user_without_a_name_is_off() -> None:
    assert access_list(PASSWORDS).startswith("user default reset ")


def test_every_role_has_one_line() -> None:
    named = [row.split()[1] for row in access_list(PASSWORDS).splitlines()]

    assert ["default", *USERS] == named


def test_a_password_is_there_as_its_hash_only() -> None:
    text = access_list(PASSWORDS)

    assert not any(password in text for password in PASSWORDS.values())
    assert f"#{hashlib.sha256(b'word-of-gateway').hexdigest()}" in line("gateway")


@pytest.mark.parametrize("user", USERS)
def test_each_line_begins_with_nothing_allowed(user: str) -> None:
    assert re.match(rf"user {user} reset on #[0-9a-f]{{64}} ", line(user))


@pytest.mark.parametrize("user", USERS)
def test_nobody_may_run_scripts_list_all_keys_or_change_the_server(user: str) -> None:
    granted = set(re.findall(r"\+(\S+?)[ )]", line(user) + " "))

    assert not granted & {"@all", "@admin", "@dangerous", "@scripting", "eval", "keys", "config"}


def test_the_gateway_may_not_write_features() -> None:
    selectors = re.findall(r"\(([^)]*)\)", line("gateway"))
    features = [selector for selector in selectors if "packed" in selector]

    assert ["%R~packed:* +mget"] == features


def test_the_gateway_may_add_to_the_prediction_log_and_do_nothing_else_with_it() -> None:
    assert "(%W~predictions:* +xadd)" in line("gateway")


def test_who_reads_the_prediction_log_does_not_see_features() -> None:
    assert "packed" not in line("archiver")
