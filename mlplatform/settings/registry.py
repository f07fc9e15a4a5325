"""The model registry and the keys that sign what goes into it."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from mlplatform.settings.base import PLACEHOLDER, Settings, http_url


class RegistrySettings(Settings):
    """The MLflow server."""

    model_config = SettingsConfigDict(env_prefix="MLPLATFORM_REGISTRY_")

    tracking_uri: Annotated[str, AfterValidator(http_url)] = Field(
        default="http://127.0.0.1:5000", description="Address of the MLflow server, http or https."
    )
    username: str = Field(
        default="mlplatform", min_length=1, description="User that runs and models belong to."
    )
    password: SecretStr = Field(
        default=SecretStr(PLACEHOLDER), description="Password of that user."
    )
    timeout_seconds: float = Field(
        default=30, gt=0, le=600, description="Longest wait for one answer, in seconds."
    )


class SigningSettings(Settings):
    """The EC key pair; the private key is needed only where models are registered."""

    model_config = SettingsConfigDict(env_prefix="MLPLATFORM_SIGNING_")

    private_key: Path = Field(
        default=Path("build/demo/keys/signing.pem"),
        description="File of the private key, PEM; read by registration only.",
    )
    public_key: Path = Field(
        default=Path("build/demo/keys/signing.pub.pem"),
        description="File of the public key, PEM; read by whoever verifies a model.",
    )
