r"""The ways to people: the console, and a webhook.

A webhook gets one POST for each alert, JSON with what chat programs show (`text`, the field that
Slack's incoming webhooks and Mattermost's read) and the alert itself for programs:

    {"text": "FIRING page flight_delay DataFault (temp): …\nRunbook: docs/operations.md#datafault",
     "alert": {"key": "flight_delay/DataFault", "usecase": …, "name": …, "severity": …, "state": …,
               "subject": …, "summary": …, "at": "2013-07-02T00:00:00Z", "runbook": …}}

Any answer of 200 to 299 means that it was taken; a redirect does not. The same alert may come
twice: `key`, `state` and `at` tell. No message or log holds the address beyond its host, for the
paths of such addresses are secrets.
"""

import http.client
import json
import queue
import ssl
import sys
import threading
import time
from typing import Final, TextIO
from urllib.parse import urlsplit

from pydantic import SecretStr

from mlplatform.contracts.alert import Alert
from mlplatform.errors import ServiceError, SettingsError, shorten

_PAUSE_SECONDS: Final = 0.2
"""Before the second attempt, doubled before each further one."""
_TAKEN: Final = range(200, 300)
_AGAIN: Final = frozenset({408, 425, 429, *range(500, 600)})
"""Statuses that may be others a moment later."""


def text(alert: Alert) -> str:
    """Return an alert as a person reads it, in one line and a link."""
    about = f" ({alert.subject})" if alert.subject else ""
    head = f"{alert.state.upper()} {alert.severity} {alert.usecase} {alert.name}{about}"
    return f"{head}: {alert.summary}\nRunbook: {alert.runbook}"


class Console:
    """Writes to a stream.

    Args:
        stream: Where to; None: the standard error output of the moment.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def send(self, alert: Alert) -> None:
        """Write the alert; raises ServiceError where the stream is closed or full."""
        stream = self._stream or sys.stderr
        try:
            stream.write(f"{alert.at:%Y-%m-%d %H:%M}Z {text(alert)}\n")
            stream.flush()
        except (OSError, ValueError) as error:
            raise ServiceError(f"the console takes no alert: {shorten(error)}") from error


class Webhook:
    """Posts to an address.

    Args:
        url: `https://host[:port]/path`; all of it but the host is treated as a secret.
        token: Sent as `Authorization: Bearer …`; None: not sent.
        timeout_seconds: Longest time for one alert, all attempts together.

    Raises:
        SettingsError: `url` is no such address.
    """

    def __init__(
        self, url: SecretStr, token: SecretStr | None = None, *, timeout_seconds: float = 3.0
    ) -> None:
        parts = urlsplit(url.get_secret_value())
        try:
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError:  # without `from`: the message would quote the address
            self._host, self._port = "", None
        if parts.scheme not in {"http", "https"} or not self._host or "@" in parts.netloc:
            raise SettingsError(
                "the webhook's address cannot be used: write https://host[:port]/path, without a "
                "user name or password; a token has a setting of its own"
            )
        self._secure = parts.scheme == "https"
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._token, self._seconds = token, timeout_seconds
        self._name = f"the webhook at {parts.scheme}://{self._host}"

    def send(self, alert: Alert) -> None:
        """Post the alert.

        Raises:
            ServiceError: It was not taken in time; whether it arrived may be unknown.
        """
        told = alert.model_dump(mode="json") | {"key": alert.key, "runbook": alert.runbook}
        body = json.dumps({"text": text(alert), "alert": told}).encode()
        end = time.monotonic() + self._seconds
        pause = _PAUSE_SECONDS
        while True:
            problem, again = self._attempt(body, end)
            if not problem:
                return
            if not again or time.monotonic() + pause >= end:
                raise ServiceError(f"{self._name} {problem}; look at its address and its log")
            time.sleep(pause)
            pause *= 2

    def _attempt(self, body: bytes, end: float) -> tuple[str, bool]:
        """Return what is wrong (empty: nothing) and whether to try again.

        In a thread of its own: neither the look-up of a name nor an answer that comes byte by byte
        ends at a socket's timeout. A thread that is left behind ends with its connection.
        """
        answer: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
        left = max(end - time.monotonic(), 0.001)
        threading.Thread(target=self._post, args=(body, left, answer), daemon=True).start()
        try:
            found = answer.get(timeout=left)
        except queue.Empty:
            return f"did not answer within {self._seconds:g} s", False
        if isinstance(found, OSError):
            return f"cannot be reached: {shorten(found) or type(found).__name__}", True
        if isinstance(found, Exception):  # without its message: it may quote the path or the token
            return f"was not understood ({type(found).__name__})", False
        return ("" if found in _TAKEN else f"answered {found}"), found in _AGAIN

    def _post(
        self, body: bytes, seconds: float, answer: "queue.SimpleQueue[int | Exception]"
    ) -> None:
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        try:
            connection = self._connection(seconds)
            try:
                connection.request("POST", self._path, body, headers)
                answer.put(connection.getresponse().status)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            answer.put(error)

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        if not self._secure:
            return http.client.HTTPConnection(self._host, self._port, timeout=seconds)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(self._host, self._port, timeout=seconds, context=context)
