"""The platform as it is installed in the cluster: what tests ask of it, and do to it."""

import os
import subprocess
import sys
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import yaml

from feature_repo import catalog
from mlplatform.clients.kubernetes import (
    CONFIG_MAPS,
    CRON_JOBS,
    JOBS,
    MODEL_ROLLOUTS,
    PODS,
    SECRETS,
    SERVICES,
    Cluster,
    Object,
)
from mlplatform.contracts import Decision, DecisionKind
from mlplatform.ledger import Ledger
from tests.cluster.waiting import wait
from tests.conftest import ROOT

NAMESPACE: Final = "mlplatform"
USECASE: Final = "flight_delay"
NAME: Final = "flight-delay"
"""Of the use case, in names of objects."""
DRILLS: Final = Path(__file__).parent / "drills"
_SCRIPTS: Final = (ROOT / "local" / "broken_model.py", *DRILLS.glob("*.py"))
"""Drills, and what they import that is in no image."""
_COMPONENT: Final = "app.kubernetes.io/component"


@dataclass
class Installation:
    """One release in one namespace."""

    cluster: Cluster
    folder: Path
    """For the values that the tests give."""
    shift: timedelta = timedelta()
    """What the platform's clock is ahead of ours."""
    said: str = ""
    """By its first deployment."""
    seconds: float = 0.0
    """Of its first deployment, to a served prediction."""

    @property
    def now(self) -> datetime:
        """The platform's time."""
        return datetime.now(UTC) + self.shift

    def at(self, moment: datetime) -> "Installation":
        """Let the platform's next deployment begin at a moment of the data's time."""
        self.shift = timedelta(seconds=round((moment - datetime.now(UTC)).total_seconds()))
        return self

    def found(self) -> "Installation":
        """Take the clock of a platform that is there."""
        data = self.cluster.get(CONFIG_MAPS, "mlplatform")["data"]
        self.shift = timedelta(seconds=int(data["MLPLATFORM_CLOCK_SHIFT_SECONDS"]))
        return self

    def deploy(self, values: Mapping[str, Any], *arguments: str) -> str:
        """Install or upgrade it by the command that users have; return what it printed."""
        file = self.folder / "values.yaml"
        shift = {"settings": {"clockShiftSeconds": int(self.shift.total_seconds())}}
        file.write_text(yaml.safe_dump(_merged(values, shift)), encoding="utf-8")
        return self.command("deploy", "--profile", "minimal", "--values", str(file), *arguments)

    def command(self, name: str, *arguments: str) -> str:
        """Run one of the platform's commands; return what it printed."""
        command = [sys.executable, "-m", "deploy", name, "--namespace", NAMESPACE]
        command += ["--context", "current", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False
        )
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout

    @property
    def gateway(self) -> str:
        """Address of the gateways' Service."""
        return f"http://{self.address('mlplatform-gateway')}:8080"

    @property
    def path(self) -> str:
        """Where the gateway scores."""
        return f"/v1/{USECASE}/score"

    @property
    def code(self) -> catalog.UseCaseCode:
        """The use case."""
        return catalog.load(USECASE)

    def address(self, service: str) -> str:
        """Return a Service's address; the node's own processes reach it."""
        return str(self.cluster.get(SERVICES, service)["spec"]["clusterIP"])

    def secret(self, name: str, key: str) -> str:
        """Return a Secret's value, with the Service's address in place of its name in a URL."""
        value = b64decode(self.cluster.get(SECRETS, name)["data"][key]).decode()
        parts = urlsplit(value)
        if parts.hostname is None or not parts.scheme:
            return value
        host = self.address(parts.hostname.partition(".")[0])
        return urlunsplit(parts._replace(netloc=parts.netloc.replace(parts.hostname, host)))

    @property
    def ledger(self) -> Ledger:
        """The ledger of decisions."""
        return Ledger(self.secret("mlplatform-ledger", "MLPLATFORM_LEDGER_URL"))

    def decisions(self, kind: DecisionKind, subject: str | None = None) -> list[Decision]:
        """Return rows of the ledger, oldest first."""
        return [entry.decision for entry in self.ledger.entries(USECASE, kind, subject)]

    @property
    def status(self) -> Object:
        """Of the use case's ModelRollout."""
        found: Object = self.cluster.get(MODEL_ROLLOUTS, NAME).get("status") or {}
        return found

    def ask(self, **spec: Any) -> None:
        """Change fields of the ModelRollout's spec; None removes one."""
        self.cluster.patch(MODEL_ROLLOUTS, NAME, {"spec": spec})

    def order(self, action: str) -> None:
        """Give the next order to the rollout under way."""
        last = (self.status.get("lastOrder") or {}).get("id", 0)
        self.ask(order={"id": last + 1, "action": action, "reason": "a test"})

    def until(self, *phases: str, version: int | None = None, seconds: float = 240) -> Object:
        """Return the status when the rollout is in one of the phases, and in force everywhere."""

        def there() -> bool:
            rollout = self.status.get("rollout") or {}
            about = version in {None, (rollout.get("challenger") or {}).get("version")}
            routes = rollout.get("routes") or [{}]
            in_force = rollout.get("committed", 0) >= routes[-1].get("epoch", 0)
            return about and in_force and self.status.get("phase") in phases

        wait(there, seconds, lambda: f"not {phases}: {_short(self.status)}")
        return self.status

    def pods(self, component: str, **labels: str) -> list[Object]:
        """Return the pods of a role that are not ending."""
        found = self.cluster.list(PODS, {_COMPONENT: component, **labels})
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def ready(self, component: str) -> list[str]:
        """Return the names of the pods of a role that are ready."""
        return [pod["metadata"]["name"] for pod in self.pods(component) if _is_ready(pod)]

    def kill(self, pod: str) -> None:
        """End a pod at once, without a chance to drain: as a node that dies would."""
        self.kubectl("delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl in the platform's namespace; return what it printed."""
        done = subprocess.run(
            ["kubectl", "-n", self.cluster.namespace, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout

    def job(self, cron_job: str, name: str, *, seconds: float = 600) -> str:
        """Run a CronJob's Job now, to its end; return its log."""
        template = self.cluster.get(CRON_JOBS, cron_job)["spec"]["jobTemplate"]
        return self._run(name, template["spec"], template["metadata"].get("labels", {}), seconds)

    def drill(self, script: str, name: str, *arguments: str, seconds: float = 300) -> str:
        """Run one of the tests' scripts where pipelines run, with their rights; return its log."""
        template = self.cluster.get(CRON_JOBS, f"mlplatform-training-{NAME}")["spec"]["jobTemplate"]
        spec, files = template["spec"], "drills"
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": files},
            "data": {path.name: path.read_text(encoding="utf-8") for path in _SCRIPTS},
        }
        self.cluster.apply(CONFIG_MAPS, body, "tests")
        pod = spec["template"]["spec"]
        container = pod["containers"][0]
        container["command"] = ["python", f"/drill/{script}.py"]
        container["args"] = list(arguments)
        container["volumeMounts"].append({"name": "drill", "mountPath": "/drill"})
        pod["volumes"].append({"name": "drill", "configMap": {"name": files}})
        return self._run(name, spec, template["metadata"].get("labels", {}), seconds)

    def _run(self, name: str, spec: Object, labels: Mapping[str, str], seconds: float) -> str:
        body = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "labels": dict(labels)},
            "spec": spec,
        }
        self.cluster.delete(JOBS, name)
        wait(lambda: self.cluster.find(JOBS, name) is None, 60)
        self.cluster.create(JOBS, body)
        return self.ended(name, seconds)

    def ended(self, job: str, seconds: float) -> str:
        """Return the log of a Job that has succeeded."""

        def state() -> set[str]:
            conditions = self.cluster.get(JOBS, job).get("status", {}).get("conditions", [])
            return {item["type"] for item in conditions if item["status"] == "True"}

        wait(
            lambda: bool({"Complete", "Failed"} & state()),
            seconds,
            lambda: f"{job}: {self.kubectl('get', 'pods', '-l', f'job-name={job}', '-o', 'wide')}",
        )
        log = self.kubectl("logs", f"job/{job}", "--all-containers", "--tail=400")
        assert "Complete" in state(), log
        return log


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(first)
    for name, value in second.items():
        inner = found.get(name)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        found[name] = _merged(inner, value) if both else value  # type: ignore[arg-type]
    return found


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def _short(status: Object) -> Object:
    return {name: value for name, value in status.items() if name != "rollout"}
