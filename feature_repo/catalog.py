"""Finding a use case by its name: the spec, its sources and its features.

The one place where a name becomes code. Stages receive the result and never import
`usecases.<name>` themselves, so that a new use case is a new folder and nothing else.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import usecases
from mlplatform import spec as specs
from mlplatform.contracts import UseCase
from mlplatform.errors import SpecError

Raw = Mapping[str, pl.DataFrame]
"""Raw events by table name, with the columns that the spec declares."""


@dataclass(frozen=True)
class UseCaseCode:
    """What a use case's folder provides."""

    spec: UseCase
    folder: Path
    tables: tuple[str, ...]
    read: Callable[[datetime, datetime], dict[str, pl.DataFrame]]
    labels: Callable[[Raw], pl.DataFrame]
    batch: Mapping[str, Callable[[Raw], pl.DataFrame]]
    request: Callable[[Mapping[str, "np.ndarray[Any, Any]"]], dict[str, "np.ndarray[Any, Any]"]]
    request_inputs: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]


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


def _folder(name: str) -> Path:
    for root in usecases.__path__:
        if name.isidentifier() and (Path(root) / name / "usecase.yaml").is_file():
            return Path(root) / name
    raise SpecError(
        f"there is no use case {name!r}: found {', '.join(names()) or 'none'}; "
        f"a use case is a folder usecases/<name>/ with a usecase.yaml"
    )
