"""Who may do what in the registry: `python -m mlplatform.clients.registry.accounts`.

It makes the registry of a cluster what the Secrets and the table below say, as its administrator:
the users with their passwords, an experiment and a registered model for each use case, and exactly
these permissions; run again, it changes nothing. It takes nothing away that is not a permission of
these users: runs and versions belong to the past.

Everybody who is known may read. Beyond that, each user has what its role calls, and no more.
MLflow's permissions are on a model or an experiment by name; those on versions and logged models
cannot be limited to one model. Whoever is known may make experiments and models of other names,
which are then theirs and nobody's here: MLflow denies that only where it has workspaces.
"""

import base64
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from mlplatform.errors import NotFoundError, PlatformError, ServiceError, SettingsError, shorten
from mlplatform.settings import GatewaySettings, RegistrySettings

USERS: Final = ("trainer", "operator", "monitor")
"""Their names; each one's password is in the variable `MLPLATFORM_ACCOUNT_<NAME>_PASSWORD`."""

_START_SECONDS: Final = 180
"""Longest wait for the server to answer: it may have been started at the same time."""
_POLL_SECONDS: Final = 1.0


class Grant(NamedTuple):
    """One permission."""

    kind: str
    """Type of the object, in MLflow's words."""
    which: str
    """The object's name or id; `*`: all of them."""
    permission: str


def grants(user: str, models: Sequence[str], experiments: Sequence[str]) -> frozenset[Grant]:
    """Return exactly what a user is granted.

    Args:
        user: One of `USERS`.
        models: Names of the registered models.
        experiments: Ids of the experiments.
    """
    if user == "trainer":
        return frozenset(
            [
                *(Grant("experiment", each, "EDIT") for each in experiments),
                *(Grant("registered_model", each, "EDIT") for each in models),
                # A registration that stopped half-way is deleted by the next one.
                Grant("registered_model_version", "*", "MANAGE"),
                Grant("logged_model", "*", "MANAGE"),
            ]
        )
    if user == "operator":
        return frozenset(
            [
                # MLflow lets only who may delete a model take an alias away from it; what the
                # next line denies, deleting the model needs as well.
                *(Grant("registered_model", each, "MANAGE") for each in models),
                Grant("registered_model_version", "*", "READ"),
            ]
        )
    return frozenset(Grant("registered_model", each, "READ") for each in models)


class Accounts:
    """The administrator's view of one MLflow server, over its HTTP API."""

    def __init__(self, settings: RegistrySettings) -> None:
        self.address = settings.tracking_uri
        self._settings = settings
        self._admin = _basic(settings.username, settings.password.get_secret_value())

    def wait(self, seconds: float = _START_SECONDS) -> None:
        """Return when the server answers.

        Raises:
            ServiceError: It did not in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=5):  # noqa: S310 (checked by the settings)
                    return
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() > deadline:
                    raise ServiceError(
                        f"the registry at {self.address} does not answer ({shorten(error)}): "
                        "look at its pod's log"
                    ) from error
                time.sleep(_POLL_SECONDS)

    def user(self, name: str, password: str) -> str:
        """Make sure of a user and its password; return what was done.

        Raises:
            ServiceError: The server failed, or refuses the administrator or the password.
        """
        try:
            self._call("GET", "2.0", "users/get", {"username": name})
        except NotFoundError:
            self._call("POST", "2.0", "users/create", {"username": name, "password": password})
            return "made"
        try:
            self._call("GET", "2.0", "users/current", {}, _basic(name, password))
        except ServiceError:
            self._call(
                "PATCH", "2.0", "users/update-password", {"username": name, "password": password}
            )
            return "has the Secret's password again"
        return "is there"

    def experiment(self, name: str) -> str:
        """Return the id of an experiment, which is made when absent.

        Raises:
            ServiceError: The server failed, or refuses the administrator.
        """
        try:
            found = self._call("GET", "2.0", "experiments/get-by-name", {"experiment_name": name})
        except NotFoundError:
            return str(
                self._call("POST", "2.0", "experiments/create", {"name": name})["experiment_id"]
            )
        return str(found["experiment"]["experiment_id"])

    def model(self, name: str) -> None:
        """Make sure of a registered model.

        Raises:
            ServiceError: The server failed, or refuses the administrator.
        """
        try:
            self._call("GET", "2.0", "registered-models/get", {"name": name})
        except NotFoundError:
            self._call("POST", "2.0", "registered-models/create", {"name": name})

    def grant(self, user: str, wanted: frozenset[Grant]) -> int:
        """Give a user exactly these permissions; return how many were changed.

        Raises:
            ServiceError: The server failed, or refuses the administrator.
        """
        rows = self._call("GET", "3.0", "users/permissions/list", {"username": user})
        there = {
            Grant(row["resource_type"], row["resource_pattern"], row["permission"])
            for row in rows["permissions"]
        }
        for kind, which, _ in sorted(there - wanted):
            about = {"username": user, "resource_type": kind, "resource_id": which}
            self._call("POST", "3.0", "users/permissions/revoke", about)
        for kind, which, permission in sorted(wanted - there):
            about = {"username": user, "resource_type": kind, "resource_id": which}
            self._call("POST", "3.0", "users/permissions/grant", about | {"permission": permission})
        return len(there ^ wanted)

    def _call(
        self,
        method: str,
        version: str,
        path: str,
        values: Mapping[str, str],
        credentials: str | None = None,
    ) -> Any:
        address = f"{self.address}/api/{version}/mlflow/{path}"
        body = None
        if method == "GET":
            address += f"?{urlencode(values)}" if values else ""
        else:
            body = json.dumps(values).encode()
        request = urllib.request.Request(  # noqa: S310 (an http address, by the settings)
            address,
            data=body,
            method=method,
            headers={
                "Authorization": credentials or self._admin,
                "Content-Type": "application/json",
            },
        )
        seconds = self._settings.timeout_seconds
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310 (as above)
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            told = shorten(error.read().decode(errors="replace"))
            if error.code == http.HTTPStatus.NOT_FOUND:
                raise NotFoundError(f"{path}: the registry has no such object ({told})") from error
            raise ServiceError(
                f"{path}: the registry at {self.address} answered {error.code} ({told}): do the "
                "administrator's name and password fit, in the Secret mlplatform-registry-admin?"
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ServiceError(
                f"{path}: the registry at {self.address} failed ({shorten(error)}): look at its log"
            ) from error


def set_up(accounts: Accounts, usecases: Sequence[str], passwords: Mapping[str, str]) -> list[str]:
    """Make the registry what the Secrets and the table say; return what was found, in words.

    Args:
        accounts: Of the server.
        usecases: Names of the use cases, which are the models' and the experiments'.
        passwords: By user.

    Raises:
        ServiceError: The server failed, or refuses the administrator.
    """
    experiments = [accounts.experiment(name) for name in usecases]
    for name in usecases:
        accounts.model(name)
    said = [f"experiments and models: {', '.join(usecases)}"]
    for user, password in passwords.items():
        done = accounts.user(user, password)
        changed = accounts.grant(user, grants(user, usecases, experiments))
        said.append(f"user {user} {done}, {changed} permissions changed")
    return said


def main() -> int:
    """Set the registry up; return 1, with the reason on stderr, when that failed."""
    try:
        accounts = Accounts(RegistrySettings.load())
        passwords = {user: _password(user, os.environ) for user in USERS}
        accounts.wait()
        said = set_up(accounts, GatewaySettings.load().usecases, passwords)
    except PlatformError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("\n".join(said) + "\n")
    return 0


def _password(user: str, environment: Mapping[str, str]) -> str:
    name = f"MLPLATFORM_ACCOUNT_{user.upper()}_PASSWORD"
    if not (password := environment.get(name, "")):
        raise SettingsError(
            f"{name} is not set: it is the password in the Secret mlplatform-registry-{user}"
        )
    return password


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


if __name__ == "__main__":
    sys.exit(main())
