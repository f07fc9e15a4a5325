"""Kubernetes quantities: `250m` CPUs, `1536Mi` of memory, as numbers and back as words."""

import re
from types import MappingProxyType
from typing import Final

from mlplatform.errors import SettingsError

_UNITS: Final = MappingProxyType(
    {"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    | {"P": 1e15, "E": 1e18}
    | {f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTPE", 1)}
)
_QUANTITY: Final = re.compile(r"([+-]?[0-9.]+)(?:[eE]([+-]?\d+))?([a-zA-Z]{0,2})")
_GIB: Final = 1024.0**3
_MIB: Final = 1024.0**2


def quantity(text: str | float) -> float:
    """Return a quantity as a number: CPUs, or bytes.

    Raises:
        SettingsError: It is none.
    """
    found = _QUANTITY.fullmatch(str(text).strip())
    if found is None or found[3] not in _UNITS:
        raise SettingsError(f"{text!r} is no quantity: write 250m, 2, 512Mi or 4Gi")
    return float(f"{found[1]}e{found[2] or 0}") * _UNITS[found[3]]


def memory(size: float) -> str:
    """Return bytes in words: 1.5 GiB."""
    return f"{size / _GIB:.1f} GiB" if size >= _GIB else f"{size / _MIB:.0f} MiB"


def cpus(number: float) -> str:
    """Return CPUs in words: 0.25."""
    return f"{number:.3g}"
