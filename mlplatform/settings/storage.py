"""Where data and decisions are kept."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from mlplatform.settings.base import Settings


def _folder(value: str) -> str:
    if "://" in value:
        raise ValueError("must be a folder: landing and features are written to file systems only")
    return value.rstrip("/") or "/"


def _database_url(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    if not re.match(r"sqlite:///.|postgres(ql(\+psycopg)?)?://.", url):
        raise ValueError("must be sqlite:///path/to/file or postgresql://user:password@host/name")
    return value


class DataSettings(Settings):
    """Raw events, features and training sets."""

    model_config = SettingsConfigDict(env_prefix="MLPLATFORM_DATA_")

    root: Annotated[str, AfterValidator(_folder)] = Field(
        default="build/demo/data",
        min_length=1,
        description="Folder of raw tables, offline store and Feast registry; shared between pods.",
    )


class LedgerSettings(Settings):
    """The ledger of decisions."""

    model_config = SettingsConfigDict(env_prefix="MLPLATFORM_LEDGER_")

    url: Annotated[SecretStr, AfterValidator(_database_url)] = Field(
        default=SecretStr("sqlite:///build/demo/ledger.db"),
        description="Database: sqlite:///path/to/file or postgresql://user:password@host/name.",
    )
