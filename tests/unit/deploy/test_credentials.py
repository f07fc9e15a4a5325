"""Secrets: made once, whole, consistent with each other, and never again."""

from urllib.parse import urlsplit

import pytest

from deploy.access_lists import USERS, access_list
from deploy.credentials import NONE, RECIPES, Known, missing, password
from mlplatform.errors import SettingsError
from mlplatform.settings import LedgerSettings, RedisSettings
from mlplatform.signing import public_key


@pytest.fixture(scope="module")
def made() -> Known:
    return missing(NONE)


def test_a_new_platform_gets_every_secret_with_every_key(made: Known) -> None:
    assert {recipe.name: set(recipe.keys) for recipe in RECIPES} == {
        name: set(values) for name, values in made.items()
    }
    assert all(value for values in made.values() for value in values.values())


def test_nothing_is_made_where_all_is_there(made: Known) -> None:
    assert {} == missing(made)


def test_two_platforms_share_no_value(made: Known) -> None:
    other = missing(NONE)
    users = {"MLPLATFORM_REGISTRY_USERNAME"}

    same = [
        (name, key)
        for name, values in made.items()
        for key, value in values.items()
        if key not in users and other[name][key] == value
    ]

    assert [] == same


def test_passwords_are_long_and_need_no_quoting() -> None:
    word = password()

    assert 40 <= len(word)
    assert word.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize("left_out", [recipe.name for recipe in RECIPES])
def test_what_a_killed_run_left_out_is_made_and_the_rest_is_kept(
    left_out: str, made: Known
) -> None:
    there = {name: values for name, values in made.items() if name != left_out}

    assert [left_out] == list(missing(there))


def test_addresses_are_made_of_the_passwords_that_the_database_has(made: Known) -> None:
    there = {name: made[name] for name in ("mlplatform-postgres",)}
    url = urlsplit(missing(there)["mlplatform-ledger"]["MLPLATFORM_LEDGER_URL"])

    assert made["mlplatform-postgres"]["LEDGER_PASSWORD"] == url.password
    assert ("ledger", "mlplatform-postgres", 5432, "/ledger") == (
        url.username,
        url.hostname,
        url.port,
        url.path,
    )


def test_redis_knows_the_passwords_that_its_users_have(made: Known) -> None:
    passwords = {
        user: urlsplit(made[f"mlplatform-redis-{user}"]["MLPLATFORM_REDIS_URL"]).password or ""
        for user in USERS
    }

    assert access_list(passwords) == made["mlplatform-redis-acl"]["users.acl"]


def test_the_list_of_redis_follows_addresses_that_somebody_else_made() -> None:
    own = {
        f"mlplatform-redis-{user}": {"MLPLATFORM_REDIS_URL": f"rediss://{user}:p%40ss@redis.example:6380/0"}
        for user in USERS
    }  # fmt: skip

    assert (
        access_list(dict.fromkeys(USERS, "p@ss"))
        == missing(own)["mlplatform-redis-acl"]["users.acl"]
    )


def test_a_secret_that_lacks_a_key_is_refused_and_not_overwritten(made: Known) -> None:
    broken = dict(made) | {"mlplatform-signing": {"other.pem": "x"}}

    with pytest.raises(SettingsError, match=r"Secret mlplatform-signing lacks signing\.pem"):
        missing(broken)


def test_an_empty_value_counts_as_lacking(made: Known) -> None:
    broken = dict(made) | {"mlplatform-ledger": {"MLPLATFORM_LEDGER_URL": ""}}

    with pytest.raises(SettingsError, match="lacks MLPLATFORM_LEDGER_URL"):
        missing(broken)


def test_addresses_of_a_managed_service_are_not_made_up(made: Known) -> None:
    with pytest.raises(SettingsError, match=r"postgres is managed, .* no Secret mlplatform-ledger"):
        missing(NONE, ["postgres"])

    there = {name: values for name, values in made.items() if name.startswith("mlplatform-redis-")}
    assert "mlplatform-redis-acl" not in missing(there, ["redis"])


def test_what_only_the_service_itself_reads_is_not_made_for_a_managed_one(made: Known) -> None:
    inside = {"mlplatform-postgres", "mlplatform-redis-acl"}
    theirs = {r.name: made[r.name] for r in RECIPES if r.of and not r.inside}

    others = {recipe.name for recipe in RECIPES} - inside - set(theirs)
    assert others == set(missing(theirs, ["postgres", "redis"]))


def test_a_message_about_a_secret_shows_no_value(made: Known) -> None:
    held = dict(made["mlplatform-postgres"]) | {"LEDGER_PASSWORD": ""}

    with pytest.raises(SettingsError) as refused:
        missing(dict(made) | {"mlplatform-postgres": held})

    assert not any(value and value in str(refused.value) for value in held.values())


def test_the_private_key_has_a_public_one(made: Known) -> None:
    key = public_key(made["mlplatform-signing"]["signing.pem"].encode())

    assert key.startswith(b"-----BEGIN PUBLIC KEY-----")


def test_the_settings_of_the_pods_accept_what_was_made(
    made: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mlplatform-ledger", "mlplatform-redis-gateway"):
        for key, value in made[name].items():
            monkeypatch.setenv(key, value)

    assert LedgerSettings.load().url.get_secret_value().startswith("postgresql+psycopg://")
    assert "gateway" == urlsplit(RedisSettings.load().url.get_secret_value()).username
