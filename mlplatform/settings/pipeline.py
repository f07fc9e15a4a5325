"""How pipelines are placed on a cluster when they are compiled."""

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from mlplatform.settings.base import Settings

_DNS_LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"


class PipelineSettings(Settings):
    """Image, nodes and limits of a pipeline's tasks."""

    model_config = SettingsConfigDict(env_prefix="MLPLATFORM_PIPELINE_")

    image: str = Field(
        default="mlplatform-python:dev", pattern=r"^\S+$", description="Image of all tasks."
    )
    signing_secret: str = Field(
        default="mlplatform-signing",
        pattern=_DNS_LABEL,
        description="Kubernetes Secret with the private key, mounted in registration only.",
    )
    gpu_resource: str = Field(
        default="nvidia.com/gpu",
        min_length=1,
        description="Name of the GPU resource on the nodes.",
    )
    gpu_count: int = Field(
        default=0, ge=0, le=16, description="GPUs that the training task asks for; 0: none."
    )
    node_selector: dict[str, str] = Field(
        default={}, description='Labels that nodes must have, as JSON: {"pool": "ml"}.'
    )
    toleration_key: str = Field(
        default="nvidia.com/gpu",
        min_length=1,
        description="Key of the taint that GPU nodes carry, tolerated by the training task.",
    )
    ray: Literal["local", "job"] = Field(
        default="local",
        description="Where training runs: local, in its task's pod; job, on a Ray cluster that "
        "KubeRay makes for it, with the GPUs that the chart's values name.",
    )
    retries: int = Field(
        default=2, ge=0, le=10, description="Further attempts of a task that talks to services."
    )
    timeout_seconds: int = Field(
        default=3600, ge=1, le=604_800, description="Longest time of one task, in seconds."
    )
