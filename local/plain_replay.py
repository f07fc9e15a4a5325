"""Live traffic without the story: served, logged, and compared with the offline join."""

from datetime import datetime, timedelta

from rich.console import Console

from feature_repo import ingest
from feature_repo import layout as layouts
from feature_repo import store as stores
from feature_repo.catalog import UseCaseCode
from local.audited import audited
from local.live_traffic import LiveTraffic
from local.progress import Progress
from local.replayed import Replayed, outcome
from local.serving import serving
from local.workspace import Workspace
from mlplatform.contracts import Window
from monitoring import past
from monitoring.skew import audit


def replay_only(
    console: Console,
    progress: Progress,
    workspace: Workspace,
    code: UseCaseCode,
    start: datetime,
    *,
    days: float,
    per_second: float,
) -> Replayed:
    """Serve the champion with the features known at `start` and replay what came after.

    Raises:
        PlatformError: A server did not start, or the replaying process failed.
    """
    end = start + timedelta(days=days)
    data = str(workspace.data)  # training may have looked from earlier
    ingest.extend(code.spec.name, stores.open_store(data), data, start)
    with serving(workspace, code, start, progress.say) as running:
        progress.say("replay", f"{days:g} days of live traffic at {per_second:g} requests/s")
        with LiveTraffic(
            console, workspace, running, start, end, per_second, code.spec.serving.latency_ms
        ) as traffic:
            traffic.until(end)
            ledger, archived = traffic.ledger(), traffic.archived()
    progress.say("replay", f"{ledger.height:,} sent, {archived.height:,} rows in the archive")
    store = past.history(code.spec.name, workspace.replay / "offline")(end)
    report = audit(code, layouts.load(code.spec.name), store, archived)
    progress.say("audit", report.reason)
    compared = audited([report])
    window = Window(start=start, end=end)
    return outcome(code, running.model.version, window, per_second, ledger, archived, compared)
