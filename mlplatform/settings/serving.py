"""The online store, the gateway and the prediction log."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from mlplatform.settings.base import Settings


def _redis_url(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"rediss?://(\S+@)?[^\s@/:]+:\d+(/\d+)?", value.get_secret_value()):
        raise ValueError("must be redis://[user:password@]host:port[/db], or rediss:// for TLS")
    return value


class RedisSettings(Settings):
    """Online features, routes and the prediction stream."""

    model_config = SettingsConfigDict(env_prefix="MLPLATFORM_REDIS_")

    url: Annotated[SecretStr, AfterValidator(_redis_url)] = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis: redis://[user:password@]host:port[/db], or rediss:// for TLS.",
    )


class GatewaySettings(Settings):
    """One gateway process."""

    model_config = SettingsConfigDict(env_prefix="MLPLATFORM_GATEWAY_")

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(default=8080, ge=1, le=65535, description="Port to listen on.")
    workers: int = Field(default=1, ge=1, le=64, description="Processes that share the port.")
    usecases: tuple[str, ...] = Field(
        default=("flight_delay",), description='Use cases to serve, as JSON: ["flight_delay"].'
    )
    spill: Path = Field(
        default=Path("build/demo/spill"),
        description="Folder where rows of the prediction log wait while Redis is down.",
    )
    drain_seconds: float = Field(
        default=20,
        gt=0,
        le=300,
        description=(
            "Longest wait at SIGTERM for open requests and then for Redis to take the prediction "
            "log, together, seconds; what is left of the log goes to the spill."
        ),
    )
    max_body_bytes: int = Field(
        default=1_048_576, ge=1024, le=67_108_864, description="Largest request body, bytes."
    )


class ArchiveSettings(Settings):
    """The archive of the prediction log."""

    model_config = SettingsConfigDict(env_prefix="MLPLATFORM_ARCHIVE_")

    root: str = Field(
        default="build/demo/data/predictions",
        min_length=1,
        description=(
            "Folder of the hourly Parquet partitions; monitoring and pipelines read it, so it is "
            "shared between pods."
        ),
    )
    every_seconds: float = Field(
        default=5, gt=0, le=3600, description="Pause between two files, in seconds."
    )
