"""`make deploy`: from a cluster to a served prediction, in steps that may each be repeated.

Every step first looks at what is there and says so where nothing is to be done: a second run
changes nothing, and one that was killed goes on where it was. The order is that of readiness: what
pods mount is there before the pods, what the gateway serves before it is waited for.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from deploy import (
    credentials,
    custom_resources,
    first_model,
    kind_cluster,
    namespaces,
    submitting,
    upstream,
    values,
)
from deploy.cloud_environment import ensure_objects
from deploy.helm import Helm, Release, forget_pending
from deploy.platform_clock import clock_shift, platform_time
from deploy.prediction import GATEWAY, Answered, ask
from deploy.progress import Progress
from deploy.released import missing, remove_failed_jobs
from deploy.target import RELEASE, Profile, Target
from deploy.turns import alone
from deploy.waiting import wait
from deploy.workloads import Look, look
from feature_repo import catalog
from mlplatform.clients.kubernetes import Cluster
from mlplatform.contracts import UseCase
from mlplatform.errors import NotFoundError, ServiceError, SettingsError

_BEHIND_A_MODEL: Final = ("gateway", "triton")
"""Components that are ready only when there is a model."""
_TRAINING_SECONDS: Final = 7200.0
"""The chart's limit of a training Job."""


@dataclass(frozen=True)
class Plan:
    """What is to be deployed."""

    target: Target
    profile: Profile = "minimal"
    own_values: tuple[Path, ...] = ()
    """Over the profile's; later ones win."""
    before: Path | None = None
    """Objects that are applied before the release."""
    train: bool = True
    """Whether a platform without a model trains its first one."""
    timeout_seconds: float = 900.0
    """Longest wait for the workloads: images of a gigabyte are pulled meanwhile."""


class Installation:
    """One run of `make deploy`.

    Args:
        plan: What is to be deployed.
        progress: Where it is told.
    """

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self._plan, self._progress = plan, progress
        self._cluster = Cluster.connect(plan.target.namespace, plan.target.context)
        self._helm = Helm(plan.target)
        self._specs: list[UseCase] = []

    def run(self) -> None:
        """Do all steps.

        Raises:
            PlatformError: A step cannot be done; the message says which and what to do. What was
                done stays, and the next run goes on from there.
        """
        step = self._progress.step
        step("cluster", self._preflight)
        step("namespace", lambda: namespaces.ensure(self._cluster))
        with alone(self._cluster, self._progress):
            self._install()

    def preview(self) -> tuple[Release | None, Release]:
        """Return what is released and what would be; nothing is written to the cluster.

        Raises:
            PlatformError: The chart refuses the values, or the cluster cannot be asked.
        """
        self._progress.step("cluster", self._preflight)
        self._progress.step("values", self._values)
        files = values.files(self._plan.profile, self._plan.own_values)
        return self._helm.current(), self._helm.planned(files)

    def _install(self) -> None:
        step, plan, cluster = self._progress.step, self._plan, self._cluster
        self._images()
        step("values", self._values)
        stored = bool(self._told("externalSecrets", "enabled"))
        for component in upstream.needed(plan.profile, external_secrets=stored):
            step(component.name, partial(upstream.ensure, cluster, plan.target, component))
        if plan.before is not None:
            step("before", partial(ensure_objects, cluster, plan.before))
        step("secrets", partial(self._secrets, stored=stored))
        step("kinds", lambda: custom_resources.ensure(cluster))
        step("release", self._release)
        step("workloads", lambda: self._wait(without=_BEHIND_A_MODEL))
        step("pipelines", lambda: submitting.upload(plan.target))
        served = [spec for spec in self._specs if spec.serving.request]
        modelled = [self._model(spec.name) for spec in self._specs]
        if served and all(modelled):
            step("gateway", lambda: self._wait(without=()))
            self._predict(served[0].name)

    def _told(self, *keys: str) -> object:
        """Return what the chart is told for a key."""
        return values.setting(values.files(self._plan.profile, self._plan.own_values), *keys)

    def _secrets(self, *, stored: bool) -> str:
        if stored:
            return "External Secrets makes them from its store"
        managed = [name for name in ("postgres", "redis") if not self._told(name, "enabled")]
        return credentials.ensure(self._cluster, managed)

    def _preflight(self) -> str:
        version = self._cluster.server_version()
        return f"{self._plan.target.context} at {self._cluster.address}, Kubernetes {version}"

    def _images(self) -> None:
        if self._plan.target.is_kind:
            from deploy import images  # an import of its own: only here is something built

            # Each time: code that was edited since would not be what is deployed.
            self._progress.say("images", "built and pushed where their inputs have changed")
            if images.main(["--registry", kind_cluster.ADDRESS]):
                raise ServiceError("the images could not be built: see above")
        elif values.IMAGES.is_file():
            self._progress.say("images", f"{values.IMAGES} names them by digest")
        else:
            raise SettingsError(
                f"there is no {values.IMAGES}: build the images and push them to a registry that "
                "the cluster can pull from, `make images REGISTRY=registry.example/team`"
            )

    def _values(self) -> str:
        self._specs = [catalog.spec(name) for name in catalog.names()]
        shift = self._clock_shift()
        values.write(values.rendered(self._specs, shift))
        names = ", ".join(spec.name for spec in self._specs)
        if not shift:
            return f"of {names}"
        lives = datetime.now(UTC) + timedelta(seconds=shift)
        return f"of {names}, recorded data: the platform lives in {lives:%B %Y}"

    def _clock_shift(self) -> int:
        """Return the shift of the platform's clock; one that runs keeps its own."""
        if values.said(self._plan.own_values, "settings", "clockShiftSeconds") is not None:
            return 0  # the person's value wins over this one
        found = clock_shift(self._cluster)
        if found is not None:
            return found
        spans = (values.source_span(spec.name) for spec in self._specs)
        return values.clock_shift(spans, datetime.now(UTC))

    def _release(self) -> str:
        files = values.files(self._plan.profile, self._plan.own_values)
        removed = remove_failed_jobs(self._cluster)
        current = self._helm.current()
        if current is not None and current.pending:
            forget_pending(self._cluster, current)
            current = self._helm.current()
        planned = self._helm.planned(files)
        if current is not None and not removed and self._as_planned(current, planned):
            return f"{RELEASE} revision {current.revision} is what is wanted: nothing to do"
        done = self._helm.release(files)
        again = f" (failed Jobs start anew: {', '.join(removed)})" if removed else ""
        return f"{RELEASE} revision {done.revision}, profile {self._plan.profile}{again}"

    def _as_planned(self, current: Release, planned: Release) -> bool:
        if current.status != "deployed" or not current.equals(planned):
            return False
        return not missing(self._cluster, current.manifest)

    def _wait(self, *, without: tuple[str, ...]) -> str:
        def see() -> Look:
            return look(self._cluster)

        return wait(
            self._progress, see, without=without, timeout_seconds=self._plan.timeout_seconds
        )

    def _model(self, usecase: str) -> bool:
        """Return whether a version of the use case is registered, training one where none is."""
        found = first_model.spoken(self._cluster, usecase)
        if not first_model.needed(found):
            version = found.get("champion") or "the first"
            self._progress.say("model", f"{usecase}: version {version} is there")
            return True
        if not self._plan.train:
            self._progress.say("model", f"{usecase} has none; `make submit` trains the first one")
            return False
        if submitting.orchestrator(self._cluster) == "job":
            name, new = first_model.start(self._cluster, usecase, self._now())
            begins = "begins" if new else "is under way"
            self._progress.say("train", f"{usecase} has no model: {name} {begins}")
            first_model.follow(
                self._progress, self._cluster, name, timeout_seconds=_TRAINING_SECONDS
            )
            return self._registered(usecase, first_model.SEEN_SECONDS)
        self._progress.say("train", f"{usecase} has no model: Kubeflow trains the first one")
        submitting.submit(self._plan.target, usecase, self._now().isoformat(), first_model.FIRST)
        return self._registered(usecase, _TRAINING_SECONDS)

    def _registered(self, usecase: str, seconds: float) -> bool:
        """Return whether the operator sees a version after a training."""
        try:
            first_model.registered(self._cluster, usecase, seconds)
        except NotFoundError as error:
            self._progress.say("train", str(error), style="yellow")
            return False
        return True

    def _now(self) -> datetime:
        """Return the platform's time."""
        return platform_time(self._cluster)

    def _predict(self, usecase: str) -> None:
        self._tell(ask(self._plan.target, usecase, self._now()))

    def _tell(self, answered: Answered) -> None:
        style = "bold green" if answered.by_model else "yellow"
        self._progress.say("prediction", str(dict(answered.answer)), style=style)
        if not answered.by_model:
            self._progress.say("prediction", "the rules gave it, and no model yet", style=style)
        target = self._plan.target
        place = f"--context {target.context} --namespace {target.namespace}"
        self._progress.console.print(
            "\nAsk for one yourself:\n"
            f"  kubectl {place} port-forward service/{GATEWAY.name} {GATEWAY.port} &\n"
            f"  {answered.curl(f'http://127.0.0.1:{GATEWAY.port}')}\n"
            "`make ui` opens its pages, `make status` says how it is.",
            soft_wrap=True,
            highlight=False,
        )
