"""Quantities of Kubernetes as numbers."""

from typing import Any, Final

_UNITS: Final = {"m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BINARY: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def number(quantity: Any) -> float:
    """Return cores, bytes, or a count."""
    text = str(quantity)
    digits = text.rstrip("mkKMGTi")
    return float(digits) * (_BINARY | _UNITS)[text.removeprefix(digits)]


def requested(spec: Any, resource: str) -> float:
    """Return what the scheduler sets aside for a pod: init containers run before the others."""

    def of(container: Any) -> float:
        return number(container["resources"]["requests"][resource])

    together = sum(of(container) for container in spec["containers"])
    return max([together, *(of(container) for container in spec.get("initContainers", []))])
