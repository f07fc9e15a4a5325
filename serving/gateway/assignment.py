"""Which arm an entity falls on: a salted hash of its key, the same in every gateway.

The hash is a number in [0, 1); below the challenger's weight it is the challenger's. So an entity
stays on its arm, and a growing weight moves entities to the challenger only, never back. The salt
makes the split of one rollout independent of the last one's.
"""

import hashlib
from typing import Final

import msgspec

_WHOLE: Final = 2**64
_encode: Final = msgspec.json.Encoder().encode


def bound(share: float) -> int:
    """Return the value below which a share of all hashes lies."""
    return round(share * _WHOLE)


class Assignment:
    """The split of one salt."""

    __slots__ = ("_salted",)

    def __init__(self, salt: str) -> None:
        # The salt's length keeps salt and key apart: ("ab", "c") is not ("a", "bc").
        head = salt.encode()
        self._salted = hashlib.blake2b(b"%d:%b" % (len(head), head), digest_size=8)

    def of(self, entity: str) -> int:
        """Return an entity's hash, from 0 to 2**64 - 1."""
        found = self._salted.copy()
        found.update(entity.encode())
        return int.from_bytes(found.digest(), "big")


def entity_name(keys: tuple[str | int | None, ...]) -> str:
    """Return the keys of one entity as one string, different for different keys."""
    if len(keys) == 1 and isinstance(keys[0], str):
        return keys[0]
    return _encode(keys).decode()
