"""What the tests set in the chart's values: shorter pauses, so that they wait for less."""

from datetime import UTC, datetime
from typing import Any, Final

TRAINED: Final = datetime(2013, 4, 2, 12, tzinfo=UTC)
"""After the first quarter; what `make demo` trains its first version from."""
HEAT: Final = datetime(2013, 5, 30, tzinfo=UTC)
"""Two days of it, warmer than anything in the first quarter."""

VALUES: Final[dict[str, Any]] = {
    "settings": {
        "extra": {
            "MLPLATFORM_ARCHIVE_EVERY_SECONDS": "1",
            "MLPLATFORM_MONITORING_TICK_SECONDS": "5",
        }
    }
}

ON_GPUS: Final[dict[str, Any]] = VALUES | {
    "operator": {"gpuPreflight": True},
    "triton": {
        "gpus": 1,
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    },
}
"""Servers of models ask for one GPU each."""
