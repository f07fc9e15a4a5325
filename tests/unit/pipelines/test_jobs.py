"""A request is one Job, whoever submits it and however often; the ledger says how it ended."""

import copy
from pathlib import Path
from typing import Any, cast

import pytest

from mlplatform.clients.kubernetes import CRON_JOBS, JOBS, Cluster, Kind, Object
from mlplatform.clients.kubernetes_jobs import JobOrchestrator, job
from mlplatform.contracts.retrain import RunState, ownership
from mlplatform.errors import NotFoundError, ServiceError, StaleError
from mlplatform.ledger import Ledger
from tests.unit.pipelines.test_job import AS_OF, KEY, NAME, row

PARAMETERS = {"usecase": "flight_delay", "as_of": AS_OF}
TEMPLATE: Object = {
    "metadata": {"name": "mlplatform-training-flight-delay", "uid": "1"},
    "spec": {
        "suspend": True,
        "jobTemplate": {
            "metadata": {"labels": {"app.kubernetes.io/component": "training"}},
            "spec": {
                "backoffLimit": 3,
                "template": {
                    "spec": {
                        "containers": [
                            {"name": "run", "image": "x@sha256:0", "args": ["--usecase", "u"]}
                        ]
                    }
                },
            },
        },
    },
}


class Objects:
    """What an API server keeps of CronJobs and Jobs."""

    namespace = "here"

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Object] = {}
        self.created: list[str] = []
        self.faster = False
        """Another submitter creates the Job between the look and the creation."""
        self.put(CRON_JOBS, TEMPLATE)

    def put(self, kind: Kind, body: Object) -> None:
        self.kept[kind.plural, body["metadata"]["name"]] = copy.deepcopy(body)

    def get(self, kind: Kind, name: str) -> Object:
        if (found := self.kept.get((kind.plural, name))) is None:
            raise NotFoundError(f"{kind.plural} {name} not found")
        return copy.deepcopy(found)

    def find(self, kind: Kind, name: str) -> Object | None:
        return self.kept.get((kind.plural, name))

    def create(self, kind: Kind, body: Object) -> Object:
        name = body["metadata"]["name"]
        if self.faster or self.find(kind, name) is not None:
            self.put(kind, body)
            raise StaleError(f"{name} exists already")
        self.put(kind, body)
        self.created.append(name)
        return body

    def ends(self, name: str, condition: str) -> None:
        conditions = [{"type": "SuccessCriteriaMet", "status": "True"}]
        conditions += [{"type": condition, "status": "True"}]
        self.kept["jobs", name]["status"] = {"conditions": conditions}


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path}/ledger.db")


def orchestrator(objects: Objects, ledger: Ledger) -> JobOrchestrator:
    return JobOrchestrator(cast("Cluster", objects), ledger)


def test_a_job_is_made_of_the_template_with_the_runs_arguments_behind_its_own(
    objects: Objects, ledger: Ledger
) -> None:
    assert NAME == orchestrator(objects, ledger).submit("training", PARAMETERS, KEY)

    made = objects.get(JOBS, NAME)
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert [
        "--usecase", "u", "--usecase", "flight_delay", "--as-of", AS_OF, "--request", KEY,
        "--run", NAME,
    ] == container["args"]  # fmt: skip
    assert "x@sha256:0" == container["image"]
    assert {"app.kubernetes.io/component": "training"} == made["metadata"]["labels"]
    assert 3 == made["spec"]["backoffLimit"]  # the template's
    assert TEMPLATE == objects.get(CRON_JOBS, "mlplatform-training-flight-delay"), "as it was"


@pytest.mark.parametrize("condition", ["", "Complete", "Failed"])
def test_a_job_of_the_key_is_the_keys_run_however_it_is(
    objects: Objects, ledger: Ledger, condition: str
) -> None:
    first = orchestrator(objects, ledger).submit("training", PARAMETERS, KEY)
    if condition:
        objects.ends(first, condition)

    assert first == orchestrator(objects, ledger).submit("training", PARAMETERS, KEY)
    assert [NAME] == objects.created


def test_a_job_that_is_gone_is_not_made_again(objects: Objects, ledger: Ledger) -> None:
    ledger.append(ownership("flight_delay", KEY, NAME, row("run", NAME, "").at))

    assert NAME == orchestrator(objects, ledger).submit("training", PARAMETERS, KEY)
    assert [] == objects.created


def test_a_request_that_another_orchestrators_run_has_is_left_to_it(
    objects: Objects, ledger: Ledger
) -> None:
    ledger.append(ownership("flight_delay", KEY, "run-7", row("run", NAME, "").at))

    assert "run-7" == orchestrator(objects, ledger).submit("training", PARAMETERS, KEY)
    assert [] == objects.created


def test_of_two_submitters_at_once_both_have_the_one_job(objects: Objects, ledger: Ledger) -> None:
    objects.faster = True

    assert NAME == orchestrator(objects, ledger).submit("training", PARAMETERS, KEY)


@pytest.mark.parametrize(
    ("condition", "verdict", "state"),
    [
        ("", "", "running"),
        ("", "failed", "running"),  # the pod is about to end, or to be started again
        ("Complete", "registered", "succeeded"),
        ("Complete", "rejected", "succeeded"),
        ("Complete", "", "unknown"),
        ("Failed", "failed", "failed"),
        ("Failed", "duplicate", "failed"),
        ("Failed", "registered", "succeeded"),  # it was killed after its last step
        ("Failed", "", "failed"),
        ("gone", "registered", "succeeded"),
        ("gone", "failed", "failed"),
        ("gone", "", "unknown"),
    ],
)
def test_a_run_is_what_its_job_and_the_ledger_say(
    objects: Objects, ledger: Ledger, condition: str, verdict: str, state: RunState
) -> None:
    mine = orchestrator(objects, ledger)
    run = mine.submit("training", PARAMETERS, KEY)
    if condition == "gone":
        del objects.kept["jobs", run]
    elif condition:
        objects.ends(run, condition)
    if verdict:
        ledger.append(row("run", run, verdict))

    assert state == mine.state(run)


def test_a_use_case_without_a_template_is_named(objects: Objects, ledger: Ledger) -> None:
    parameters = PARAMETERS | {"usecase": "other"}
    with pytest.raises(NotFoundError, match="no CronJob mlplatform-training-other in namespace"):
        orchestrator(objects, ledger).submit("training", parameters, KEY)


def test_a_template_without_a_container_is_refused() -> None:
    empty: dict[str, Any] = copy.deepcopy(TEMPLATE)
    empty["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"] = []

    with pytest.raises(ServiceError, match="has no container"):
        job(empty, NAME, PARAMETERS)
