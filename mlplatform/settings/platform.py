"""Where the platform runs."""

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from mlplatform.settings.base import Settings

Environment = Literal["local", "dev", "prod"]


class PlatformSettings(Settings):
    """The platform as a whole."""

    model_config = SettingsConfigDict(env_prefix="MLPLATFORM_")

    environment: Environment = Field(
        default="local",
        description="local, dev or prod; outside local no secret may be at its placeholder.",
    )
    git_commit: str = Field(
        default="unknown",
        min_length=1,
        description="Commit of the running code, written when an image is built.",
    )
