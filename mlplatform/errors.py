"""The platform's errors, one tree.

    PlatformError
    ├── SpecError            usecase.yaml is wrong: says the line, the value and what to do
    ├── SettingsError        a setting is missing, malformed or still a placeholder
    ├── DataError            input data is refused: a validation rule, a schema, a time column
    ├── LeakError            a feature could not have been known when the prediction was made
    ├── ModelError           a model is refused: wrong outputs, format, digest or signature
    ├── RolloutError         a rollout cannot do what was asked of it in its phase
    ├── ServiceError         a service (MLflow, KFP, Redis, PostgreSQL) failed or is out of reach
    │   └── NotFoundError    the service answered: no such object
    ├── StaleError           another writer was faster: what was decided on is no longer so
    └── LedgerError          the ledger's chain of hashes is broken

A class exists only where somebody catches it. Messages say what happened, to which object,
and what to do next. Adapters in `mlplatform.clients` raise these `from` the vendor's own
exception, so no vendor exception crosses a stage.
"""

from typing import Final

_TEXT_LIMIT: Final = 500
"""Characters of foreign text in a message: enough to recognise, too short to leak a payload."""


class PlatformError(Exception):
    """Base of all errors that the platform raises on purpose."""


class SpecError(PlatformError):
    """A use case's specification is wrong or contradicts itself."""


class SettingsError(PlatformError):
    """A setting is missing, malformed, or a secret still at its placeholder."""


class DataError(PlatformError):
    """Input data is refused."""


class LeakError(DataError):
    """A feature could not have been known at the time of the prediction."""


class ModelError(PlatformError):
    """A model is refused: its outputs, format, digest or signature are wrong."""


class RolloutError(PlatformError):
    """A rollout cannot do what was asked of it in the phase that it is in."""


class ServiceError(PlatformError):
    """A service that the platform depends on failed or cannot be reached."""


class NotFoundError(ServiceError):
    """The service answered that the object does not exist."""


class StaleError(PlatformError):
    """Another writer was faster: what this one decided on is no longer so, and it decides again."""


class LedgerError(PlatformError):
    """The ledger's chain of hashes is broken: a row was edited, removed or reordered."""


def shorten(text: object) -> str:
    """Return `text` as one line of at most 500 characters, for use in messages."""
    line = " ".join(str(text).split())
    return line if len(line) <= _TEXT_LIMIT else line[: _TEXT_LIMIT - 1] + "…"
