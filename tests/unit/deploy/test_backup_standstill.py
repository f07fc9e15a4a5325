"""Writers stop for a restore and run again as before, whatever was killed in between."""

import copy
from collections.abc import Mapping
from typing import Any, cast

import pytest

from deploy.backups.standstill import NAME, WRITERS, Standstill
from mlplatform.clients.kubernetes import (
    CONFIG_MAPS,
    CRON_JOBS,
    DEPLOYMENTS,
    JOBS,
    PODS,
    Cluster,
    Kind,
    Object,
)
from mlplatform.errors import ServiceError

COMPONENT = "app.kubernetes.io/component"


class Namespace:
    """What the API server keeps of a few kinds; pods follow their Deployments at once."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Kind, str], Object] = {}

    def add(self, kind: Kind, name: str, component: str, **fields: Any) -> None:
        labels = {COMPONENT: component, "app.kubernetes.io/part-of": "mlplatform"}
        metadata = {"name": name, "labels": labels, "generation": 1}
        self.objects[kind, name] = {"metadata": metadata, **fields}

    def find(self, kind: Kind, name: str) -> Object | None:
        return copy.deepcopy(self.objects.get((kind, name)))

    def get(self, kind: Kind, name: str) -> Object:
        return copy.deepcopy(self.objects[kind, name])

    def list(self, kind: Kind, labels: Mapping[str, str]) -> list[Object]:
        del labels
        if kind == PODS:
            return [
                {"metadata": found["metadata"], "status": {"phase": "Running"}}
                for (of, _), found in self.objects.items()
                if of == DEPLOYMENTS and found["spec"]["replicas"]
            ]
        return [copy.deepcopy(one) for (of, _), one in self.objects.items() if of == kind]

    def patch(self, kind: Kind, name: str, body: Object) -> None:
        found = self.objects[kind, name]
        for part, fields in body.items():
            found[part].update(fields)
        if kind == DEPLOYMENTS:
            ready = found["spec"]["replicas"]
            found["status"] = {"observedGeneration": 1, "readyReplicas": ready}

    def apply(self, kind: Kind, body: Object, manager: str) -> None:
        del manager
        self.objects[kind, body["metadata"]["name"]] = copy.deepcopy(body)

    def delete(self, kind: Kind, name: str) -> None:
        del self.objects[kind, name]

    @property
    def replicas(self) -> dict[str, int]:
        return {
            name: found["spec"]["replicas"]
            for (kind, name), found in self.objects.items()
            if kind == DEPLOYMENTS
        }

    @property
    def suspended(self) -> dict[str, bool]:
        return {
            name: found["spec"].get("suspend", False)
            for (kind, name), found in self.objects.items()
            if kind == CRON_JOBS
        }


@pytest.fixture
def namespace() -> Namespace:
    found = Namespace()
    for name, replicas in (("gateway", 3), ("operator", 2), ("archiver", 1), ("features", 0)):
        found.add(DEPLOYMENTS, f"mlplatform-{name}", name, spec={"replicas": replicas})
    found.add(CRON_JOBS, "mlplatform-judge", "monitor", spec={})
    found.add(CRON_JOBS, "mlplatform-training", "training", spec={"suspend": True})
    return found


def standstill(namespace: Namespace, backup: str = "one") -> Standstill:
    return Standstill(cast("Cluster", namespace), backup)


DATA = WRITERS["data"]


def test_who_writes_is_stopped_and_who_answers_is_not(namespace: Namespace) -> None:
    standstill(namespace).stop([*DATA, *WRITERS["rollouts"]])

    stopped = {"mlplatform-operator": 0, "mlplatform-archiver": 0, "mlplatform-features": 0}
    assert {"mlplatform-gateway": 3, **stopped} == namespace.replicas
    assert {"mlplatform-judge": True, "mlplatform-training": True} == namespace.suspended


def test_everything_runs_again_as_before(namespace: Namespace) -> None:
    before = namespace.replicas, namespace.suspended
    found = standstill(namespace)

    found.stop([*DATA, "operator"])
    found.start()
    found.forget()

    assert before == (namespace.replicas, namespace.suspended)
    assert namespace.find(CONFIG_MAPS, NAME) is None


def test_one_that_was_killed_goes_back_to_what_was_before_its_first_attempt(
    namespace: Namespace,
) -> None:
    before = namespace.replicas, namespace.suspended
    standstill(namespace).stop([*DATA, "operator"])
    attempt = standstill(namespace).attempt
    standstill(namespace).mark("placing")

    again = standstill(namespace)
    stage = again.begun()
    again.stop([*DATA, "operator"])

    assert ("placing", "placing") == (stage, again.begun())
    assert attempt == again.attempt
    again.start()
    assert before == (namespace.replicas, namespace.suspended)


def test_one_deployment_can_be_started_before_the_others(namespace: Namespace) -> None:
    found = standstill(namespace)
    found.stop([*DATA, "operator"])

    found.start(["mlplatform-archiver"])

    assert (1, 0) == (
        namespace.replicas["mlplatform-archiver"],
        namespace.replicas["mlplatform-operator"],
    )
    assert namespace.suspended["mlplatform-judge"]


def test_the_restore_of_another_backup_that_did_not_end_is_not_mixed_with_this_one(
    namespace: Namespace,
) -> None:
    standstill(namespace, "one").stop(DATA)

    with pytest.raises(ServiceError, match="another backup"):
        standstill(namespace, "two").begun()


def test_nothing_was_begun_where_there_is_no_mark(namespace: Namespace) -> None:
    assert standstill(namespace).begun() is None


@pytest.mark.parametrize(("component", "refused"), [("training", True), ("monitor", False)])
def test_a_training_that_is_under_way_is_for_a_person_to_end(
    namespace: Namespace, component: str, *, refused: bool
) -> None:
    namespace.add(JOBS, "training-flight-delay-1", component, status={"active": 1})

    if refused:
        with pytest.raises(ServiceError, match="training-flight-delay-1"):
            standstill(namespace).refuse_long_jobs(DATA)
    else:
        standstill(namespace).refuse_long_jobs(DATA)
    assert namespace.find(CONFIG_MAPS, NAME) is None
