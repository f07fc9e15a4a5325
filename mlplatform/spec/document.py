"""A YAML file as plain values, with the line of each and what is wrong with it as YAML."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from mlplatform.errors import shorten

_VALUE_LIMIT: Final = 80
"""Characters of a value in a message: enough to recognise it."""

_DEPTH_LIMIT: Final = 30
"""Levels of nesting; a spec has eight. More is an anchor that holds itself."""

_NODE_LIMIT: Final = 20_000
"""Values in a file; a spec has some hundreds. More is an expansion of anchors."""

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """Something wrong in the file, in the form in which it is shown."""

    line: int
    at: str
    value: str | None
    message: str

    def __str__(self) -> str:
        """Return `LINE: dotted.path: value VALUE: message`."""
        value = "no value" if self.value is None else f"value {self.value}"
        return f"{self.line}: {self.at or 'the file'}: {value}: {self.message}"


@dataclass(frozen=True)
class Document:
    """The values of a file; `content` is None when it could not be read as a mapping."""

    content: dict[str, Any] | None
    lines: Mapping[Path, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def json(self) -> str:
        """Return the content as JSON text, NaN and infinities included, to be refused by name."""
        return json.dumps(self.content)

    def line(self, path: Path) -> int:
        """Return the line of the value at `path`, or of the nearest one around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def problem(self, path: Path, message: str, *, value: str | None = None) -> Problem:
        """Return a problem at `path`, with the value there unless another one is given."""
        return Problem(
            self.line(path), ".".join(map(str, path)), value or self._show(path), message
        )

    def _show(self, path: Path) -> str | None:
        value: Any = self.content
        for part in path:
            inside = part in value if isinstance(value, dict) else isinstance(value, list)
            if not inside:
                return None
            value = value[part]
        return show(value)


def show(value: object) -> str:
    """Return a value as it looks in a message."""
    text = shorten(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= _VALUE_LIMIT else text[: _VALUE_LIMIT - 1] + "…"


def parse(text: str) -> Document:
    """Read YAML 1.2 text; what is wrong with it as YAML is in the document's problems."""
    try:
        root = YAML(typ="safe", pure=True).compose(text)
    except YAMLError as error:
        return Document(None, problems=(_syntax(error),))
    if not isinstance(root, MappingNode):
        message = "a spec is a mapping; start with a line like `name: my_usecase`"
        return Document(None, problems=(Problem(1, "", None, message),))
    lines: dict[Path, int] = {(): 1}
    found: list[Problem] = []
    for count, item in enumerate(_walk(root, ()), start=1):
        if isinstance(item, Problem):
            found.append(item)
        else:
            lines.setdefault(item[0], item[1])
        if count > _NODE_LIMIT or (isinstance(item, tuple) and len(item[0]) > _DEPTH_LIMIT):
            message = "anchors make this file larger than any spec; write the values out"
            return Document(None, problems=(*found, Problem(1, "", None, message)))
    reader = YAML(typ="safe", pure=True)
    reader.allow_duplicate_keys = True  # all of them are in `found`
    try:
        content = reader.load(text)
    except YAMLError as error:
        return Document(None, problems=(*found, _syntax(error)))
    except ValueError as error:  # a scalar that looks like a date, and is none
        if not found:
            found = [Problem(1, "", None, f"a value cannot be read ({shorten(error)}); quote it")]
        return Document(None, problems=tuple(found))
    return Document(_plain(content), lines, tuple(found))


def _walk(node: Node, path: Path) -> Iterator[tuple[Path, int] | Problem]:
    """Yield the line of each value below `node`, and a problem for each that JSON cannot say."""
    dotted = ".".join(map(str, path))
    if isinstance(node, MappingNode):
        seen: dict[object, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode) or _kind(key) not in {"str", "merge"}:
                shown = key.value if isinstance(key, ScalarNode) else "…"
                yield Problem(line, dotted, shown, "a key must be text; quote it")
                continue
            at = (*path, key.value)
            if key.value in seen:
                message = f"the key appears on line {seen[key.value]} too; remove one of the two"
                shown = value.value if isinstance(value, ScalarNode) else "…"
                yield Problem(line, ".".join(map(str, at)), shown, message)
            seen[key.value] = line
            yield at, line
            yield from _walk(value, at)
    elif isinstance(node, SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, index), value.start_mark.line + 1
            yield from _walk(value, (*path, index))
    elif (kind := _kind(node)) not in {"str", "int", "float", "bool", "null"}:
        line = node.start_mark.line + 1
        yield Problem(line, dotted, node.value, f"YAML reads this as a {kind}; put it in quotes")


def _kind(node: Node) -> str:
    """Return the last word of a node's tag: str, int or timestamp."""
    return str(node.tag).rpartition(":")[2]


def _plain(value: Any) -> Any:
    """Return the value with JSON's types only; what this changes was reported before."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _syntax(error: YAMLError) -> Problem:
    line, what = 1, shorten(error)
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        what = shorten(", ".join(part for part in (error.context, error.problem) if part))
    return Problem(line, "", None, f"this is not YAML: {what}; look for indentation and quotes")
