"""One request to the gateway, as a client makes it: what a deployment ends with."""

import http.client
import json
import secrets
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from deploy.forwards import Service, forwarded
from deploy.target import Target
from mlplatform.errors import ServiceError, shorten

_SECONDS: Final = 10.0
_OK: Final = 200
_EVENT_TIME: Final = "event_timestamp"
_REQUEST_ID: Final = "request_id"
_PATIENCE_SECONDS: Final = 20.0
_PAUSE_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Answered:
    """A request and its answer."""

    path: str
    body: str
    answer: Mapping[str, Any]

    @property
    def by_model(self) -> bool:
        """Whether a model gave it, and not the rules."""
        return not self.answer.get("fallback")

    def curl(self, url: str) -> str:
        """Return the line that asks the same from a shell."""
        header = shlex.quote("Content-Type: application/json")
        return f"curl -s {url}{self.path} -H {header} -d {shlex.quote(self.body)}"


GATEWAY: Final = Service("Gateway", "mlplatform-gateway", 8080, "/openapi.json")


def ask(target: Target, usecase: str, now: datetime) -> Answered:
    """Ask the gateway of a cluster for one prediction, through a port of this machine.

    It asks again for some seconds while the rules answer: the first request to a model is often
    late, because everything on its way is cold.

    Raises:
        ServiceError: The gateway cannot be reached, or refuses.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with forwarded(target, GATEWAY) as url:
        while True:
            answered = predict(url, usecase, now)
            if answered.by_model or time.monotonic() > deadline:
                return answered
            time.sleep(_PAUSE_SECONDS)


def predict(url: str, usecase: str, now: datetime) -> Answered:
    """Ask the gateway for one prediction, with the example of its own description.

    Args:
        url: Of the gateway.
        usecase: Whose model.
        now: The platform's time: the example is moved to it.

    Raises:
        ServiceError: The gateway does not answer, or refuses.
    """
    path = f"/v1/{usecase}/score"
    description = json.loads(_ask(url, "GET", "/openapi.json"))
    try:
        content = description["paths"][path]["post"]["requestBody"]["content"]
        example = content["application/json"]["examples"]["one"]["value"]
    except KeyError as error:
        raise ServiceError(
            f"the gateway's description has no example of {path}: is {usecase} among its use cases?"
        ) from error
    # The log takes a row of each name once.
    named = moved(example, now) | {_REQUEST_ID: f"by-hand-{secrets.token_hex(8)}"}
    body = json.dumps(named)
    return Answered(path, body, json.loads(_ask(url, "POST", path, body)))


def moved(example: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return an example whose times are as far from each other as before, its own being now."""
    now = now.astimezone(UTC).replace(microsecond=0)
    shift = now - (_moment(example.get(_EVENT_TIME)) or now)
    return {key: _shifted(value, shift) for key, value in example.items()}


def _shifted(value: Any, shift: timedelta) -> Any:
    moment = _moment(value)
    return value if moment is None else f"{moment + shift:%Y-%m-%dT%H:%M:%SZ}"


def _moment(value: Any) -> datetime | None:
    if not isinstance(value, str) or "T" not in value:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def _ask(url: str, method: str, path: str, body: str | None = None) -> bytes:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_SECONDS)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise ServiceError(f"the gateway does not answer: {shorten(error)}") from error
    finally:
        connection.close()
    if answer.status != _OK:
        text = shorten(content.decode(errors="replace"))
        raise ServiceError(f"the gateway answered {path} with {answer.status}: {text}")
    return content
