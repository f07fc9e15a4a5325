"""Values for the secrets whose entries Terraform made: put once, into those that have none.

They are made by the same recipes as the Secrets of a cluster without managed services, and then
point to the managed ones. Terraform never sees them, so neither its state nor its plans hold any.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from deploy.credentials import PRIVATE, PUBLIC, RECIPES, SIGNING, Known, Values
from deploy.infra_aws import Account
from deploy.infra_values import Outputs
from mlplatform.errors import NotFoundError
from mlplatform.signing import public_key

VERIFYING: Final = "mlplatform-verifying"
"""The entry with the public key."""
_REDIS: Final = "mlplatform-redis"
_POSTGRES: Final = "mlplatform-postgres"


def managed(values: Values, given: Outputs) -> dict[str, str]:
    """Return a Secret's values, with the addresses of the managed services.

    Args:
        values: By key; addresses point to the Services of the chart.
        given: Terraform's outputs.
    """
    return {key: _address(value, given) for key, value in values.items()}


def ensure(account: Account, given: Outputs) -> str:
    """Put what is missing into Secrets Manager; return what was done, in words.

    Redis's users get their passwords each time: the call changes nothing where they have them, and
    a run that was killed in between is made whole.

    Raises:
        ServiceError: AWS refuses.
    """
    prefix = f"mlplatform-{given['environment']}"
    known: dict[str, Values] = {}
    made = 0
    for recipe in RECIPES:
        if recipe.name not in given["secrets"]:
            continue
        name = f"{prefix}/{recipe.name}"
        found = account.secret(name)
        if found is None:
            found = managed(recipe.make(known), given)
            account.put_secret(name, found)
            made += 1
        known[recipe.name] = found
    # A delivery reads this one, and may not read the private key.
    if account.secret(f"{prefix}/{VERIFYING}") is None:
        key = public_key(known[SIGNING][PRIVATE].encode()).decode()
        account.put_secret(f"{prefix}/{VERIFYING}", {PUBLIC: key})
    for role, user in given["redis"]["users"].items():
        account.set_redis_password(user, _password(known, role))
    return f"{made} of {len(known)} secrets were empty and have values now"


def verifying_key(account: Account, given: Outputs) -> str:
    """Return the public key of the environment, in PEM.

    Raises:
        NotFoundError: It has none yet.
        ServiceError: AWS refuses.
    """
    name = f"mlplatform-{given['environment']}/{VERIFYING}"
    found = account.secret(name)
    if found is None:
        raise NotFoundError(f"the secret {name} has no value yet: run `make infra-apply` again")
    return found[PUBLIC]


def _password(known: Known, role: str) -> str:
    [address] = known[f"{_REDIS}-{role}"].values()
    return urlsplit(address).password or ""


def _address(value: str, given: Outputs) -> str:
    """Return an address with a managed service's host in it; other values as they are."""
    if "://" not in value or "@" not in value:
        return value
    parts = urlsplit(value)
    if parts.hostname == _REDIS:
        redis: Mapping[str, Any] = given["redis"]
        user = redis["users"][parts.username]
        place = f"{user}:{parts.password}@{redis['host']}:{redis['port']}"
        return urlunsplit(parts._replace(scheme="rediss", netloc=place))
    if parts.hostname == _POSTGRES:
        database: Mapping[str, Any] = given["database"]
        place = f"{parts.username}:{parts.password}@{database['host']}:{database['port']}"
        return urlunsplit(parts._replace(netloc=place, query="sslmode=require"))
    return value
