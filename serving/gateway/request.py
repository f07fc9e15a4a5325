"""Requests of one use case: checked while they are decoded, then laid out in columns.

The checks are compiled once from the spec's `serving.request` into a msgspec type, so that a valid
request costs a few microseconds and an invalid one is answered with the name of its field. It
refuses what it does not know: unknown fields, times without a zone, numbers that are none.
"""

import contextlib
import itertools
import math
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from mlplatform.contracts.usecase.operation import RequestField, Serving
from mlplatform.errors import SpecError
from serving.gateway.refusal import INVALID, NOT_JSON, RefusedError

Column = npt.NDArray[Any]

REQUEST_ID: Final = "request_id"
EVENT_TIME: Final = "event_timestamp"
_RESERVED: Final = (REQUEST_ID, EVENT_TIME)

LONGEST_ID: Final = 128
"""Characters of a request id: room for a UUID with a prefix of the caller's."""
LONGEST_STRING: Final = 256
"""Characters of a string; keys of entities are far shorter."""
WIDEST_INTEGER: Final = 2**53
"""Beyond it a JSON number is not exact everywhere (RFC 8259, section 6)."""
FIRST_YEAR: Final = 2000
LAST_YEAR: Final = 2099
"""Of all times, by their own offset: past events can be replayed, and seconds mistaken for
milliseconds are noticed."""

_MOMENT_WORDS: Final = f"an RFC 3339 time with its zone, of the years {FIRST_YEAR} to {LAST_YEAR}"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# msgspec's messages quote what came, unescaped, so nothing is searched in them: their beginnings
# and the path at their end are its own.
_PATH: Final = " - at `$"
_AT: Final = re.compile(r"(?:\[(\d+)\])?(?:\.(\w+))?`")
"""What follows: rows are flat, so the path of a value is its row and its field."""
_LONGEST_PATH: Final = 300
_NAMED: Final = {
    "Object missing required field `": "missing",
    "Object contains unknown field `": "unknown field",
}
_LONGEST_MESSAGE: Final = 200
"""Of what is repeated of msgspec's message, so that what was expected is still read after it."""


class Batch:
    """The rows of one request, by column; timestamps are microseconds since 1970, UTC."""

    __slots__ = ("event_us", "numbers", "request_ids", "rows", "single", "values")

    def __init__(
        self,
        request_ids: list[str],
        event_us: list[int],
        values: dict[str, list[Any]],
        *,
        single: bool,
        numbers: Sequence[int] | None = None,
    ) -> None:
        self.request_ids, self.event_us, self.values = request_ids, event_us, values
        self.rows = len(request_ids)
        self.numbers = range(self.rows) if numbers is None else numbers
        """Of its rows, in the request that they came with."""
        self.single = single
        """It came as one object, and is answered with one."""

    def part(self, rows: Sequence[int]) -> "Batch":
        """Return some of the rows."""
        return Batch(
            [self.request_ids[row] for row in rows],
            [self.event_us[row] for row in rows],
            {name: [column[row] for row in rows] for name, column in self.values.items()},
            single=False,
            numbers=rows,
        )

    def row(self, index: int) -> dict[str, Any]:
        """Return the fields of one row."""
        return {name: column[index] for name, column in self.values.items()}


class Requests:
    """The requests of one use case.

    Args:
        usecase: Its name, for messages.
        serving: What the spec says about its requests.

    Raises:
        SpecError: A field cannot be checked as declared.
    """

    def __init__(self, usecase: str, serving: Serving) -> None:
        if taken := [name for name in _RESERVED if name in serving.request]:
            raise SpecError(
                f"{usecase}: serving.request declares {', '.join(taken)}, which each request has "
                "anyway; rename the field"
            )
        self.fields: Mapping[str, RequestField] = dict(serving.request)
        self.max_rows = serving.max_rows
        try:
            self._row = msgspec.defstruct(
                "Row",
                [
                    *((name, *_type(field)) for name, field in self.fields.items()),
                    (EVENT_TIME, _MOMENT | None, None),
                    (REQUEST_ID, _ID | None, None),
                ],
                kw_only=True,
                forbid_unknown_fields=True,
                gc=False,  # holds no cycles; spares the collector a visit
            )
            many = Annotated[
                list[self._row],  # type: ignore[name-defined]  # made above
                msgspec.Meta(min_length=1, max_length=self.max_rows),
            ]
            self._decode = msgspec.json.Decoder(self._row | many).decode
        except (TypeError, ValueError, re.error) as error:
            raise SpecError(f"{usecase}: serving.request cannot be checked: {error}") from error
        self._names = tuple(self.fields)
        self._moments = tuple(n for n, field in self.fields.items() if field.type == "timestamp")
        self._integers = tuple(n for n, field in self.fields.items() if field.type == "integer")
        self._prefix = secrets.token_hex(8)
        self._numbers = itertools.count(1)

    def parse(self, body: bytes) -> Batch:
        """Return the rows in a JSON body: one object or an array of objects.

        Raises:
            RefusedError: The body is not JSON, or a field is wrong; names it and its row.
        """
        try:
            try:
                found = self._decode(body)
            except msgspec.ValidationError as error:
                with contextlib.suppress(msgspec.ValidationError):
                    msgspec.json.decode(body)  # what is broken further on is no JSON at all
                raise self._invalid(str(error), batch=body.lstrip()[:1] == b"[") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RefusedError(NOT_JSON, f"the body is not JSON in UTF-8: {error}") from None
        except RecursionError:
            raise RefusedError(NOT_JSON, "the body is nested too deeply") from None
        if isinstance(found, list):
            return self._batch(found, single=False)
        return self._batch([found], single=True)

    def convert(self, rows: list[dict[str, Any]]) -> Batch:
        """Return rows that came in another format; values as JSON has them, times as datetime too.

        Raises:
            RefusedError: A field is wrong; names it and its row.
        """
        try:
            found = msgspec.convert(rows, list[self._row])  # type: ignore[name-defined]
        except msgspec.ValidationError as error:
            raise self._invalid(str(error), batch=True) from None
        return self._batch(found, single=False)

    def column(self, batch: Batch, name: str) -> Column:
        """Return a field, or `event_timestamp`, as an array [N]; null is NaN, NaT or None."""
        if name == EVENT_TIME:
            return np.array(batch.event_us, "int64").view("datetime64[us]")
        values, field = batch.values[name], self.fields[name]
        if field.type == "timestamp":
            if field.optional:
                return np.array([_NAT if v is None else v for v in values]).view("datetime64[us]")
            return np.array(values, "int64").view("datetime64[us]")
        if field.type == "string":
            return np.array(values, "object")
        if field.type == "float" or field.optional:
            return np.array(values, "float64")  # None becomes NaN
        return np.array(values, "int64")

    def columns(self, batch: Batch) -> dict[str, Column]:
        """Return all fields and `event_timestamp` as arrays [N]."""
        return {name: self.column(batch, name) for name in (*self._names, EVENT_TIME)}

    def expected(self, name: str) -> str:
        """Return what a field must be, in words."""
        if name == EVENT_TIME:
            return _MOMENT_WORDS
        if name == REQUEST_ID:
            return f"a string of 1 to {LONGEST_ID} characters"
        field = self.fields.get(name)
        if field is None:
            return f"only {', '.join((*self._names, *_RESERVED))}"
        return _words(field)

    def _batch(self, found: list[Any], *, single: bool) -> Batch:
        *columns, moments, ids = zip(*map(msgspec.structs.astuple, found), strict=True)
        values: dict[str, list[Any]] = dict(zip(self._names, map(list, columns), strict=True))
        for name in self._moments:
            values[name] = self._microseconds(name, values[name], single=single)
        for name in self._integers:
            values[name] = [v if v is None else int(v) for v in values[name]]
        now = time.time_ns() // 1000
        event_us = self._microseconds(EVENT_TIME, moments, single=single)
        return Batch(
            [f"{self._prefix}-{next(self._numbers)}" if v is None else v for v in ids],
            [now if v is None else v for v in event_us],
            values,
            single=single,
        )

    def _microseconds(
        self, name: str, moments: Sequence[datetime | None], *, single: bool
    ) -> list[int | None]:
        found: list[int | None] = []
        for row, moment in enumerate(moments):
            if moment is None:
                found.append(None)
                continue
            if not FIRST_YEAR <= moment.year <= LAST_YEAR:
                raise RefusedError(
                    INVALID,
                    f"{name}: {moment.isoformat()}; expected {self.expected(name)}",
                    field=name,
                    row=None if single else row,
                )
            since = moment - _EPOCH
            found.append((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)
        return found

    def _invalid(self, message: str, *, batch: bool) -> RefusedError:
        """Return the refusal for msgspec's message, which ends with the path of the value.

        Only the whole of a single object has no path: what looks like one after the name of a
        field that it lacks, or that we do not know, is part of that name.
        """
        what = next((what for start, what in _NAMED.items() if message.startswith(start)), None)
        row, name = None, None
        if what is None or batch:
            start = message.rfind(_PATH, max(len(message) - _LONGEST_PATH, 0))
            if start >= 0 and (at := _AT.fullmatch(message, start + len(_PATH))):
                row = None if at[1] is None else int(at[1])
                name = at[2]
                message = message[:start]
        if what is not None:
            name = message.partition("`")[2][:-1][:LONGEST_STRING]
            return RefusedError(
                INVALID, f"{name}: {what}; expected {self.expected(name)}", field=name, row=row
            )
        message = message[:_LONGEST_MESSAGE]
        if name is not None:
            message = f"{name}: {message}; expected {self.expected(name)}"
        elif "length" in message:
            message = f"{message}: a batch has 1 to {self.max_rows} rows"
        return RefusedError(INVALID, message, field=name, row=row)


_NAT: Final = np.iinfo(np.int64).min
"""NaT as numpy stores it."""
_MOMENT: Final = Annotated[datetime, msgspec.Meta(tz=True)]
_ID: Final = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_ID)]


def pattern(field: RequestField) -> str | None:
    """Return the pattern of a string field, in the common subset of Python's and ECMA's dialect.

    Python takes classes of digits and letters for those of all scripts; keys are ASCII.
    """
    if field.pattern is None:
        return None
    inside = False

    def plain(found: re.Match[str]) -> str:
        nonlocal inside
        text = found[0]
        if text in "[]":
            inside = text == "["
        return _CLASSES.get(text, text) if inside else _SETS.get(text, text)

    return f"^(?:{_PARTS.sub(plain, field.pattern)})$"


_PARTS: Final = re.compile(r"\\.|[\[\]]")
_CLASSES: Final = {r"\d": "0-9", r"\w": "0-9A-Za-z_"}
_SETS: Final = {name: f"[{members}]" for name, members in _CLASSES.items()}


def bounds(field: RequestField) -> tuple[float, float] | None:
    """Return the smallest and largest value of a number; None: any finite one."""
    if field.type == "integer":
        low = -WIDEST_INTEGER if field.min is None else field.min
        return low, WIDEST_INTEGER if field.max is None else field.max
    if field.min is None and field.max is None:
        return None
    widest = float(np.finfo(np.float64).max)
    return -widest if field.min is None else field.min, widest if field.max is None else field.max


def _type(field: RequestField) -> tuple[Any, ...]:
    """Return the msgspec type of a field, and its default if it is optional."""
    found: Any
    if field.type == "timestamp":
        found = _MOMENT
    elif field.type == "string" and field.values:
        found = Literal[field.values]
    elif field.type == "string":
        whole = pattern(field)
        found = Annotated[
            str,
            # `$` would accept a line feed at the end.
            msgspec.Meta(
                pattern=None if whole is None else whole.removesuffix("$") + r"\Z",
                max_length=LONGEST_STRING,
            ),
        ]
    elif field.type == "integer":
        low, high = bounds(field) or (0, 0)
        low, high = math.ceil(low), math.floor(high)
        # In JSON 7.0 is an integer too.
        found = (
            Annotated[int, msgspec.Meta(ge=low, le=high)]
            | Annotated[float, msgspec.Meta(ge=float(low), le=float(high), multiple_of=1.0)]
        )
    elif limits := bounds(field):
        found = Annotated[float, msgspec.Meta(ge=limits[0], le=limits[1])]
    else:
        found = float
    return (found | None, None) if field.optional else (found,)


def _words(field: RequestField) -> str:
    if field.type == "timestamp":
        what = _MOMENT_WORDS
    elif field.values:
        what = f"one of {', '.join(field.values)}"
    elif field.type == "string":
        shape = f" like {field.pattern}" if field.pattern else ""
        what = f"a string{shape} of at most {LONGEST_STRING} characters"
    else:
        what = "an integer" if field.type == "integer" else "a number"
        if limits := bounds(field):
            what += f" from {limits[0]:.17g} to {limits[1]:.17g}"
    return f"{what}, or null" if field.optional else what
