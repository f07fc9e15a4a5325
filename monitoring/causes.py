"""Why one feature's served values differ from those that the same rows and inputs give offline.

The rules go from the specific to the general: a declared default or a lost value, a narrower type,
a clock off by a constant, and only then another transform. Each rule is a statement about numbers
that a reader can check on the example that the report gives.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlplatform.contracts.skew import SkewCause

Array = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]
Request = Callable[[Mapping[str, Array]], dict[str, Array]]

SHIFTS_HOURS: Final = tuple(
    hours for quarters in range(1, 57) for hours in (quarters / 4, -quarters / 4)
)
"""Offsets of time zones from UTC reach from -12 to +14 hours in quarters of an hour."""

_ROUNDED: Final = 4 * float(np.finfo(np.float32).eps)
"""Relative difference that rounding to float32 twice, in any order, can leave."""
_HALF: Final = float(np.finfo(np.float16).eps)
_MOST: Final = 0.95
"""Share of a feature's differing rows that one clock shift must explain."""
_CUT_ROWS: Final = 3
"""Rows that must all be cut to integers, before it is called a type and no chance."""
_NEAR: Final = 1e-5
"""Relative difference that other arithmetic in float32 can leave: far less than a quarter hour."""
_ON_LINE: Final = 1e-4
"""Relative distance from a line that is none: far above float32's rounding."""
_SAMPLE: Final = 500
"""Differing rows on which clock shifts are tried."""


def of_values(served: Array, expected: Array, default: float | None) -> list[SkewCause]:
    """Return the cause of each differing pair of one feature, [N].

    Args:
        served: What the model was given, float32 [N].
        expected: What the same rows and inputs give, float32 [N]; nowhere the same.
        default: The value that the spec declares for the feature, if it does.
    """
    causes = np.full(len(served), "transform", dtype=object)
    one, other = served.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        size = np.maximum(np.abs(one), np.abs(other))
        causes[np.abs(one - other) <= _ROUNDED * size] = "type"
        if _narrower(one, other, size):
            causes[:] = "type"
    filled = np.isnan(one)
    if default is not None:
        filled |= served == np.float32(default)
    numbers = one[np.isnan(other) & ~np.isnan(one)]
    if len(numbers) and (numbers == numbers[0]).all():
        filled |= np.isnan(other)
    causes[filled] = "default_fill"
    return list(causes)


def _narrower(one: Array, other: Array, size: Array) -> bool:
    """Return whether all values were cut to integers, or rounded to half precision."""
    if len(one) < _CUT_ROWS or not (np.isfinite(one) & np.isfinite(other)).all():
        return False
    cut = (one == np.trunc(other)) | (one == np.rint(other))
    with np.errstate(over="ignore"):  # beyond half precision it is infinite, and not equal
        half = (np.abs(one - other) <= _HALF * size) & (one == one.astype(np.float16))
    return bool(cut.all() or half.all())


def clock_shift(
    request: Request, inputs: Mapping[str, Array], served: Array, feature: str
) -> tuple[str, float] | None:
    """Return which time of a request, moved by how many hours, gives the served values.

    The request-time features are computed again with each of their times moved by each offset that
    time zones have; what explains nearly all differing rows is the answer, None if nothing does.

    Args:
        request: The use case's request-time features.
        inputs: What it reads, for the differing rows, [N].
        served: The feature's served values, [N].
        feature: Its name.
    """
    rows = slice(None, None, max(1, len(served) // _SAMPLE))
    few = {name: values[rows] for name, values in inputs.items()}
    values = served[rows]
    tried = [
        (
            np.isclose(found, values, rtol=_NEAR, atol=0).mean(),
            hours.is_integer(),
            -abs(hours),
            name,
            hours,
        )
        for name, moments in few.items()
        if moments.dtype.kind == "M"
        for hours in SHIFTS_HOURS
        if (found := request({**few, name: _moved(moments, hours)}).get(feature)) is not None
    ]
    share, _, _, name, hours = max(tried, default=(0.0, False, 0.0, "", 0.0))
    return (name, hours) if share >= _MOST else None


def _moved(moments: Array, hours: float) -> Array:
    return moments + np.timedelta64(round(hours * 3600), "s")


def depends(
    request: Request, inputs: Mapping[str, Array], names: Sequence[str], feature: str
) -> bool:
    """Return whether a request-time feature changes with some of its inputs.

    It is computed on one row, once with these inputs missing and once with made-up ones.
    """
    one = {name: values[:1] for name, values in inputs.items()}
    missing, probe = dict(one), dict(one)
    for name in names:
        if one[name].dtype.kind == "M":
            missing[name] = np.array(["NaT"], dtype="datetime64[us]")
            probe[name] = np.array(["2001-01-01T01:23:45"], dtype="datetime64[us]")
        else:
            missing[name], probe[name] = np.array([np.nan]), np.array([1.0])
    without, with_them = request(missing).get(feature), request(probe).get(feature)
    return not np.array_equal(without, with_them, equal_nan=True)  # type: ignore[arg-type]


def relation(served: Array, expected: Array) -> str:
    """Return how served values follow from the expected ones, if by a line; else nothing.

    A wrong unit is a factor, a wrong zero a difference; both together are a line.
    """
    one, other = served.astype(np.float64), expected.astype(np.float64)
    both = np.isfinite(one) & np.isfinite(other)
    one, other = one[both], other[both]
    if len(np.unique(other)) < _CUT_ROWS:
        return ""
    centred = other - other.mean()
    slope = float(centred @ (one - one.mean()) / (centred @ centred))
    start = float(one.mean() - slope * other.mean())
    scale = max(float(np.abs(one).max()), float(np.abs(other).max()))
    if np.abs(one - (slope * other + start)).max() > _ON_LINE * scale:
        return ""
    factor = "" if abs(slope - 1) < _ON_LINE else f"{slope:.4g} * "
    sign = "+" if start > 0 else "-"
    offset = "" if abs(start) < _ON_LINE * scale else f" {sign} {abs(start):.4g}"
    return f"served = {factor}offline{offset}"
