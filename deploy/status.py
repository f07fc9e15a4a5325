"""`make status`: how the platform is now, from the objects of its namespace alone."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from deploy.first_model import ended
from deploy.helm import Helm, Release
from deploy.namespaces import PART_OF, PLATFORM
from deploy.platform_clock import clock_shift
from deploy.target import RELEASE, Target
from deploy.waiting import lines
from deploy.workloads import COMPONENT, Look, look
from mlplatform.clients.kubernetes import (
    CRON_JOBS,
    JOBS,
    MODEL_ROLLOUTS,
    Cluster,
    Object,
)
from mlplatform.errors import NotFoundError

_TRAINING: Final = "training"
_MOST_RUNS: Final = 5
"""Newest ones that are shown."""


def show(console: Console, target: Target) -> bool:
    """Print how the platform is; return whether all of it is ready.

    Raises:
        ServiceError: The API server is away.
    """
    cluster = Cluster.connect(target.namespace, target.context)
    release = Helm(target).current()
    if release is None:
        console.print(f"there is no platform in {target.namespace} of {target.context}")
        console.print("`make deploy` installs it")
        return False
    found, now = look(cluster), datetime.now(UTC)
    jobs = cluster.list(JOBS, {PART_OF: PLATFORM})
    console.print(
        Group(
            _head(target, release, clock_shift(cluster) or 0, now),
            _workloads(found),
            Text(),
            _rollouts(_known(cluster)),
            Text(),
            _scheduled(cluster.list(CRON_JOBS, {PART_OF: PLATFORM}), now),
            Text(),
            _runs([job for job in jobs if _component(job) == _TRAINING], now),
            Text("\n`make ui` opens its pages, `make doctor` looks closer."),
        )
    )
    return all(workload.well for workload in found.workloads)


def _known(cluster: Cluster) -> list[Object]:
    try:
        return cluster.list(MODEL_ROLLOUTS)
    except NotFoundError:
        return []


def _component(body: Object) -> str:
    return str((body["metadata"].get("labels") or {}).get(COMPONENT, ""))


def _head(target: Target, release: Release, shift: int, now: datetime) -> Text:
    text = Text.assemble(
        (RELEASE, "bold"),
        f" in {target.namespace} of {target.context}: revision {release.revision}, ",
        (release.status, "green" if release.status == "deployed" else "bold red"),
    )
    if shift:
        lives = now + timedelta(seconds=shift)
        text.append(f"\nrecorded data are replayed: there it is {lives:%Y-%m-%d %H:%M} UTC")
    return text.append("\n")


def _workloads(found: Look) -> RenderableType:
    table = _table("workload", "ready", "what it waits for")
    waits = dict(lines(found, [w for w in found.workloads if not w.well]))
    for workload in found.workloads:
        if workload.kind == "Job" and workload.component == _TRAINING:
            continue
        share = f"{workload.ready}/{workload.desired}"
        style = "green" if workload.well else "yellow"
        said = workload.failed or waits.get(workload.name, "")
        table.add_row(workload.name, Text(share, style=style), "" if workload.well else said)
    for claim in found.claims:
        table.add_row(claim.name, "", str(claim.trouble))
    return table


def _rollouts(bodies: Iterable[Object]) -> RenderableType:
    table = _table("use case", "phase", "champion", "challenger", "weight", "what it waits for")
    for body in bodies:
        status = body.get("status") or {}
        cells = [status.get(name) for name in ("phase", "champion", "challenger", "weight")]
        usecase = str(body["spec"].get("usecase", body["metadata"]["name"]))
        said = str(status.get("message") or ("" if status else "the operator has not seen it yet"))
        table.add_row(usecase, *("" if cell is None else str(cell) for cell in cells), said)
    return table


def _scheduled(bodies: Iterable[Object], now: datetime) -> RenderableType:
    """Return when what runs by the clock last ran, and last succeeded."""
    table = _table("by the clock", "schedule (UTC)", "last run", "last success")
    for body in bodies:
        if body["spec"].get("suspend"):
            continue  # a template: it never runs by itself
        status = body.get("status") or {}
        last, good = status.get("lastScheduleTime"), status.get("lastSuccessfulTime")
        behind = Text(ago(good, now), style="green" if good else "yellow")
        name = body["metadata"]["name"]
        table.add_row(name, body["spec"]["schedule"], ago(last, now), behind)
    return table


def _runs(jobs: list[Object], now: datetime) -> RenderableType:
    table = _table("training", "state", "started")
    newest = sorted(jobs, key=lambda body: body["metadata"]["creationTimestamp"], reverse=True)
    for body in newest[:_MOST_RUNS]:
        done = ended(body)
        state = {
            None: Text("runs", style="cyan"),
            True: Text("done", style="green"),
            False: Text("failed", style="bold red"),
        }[done]
        table.add_row(
            body["metadata"]["name"], state, ago(body["metadata"]["creationTimestamp"], now)
        )
    if not newest:
        table.add_row("none so far", "", "")
    return table


def ago(moment: str | None, now: datetime) -> str:
    """Return in words how long ago a time of Kubernetes was; `never` for none."""
    if not moment:
        return "never"
    seconds = (now - datetime.fromisoformat(moment)).total_seconds()
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, no_wrap=column != columns[-1])
    return table
