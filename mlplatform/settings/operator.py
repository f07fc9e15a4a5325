"""The rollout operator of a cluster."""

import platform
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from mlplatform.settings.base import Settings


class OperatorSettings(Settings):
    """The operator that drives the rollouts of a cluster."""

    model_config = SettingsConfigDict(env_prefix="MLPLATFORM_OPERATOR_")

    namespace: str = Field(
        default="", description="Namespace that it works in; empty: the pod's own."
    )
    identity: str = Field(
        default="",
        description="Its name among the replicas; empty: the host's, which is the pod's.",
    )
    lease: str = Field(
        default="mlplatform-operator",
        min_length=1,
        description="Lease that the replica holds that drives.",
    )
    lease_seconds: int = Field(
        default=15,
        ge=3,
        le=600,
        description="How long a lease that is not renewed is left to its holder, in seconds.",
    )
    renew_seconds: float = Field(
        default=5, gt=0, le=200, description="Between two renewals of the lease, in seconds."
    )
    template: str = Field(
        default="mlplatform-triton",
        min_length=1,
        description="ConfigMap with the Deployment and the Service of a model version's server.",
    )
    address: Literal["name", "ip"] = Field(
        default="name",
        description="How gateways are told to reach a server: by its Service's name, or by its "
        "Service's IP where the cluster's DNS is not asked.",
    )
    exports: Path = Field(
        default=Path("/tmp/exports"),  # noqa: S108 (a volume of the pod's own)
        description="Folder of the verified models, by whose golden answers servers are checked.",
    )
    start_seconds: float = Field(
        default=600,
        gt=0,
        le=86_400,
        description="How long a server whose pod cannot start is tried before it has failed, in "
        "seconds; one that waits for a node is waited for.",
    )
    tick_seconds: float = Field(
        default=0.5, gt=0, le=60, description="Between two looks at a rollout, in seconds."
    )
    registry_seconds: float = Field(
        default=5,
        gt=0,
        le=3600,
        description="Between two questions to the registry for new versions, in seconds.",
    )
    health_host: str = Field(
        default="0.0.0.0",  # noqa: S104 (the kubelet asks the pod's address)
        min_length=1,
        description="Address on which it says whether it lives: /livez and /readyz.",
    )
    health_port: int = Field(default=8081, ge=1, le=65535, description="Port of the same.")

    @property
    def name(self) -> str:
        """Of this replica."""
        return self.identity or platform.node()

    @field_validator("renew_seconds")
    @classmethod
    def _renews_in_time(cls, value: float, info: ValidationInfo) -> float:
        lasts = info.data.get("lease_seconds")
        if lasts is not None and value * 2 >= lasts:
            raise ValueError("must be less than half of lease_seconds: one renewal may fail")
        return value
