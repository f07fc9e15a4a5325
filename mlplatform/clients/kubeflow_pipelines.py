"""What Kubeflow Pipelines is to hold: uploaded pipelines with versions, and recurring runs.

Both are made so, however often and by whomever: what is there is looked at first, and only what is
missing or different is changed. What it assumes beyond `kubeflow`, and tests against a stand-in:

* The newest version of a pipeline is the one that runs. So going back to older code uploads it
  again, under a name that says so.
* A recurring run that names a pipeline and no version runs the newest one each time.
* A recurring run cannot be changed, only switched on and off: a different one replaces it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode

from mlplatform.clients.kubeflow_api import PAGE, ConflictError, KubeflowApi, named
from mlplatform.errors import NotFoundError
from mlplatform.settings import KubeflowSettings

Change = Literal["unchanged", "made", "made anew", "switched on", "switched off", "removed"]

_STAMP: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Recurring:
    """A run that is to start by itself.

    Attributes:
        name: Of the recurring run.
        pipeline: Name of the pipeline.
        parameters: Of its runs.
        every: Between two of them.
        enabled: Whether it is switched on.
        description: For people.
    """

    name: str
    pipeline: str
    parameters: Mapping[str, str]
    every: timedelta
    enabled: bool
    description: str

    @property
    def seconds(self) -> str:
        """The interval as the API writes it."""
        return str(round(self.every.total_seconds()))


class KubeflowPipelines:
    """Pipelines and recurring runs of one installation.

    Args:
        settings: Where the API is, and under what runs are kept there.

    Raises:
        ServiceError: The certificates that the API is checked with cannot be read.
    """

    def __init__(self, settings: KubeflowSettings) -> None:
        self._settings, self._api = settings, KubeflowApi(settings)

    def upload(self, name: str, version: str, package: bytes, description: str) -> tuple[str, bool]:
        """Make a version the newest of a pipeline; return its name, and whether it is new.

        Args:
            name: Of the pipeline; it is made if it is not there.
            version: What the version is called; equal packages have equal names.
            package: The compiled pipeline.
            description: Of pipeline and version, for people.

        Raises:
            ServiceError: The API failed, or is out of reach; uploading again is safe.
        """
        pipeline = self._api.pipeline(name) or self._made(name, description)
        versions = self._api.list(
            f"/pipelines/{quote(pipeline, safe='')}/versions",
            "pipeline_versions",
            {"sort_by": "created_at desc", "page_size": PAGE},
        )
        names = [str(item.get("display_name")) for item in versions]
        if names and _is(names[0], version):
            return names[0], False
        before = sum(_is(other, version) for other in names)
        new = f"{version}-again-{before}" if before else version
        query = {"name": new, "pipelineid": pipeline, "description": description}
        path = f"/pipelines/upload_version?{urlencode({**query, 'display_name': new})}"
        self._api.call("POST", path, file=package)
        return new, True

    def schedule(self, name: str, wanted: Recurring | None, now: datetime) -> Change:
        """Make exactly one recurring run of a name, or none, and return what was changed.

        Args:
            name: Of the recurring run; others are left alone.
            wanted: How it is to be; None: there is to be none.
            now: The time.

        Raises:
            NotFoundError: Its pipeline has not been uploaded.
            ServiceError: The API failed, or is out of reach; scheduling again is safe.
        """
        query = {**named(name), **self._api.of_namespace}
        query |= {"sort_by": "created_at asc", "page_size": PAGE}
        found = self._api.list("/recurringruns", "recurringRuns", query)
        mine = [item for item in found if item.get("display_name") == name]
        if wanted is None:
            self._remove(mine)
            return "removed" if mine else "unchanged"
        pipeline = self._api.pipeline(wanted.pipeline)
        if pipeline is None:
            raise NotFoundError(
                f"no pipeline is called {wanted.pipeline} at {self._settings.endpoint}: upload it "
                "before it is scheduled"
            )
        same = [item for item in mine if _fits(item, wanted, pipeline)]
        kept = same[0] if same else None
        # The others first: two that are switched on at once would train twice.
        self._remove([item for item in mine if item is not kept])
        if kept is not None:
            change: Change = "unchanged" if len(mine) == 1 else "removed"
            return self._switched(kept, on=wanted.enabled) or change
        body = self._body(wanted, pipeline, _begins(mine, wanted.every, now))
        self._api.call("POST", "/recurringruns", body=body)
        return "made anew" if mine else "made"

    def _made(self, name: str, description: str) -> str:
        """Make a pipeline without a version; return its id."""
        body = {"display_name": name, "name": name, "description": description}
        try:
            made = self._api.call("POST", "/pipelines", body={**body, **self._api.of_namespace})
        except ConflictError:  # another one was faster
            return self._api.pipeline(name) or name
        return self._api.text(made, "pipeline_id")

    def _remove(self, items: list[dict[str, Any]]) -> None:
        for item in items:
            self._api.call("DELETE", _path(self._api.text(item, "recurring_run_id")))

    def _switched(self, item: dict[str, Any], *, on: bool) -> Change | None:
        if (item.get("status") == "ENABLED") == on:
            return None
        path = _path(self._api.text(item, "recurring_run_id"))
        self._api.call("POST", f"{path}:{'enable' if on else 'disable'}")
        return "switched on" if on else "switched off"

    def _body(self, wanted: Recurring, pipeline: str, begins: datetime) -> dict[str, Any]:
        schedule = {"start_time": begins.strftime(_STAMP), "interval_second": wanted.seconds}
        body: dict[str, Any] = {
            "display_name": wanted.name,
            "description": wanted.description,
            "experiment_id": self._api.experiment(),
            "pipeline_version_reference": {"pipeline_id": pipeline},
            "runtime_config": {"parameters": dict(wanted.parameters)},
            "trigger": {"periodic_schedule": schedule},
            "max_concurrency": "1",
            "no_catchup": True,
            "mode": "ENABLE" if wanted.enabled else "DISABLE",
            **self._api.of_namespace,
        }
        if self._settings.service_account:
            body["service_account"] = self._settings.service_account
        return body


def _path(run: str) -> str:
    return f"/recurringruns/{quote(run, safe='')}"


def _is(name: str, version: str) -> bool:
    """Return whether a version's name says that it is this one."""
    return name == version or name.startswith(f"{version}-again-")


def _fits(item: Mapping[str, Any], wanted: Recurring, pipeline: str) -> bool:
    """Return whether a recurring run is the one that is wanted, but for whether it is on."""
    schedule = item.get("trigger", {}).get("periodic_schedule") or {}
    reference = item.get("pipeline_version_reference") or {}
    found = (
        str(schedule.get("interval_second")),
        str(item.get("max_concurrency")),
        item.get("no_catchup"),
        item.get("runtime_config", {}).get("parameters"),
        reference.get("pipeline_id"),
        reference.get("pipeline_version_id") or "",
    )
    return found == (wanted.seconds, "1", True, dict(wanted.parameters), pipeline, "")


def _begins(mine: list[dict[str, Any]], every: timedelta, now: datetime) -> datetime:
    """Return where intervals are counted from: the last beginning of one that is replaced.

    The scheduler starts the first run an interval later. Counted from now on, a schedule that is
    replaced more often than it is due would never be.
    """
    for item in mine:
        started = item.get("trigger", {}).get("periodic_schedule", {}).get("start_time")
        if isinstance(started, str):
            began = datetime.fromisoformat(started).astimezone(UTC)
            return began + max(0, (now - began) // every) * every
    return now.astimezone(UTC)
