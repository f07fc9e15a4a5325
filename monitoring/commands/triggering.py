"""The trigger: bringing about what it asks for, and what people tell it."""

import argparse
import sys
import threading
from typing import Final

from mlplatform.contracts.retrain import History
from mlplatform.errors import ServiceError, StaleError, shorten
from mlplatform.people import actor
from monitoring import orders
from monitoring.commands.desk import Desk
from monitoring.gain import gain
from monitoring.requests import notice
from monitoring.submit import Orchestrator, Submitter

PIPELINE: Final = "training"
"""Name of the pipeline that trains; monitoring knows it by name alone."""


def trigger(options: argparse.Namespace, stop: threading.Event) -> int:
    """Take the request in flight one step further, once or until `stop` is set."""
    desk = Desk(options.usecase)
    name, monitoring = desk.spec.name, desk.spec.monitoring
    submitter = Submitter(
        name,
        PIPELINE,
        desk.requests,
        _orchestrator(desk),
        lambda run: gain(desk.ledger, name, run),
        desk.ledger,
        desk.now,
    )
    said = ""
    while True:
        try:
            # Runs fall due and cooldowns end without a window.
            notice(
                desk.requests,
                desk.ledger,
                name,
                (),
                monitoring,
                desk.now(),
            )
            text = _said(submitter.tick())
        except (ServiceError, StaleError) as error:
            if options.once:
                raise
            text = f"{type(error).__name__}: {shorten(error)}; tried again"
        if text != said:
            sys.stdout.write(f"{name}: {text}\n")
            sys.stdout.flush()
            said = text
        if options.once or stop.wait(desk.settings.tick_seconds):
            return 0


def _orchestrator(desk: Desk) -> Orchestrator:
    """Return what runs pipelines here."""
    if desk.settings.orchestrator == "job":
        from mlplatform.clients.kubernetes import Cluster
        from mlplatform.clients.kubernetes_jobs import JobOrchestrator

        return JobOrchestrator(Cluster.connect(), desk.ledger)
    from mlplatform.clients.kubeflow import KubeflowOrchestrator
    from mlplatform.settings import KubeflowSettings

    return KubeflowOrchestrator(KubeflowSettings.load())


def ask(options: argparse.Namespace, stop: threading.Event) -> int:
    """Tell the trigger of something outside the data that a model must learn of."""
    del stop
    desk, who = Desk(options.usecase), actor(options.actor)
    _print(
        orders.ask(
            desk.requests,
            desk.ledger,
            desk.spec.name,
            desk.spec.monitoring,
            options.reason,
            who,
            desk.now(),
        )
    )
    return 0


def answer(options: argparse.Namespace, stop: threading.Event) -> int:
    """Approve or deny a request that waits for a person."""
    del stop
    desk = Desk(options.usecase)
    say = orders.approve if options.command == "approve" else orders.deny
    _print(
        say(
            desk.requests,
            desk.ledger,
            desk.spec.name,
            options.key,
            actor(options.actor),
            options.reason,
            desk.now(),
        )
    )
    return 0


def reset(options: argparse.Namespace, stop: threading.Event) -> int:
    """Let the trigger ask again after runs without gain."""
    del stop
    desk = Desk(options.usecase)
    name, who = desk.spec.name, actor(options.actor)
    _print(orders.reset(desk.requests, desk.ledger, name, who, options.reason, desk.now()))
    return 0


def _said(history: History | None) -> str:
    if history is None:
        return "no window has been judged yet"
    last = history.last
    if last is None:
        return "nothing is asked for"
    return f"request {last.request.key} is {last.phase}: {last.request.why}"


def _print(history: History) -> None:
    sys.stdout.write(f"{history.usecase}: {_said(history)}\n")
