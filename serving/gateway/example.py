"""An example of a request field: a value that passes the field's own check.

A text that matches a pattern is built by walking the pattern as Python's own parser reads it. It
refuses what has no simple example (look-around, back-references): then there is none.
"""

import importlib
import math
import re
from typing import Any, Final

from mlplatform.contracts.usecase.operation import RequestField
from serving.gateway.request import bounds, pattern

_parser: Final[Any] = importlib.import_module("re._parser")  # has no public name
_MOST: Final = 3
"""Of a part that may be repeated, unless it must be repeated more often."""
_NICE: Final = "A1a-_ "
"""Characters that are taken where a class allows many."""


def example(field: RequestField) -> Any:
    """Return a value of a field that is accepted; None if there is no simple one."""
    if field.type == "timestamp":
        return "2024-06-01T15:30:00Z"
    if field.type == "string":
        return _text(field)
    limits = bounds(field)
    low, high = limits or (0.0, 1.0)
    if field.type == "integer":
        return min(max(math.ceil(low), 100), math.floor(high))
    return min(max(low, 0.5), high)


def _text(field: RequestField) -> str | None:
    if field.values:
        return field.values[0]
    whole = pattern(field)
    if whole is None:
        return "example"
    try:
        text = _walk(_parser.parse(whole))
    except (ValueError, KeyError):
        return None
    return text if re.fullmatch(whole, text) else None


def _walk(parsed: Any) -> str:
    return "".join(_part(str(name), argument) for name, argument in parsed)


def _part(name: str, argument: Any) -> str:
    match name:
        case "LITERAL":
            return chr(argument)
        case "IN":
            return _member(argument)
        case "ANY" | "AT":
            return "x" if name == "ANY" else ""
        case "SUBPATTERN":
            return _walk(argument[-1])
        case "BRANCH":
            return _walk(argument[1][0])
        case "MAX_REPEAT" | "MIN_REPEAT":
            low, high, inner = argument
            return _walk(inner) * int(low or min(int(high), _MOST))
    raise ValueError(f"no simple example of {name}")


def _member(choices: Any) -> str:
    allowed: list[str] = []
    negated = str(choices[0][0]) == "NEGATE"
    for name, argument in choices:
        match str(name):
            case "LITERAL":
                allowed.append(re.escape(chr(argument)))
            case "RANGE":
                allowed.append(f"{re.escape(chr(argument[0]))}-{re.escape(chr(argument[1]))}")
            case "NEGATE":
                continue
            case _:
                raise ValueError("no simple example of this class")
    members: re.Pattern[str] = re.compile(f"[{'^' if negated else ''}{''.join(allowed)}]")
    candidates = _NICE + "".join(map(chr, range(33, 127)))
    return next(character for character in candidates if members.fullmatch(character))
