"""One blocking connection to Redis, for everything that is not on the request path.

Materialization, the route record, the archiver and benchmarks use it. It speaks the protocol over
a plain socket with hiredis: a command costs less than half of redis-py's, and a transaction with
WATCH is two calls. Redis-py is left to Feast.

It refuses to repeat a command: a broken connection is a `ServiceError`, the next call connects
again, and only the caller knows whether its commands may run twice. It follows no redirection of a
Redis Cluster. Calls from several threads take turns; a WATCH and its EXEC belong to one thread.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Sequence
from typing import Any, Final, Self

import hiredis

from mlplatform.clients.redis_protocol import NOTHING, Address, Part, encode
from mlplatform.errors import ServiceError, shorten

_CHUNK: Final = 1 << 18
"""Bytes read at once; a reply of 100 vectors is 50 kB."""


def connect(url: str, *, timeout_seconds: float = 10) -> "RedisSync":
    """Return a connection that is made at its first command.

    Args:
        url: redis://[user:password@]host:port[/db], or rediss:// for TLS.
        timeout_seconds: For the connection and for each wait for replies.

    Raises:
        ServiceError: The URL is not understood.
    """
    return RedisSync(Address.of(url), timeout_seconds)


class RedisSync:
    """A connection to one Redis server; made at the first command, and again after it broke.

    Args:
        address: The server.
        timeout_seconds: For the connection and for each wait for replies.
    """

    def __init__(self, address: Address, timeout_seconds: float = 10) -> None:
        self.address = address
        self._timeout = timeout_seconds
        self._socket: socket.socket | None = None
        self._reader = self._new_reader()
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Feast's stores end without a word, and theirs are the connections that nobody closes.
        if getattr(self, "_socket", None) is not None:
            self.close()

    def execute(self, *command: Part) -> Any:
        """Run one command and return its reply: bytes, int, None or a list of them.

        Raises:
            ServiceError: Redis refused it, or the connection broke; it may have run then.
        """
        reply = self.exchange(encode(*command), 1)[0]
        if isinstance(reply, ServiceError):
            raise reply
        return reply

    def pipeline(self, commands: Sequence[Sequence[Part]]) -> list[Any]:
        """Run commands with one round trip and return their replies, in order.

        Raises:
            ServiceError: Redis refused one (the others ran), or the connection broke.
        """
        if not commands:
            return []
        payload = b"".join([encode(*command) for command in commands])
        replies = self.exchange(payload, len(commands))
        for reply in replies:
            if isinstance(reply, ServiceError):
                raise reply
        return replies

    def exchange(self, payload: bytes, replies: int) -> list[Any]:
        """Send encoded commands and return their replies, in order.

        A reply is bytes, int, None, a list of replies, or a `ServiceError` where Redis refused that
        one command.

        Raises:
            ServiceError: The connection could not be made or broke; whether the commands ran is
                then unknown.
        """
        with self._lock:
            try:
                if self._socket is None:
                    self._connect()
                return self._roundtrip(payload, replies)
            except OSError as error:  # TimeoutError is one
                self.close()
                raise ServiceError(
                    f"Redis at {self.address}: {shorten(error) or 'no answer'}: check that it runs "
                    "and can be reached from here"
                ) from error
            except BaseException:  # what is left on this connection belongs to nobody
                self.close()
                raise

    def close(self) -> None:
        """Close the connection; the next command makes a new one."""
        with self._lock:
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.close()
            self._socket = None
            self._reader = self._new_reader()

    def _connect(self) -> None:
        address = self.address
        raw = socket.create_connection((address.host, address.port), self._timeout)
        self._socket = raw  # from here on `close` ends it
        raw.settimeout(self._timeout)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if address.tls:
            context = ssl.create_default_context()
            self._socket = context.wrap_socket(raw, server_hostname=address.host)
        greeting = address.greeting()
        for reply in self._roundtrip(b"".join(greeting), len(greeting)) if greeting else ():
            if isinstance(reply, ServiceError):
                raise reply

    def _roundtrip(self, payload: bytes, replies: int) -> list[Any]:
        if self._socket is None:
            raise OSError("not connected")
        self._socket.sendall(payload)
        found: list[Any] = []
        reader = self._reader
        while len(found) < replies:
            reply = reader.gets()
            if reply is not NOTHING:
                found.append(reply)
                continue
            data = self._socket.recv(_CHUNK)
            if not data:
                raise OSError("it closed the connection")
            reader.feed(data)
        return found

    def _new_reader(self) -> hiredis.Reader:
        return hiredis.Reader(
            # After a broken protocol the connection is as useless as a broken one.
            protocolError=ConnectionError,
            replyError=self._refused,
            notEnoughData=NOTHING,
        )

    def _refused(self, text: str) -> ServiceError:
        return ServiceError(f"Redis at {self.address} refused a command: {shorten(text)}")
