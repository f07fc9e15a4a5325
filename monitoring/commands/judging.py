"""Judging the windows that are due, and what is known of them."""

import argparse
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Final

from feature_repo import predictions
from mlplatform.contracts import Window
from mlplatform.contracts.watch import WindowReport
from mlplatform.errors import DataError
from monitoring import kept, windows
from monitoring.commands.desk import Desk
from monitoring.standing import standing

_GRACE: Final = timedelta(minutes=5)
"""After a window's end: the archiver files rows within seconds, and gateways that were cut off
from it within minutes. A row that comes later still counts when the window is judged again."""
_SHOWN: Final = 14
"""Windows in the status."""


def judge(options: argparse.Namespace, stop: threading.Event) -> int:
    """Judge the window that was named, or all that are due, until `stop` is set."""
    desk = Desk(options.usecase, audit=options.audit)
    now = desk.now()
    desk.outbox.announce(desk.spec.name, ())  # what a channel did not take before
    wanted = _due(desk, now) if options.window is None else (_named(desk, options.window),)
    if not wanted:
        sys.stdout.write(f"{desk.spec.name}: no window is due\n")
    for window in wanted:
        if stop.is_set():
            break
        report, _ = desk.rounds.go(window, now)
        _print(report)
    return 0


def status(options: argparse.Namespace, stop: threading.Event) -> int:
    """Print the newest windows, and what the trigger knows and waits for."""
    del stop
    desk = Desk(options.usecase)
    for report in kept.newest(desk.settings.root, desk.spec.name, _SHOWN):
        _print(report)
    waiting = desk.reviews.waiting(desk.spec.name)
    stored = desk.requests.read(desk.spec.name)
    history = None if stored is None else stored.history
    told = standing(history, desk.spec.monitoring, desk.now())
    for name, text in (*told, ("review", f"{waiting} decisions wait for a person")):
        sys.stdout.write(f"{name:13} {text}\n")
    return 0


def _due(desk: Desk, now: datetime) -> tuple[Window, ...]:
    """Return the windows that nobody has judged, also where a person has judged a later one."""
    judged = kept.judged(desk.settings.root, desk.spec.name)
    if judged:
        since = judged[0].start
    else:
        times = predictions.read(desk.archive, desk.spec.name, columns=["event_time"])
        first = times["event_time"].min()
        since = first if isinstance(first, datetime) else now
    hours, most = desk.spec.monitoring.window_hours, desk.settings.most_windows
    return tuple(
        window
        for window in windows.due(hours, since, now - _GRACE, most)
        # Not `in`: the spec's length may have changed, and no hour is judged twice.
        if not any(one.start < window.end and window.start < one.end for one in judged)
    )


def _named(desk: Desk, text: str) -> Window:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise DataError(
            f"--window {text}: write a time like 2013-05-30 or 2013-05-30T06:00Z"
        ) from error
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    window = windows.holding(desk.spec.monitoring.window_hours, moment)
    if window.start != moment:
        raise DataError(
            f"--window {text}: no window of {desk.spec.name} begins then; the one that holds this "
            f"time begins at {window.start.isoformat()}"
        )
    return window


def _print(report: WindowReport) -> None:
    """Print a window: one line for each finding, and one for a layer in trouble."""
    for found in report.findings:
        blamed = f" ({', '.join(found.blamed[:3])})" if found.blamed else ""
        sys.stdout.write(
            f"{found.window.start:%Y-%m-%d %H:%M}  {found.watch:11} {found.cause}{blamed}  "
            f"{found.why}\n"
        )
    for layer in report.layers:
        wrong = "; ".join(f"{vital.name}: {vital.why}" for vital in layer.vitals if not vital.ok)
        if wrong:
            sys.stdout.write(f"{'':16}  {layer.layer}: {wrong}\n")
