"""What monitoring keeps, whom it tells, and where it can be asked."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from mlplatform.settings.base import Settings


def _webhook(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"(https?://[^/\s]+(/\S*)?)?", value.get_secret_value()):
        raise ValueError("must be an address like https://host/path")
    return value


class MonitoringSettings(Settings):
    """The monitor's reports, its alerts and its metrics."""

    model_config = SettingsConfigDict(env_prefix="MLPLATFORM_MONITORING_")

    root: Path = Field(
        default=Path("build/demo/monitoring"),
        description="Folder of what is kept of each window, and of the models that are watched.",
    )
    pages: int = Field(
        default=14,
        ge=0,
        description="Evidently's pages that are kept, 4 to 5 MB each; 0: none is drawn. "
        "Reports stay for good.",
    )
    most_windows: int = Field(
        default=14,
        ge=1,
        le=1000,
        description="Windows that one call judges at most after an outage, the newest.",
    )
    orchestrator: Literal["kubeflow", "job"] = Field(
        default="kubeflow",
        description="What runs pipelines: kubeflow, or job for a Job of Kubernetes each.",
    )
    tick_seconds: float = Field(
        default=30, gt=0, le=3600, description="Pause between two looks of the trigger, seconds."
    )
    webhook_url: Annotated[SecretStr, AfterValidator(_webhook)] = Field(
        default=SecretStr(""),
        description="Where alerts are posted as JSON; it often holds a token. Empty: they are "
        "written to the console only.",
    )
    webhook_token: SecretStr = Field(
        default=SecretStr(""), description="Bearer token of that address; empty: it needs none."
    )
    webhook_timeout_seconds: float = Field(
        default=3, gt=0, le=10, description="Longest wait for that address, in seconds."
    )
    metrics_host: str = Field(
        default="127.0.0.1", min_length=1, description="Address on which metrics are served."
    )
    metrics_port: int = Field(
        default=9108, ge=1, le=65535, description="Port on which metrics are served."
    )
