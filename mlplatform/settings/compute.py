"""What one process may take of its machine."""

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from mlplatform.settings.base import Settings


class ComputeSettings(Settings):
    """Cores of this machine."""

    model_config = SettingsConfigDict(env_prefix="MLPLATFORM_COMPUTE_")

    cpus: int = Field(
        default=2, ge=1, le=1024, description="Cores that Ray, BLAS and polars may use together."
    )
    ray: Literal["local", "job"] = Field(
        default="local",
        description="Where trials run: local, in the step's own process; job, on a Ray cluster "
        "that KubeRay makes for the step.",
    )
