"""Who may do what in Redis: one user for each role, with the keys and commands that it uses.

The gateway reads features and may not write any: a gateway that was taken over cannot poison what
others will be answered with. The user that everybody is without a name is off. Redis 7 or newer.
"""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

_EVERYBODY: Final = "+ping +auth +hello +select +client|setname"
"""What a connection begins with."""
_FEAST_PROJECT: Final = "mlplatform"
"""Of `feature_repo/feature_store.yaml`: the keys of Feast's hashes end in it."""
_DATA: Final = "+@read +@write +watch -@dangerous -@scripting"


_NOBODY: Final = "user default reset ~* &* +@all"
"""It is off and has no password, so nobody can be it. Redis itself is, while it reads its file of
writes after a start: without these rights it refuses every transaction in there, and loses it."""


class _Rights(NamedTuple):
    """In Redis's words: `%R~` keys to read, `%W~` to write, `~` both."""

    plain: str
    """Commands that name no key."""
    keyed: tuple[str, ...]
    """Keys with the commands for them."""


_RIGHTS: Final[Mapping[str, _Rights]] = MappingProxyType(
    {
        "gateway": _Rights(
            "+multi +exec",
            (
                "%R~packed:* +mget",
                "%R~route:* +get",
                "%W~route:*:gateway:* +set +del",  # its sign of life
                "%W~predictions:* +xadd",
            ),
        ),
        "features": _Rights(
            "+@transaction +scan",
            # Feast's own client takes its hashes by what commands it likes of these.
            (f"~packed:* ~packed-mark:* ~*{_FEAST_PROJECT} {_DATA}",),
        ),
        "archiver": _Rights("", ("~predictions:* +xrange +xdel +xlen",)),
        "operator": _Rights(
            "+multi +exec +unwatch +scan", ("~route:* +get +mget +set +del +watch",)
        ),
    }
)

USERS: Final = tuple(_RIGHTS)
"""Roles that talk to Redis; each is a user of that name."""


def access_list(passwords: Mapping[str, str]) -> str:
    """Return Redis's `users.acl`: hashes of the passwords only.

    Args:
        passwords: By role, of all `USERS`.
    """
    lines = [_NOBODY]
    for user, rights in _RIGHTS.items():
        digest = hashlib.sha256(passwords[user].encode()).hexdigest()
        keyed = " ".join(f"({selector})" for selector in rights.keyed)
        line = f"user {user} reset on #{digest} {_EVERYBODY} {rights.plain} {keyed}"
        lines.append(" ".join(line.split()))
    return "\n".join(lines) + "\n"
