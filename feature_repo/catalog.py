"""Finding a use case by its name: the spec, its sources and its features.

The one place where a name becomes code. Stages receive the result and never import
`usecases.<name>` themselves, so that a new use case is a new folder and nothing else.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import usecases
from mlplatform import spec as specs
from mlplatform.contracts import UseCase
from mlplatform.errors import SpecError

if TYPE_CHECKING:  # the gateway finds its use cases here and loads no data frames
    import numpy as np
    import polars as pl

Raw = Mapping[str, "pl.DataFrame"]
"""Raw events by table name, with the columns that the spec declares."""

Columns = Mapping[str, "np.ndarray[Any, Any]"]
"""Columns of equal length by name."""


@dataclass(frozen=True)
class UseCaseCode:
    """What a use case's folder provides."""

    spec: UseCase
    folder: Path
    tables: tuple[str, ...]
    read: Callable[[datetime, datetime], dict[str, "pl.DataFrame"]]
    labels: Callable[[Raw], "pl.DataFrame"]
    batch: Mapping[str, Callable[[Raw], "pl.DataFrame"]]
    request: Callable[[Columns], dict[str, "np.ndarray[Any, Any]"]]
    request_inputs: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class ServingCode:
    """What a use case's folder provides to the gateway: numpy only, no Feast, no data frames."""

    spec: UseCase
    request: Callable[[Columns], dict[str, "np.ndarray[Any, Any]"]]
    request_inputs: tuple[str, ...]
    rules: Callable[[Columns], "np.ndarray[Any, Any]"]
    """Scores [N] in [0, 1] from the fields of the requests, when no model answers in time.

    Where they raise, or answer anything else, every row's score is 0, the decision is not to act,
    and `rules_failed` is among the reasons.
    """


def names() -> tuple[str, ...]:
    """Return the names of all use cases: the folders that hold a `usecase.yaml`."""
    roots = [Path(root) for root in usecases.__path__]
    return tuple(sorted(path.parent.name for root in roots for path in root.glob("*/usecase.yaml")))


def spec(name: str) -> UseCase:
    """Return the spec of use case `name` without importing its code.

    Raises:
        SpecError: no such use case, or its spec is wrong.
    """
    return specs.load(_folder(name) / "usecase.yaml")


def load(name: str) -> UseCaseCode:
    """Return the use case `name`.

    Raises:
        SpecError: no such use case, its spec is wrong, or its modules lack a part.
    """
    folder = _folder(name)
    sources = importlib.import_module(f"usecases.{name}.sources")
    features = importlib.import_module(f"usecases.{name}.features")
    try:
        return UseCaseCode(
            spec=spec(name),
            folder=folder,
            tables=sources.TABLES,
            read=sources.read,
            labels=sources.labels,
            batch=features.BATCH,
            request=features.request,
            request_inputs=tuple(features.REQUEST_INPUTS),
            groups=features.GROUPS,
        )
    except AttributeError as error:
        raise SpecError(
            f"usecases/{name} is incomplete: {error}; docs/customize.md lists what it provides"
        ) from error


def load_serving(name: str) -> ServingCode:
    """Return what the gateway needs of the use case `name`; loads no Feast and no data frames.

    Raises:
        SpecError: no such use case, its spec is wrong, it takes no live requests, or its modules
            lack a part.
    """
    found = spec(name)
    if not found.serving.request:
        raise SpecError(
            f"use case {name} takes no live requests: declare their fields under serving.request "
            f"in usecases/{name}/usecase.yaml"
        )
    try:
        request = importlib.import_module(f"usecases.{name}.request")
        rules = importlib.import_module(f"usecases.{name}.rules")
        return ServingCode(found, request.request, tuple(request.REQUEST_INPUTS), rules.score)
    except (ImportError, AttributeError) as error:
        raise SpecError(
            f"usecases/{name} cannot be served: {error}; docs/customize.md lists what it provides"
        ) from error


def _folder(name: str) -> Path:
    for root in usecases.__path__:
        if name.isidentifier() and (Path(root) / name / "usecase.yaml").is_file():
            return Path(root) / name
    raise SpecError(
        f"there is no use case {name!r}: found {', '.join(names()) or 'none'}; "
        f"a use case is a folder usecases/<name>/ with a usecase.yaml"
    )
