"""What passes from step to step: a folder with a contract in JSON and the files that it names.

A step's folder is mounted at another path in the next step's pod, so contracts are written with
paths relative to their folder and read back with absolute ones.
"""

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from mlplatform.contracts import Candidate, Contract, TrainingSet
from mlplatform.errors import DataError, shorten

C = TypeVar("C", bound=Contract)


def write(folder: Path, name: str, value: Contract | tuple[Contract, ...]) -> None:
    """Write `value` as `<folder>/<name>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    adapter: TypeAdapter[Contract | tuple[Contract, ...]] = TypeAdapter(type(value))
    if isinstance(value, tuple):
        text = b"[" + b",\n".join(item.model_dump_json().encode() for item in value) + b"]"
    else:
        text = adapter.dump_json(value, indent=1)
    (folder / f"{name}.json").write_bytes(text)


def read(folder: Path, name: str, kind: type[C]) -> C:
    """Return the contract in `<folder>/<name>.json`.

    Raises:
        DataError: the file is missing or does not hold such a contract.
    """
    return _parse(folder, name, TypeAdapter(kind))


def read_all(folder: Path, name: str, kind: type[C]) -> tuple[C, ...]:
    """Return the contracts in `<folder>/<name>.json`; errors as in `read`."""
    adapter: TypeAdapter[tuple[C, ...]] = TypeAdapter(tuple[kind, ...])  # type: ignore[valid-type]
    return _parse(folder, name, adapter)


def write_training_set(folder: Path, value: TrainingSet) -> None:
    """Write the contract of a training set whose file lies in `folder`."""
    write(folder, "training_set", value.model_copy(update={"path": Path(value.path.name)}))


def read_training_set(folder: Path) -> TrainingSet:
    """Return the training set in `folder`, its path absolute."""
    value = read(folder, "training_set", TrainingSet)
    return value.model_copy(update={"path": folder / value.path})


def write_candidates(folder: Path, values: tuple[Candidate, ...]) -> None:
    """Write the contracts of candidates whose files lie below `folder`."""
    relative = tuple(
        value.model_copy(update={"path": value.path.relative_to(folder)}) for value in values
    )
    write(folder, "candidates", relative)


def read_candidates(folder: Path) -> tuple[Candidate, ...]:
    """Return the candidates in `folder`, their paths absolute."""
    values = read_all(folder, "candidates", Candidate)
    return tuple(value.model_copy(update={"path": folder / value.path}) for value in values)


V = TypeVar("V")


def _parse(folder: Path, name: str, adapter: "TypeAdapter[V]") -> V:
    path = folder / f"{name}.json"
    try:
        return adapter.validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: did the step that writes it run?") from error
    except ValidationError as error:
        raise DataError(f"{path} does not hold what its name says: {shorten(error)}") from error
