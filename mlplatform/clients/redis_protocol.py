"""What both sides of Redis, the asyncio one and the blocking one, say in the same way.

An address in a URL, the commands that open a connection to it, and how a command is encoded.
It refuses addresses that it does not understand and shows no password.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Self, cast
from urllib.parse import quote, unquote, urlsplit

import hiredis

from mlplatform.errors import ServiceError

Part = bytes | str | int | float
"""What a command is made of."""

NOTHING: Final = object()
"""What a parser returns while a reply is incomplete."""

_pack: Final = cast("Callable[[tuple[Part, ...]], bytes]", hiredis.pack_command)
"""Its stub asks for a tuple of one part."""


def encode(*parts: Part) -> bytes:
    """Return one command as it goes over the wire."""
    return _pack(parts)


@dataclass(frozen=True)
class Address:
    """Where a Redis is and who asks."""

    host: str
    port: int = 6379
    db: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False

    @classmethod
    def of(cls, url: str) -> Self:
        """Return the address in redis://[user:password@]host:port[/db], rediss:// for TLS."""
        advice = "write redis://[user:password@]host:port[/db], or rediss:// for TLS"
        parts = urlsplit(url)
        if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
            # The URL may hold a password: it is not shown.
            raise ServiceError(f"the address of Redis has no scheme or no host: {advice}")
        try:
            return cls(
                host=parts.hostname,
                port=parts.port or 6379,
                db=int(parts.path.strip("/") or 0),
                user=unquote(parts.username) if parts.username else None,
                password=unquote(parts.password) if parts.password else None,
                tls=parts.scheme == "rediss",
            )
        except ValueError as error:
            raise ServiceError(
                f"port or database in the address of Redis is no number: {advice}"
            ) from error

    @property
    def url(self) -> str:
        """The address as a URL, with its password."""
        who = (
            f"{quote(self.user or '', safe='')}:{quote(self.password, safe='')}@"
            if (self.password)
            else ""
        )
        return f"redis{'s' if self.tls else ''}://{who}{self.host}:{self.port}/{self.db}"

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.db}"

    def greeting(self) -> list[bytes]:
        """Return the commands that a new connection begins with; none for an open database 0."""
        commands = []
        if self.password:
            user = [self.user] if self.user else []
            commands.append(encode("AUTH", *user, self.password))
        if self.db:
            commands.append(encode("SELECT", self.db))
        return commands
