"""Settings from the environment, one frozen class for each concern.

A composition root calls `load()` once and passes the values on; nothing else reads the
environment. `python -m mlplatform.settings` prints the table of all variables.
"""

from mlplatform.settings.base import PLACEHOLDER, Settings
from mlplatform.settings.compute import ComputeSettings
from mlplatform.settings.kubeflow import KubeflowSettings
from mlplatform.settings.monitoring import MonitoringSettings
from mlplatform.settings.operator import OperatorSettings
from mlplatform.settings.pipeline import PipelineSettings
from mlplatform.settings.platform import Environment, PlatformSettings
from mlplatform.settings.registry import RegistrySettings, SigningSettings
from mlplatform.settings.serving import ArchiveSettings, GatewaySettings, RedisSettings
from mlplatform.settings.storage import DataSettings, LedgerSettings

__all__ = [
    "CONCERNS",
    "PLACEHOLDER",
    "ArchiveSettings",
    "ComputeSettings",
    "DataSettings",
    "Environment",
    "GatewaySettings",
    "KubeflowSettings",
    "LedgerSettings",
    "MonitoringSettings",
    "OperatorSettings",
    "PipelineSettings",
    "PlatformSettings",
    "RedisSettings",
    "RegistrySettings",
    "Settings",
    "SigningSettings",
]

CONCERNS: tuple[type[Settings], ...] = (
    PlatformSettings,
    DataSettings,
    LedgerSettings,
    RegistrySettings,
    SigningSettings,
    ComputeSettings,
    PipelineSettings,
    KubeflowSettings,
    RedisSettings,
    GatewaySettings,
    ArchiveSettings,
    MonitoringSettings,
    OperatorSettings,
)
"""All concerns, in the order in which they are documented."""
