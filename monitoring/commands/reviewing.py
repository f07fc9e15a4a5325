"""The review queue: what waits for a person, and what a person says of it."""

import argparse
import sys
import threading

from monitoring.commands.desk import Desk


def pending(options: argparse.Namespace, stop: threading.Event) -> int:
    """Print the decisions that wait, those that wait longest first."""
    del stop
    desk = Desk(options.usecase)
    found = desk.reviews.pending(desk.spec.name, options.limit)
    for item in found:
        sys.stdout.write(
            f"{item.request_id:28} {item.event_time:%Y-%m-%d %H:%M}  score {item.score:.3f}  "
            f"{'act' if item.decision else 'wait':4}  {item.reason:9}  version {item.version}\n"
        )
    sys.stdout.write(f"{len(found)} of {desk.reviews.waiting(desk.spec.name)} decisions\n")
    return 0


def answer(options: argparse.Namespace, stop: threading.Event) -> int:
    """Keep what a person says of a decision."""
    del stop
    desk = Desk(options.usecase)
    item = desk.reviews.answer(
        desk.spec.name,
        options.request,
        None if options.label == "none" else int(options.label),
        reviewer=options.reviewer,
        now=desk.now(),
        note=options.note,
        again=options.again,
    )
    sys.stdout.write(f"{item.request_id}: {options.label}, says {item.reviewer}\n")
    return 0
