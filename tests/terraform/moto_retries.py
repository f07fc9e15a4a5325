"""Answers for clients that ask again, because an answer was lost on its way.

The AWS SDK repeats such a call under the same invocation id. Moto would do it twice and say of the
second time that the route, the association… is there already.
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any

Start = Callable[[str, list[tuple[str, str]]], Any]
Application = Callable[[dict[str, Any], Start], Iterable[bytes]]


class Remembering:
    """A WSGI application that does a call once and gives its answer as often as it is asked.

    Args:
        application: Does the calls.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._done: dict[str, tuple[str, list[tuple[str, str]], bytes]] = {}

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        """Answer a request; what failed is done anew."""
        call = environ.get("HTTP_AMZ_SDK_INVOCATION_ID", "")
        if call in self._done:
            sys.stderr.write(f"asked again: {environ.get('REQUEST_METHOD')} {call}\n")
            status, headers, body = self._done[call]
        else:
            said: list[tuple[str, list[tuple[str, str]]]] = []
            body = b"".join(self._application(environ, lambda *told, **_: said.append(told[:2])))
            status, headers = said[-1]
            if call and status.startswith("2"):
                self._done[call] = status, headers, body
        start(status, headers)
        return [body]
