"""What the contract refuses, said to the person who wrote the file."""

import difflib
import json
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from mlplatform.contracts import UseCase
from mlplatform.contracts.usecase.contradictions import contradictions
from mlplatform.spec.document import Document, Path, Problem, show

_ADVICE: Final = {
    "greater_than": "raise it",
    "greater_than_equal": "raise it",
    "less_than": "lower it",
    "less_than_equal": "lower it",
    "finite_number": "write a number",
    "float_type": "write a number without quotes",
    "int_type": "write a whole number without quotes",
    "string_type": "write text, in quotes if it looks like a number",
    "bool_type": "write true or false",
    "tuple_type": "write a list: [a, b]",
    "dict_type": "write a mapping: {key: value}",
    "model_type": "write a mapping: {key: value}",
    "too_short": "add to it",
    "too_long": "shorten it",
    "string_too_short": "fill it in",
    "string_pattern_mismatch": "rename it",
}
"""What to do, by pydantic's type of error."""


def problems(error: ValidationError, document: Document) -> Iterator[Problem]:
    """Yield a problem for each place that `error` speaks of, and all contradictions."""
    details = error.errors(include_url=False)
    wrong = {item["loc"][0] for item in details if item["loc"]}
    yield from _field_problems(details, document)
    content = document.content or {}
    sections = {
        name: _section(field.annotation, content[name])
        for name, field in UseCase.model_fields.items()
        if name in content and name not in wrong
    }
    for path, message in contradictions(sections):
        yield document.problem(path, message)


def _section(kind: Any, content: Any) -> object:
    return TypeAdapter(kind).validate_json(json.dumps(content), strict=True)


def _field_problems(details: list[ErrorDetails], document: Document) -> Iterator[Problem]:
    """Yield one problem for each place; the members of a union answer with one voice."""
    places: dict[Path, list[str]] = {}
    values: dict[Path, str] = {}
    for item in details:
        if item["type"] == "contradiction" or _counts_only_valid_items(item):
            continue
        path, message = _locate(item, document.content), _message(item)
        if item["loc"][-1] == "[key]":
            values[path] = show(path[-1])
        if item["type"] == "union_tag_invalid":
            path = (*path, item["ctx"]["discriminator"].strip("'"))
        places.setdefault(path, []).append(message)
    for path, messages in places.items():
        whats, advice = zip(*(message.partition("; ")[::2] for message in messages), strict=True)
        what = " or ".join(dict.fromkeys(whats)).replace(" or must be", " or")
        todo = advice[0] if len(advice) == 1 else "write one of them"
        yield document.problem(path, f"{what}; {todo}", value=values.get(path))


def _counts_only_valid_items(item: ErrorDetails) -> bool:
    """Say whether a list is too short only because its wrong items were not counted."""
    return item["type"] == "too_short" and len(item["input"]) >= item["ctx"]["min_length"]


def _locate(item: ErrorDetails, content: Any) -> Path:
    """Return the path in the file: pydantic's location without the names of union members."""
    path: list[str | int] = []
    for position, part in enumerate(item["loc"], start=1):
        inside = isinstance(content, dict) and part in content
        if inside or (isinstance(content, list) and isinstance(part, int)):
            content = content[part]
            path.append(part)
        elif position == len(item["loc"]) and item["type"] in {"missing", "extra_forbidden"}:
            path.append(part)
    return tuple(path)


def _message(item: ErrorDetails) -> str:
    """Return `what is wrong; what to do`."""
    kind, context = item["type"], item.get("ctx", {})
    if kind == "missing":
        node = _describe(item["loc"])
        text = (_resolve(node) | node).get("description", "see usecase.schema.json")
        return f"the key is missing; add it: {text}"
    if kind == "extra_forbidden":
        known = list(_resolve(_describe(item["loc"][:-1])).get("properties", {}))
        hint = _hint(item["loc"][-1], known) or f"remove it: the keys here are {', '.join(known)}"
        return f"there is no such key; {hint}"
    if kind == "literal_error":
        hint = _hint(item["input"], context["expected"].replace(" or ", ", ").split(", "))
        return f"must be {context['expected']}; {hint or 'choose one'}"
    if kind == "union_tag_invalid":
        hint = _hint(context["tag"], context["expected_tags"].split(", "))
        return f"must be one of {context['expected_tags']}; {hint or 'choose one'}"
    text = item["msg"].replace("Input should", "must").replace("Tuple should", "must")
    text = text.replace("String should", "must").replace("Dictionary should", "must")
    return text if "; " in text else f"{text}; {_ADVICE.get(kind, 'correct it')}"


def _hint(wrong: object, known: list[str]) -> str:
    names = [name.strip("'") for name in known]
    near = difflib.get_close_matches(str(wrong), names, n=1)
    return f"did you mean {near[0]}?" if near else ""


def _describe(location: Path) -> dict[str, Any]:
    """Return the JSON Schema of the value at pydantic's `location`; empty when there is none."""
    node: dict[str, Any] = _schema()
    for part in location:
        node = _resolve(node)
        if "oneOf" in node:
            mapping = node.get("discriminator", {}).get("mapping", {})
            node = {"$ref": mapping.get(part, f"#/$defs/{part}")}
        elif isinstance(part, int):
            node = node.get("items", {})
        else:
            node = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
    return node


def _resolve(node: dict[str, Any]) -> dict[str, Any]:
    name = node.get("$ref", "").rpartition("/")[2]
    return _schema()["$defs"].get(name, {}) if name else node


@cache
def _schema() -> dict[str, Any]:
    return UseCase.model_json_schema()
