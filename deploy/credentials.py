"""The platform's Secrets: made once, from the operating system's randomness, and never again.

What is there stays: another password would lock the platform out of its own database, another key
would leave every signed model unverifiable. What is missing is made, also when a run was killed in
between, and what follows from another Secret (an address with its password in it) is made from
that one. Whoever brings their own Secret, for a managed database say, creates it beforehand under
its name, or has External Secrets do it.

Values go through the API only: never into an argument, a file that stays, or a message.
"""

import base64
import secrets
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal
from urllib.parse import quote, unquote, urlsplit

from deploy.access_lists import USERS, access_list
from deploy.namespaces import MANAGER, labels
from mlplatform.clients.kubernetes import CONFIG_MAPS, SECRETS, Cluster, Object
from mlplatform.errors import SettingsError, StaleError
from mlplatform.signing import create_key_pair, public_key

Values = Mapping[str, str]
"""Of one Secret, by key."""
Known = Mapping[str, Values]
"""Secrets by name."""

SIGNING: Final = "mlplatform-signing"
"""The Secret with the private key, and the ConfigMap with the public one."""
PRIVATE: Final = "signing.pem"
PUBLIC: Final = "signing.pub.pem"
ACCESS_LIST: Final = "users.acl"
_BYTES: Final = 32
"""Of randomness in a password: 43 letters, digits, dashes and underscores."""
_USERNAME: Final = "MLPLATFORM_REGISTRY_USERNAME"
_PASSWORD: Final = "MLPLATFORM_REGISTRY_PASSWORD"  # noqa: S105 (a variable's name)
_LEDGER_URL: Final = "MLPLATFORM_LEDGER_URL"
_REDIS_URL: Final = "MLPLATFORM_REDIS_URL"
_REGISTRY_ACCOUNTS: Final = ("trainer", "operator", "monitor", "admin")


@dataclass(frozen=True)
class Recipe:
    """How a Secret is made."""

    name: str
    keys: tuple[str, ...]
    """That its pods read; a Secret that is there has to have them."""
    make: Callable[[Known], Values]
    """From those before it."""
    of: Literal["", "postgres", "redis"] = ""
    """The service that it gives access to."""
    inside: bool = False
    """Whether only the service itself reads it: where it is managed, nobody does."""


def password() -> str:
    """Return a new password; nothing in it has a meaning in an address or a shell."""
    return secrets.token_urlsafe(_BYTES)


def _passwords(*keys: str) -> Callable[[Known], Values]:
    return lambda _: {key: password() for key in keys}


def _account(user: str) -> Callable[[Known], Values]:
    return lambda _: {_USERNAME: user, _PASSWORD: password()}


def _redis_url(user: str) -> Callable[[Known], Values]:
    return lambda _: {_REDIS_URL: f"redis://{user}:{password()}@mlplatform-redis:6379/0"}


def _database(known: Known, user: str, database: str) -> str:
    secret = known["mlplatform-postgres"][f"{user.upper()}_PASSWORD"]
    return (
        f"postgresql+psycopg://{user}:{quote(secret, safe='')}@mlplatform-postgres:5432/{database}"
    )


def _registry_server(known: Known) -> Values:
    return {
        "MLFLOW_BACKEND_STORE_URI": _database(known, "registry", "registry"),
        "MLFLOW_AUTH_DATABASE_URI": _database(known, "registry", "registry_auth"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": password(),
    }


def _access_list(known: Known) -> Values:
    def of(user: str) -> str:
        address = urlsplit(known[f"mlplatform-redis-{user}"][_REDIS_URL])
        return unquote(address.password or "")

    return {ACCESS_LIST: access_list({user: of(user) for user in USERS})}


def _private_key(_: Known) -> Values:
    """Return a new key; on disk it lies for a moment, in a folder that only its owner may enter."""
    with tempfile.TemporaryDirectory() as folder:
        private, public = Path(folder) / PRIVATE, Path(folder) / PUBLIC
        create_key_pair(private, public)
        return {PRIVATE: private.read_text(encoding="utf-8")}


_POSTGRES: Final = ("POSTGRES_PASSWORD", "LEDGER_PASSWORD", "REGISTRY_PASSWORD")
RECIPES: Final[tuple[Recipe, ...]] = (
    Recipe("mlplatform-postgres", _POSTGRES, _passwords(*_POSTGRES), of="postgres", inside=True),
    Recipe(
        "mlplatform-ledger",
        (_LEDGER_URL,),
        lambda known: {_LEDGER_URL: _database(known, "ledger", "ledger")},
        of="postgres",
    ),
    Recipe(
        "mlplatform-registry-server",
        ("MLFLOW_BACKEND_STORE_URI", "MLFLOW_AUTH_DATABASE_URI", "MLFLOW_FLASK_SERVER_SECRET_KEY"),
        _registry_server,
        of="postgres",
    ),
    *(
        Recipe(f"mlplatform-registry-{user}", (_USERNAME, _PASSWORD), _account(user))
        for user in _REGISTRY_ACCOUNTS
    ),
    *(
        Recipe(f"mlplatform-redis-{user}", (_REDIS_URL,), _redis_url(user), of="redis")
        for user in USERS
    ),
    Recipe("mlplatform-redis-acl", (ACCESS_LIST,), _access_list, of="redis", inside=True),
    Recipe(SIGNING, (PRIVATE,), _private_key),
    Recipe("mlplatform-ray", ("auth_token",), _passwords("auth_token")),
)
"""All of them, each after those that it follows from."""

NONE: Final[Known] = MappingProxyType({})


def missing(found: Known, managed: Collection[str] = ()) -> dict[str, Values]:
    """Return the Secrets that are not there yet, with new values.

    Args:
        found: Those that are there.
        managed: Services that are not the chart's, `postgres` or `redis`: only whoever made them
            knows their addresses.

    Raises:
        SettingsError: One is there and lacks a key that pods read, or one of a managed service is
            not there.
    """
    known = dict(found)
    made = {}
    for recipe in RECIPES:
        if recipe.of in managed and recipe.inside:
            continue
        if recipe.name in known:
            _refuse_lacking(recipe, known[recipe.name])
        elif recipe.of in managed:
            raise SettingsError(
                f"{recipe.of} is managed, and there is no Secret {recipe.name} with its address: "
                f"make it with the keys {', '.join(recipe.keys)}, or have External Secrets do it"
            )
        else:
            made[recipe.name] = known[recipe.name] = recipe.make(known)
    return made


def _refuse_lacking(recipe: Recipe, values: Values) -> None:
    if lacking := [key for key in recipe.keys if not values.get(key)]:
        raise SettingsError(
            f"the Secret {recipe.name} lacks {', '.join(lacking)}: add what is missing, or, "
            "if nothing was made with it yet, delete the Secret and have it made anew"
        )


def ensure(cluster: Cluster, managed: Collection[str] = ()) -> str:
    """Make the Secrets that are missing, and the public key; return what was done, in words.

    Args:
        cluster: The namespace.
        managed: As of `missing`.

    Raises:
        SettingsError: A Secret that is there lacks a key, one of a managed service is not there,
            or the two keys are not a pair.
        StaleError: Somebody else makes them at this moment.
        ServiceError: The API server is away, or refuses.
    """
    found = read(cluster)
    made = missing(found, managed)
    for name, values in made.items():
        try:
            cluster.create(SECRETS, secret(name, values))
        except StaleError as error:
            raise StaleError(
                f"the Secret {name} was made by somebody else just now: run the command again"
            ) from error
    shared = _ensure_public_key(cluster, ({**found, **made})[SIGNING][PRIVATE])
    if not made and not shared:
        return f"all {len(found)} Secrets are there; none was changed"
    kept = f", {len(found)} kept" if found else ""
    return f"{len(made)} Secrets made{kept}"


def read(cluster: Cluster) -> dict[str, dict[str, str]]:
    """Return those of the platform's Secrets that are there.

    Raises:
        ServiceError: The API server is away, or refuses.
    """
    found = {}
    for recipe in RECIPES:
        body = cluster.find(SECRETS, recipe.name)
        if body is not None:
            data = body.get("data") or {}
            found[recipe.name] = {key: base64.b64decode(data[key]).decode() for key in data}
    return found


def _ensure_public_key(cluster: Cluster, private: str) -> bool:
    """Let all who verify have the public key; return whether they had not."""
    wanted = public_key(private.encode()).decode()
    found = cluster.find(CONFIG_MAPS, SIGNING)
    there = ((found or {}).get("data") or {}).get(PUBLIC)
    if there == wanted:
        return False
    if there:
        raise SettingsError(
            f"the ConfigMap {SIGNING} holds another public key than that of the Secret {SIGNING}: "
            "models signed with one are refused by the other; restore the one that belongs to the "
            "registered models, or delete the ConfigMap and register anew"
        )
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": SIGNING, "labels": labels()},
        "data": {PUBLIC: wanted},
    }
    cluster.apply(CONFIG_MAPS, body, MANAGER)
    return True


def secret(name: str, values: Values) -> Object:
    """Return a Secret of the platform."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": labels()},
        "type": "Opaque",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
    }
