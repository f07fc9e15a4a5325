"""Whether the data of a window are whole: what is broken in a feed must never be trained on.

It looks at how requests arrived, whether they and their vectors are those of the model, whether the
feature views move, and whether values were measured at all. A fault is named once, by what is
nearest to its origin: features of a view that stopped are not called constant besides.

It is slow to call a fault. What is odd but may be the world (twice as many nulls, the first day of
summer) is left to the comparison of distributions. The answers of requests whose features were not
read say nothing of a feed: they are left out of what is said of values, and where most are so, the
window tells nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import numpy as np
import polars as pl

from feature_repo.profile.calibration import TIME
from feature_repo.profile.reference import Reference
from mlplatform.contracts import OnlineLayout, UseCase, Window
from mlplatform.contracts.watch import DataFault, Wholeness
from monitoring import arrivals, units, values
from monitoring.arrivals import MIN_WINDOWS, Times, microseconds
from monitoring.feeds import Reads, stale
from monitoring.served import UNREAD, says
from monitoring.values import MIN_ROWS, Matrix, Stretch

_WRONG: Final = 0.01
"""Share of rows with a wrong form that are an accident."""
_UNREAD: Final = 0.5
"""Share of answers without features that leaves nothing to judge."""

COLUMNS: Final = (
    "request_id", "event_time", "entity", "request", "arm", "service", "features", "feature_times",
    "reasons",
)  # fmt: skip
"""Columns of the archive (`feature_repo.predictions`) that are read here."""

Parts = dict[int, tuple[Stretch, Matrix]]


def check(
    spec: UseCase,
    layout: OnlineLayout,
    reference: Reference,
    rows: pl.DataFrame,
    window: Window,
    before: pl.DataFrame | None,
) -> Wholeness:
    """Return whether the data of a window are whole, and if not, each thing that is broken.

    Args:
        spec: The use case.
        layout: Of the feature service of the model that answered.
        reference: Of that model.
        rows: `COLUMNS` of the archive: the window's answers, without those of a shadow.
        window: Which one it is.
        before: The same of the window before; None: there was none.
    """
    rows = rows.sort("event_time", "request_id")
    found = [
        *arrivals.faults(reference, rows, window),
        *(_Judge(spec, layout, reference, window).faults(rows, before) if rows.height else ()),
    ]
    unread = int(_unread(rows).sum())
    windows = reference.profile.windows
    verdict: Literal["whole", "fault", "inconclusive"]
    if found:
        first = found[0]
        verdict = "fault"
        reason = f"{first.kind} of {first.subject}: {first.why}"
        if len(found) > 1:
            reason += f"; and {len(found) - 1} more"
    elif rows.height < MIN_ROWS:
        verdict = "inconclusive"
        reason = f"{rows.height:,} rows are too few to judge values: {MIN_ROWS} are needed"
    elif unread > _UNREAD * rows.height:
        verdict = "inconclusive"
        reason = (
            f"infrastructure: in {unread:,} of {rows.height:,} answers the features were not read "
            f"({', '.join(UNREAD)})"
        )
    elif windows < MIN_WINDOWS:
        verdict = "inconclusive"
        reason = f"the reference holds {windows} windows, and {MIN_WINDOWS} say what is usual"
    else:
        verdict, reason = "whole", f"nothing is broken in {rows.height:,} rows"
        if unread:
            reason += f"; in {unread:,} more the features were not read"
    return Wholeness(
        window=window,
        rows=rows.height,
        verdict=verdict,
        reason=reason,
        faults=tuple(found),
    )


@dataclass(frozen=True)
class _Readable:
    """Answers whose vector is one of the model's, in the order of time."""

    at: Times
    vectors: Matrix
    reads: Reads


class _Judge:
    """Looks at requests, vectors and views of one window."""

    def __init__(
        self, spec: UseCase, layout: OnlineLayout, reference: Reference, window: Window
    ) -> None:
        self._spec, self._layout = spec, layout
        self._names = reference.profile.features
        self._start = round(window.start.timestamp() * 1_000_000)
        self._length = round((window.end - window.start).total_seconds() * 1_000_000)
        self._times = microseconds(reference.rows[TIME])
        self._rows = _floats(reference.rows, self._names)

    def faults(self, rows: pl.DataFrame, before: pl.DataFrame | None) -> Iterator[DataFault]:
        """Yield what is broken in rows that are there, each thing once."""
        yield from self._forms(rows)
        mine = self._readable(rows)
        if not len(mine.at):
            return
        infinite = tuple(self._infinite(mine.vectors))
        yield from infinite
        earlier = None if before is None else self._readable(before.sort("event_time"))
        past = values.known(self._times, self._rows, self._length)
        stopped = tuple(
            stale(
                self._layout.views,
                self._names,
                mine.reads,
                None if earlier is None else earlier.reads,
                past,
                (self._start, self._length),
            )
        )
        yield from stopped
        views = {one.subject for one in stopped}
        told = {one.subject for one in infinite}
        for view in self._layout.views:
            told |= {field.name for field in view.fields if view.name in views}
        found = self._parts(mine, self._start)
        stretches = {place: stretch for place, (stretch, _) in found.items()}
        for one in (
            *values.missing(self._names, stretches, past),
            *values.constants(self._names, stretches, past, self._spec.serving.defaults),
        ):
            if one.subject not in told:
                yield one
                told.add(one.subject)
        _, first = np.unique(self._times // self._length, return_index=True)
        yield from units.converted(
            {place: name for place, name in enumerate(self._names) if name not in told},
            found,
            {} if earlier is None else self._parts(earlier, self._start - self._length),
            past,
            np.split(self._rows, first[1:]),
        )

    def _forms(self, rows: pl.DataFrame) -> Iterator[DataFault]:
        """Yield the ways in which requests and vectors are not those of the model."""
        ours = rows.filter(pl.col("features").list.len() > 0, arm="champion")
        wide, views = len(self._names), len(self._layout.views)
        wrong = {
            f"the feature service is not {self._layout.service}": (
                ours["service"] != self._layout.service
            ),
            f"the vector has not {wide} values": ours["features"].list.len() != wide,
            f"times are not those of {views} feature views": (
                ours["feature_times"].list.len() != views
            ),
            "the request is not one of the use case": _unreadable(rows["request"], self._spec),
        }
        for why, marks in wrong.items():
            share = float(marks.mean() or 0.0)  # type: ignore[arg-type]  # of booleans
            if share > _WRONG:
                told = f"{why} in {share:.1%} of {len(marks):,} rows"
                yield DataFault(kind="schema", subject="requests", why=told)

    def _infinite(self, vectors: Matrix) -> Iterator[DataFault]:
        shares = np.isinf(vectors).mean(axis=0)
        for place in np.flatnonzero(shares > _WRONG):
            if not np.isinf(self._rows[:, place]).any():
                why = f"{shares[place]:.1%} of {len(vectors):,} rows are infinite, none before"
                yield DataFault(kind="schema", subject=self._names[place], why=why)

    def _readable(self, rows: pl.DataFrame) -> _Readable:
        wide, views = len(self._names), len(self._layout.views)
        kept = rows.filter(
            ~_unread(rows),
            pl.col("features").list.len() == wide,
            pl.col("feature_times").list.len() == views,
            service=self._layout.service,
        )
        vectors = kept["features"].explode().fill_null(float("nan")).to_numpy()
        times = kept["feature_times"].explode().dt.epoch("us").fill_null(0).to_numpy()
        at = microseconds(kept["event_time"])
        return _Readable(
            at=at,
            vectors=vectors.astype(np.float32).reshape(kept.height, wide),
            reads=Reads(at, times.reshape(kept.height, views)),
        )

    def _parts(self, rows: _Readable, start: int) -> Parts:
        parts = values.stretches(rows.at, rows.vectors, start, self._length)
        return {place: (values.describe(part), part) for place, part in parts.items()}


def _unread(rows: pl.DataFrame) -> pl.Series:
    """Return which answers were given without the features."""
    return rows.select(says(UNREAD)).to_series()


def _unreadable(requests: pl.Series, spec: UseCase) -> pl.Series:
    """Return which requests are no JSON objects with the fields that the use case must have."""
    needed = {name for name, field in spec.serving.request.items() if not field.optional}
    decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

    def wrong(text: str | None) -> bool:
        try:
            return not needed <= decode(text or "").keys()
        except msgspec.DecodeError:
            return True

    return pl.Series([wrong(text) for text in requests.to_list()], dtype=pl.Boolean)


def _floats(rows: pl.DataFrame, names: Sequence[str]) -> Matrix:
    """Return columns as [N, F], NaN where there is no value."""
    return rows.select(pl.col(names).cast(pl.Float32).fill_null(float("nan"))).to_numpy()
