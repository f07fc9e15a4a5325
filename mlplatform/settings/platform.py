"""Where the platform runs."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
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
    clock_shift_seconds: int = Field(
        default=0,
        description="Added to the machine's time wherever the platform asks what time it is: "
        "recorded data are replayed as if they were of today. Not in prod.",
    )

    @field_validator("clock_shift_seconds")
    @classmethod
    def _true_time(cls, value: int, info: ValidationInfo) -> int:
        if value and info.data.get("environment") == "prod":
            raise ValueError("must be 0 in prod: labels and windows go by the time")
        return value

    @property
    def clock(self) -> Callable[[], datetime]:
        """What tells the time."""
        shift = timedelta(seconds=self.clock_shift_seconds)
        return lambda: datetime.now(UTC) + shift
