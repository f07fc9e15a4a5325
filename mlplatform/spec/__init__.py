"""Reads a use case's `usecase.yaml` and refuses it with everything that is wrong, by line.

The contract `UseCase` knows what a spec must hold; this package knows where in the file a value
stands. A wrong spec is one `SpecError` that lists all problems, since nobody likes to find them
one run at a time. Values are taken as they stand: "5" is text and never becomes a number.
"""

import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mlplatform import canonical
from mlplatform.contracts import UseCase
from mlplatform.errors import SpecError
from mlplatform.spec.document import Problem, parse
from mlplatform.spec.problems import problems

__all__ = ["digest", "load", "schema"]


def load(path: Path) -> UseCase:
    """Return the use case that the file at `path` specifies.

    Raises:
        SpecError: The file cannot be read, is no YAML, or breaks the contract. The message has
            one line for each problem:
            `path/usecase.yaml:LINE: dotted.path: value VALUE: what is wrong; what to do`.
    """
    document = parse(_read(path))
    found = list(document.problems)
    spec: UseCase | None = None
    if document.content is not None:
        try:
            spec = UseCase.model_validate_json(document.json(), strict=True)
        except ValidationError as error:
            found += problems(error, document)
        found += _folder_problem(path, document.content.get("name"), document.line(("name",)))
    if spec is None or found:
        lines = [
            f"{path}:{item}" for item in sorted(dict.fromkeys(found), key=lambda item: item.line)
        ]
        count = f"{len(lines)} problem{'s' if len(lines) > 1 else ''}"
        raise SpecError("\n".join([f"{path} is refused, {count}:", *lines]))
    return spec


def digest(spec: UseCase) -> str:
    """Return the SHA-256 of the spec's values: comments, order and layout do not count."""
    return canonical.sha256(canonical.dumps(spec.model_dump(mode="json")))


def schema() -> dict[str, Any]:
    """Return the JSON Schema of `usecase.yaml`, for editors; it cannot say the contradictions."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | UseCase.model_json_schema()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from error
    except OSError as error:
        raise SpecError(
            f"{path} cannot be read: {os.strerror(error.errno or 0)}; a use case is a folder "
            "with a file usecase.yaml"
        ) from error


def _folder_problem(path: Path, name: object, line: int) -> list[Problem]:
    folder = path.resolve().parent.name
    if not isinstance(name, str) or name == folder:
        return []
    message = f"the folder is named {folder}; rename one of the two so that they are equal"
    return [Problem(line, "name", f'"{name}"', message)]
