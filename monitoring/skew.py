"""Which features serving saw differently from training, and why: an audit of the prediction log.

Values are compared bit by bit as float32, what a model is given. Where they differ, the times of
the rows are asked first: a value that the online store should have held is wrong because of its row
(`stale`, `late_data`, `time_shift`); only one that no row explains is wrong because of its making
(`default_fill`, `type`, `time_shift`, `transform`). Answers that said themselves that their
features were not read are `default_fill`; they are degraded, not skewed, and do not decide.

It refuses to call an audit clean that compared nothing, or for which the history ends too early.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_repo.catalog import UseCaseCode
from mlplatform.contracts import OnlineLayout, OnlineView, Window
from mlplatform.contracts.skew import FeatureSkew, SkewCause, SkewReport, ViewSkew
from monitoring import causes, step
from monitoring.replay import Replay, replay, same
from monitoring.served import UNREAD, says

_OPEN: Final = ""
"""In place of a cause that is not known yet."""

Flags = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.intp]
"""Numbers of rows, [R]."""


def audit(code: UseCaseCode, layout: OnlineLayout, store: Any, logged: pl.DataFrame) -> SkewReport:
    """Replay logged requests through the point-in-time join and report what differs.

    Args:
        code: The use case.
        layout: Of its feature service (`feature_repo.layout.load`).
        store: From `feature_repo.store.open_store`; its history must reach the last request.
        logged: `monitoring.replay.COLUMNS` of the prediction log.

    Raises:
        DataError: A request lacks a join key, or a join does not return each row once.
        ServiceError: The store does not know a view of the layout.
    """
    return report(code, layout, replay(code, layout, store, logged))


def report(code: UseCaseCode, layout: OnlineLayout, found: Replay) -> SkewReport:
    """Return what differs in replayed requests, by feature and by view."""
    views = layout.views
    shifts = step.shifts(found, views)
    in_step = tuple(
        step.judge(found, view, number, shifts.get(view.name)) for number, view in enumerate(views)
    )
    wrong = ~same(found.served, found.offline)
    unread = _says(found.rows, UNREAD)
    why = _Why(code, views, found, shifts)
    features = [
        why.feature(int(place), np.flatnonzero(wrong[:, place]), unread)
        for place in np.flatnonzero(wrong.any(axis=0))
    ]
    features.sort(key=lambda item: (-item.mismatched, item.feature))
    verdict, reason = _verdict(found, unread, features, in_step)
    return SkewReport(
        usecase=code.spec.name,
        window=_window(found.rows),
        rows=found.rows.height,
        mismatched_rows=int(wrong.any(axis=1).sum()),
        announced_rows=int((wrong.any(axis=1) & unread).sum()),
        left_out=found.left_out,
        features=tuple(features),
        views=in_step,
        verdict=verdict,
        reason=reason,
    )


class _Why:
    """Finds the cause of each difference."""

    def __init__(
        self,
        code: UseCaseCode,
        views: Sequence[OnlineView],
        found: Replay,
        shifts: Mapping[str, float],
    ) -> None:
        self._code, self._views, self._found, self._shifts = code, views, found, shifts
        self._held = same(found.served, found.held)
        self._older = [step.older(found, view, number) for number, view in enumerate(views)]
        self._newer = [step.newer(found, view, number) for number, view in enumerate(views)]
        names = {field.name: n for n, view in enumerate(views) for field in view.fields}
        self._filled = [_says(found.rows, [f"stale:{view.name}"]) for view in views]
        self._view_of = [names.get(name) for name in found.features]
        self._inputs = {name: names[name] for name in code.request_inputs if name in names}

    def feature(self, place: int, rows: Rows, unread: Flags) -> FeatureSkew:
        """Return what is known of one feature that differs in some rows."""
        name, number = self._found.features[place], self._view_of[place]
        causes_of = self._by_times(place, number, rows)
        causes_of[unread[rows]] = "default_fill"
        said = self._by_values(name, number, place, rows, causes_of)
        counts: Counter[SkewCause] = Counter(causes_of.tolist())
        return FeatureSkew(
            feature=name,
            view="" if number is None else self._views[number].name,
            rows=self._found.rows.height,
            mismatched=len(rows),
            announced=int(unread[rows].sum()),
            causes=dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
            detail="; ".join(filter(None, [said, self._example(place, int(rows[0]))])),
        )

    def _by_times(self, place: int, number: int | None, rows: Rows) -> npt.NDArray[Any]:
        """Return the causes where a row of another time explains the value, else `_OPEN`, [R]."""
        found = np.full(len(rows), _OPEN, dtype=object)
        explained = self._held[rows, place]
        name = self._found.features[place]
        for view in self._views_behind(name) if number is None else [number]:
            older, newer = self._older[view][rows], self._newer[view][rows]
            # Where the history lacks the row, its value is not known: the times must do.
            lacks = (self._found.online_us[rows, view] > 0) & ~self._found.found[rows, view]
            filled = self._filled[view][rows] & (number is not None)
            hit = (older | newer) & (explained | lacks | filled) & (found == _OPEN)
            if self._views[view].name in self._shifts:
                found[hit] = "time_shift"
            else:
                found[hit & older], found[hit & newer] = "stale", "late_data"
        # Same times, and the newest version of that row: a correction became known later.
        found[explained & (found == _OPEN)] = "late_data"
        return found

    def _views_behind(self, feature: str) -> list[int]:
        """Return the views whose rows a request-time feature is computed from."""
        return [
            view
            for view in sorted(set(self._inputs.values()))
            if causes.depends(
                self._code.request,
                self._found.inputs,
                [name for name, of in self._inputs.items() if of == view],
                feature,
            )
        ]

    def _by_values(
        self,
        name: str,
        number: int | None,
        place: int,
        rows: Rows,
        causes_of: npt.NDArray[Any],
    ) -> str:
        """Fill in the causes of values that no row explains; return what is known of them."""
        open_ = np.flatnonzero(causes_of == _OPEN)
        if not len(open_):
            return ""
        default = self._code.spec.serving.defaults.get(name)
        served, held = (m[rows[open_], place] for m in (self._found.served, self._found.held))
        causes_of[open_] = causes.of_values(served, held, default)
        other = causes_of[open_] == "transform"
        if not other.any():
            return ""
        if number is None:
            some = rows[open_[other]]
            inputs = {key: values[some] for key, values in self._found.inputs.items()}
            shift = causes.clock_shift(self._code.request, inputs, served[other], name)
            if shift is not None:
                causes_of[open_[other]] = "time_shift"
                return f"as if {shift[0]} were {shift[1]:+g} h"
        return causes.relation(served[other], held[other])

    def _example(self, place: int, row: int) -> str:
        served, offline = self._found.served[row, place], self._found.offline[row, place]
        request, at = self._found.rows["request_id"][row], self._found.rows["event_time"][row]
        return f"{request} at {at:%Y-%m-%d %H:%M}: served {served:.7g}, offline {offline:.7g}"


def _says(rows: pl.DataFrame, reasons: Sequence[str]) -> Flags:
    """Return which answers name one of the reasons, [N]."""
    return rows.select(says(reasons)).to_series().to_numpy()


def _window(rows: pl.DataFrame) -> Window | None:
    if rows.is_empty():
        return None
    first, last = rows["event_time"][0], rows["event_time"][-1]
    return Window(start=first, end=last + timedelta(microseconds=1))


def _verdict(
    found: Replay, unread: Flags, features: Sequence[FeatureSkew], views: Sequence[ViewSkew]
) -> tuple[Literal["skew", "no_skew", "inconclusive"], str]:
    read = found.rows.height - int(unread.sum())
    left = ", ".join(f"{count:,} {reason}" for reason, count in found.left_out.items())
    if not read:
        return "inconclusive", f"no row with a vector that was read; left out: {left or 'none'}"
    behind = [view for view in views if view.finding == "history_behind"]
    proven = [item for item in features if _silent(item, trust_late=not behind)]
    off = [view for view in views if view.finding == "time_shift"]
    if proven or off:
        told = [
            f"{item.feature} {100 * item.rate:.3g} % {item.cause.replace('_', ' ')}"
            for item in proven[:5]
        ]
        told += [f"{view.view}: {view.detail}" for view in off]
        return "skew", f"of {found.rows.height:,} rows: {'; '.join(told)}"
    if behind:
        return "inconclusive", "; ".join(f"{view.view}: {view.detail}" for view in behind)
    return "no_skew", f"{read:,} vectors equal the point-in-time join"


def _silent(item: FeatureSkew, *, trust_late: bool) -> bool:
    """Return whether rows differ for another reason than that they said so themselves."""
    late = 0 if trust_late else item.causes.get("late_data", 0)
    return item.mismatched - item.announced - late > 0
