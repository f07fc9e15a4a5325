"""Speaking to one MLflow server: settings for each call, its exceptions turned into ours."""

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final

from mlplatform.errors import NotFoundError, ServiceError, shorten
from mlplatform.settings import RegistrySettings

_RETRIES: Final = 2
"""Retries of one request, a second apart or less: a restart is survived, an absence is told."""

_ENVIRONMENT: Final = threading.RLock()
"""MLflow reads credentials and timeouts from the process environment, at each request."""


class Connection:
    """One MLflow server."""

    def __init__(self, settings: RegistrySettings) -> None:
        self._settings = settings
        self.address = settings.tracking_uri.rstrip("/")

    def client(self, mlflow: Any) -> Any:
        """Return MLflow's client of this server."""
        return mlflow.MlflowClient(tracking_uri=self.address, registry_uri=self.address)

    @contextlib.contextmanager
    def calling(self, doing: str) -> Iterator[Any]:
        """Give MLflow its settings for one call and turn its exceptions into ours.

        Args:
            doing: What the call is for, at the start of the message when it fails.

        Raises:
            NotFoundError: MLflow has no such object.
            ServiceError: The server failed or cannot be reached.
        """
        with _ENVIRONMENT, _environment(self._variables()):
            mlflow = _load()
            try:
                yield mlflow
            except mlflow.MlflowException as error:
                if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}:
                    raise NotFoundError(
                        f"{doing}: MLflow at {self.address} has no such object "
                        f"({shorten(error.message)}); check the name and the version"
                    ) from error
                raise ServiceError(self._advice(doing, error)) from error
            except OSError as error:  # requests' exceptions are of this type too
                raise ServiceError(self._advice(doing, error)) from error

    def _advice(self, doing: str, error: Exception) -> str:
        return (
            f"{doing} failed: {shorten(error)}. Is the MLflow server at {self.address} running, "
            "and do the user and password fit?"
        )

    def _variables(self) -> dict[str, str | None]:
        password = self._settings.password
        seconds = str(max(1, round(self._settings.timeout_seconds)))
        return {
            "MLFLOW_TRACKING_USERNAME": self._settings.username,
            "MLFLOW_TRACKING_PASSWORD": password.get_secret_value(),
            "MLFLOW_HTTP_REQUEST_TIMEOUT": seconds,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(_RETRIES),
            "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
            "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0.5",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        }


def _load() -> Any:
    """Import MLflow with its telemetry off, which it reads when it is imported."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    with quiet_import():
        import mlflow.artifacts

    return mlflow


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Leave out what MLflow's modules say about themselves when they are first imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    _put(variables)
    try:
        yield
    finally:
        _put(before)


def _put(variables: Mapping[str, str | None]) -> None:
    """Change what `os.environ` says, which is what MLflow reads, and not the C library's copy.

    To write that one while another thread reads it, as Polars' own threads do, ends the process:
    setenv(3) and getenv(3) have no lock. A child does not get these variables either.
    """
    known: dict[bytes, bytes] = vars(os.environ)["_data"]
    for name, value in variables.items():
        if value is None:
            known.pop(os.fsencode(name), None)
        else:
            known[os.fsencode(name)] = os.fsencode(value)
