"""One piece of work on a Ray cluster of its own, which KubeRay makes for it and takes away.

The manifest is the chart's (ConfigMap `mlplatform-ray`); name and command are filled in here. The
name follows from the run and the step, so that a step that is repeated finds what its killed
predecessor left, and removes it. The RayJob is deleted however the work ends: by success, failure,
a signal. Where this process is killed outright the next attempt deletes it, or the run's last step,
or the manifest's own deadline.

The command writes its lines to a file that both sides mount; they are passed on while it works. So
this account needs no right to the logs of pods.
"""

import contextlib
import hashlib
import importlib.metadata
import logging
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Final, Self

from mlplatform.clients.kubernetes import CONFIG_MAPS, RAY_JOBS, Cluster, Object
from mlplatform.errors import NotFoundError, ServiceError, shorten

_TEMPLATE: Final = "mlplatform-ray"
_KEY: Final = "rayjob.yaml"
_RUN: Final = "mlplatform.dev/run"
"""Label with the run's id; a value has 63 characters at most."""
_LABEL_LENGTH: Final = 63
_GONE_SECONDS: Final = 120.0
"""Longest wait for KubeRay to let go of a RayJob that is deleted: it ends the cluster's pods."""
_POLL_SECONDS: Final = 2.0
_SEEN_SECONDS: Final = 120.0
"""Longest wait for KubeRay's first word, which it says at once where it runs."""
_BAD: Final = frozenset({"Failed", "ValidationFailed"})
"""Of `status.jobDeploymentStatus`; a queue may suspend a RayJob and resume it."""
_TERMINATED: Final = 143

_log: Final = logging.getLogger("mlplatform.ray")


class RayJobs:
    """Runs commands on Ray clusters.

    Args:
        cluster: The namespace of the platform.
        poll_seconds: Between two looks.
        seen_seconds: Longest wait for KubeRay's first word.
    """

    def __init__(
        self,
        cluster: Cluster,
        poll_seconds: float = _POLL_SECONDS,
        seen_seconds: float = _SEEN_SECONDS,
    ) -> None:
        self._cluster, self._poll_seconds = cluster, poll_seconds
        self._seen_seconds = seen_seconds

    def run(self, run: str, step: str, command: Sequence[str], log: Path) -> None:
        """Run a command to its end and pass its lines on.

        SIGTERM ends it as well, and this process afterwards; the main thread's signals only.

        Args:
            run: Id of the pipeline's run.
            step: Name of its step.
            command: What Ray runs on the cluster's head, without a shell's characters.
            log: File that the command writes its lines to, on a volume of both sides.

        Raises:
            NotFoundError: There is no manifest, or the cluster does not know RayJobs.
            ServiceError: The work failed, the versions of Ray differ, or the API server is away.
        """
        body = manifest(self._template(), run, step, command)
        name = body["metadata"]["name"]
        with _signal_is_an_exit():
            self.remove(run, step)
            try:
                self._create(body)
                self._follow(name, log)
            finally:
                self._cluster.delete(RAY_JOBS, name)

    def remove(self, run: str, step: str) -> None:
        """Delete what is left of a piece of work, and wait until it is gone.

        Raises:
            ServiceError: It does not go, or the API server is away.
        """
        name = job_name(run, step)
        deadline = time.monotonic() + _GONE_SECONDS
        while self._cluster.find(RAY_JOBS, name) is not None:
            self._cluster.delete(RAY_JOBS, name)
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"RayJob {name} of an earlier attempt does not go: is KubeRay's operator "
                    "running? It removes the cluster before it lets go"
                )
            time.sleep(self._poll_seconds)

    def _template(self) -> Object:
        import yaml

        try:
            text = self._cluster.get(CONFIG_MAPS, _TEMPLATE)["data"][_KEY]
            found: Object = yaml.safe_load(text)
        except NotFoundError as error:
            raise NotFoundError(
                f"there is no ConfigMap {_TEMPLATE} in namespace {self._cluster.namespace}: set "
                "`ray.enabled` in the chart's values, or train without (MLPLATFORM_PIPELINE_RAY)"
            ) from error
        except (KeyError, yaml.YAMLError) as error:
            raise ServiceError(
                f"ConfigMap {_TEMPLATE} holds no RayJob under {_KEY}: {shorten(error)}"
            ) from error
        return found

    def _create(self, body: Object) -> None:
        try:
            self._cluster.create(RAY_JOBS, body)
        except NotFoundError as error:
            raise NotFoundError(
                "the cluster does not know RayJobs: install KubeRay's operator, or train without "
                f"(MLPLATFORM_PIPELINE_RAY=local): {error}"
            ) from error

    def _follow(self, name: str, log: Path) -> None:
        """Pass on the lines of the work until it has ended well."""
        said, deadline = "", time.monotonic() + self._seen_seconds
        with _Lines(log) as lines:
            while True:
                found = self._cluster.find(RAY_JOBS, name)
                lines.pass_on()
                if found is None:
                    raise ServiceError(f"RayJob {name} was deleted while it worked: try again")
                status = found.get("status") or {}
                where = str(status.get("jobDeploymentStatus") or "New")
                if where != said:
                    _log.info("RayJob %s: %s", name, where)
                    said = where
                if _succeeded(status):
                    return
                if where in _BAD or where == "Complete":
                    raise ServiceError(f"RayJob {name} {_why(status, where)}")
                if not status and time.monotonic() > deadline:
                    raise ServiceError(
                        f"KubeRay has not looked at RayJob {name} in {self._seen_seconds:g} s: is "
                        "its operator running, and does it watch this namespace?"
                    )
                time.sleep(self._poll_seconds)


def job_name(run: str, step: str) -> str:
    """Return the name of a step's RayJob; KubeRay takes 47 characters at most."""
    return f"{step}-{hashlib.sha256(f'{run}/{step}'.encode()).hexdigest()[:16]}".replace("_", "-")


def manifest(template: Object, run: str, step: str, command: Sequence[str]) -> Object:
    """Return the RayJob of a step, as the API server takes it. Pure, but for Ray's version.

    Raises:
        ServiceError: The manifest's version of Ray is not the one that is installed here.
    """
    here = importlib.metadata.version("ray")
    there = template.get("spec", {}).get("rayClusterSpec", {}).get("rayVersion")
    if there != here:
        raise ServiceError(
            f"the chart's `ray.version` is {there} and this image has Ray {here}: KubeRay sets a "
            "cluster up for the version that it is told; set the value to the image's"
        )
    metadata = template.get("metadata", {})
    labels = {**metadata.get("labels", {}), _RUN: run[:_LABEL_LENGTH].strip("-._")}
    return {
        **template,
        "metadata": {**metadata, "name": job_name(run, step), "labels": labels},
        "spec": {**template["spec"], "entrypoint": " ".join(command)},
    }


def _succeeded(status: Object) -> bool:
    return status.get("jobStatus") == "SUCCEEDED"


def _why(status: Object, where: str) -> str:
    parts = (status.get("jobStatus"), status.get("reason"), status.get("message"))
    told = ", ".join(str(part) for part in parts if part)
    return f"is {where}: {shorten(told or 'KubeRay says no more')}"


class _Lines:
    """A file that another process writes to, a line at a time; it need not be there yet."""

    def __init__(self, path: Path) -> None:
        self._path, self._file, self._rest = path, None, ""

    _file: IO[str] | None

    def __enter__(self) -> Self:
        return self

    def pass_on(self) -> None:
        """Log the lines that are new."""
        if self._file is None:
            with contextlib.suppress(OSError):
                self._file = self._path.open(encoding="utf-8", errors="replace")
        if self._file is None:
            return
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        for line in lines:
            _log.info("%s", line)

    def __exit__(self, *_: object) -> None:
        self.pass_on()
        if self._rest:
            _log.info("%s", self._rest)
        if self._file is not None:
            self._file.close()


@contextlib.contextmanager
def _signal_is_an_exit() -> Iterator[None]:
    """Let SIGTERM unwind the block, so that what it made is removed."""

    def leave(_: int, __: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(_TERMINATED)

    if threading.current_thread() is not threading.main_thread():  # no other may change handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
