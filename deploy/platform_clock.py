"""What time it is in the platform: recorded data are replayed as if they were of today."""

from datetime import UTC, datetime, timedelta
from typing import Final

from mlplatform.clients.kubernetes import CONFIG_MAPS, Cluster

_CONFIGURATION: Final = "mlplatform"
"""The ConfigMap of the chart."""
_SHIFT: Final = "MLPLATFORM_CLOCK_SHIFT_SECONDS"


def clock_shift(cluster: Cluster) -> int | None:
    """Return what the platform adds to the time, in seconds; None: nothing is deployed.

    Raises:
        ServiceError: The API server is away, or refuses.
    """
    found = cluster.find(CONFIG_MAPS, _CONFIGURATION)
    if found is None:
        return None
    return int((found.get("data") or {}).get(_SHIFT, 0))


def platform_time(cluster: Cluster) -> datetime:
    """Return the platform's time, to the second.

    Raises:
        ServiceError: The API server is away, or refuses.
    """
    shift = timedelta(seconds=clock_shift(cluster) or 0)
    return datetime.now(UTC).replace(microsecond=0) + shift
