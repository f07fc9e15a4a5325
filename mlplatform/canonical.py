"""One text for one value: what digests and the ledger's chain are computed over."""

import hashlib
import json
from typing import Any


def dumps(value: Any) -> str:
    """Return JSON with sorted keys, no spaces and ASCII only: equal values, equal bytes.

    Raises:
        ValueError: `value` holds NaN or an infinity, which JSON cannot say.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256(text: str) -> str:
    """Return the SHA-256 of `text` (UTF-8) as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()
