"""How a concern is read from the environment, and what is refused.

Only real environment variables count: no dotenv file, no secrets folder, so that what a process
runs with can be read from its environment. An empty variable counts as unset. A variable that
nearly has the name of a setting is refused, because its setting would silently keep its default;
other unknown ones are let through: Kubernetes adds variables named after services.
"""

import difflib
import os
import re
from typing import Any, Final, Self

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as MalformedJsonError

from mlplatform.errors import SettingsError, shorten

PLACEHOLDER: Final = "changeme"
"""Stands where a secret belongs; accepted in the environment `local` only."""

_ALIKE: Final = 0.75
"""Similarity from which a name counts as a typo: two letters swapped in a name of four."""

_OF_A_SERVICE: Final = re.compile(r"(.*_)?(SERVICE_HOST|SERVICE_PORT|PORT)(_.*)?")
"""Endings of the variables that Kubernetes adds for each service; never taken for typos."""


class Settings(BaseSettings):
    """Base of all concerns; subclasses set their prefix."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_ignore_empty=True,
        hide_input_in_errors=True,  # a chained exception must not show a secret
        allow_inf_nan=False,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments, then the environment; nothing else."""
        del settings_cls, dotenv_settings, file_secret_settings
        return init_settings, env_settings

    @classmethod
    def load(cls) -> Self:
        """Return this concern's settings from the environment.

        Raises:
            SettingsError: A variable is malformed or misspelt, or a secret is still at its
                placeholder outside the environment `local`. Names all such variables.
        """
        cls._refuse_typos()
        try:
            settings = cls()
        except MalformedJsonError as error:
            raise SettingsError(cls._malformed_json(str(error))) from error
        except ValidationError as error:
            lines = [
                cls._explain(item["loc"], item["input"], item["msg"]) for item in error.errors()
            ]
            raise SettingsError("\n".join(lines)) from error
        settings._refuse_placeholders()
        return settings

    @classmethod
    def variable(cls, field: str) -> str:
        """Return the name of the environment variable that sets `field`."""
        return f"{cls.model_config['env_prefix']}{field}".upper()

    @classmethod
    def is_secret(cls, field: str) -> bool:
        """Return whether the value of `field` is hidden from messages and logs."""
        return cls.model_fields[field].annotation is SecretStr

    @classmethod
    def _explain(cls, location: tuple[int | str, ...], value: object, message: str) -> str:
        name = str(location[0])
        shown = "(hidden)" if cls.is_secret(name) else repr(_without_userinfo(str(value)))
        what = message.removeprefix("Value error, ").replace("Input should", "must")
        meaning = cls.model_fields[name].description
        return f"{cls.variable(name)} is {shorten(shown)}: {what}. Its meaning: {meaning}"

    @classmethod
    def _malformed_json(cls, message: str) -> str:
        found = re.search(r'field "(\w+)"', message)
        name = found.group(1) if found else next(iter(cls.model_fields))
        value = os.environ.get(cls.variable(name), "")
        return cls._explain((name,), value, "must be JSON, for example {}")

    @classmethod
    def _refuse_typos(cls) -> None:
        prefix = str(cls.model_config["env_prefix"])
        known = {cls.variable(field).removeprefix(prefix) for field in cls.model_fields}
        for name in sorted(os.environ):
            rest = name.upper().removeprefix(prefix)
            if rest == name.upper() or rest in known or _OF_A_SERVICE.fullmatch(rest):
                continue
            if near := difflib.get_close_matches(rest, known, n=1, cutoff=_ALIKE):
                raise SettingsError(
                    f"{name} is no setting; did you mean {prefix}{near[0]}? "
                    "Rename the variable, or remove it"
                )

    def _refuse_placeholders(self) -> None:
        from mlplatform.settings.platform import PlatformSettings

        secrets = [field for field in type(self).model_fields if self.is_secret(field)]
        left = [
            self.variable(field)
            for field in secrets
            if PLACEHOLDER in getattr(self, field).get_secret_value()
        ]
        if not left:
            return
        environment = PlatformSettings.load().environment
        if environment != "local":
            raise SettingsError(
                f"{', '.join(left)} is still at the placeholder {PLACEHOLDER!r} in the "
                f"environment {environment!r}: set it to the real secret; "
                "placeholders are accepted only where MLPLATFORM_ENVIRONMENT is local"
            )


def http_url(value: str) -> str:
    """Return `value` if it is an http(s) address without a user name or password."""
    if not re.fullmatch(r"https?://[^/@\s]+(/[^@\s]*)?", value):
        raise ValueError(
            "must be an address like https://host:port; credentials have their own variables"
        )
    return value.rstrip("/")


def _without_userinfo(value: str) -> str:
    return re.sub(r"//[^/\s]*@", "//(hidden)@", value)


def defaults(concern: type[Settings]) -> dict[str, Any]:
    """Return the promised default of each setting of a concern, secrets in clear."""
    values = {name: field.get_default() for name, field in concern.model_fields.items()}
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in values.items()
    }
