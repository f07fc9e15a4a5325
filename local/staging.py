"""The parts of the loop, put together for one machine; a cluster's jobs put together the same."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from feature_repo import ingest
from feature_repo import layout as layouts
from feature_repo import store as stores
from feature_repo.catalog import UseCaseCode
from feature_repo.labels import labels_of
from local.alert_lines import AlertLines
from local.followed import Followed
from local.live_traffic import LiveTraffic
from local.loop import Parts
from local.orchestrator import LocalOrchestrator
from local.pages import Pages
from local.progress import Progress
from local.serving import Serving
from local.workspace import Workspace
from mlplatform.ledger import Ledger
from mlplatform.reviews import ReviewStore
from monitoring import champion
from monitoring.champion import Watched
from monitoring.gain import gain
from monitoring.monitor import Monitor
from monitoring.outbox import Outbox
from monitoring.requests import RequestStore
from monitoring.rounds import Rounds
from monitoring.submit import Submitter
from pipelines.training import NAME as TRAINING


def parts(
    workspace: Workspace,
    code: UseCaseCode,
    running: Serving,
    traffic: LiveTraffic,
    followed: Followed,
    pages: Pages,
    progress: Progress,
) -> Callable[[Callable[[], datetime]], Parts]:
    """Return what makes the parts of the loop, given what tells the time."""
    name, url = code.spec.name, workspace.ledger_url
    ledger, requests = Ledger(url), RequestStore(url)
    store = stores.open_store(str(workspace.data))

    def watched(version: int) -> Watched:
        return champion.load(running.registry, name, version, workspace.keys[1], workspace.watched)

    def history(until: datetime) -> Any:
        ingest.extend(name, store, str(workspace.data), until)
        return store

    def made(now: Callable[[], datetime]) -> Parts:
        told = AlertLines(progress)
        orchestrator = LocalOrchestrator(workspace, progress, running.registry_url)
        rounds = Rounds(
            spec=code.spec,
            archive=workspace.predictions,
            monitor=Monitor(
                code, layouts.load(name), workspace.predictions, workspace.monitoring,
                labels_of(code), ledger, watched, history, detect=pages.detect,
            ),
            requests=requests,
            ledger=ledger,
            reviews=ReviewStore(url),
            outbox=Outbox(url, {"console": told}),
        )  # fmt: skip
        return Parts(
            usecase=name,
            traffic=traffic,
            rounds=rounds,
            requests=requests,
            submitter=Submitter(
                name, TRAINING, requests, orchestrator, lambda run: gain(ledger, name, run),
                ledger, now,
            ),
            registry=running.registry,
            rollouts=running.rollouts,
            followed=followed,
            told=told,
            ledger=ledger,
        )  # fmt: skip

    return made
