"""Training on a cluster of its own: what KubeRay is told, what it answers, and what is left."""

import copy
import importlib.metadata
import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from mlplatform.clients.kubernetes import CONFIG_MAPS, RAY_JOBS, Cluster, Kind, Object
from mlplatform.clients.ray_job import RayJobs, job_name, manifest
from mlplatform.contracts import Candidate
from mlplatform.errors import DataError, NotFoundError, ServiceError
from pipelines import artifacts
from pipelines.ray_training import Exchange, train_remotely

RUN = "training-flight-delay-0123456789abcdef0123456789abcdef"
NAME = job_name(RUN, "train")
TEMPLATE: Object = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {"name": "training", "labels": {"app.kubernetes.io/component": "ray"}},
    "spec": {
        "entrypoint": "",
        "shutdownAfterJobFinishes": True,
        "rayClusterSpec": {"rayVersion": importlib.metadata.version("ray")},
    },
}

Works = Callable[["KubeRay", Object], None]


class KubeRay:
    """What an API server keeps of RayJobs, and the operator that works on them."""

    namespace = "here"

    def __init__(self, *statuses: Object, works: Works | None = None) -> None:
        self.template: Object | None = TEMPLATE
        self.statuses, self.works = list(statuses), works
        self.kept: dict[str, Object] = {}
        self.made: list[Object] = []
        self.lingers = 0
        """Looks for which a deleted object is still there."""

    def get(self, kind: Kind, name: str) -> Object:
        assert (CONFIG_MAPS, "mlplatform-ray") == (kind, name)
        if self.template is None:
            raise NotFoundError("configmaps not found")
        return {"data": {"rayjob.yaml": yaml.safe_dump(self.template)}}

    def find(self, kind: Kind, name: str) -> Object | None:
        assert RAY_JOBS == kind
        found = self.kept.get(name)
        if found is None:
            return None
        if "deleted" in found:
            self.lingers -= 1
            if self.lingers < 0:
                del self.kept[name]
                return None
        elif self.statuses:
            found["status"] = self.statuses.pop(0)
        return copy.deepcopy(found)

    def create(self, kind: Kind, body: Object) -> Object:
        assert RAY_JOBS == kind
        self.made.append(body)
        self.kept[body["metadata"]["name"]] = copy.deepcopy(body)
        if self.works is not None:
            self.works(self, body)
        return body

    def delete(self, kind: Kind, name: str) -> bool:
        assert RAY_JOBS == kind
        found = self.kept.get(name)
        if found is not None:
            found["deleted"] = True
        return found is not None


def jobs(kuberay: KubeRay) -> RayJobs:
    return RayJobs(cast("Cluster", kuberay), poll_seconds=0.01)


def run(kuberay: KubeRay, log: Path) -> None:
    jobs(kuberay).run(RUN, "train", ["python", "-m", "work"], log)


def left(kuberay: KubeRay) -> list[str]:
    return [name for name, body in kuberay.kept.items() if "deleted" not in body]


GOOD: Object = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
BUSY: Object = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}


def test_kuberay_is_told_what_to_run_under_a_name_of_run_and_step(tmp_path: Path) -> None:
    kuberay = KubeRay({}, BUSY, GOOD)
    run(kuberay, tmp_path / "log")

    (made,) = kuberay.made
    assert "python -m work" == made["spec"]["entrypoint"]
    assert made["spec"]["shutdownAfterJobFinishes"]
    assert NAME == made["metadata"]["name"]
    assert {
        "app.kubernetes.io/component": "ray",
        "mlplatform.dev/run": RUN,
    } == made["metadata"]["labels"]
    assert [] == left(kuberay), "the RayJob is gone when the work has ended"


def test_names_fit_kuberay_and_differ_by_run_and_step() -> None:
    names = {job_name(run, step) for run in ("a", RUN, f"{RUN}b") for step in ("train", "tune")}

    assert 6 == len(names)
    assert all(len(name) <= 47 for name in names)
    assert NAME == job_name(RUN, "train")


def test_a_long_name_of_a_run_is_a_label_all_the_same() -> None:
    body = manifest(TEMPLATE, "a" * 62 + "-" + "b" * 10, "train", ["x"])

    assert "a" * 62 == body["metadata"]["labels"]["mlplatform.dev/run"]


def test_the_lines_of_the_work_are_this_steps_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "log"

    def works(kuberay: KubeRay, _: Object) -> None:
        def look(kind: Kind, name: str, texts: list[str] = texts) -> Object | None:
            with log.open("a") as file:
                file.write(texts.pop(0))
            return find(kind, name)

        find, kuberay.find = kuberay.find, look  # type: ignore[method-assign]

    texts = ["one\ntw", "o\n", "three\nfour", "", ""]
    kuberay = KubeRay(BUSY, BUSY, GOOD, works=works)
    with caplog.at_level(logging.INFO, "mlplatform.ray"):
        run(kuberay, log)

    said = [record.getMessage() for record in caplog.records]
    assert ["one", "two", "three", "four"] == [line for line in said if not line.startswith("Ray")]
    assert f"RayJob {NAME}: Running" in said


@pytest.mark.parametrize(
    ("status", "said"),
    [
        pytest.param(
            {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed",
             "message": "exit code 1"},
            "is Failed: FAILED, AppFailed, exit code 1",
            id="the command failed",
        ),
        pytest.param(
            {"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"},
            "is Failed: DeadlineExceeded",
            id="too late",
        ),
        pytest.param(
            {"jobDeploymentStatus": "ValidationFailed", "message": "no head"},
            "is ValidationFailed: no head",
            id="refused",
        ),
        pytest.param(
            {"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"},
            "is Complete: STOPPED",
            id="stopped by a person",
        ),
        pytest.param({"jobDeploymentStatus": "Failed"}, "KubeRay says no more", id="no reason"),
    ],
)  # fmt: skip
def test_work_that_fails_is_said_and_nothing_is_left(
    tmp_path: Path, status: Object, said: str
) -> None:
    kuberay = KubeRay(BUSY, status)

    with pytest.raises(ServiceError, match=said):
        run(kuberay, tmp_path / "log")
    assert [] == left(kuberay)


def test_a_rayjob_that_a_queue_holds_back_is_waited_for(tmp_path: Path) -> None:
    run(KubeRay({"jobDeploymentStatus": "Suspended"}, BUSY, GOOD), tmp_path / "log")


def test_a_rayjob_that_nobody_looks_at_has_failed(tmp_path: Path) -> None:
    kuberay = KubeRay(*[{}] * 10_000)
    patient = RayJobs(cast("Cluster", kuberay), poll_seconds=0.01, seen_seconds=0.1)

    with pytest.raises(ServiceError, match=r"KubeRay has not looked at RayJob .* in 0.1 s"):
        patient.run(RUN, "train", ["x"], tmp_path / "log")
    assert [] == left(kuberay)


def test_work_that_somebody_deletes_has_failed(tmp_path: Path) -> None:
    def works(kuberay: KubeRay, body: Object) -> None:
        kuberay.delete(RAY_JOBS, body["metadata"]["name"])

    with pytest.raises(ServiceError, match=f"RayJob {NAME} was deleted while it worked"):
        run(KubeRay(BUSY, works=works), tmp_path / "log")


def test_what_a_killed_step_left_is_removed_before_the_work_begins(tmp_path: Path) -> None:
    kuberay = KubeRay()
    kuberay.kept[NAME] = {"metadata": {"name": NAME}, "status": {}}
    kuberay.lingers = 3
    made_beside: list[bool] = []
    kuberay.works = lambda found, _: made_beside.append(found.lingers >= 0)
    kuberay.statuses = [BUSY, GOOD]
    run(kuberay, tmp_path / "log")

    assert [False] == made_beside, "the old one was gone"
    assert 1 == len(kuberay.made)


def test_the_last_step_of_a_run_removes_what_is_left_and_need_not_find_it() -> None:
    kuberay = KubeRay()
    kuberay.kept[NAME] = {"metadata": {"name": NAME}}
    for _ in range(2):
        jobs(kuberay).remove(RUN, "train")

    assert {} == kuberay.kept


def test_a_step_that_is_asked_to_end_takes_its_cluster_with_it(tmp_path: Path) -> None:
    kuberay = KubeRay(*[BUSY] * 10_000)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        run(kuberay, tmp_path / "log")
    timer.join()

    assert 143 == ended.value.code
    assert [] == left(kuberay)
    assert before == signal.getsignal(signal.SIGTERM)


def test_another_version_of_ray_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    kuberay = KubeRay()
    kuberay.template = copy.deepcopy(TEMPLATE)
    kuberay.template["spec"]["rayClusterSpec"]["rayVersion"] = "2.9.0"

    with pytest.raises(ServiceError, match=r"`ray.version` is 2.9.0 and this image has Ray"):
        run(kuberay, tmp_path / "log")
    assert [] == kuberay.made


def test_a_platform_without_a_manifest_says_what_to_do(tmp_path: Path) -> None:
    kuberay = KubeRay()
    kuberay.template = None

    with pytest.raises(NotFoundError, match=r"no ConfigMap mlplatform-ray in namespace here"):
        run(kuberay, tmp_path / "log")


def trains(kuberay: KubeRay, body: Object) -> None:
    """Do what the command does, on the other side of the volume."""
    words = body["spec"]["entrypoint"].split()
    folder = Path(words[words.index("--exchange") + 1])
    assert (folder / "training_set" / "rows").exists()
    models = folder / "models"
    models.mkdir()
    (models / "xgboost.onnx").write_bytes(b"onnx")
    artifacts.write_candidates(models, (CANDIDATE.model_copy(
        update={"path": models / "xgboost.onnx"}),))  # fmt: skip
    kuberay.statuses = [BUSY, GOOD]


CANDIDATE = Candidate.model_construct(
    name="xgboost", role="candidate", path=Path("x"), digest="0" * 64, features=("a",), params={},
    trials=1, best_iteration=1, training_loss=0.1, validation_loss=0.1, validation_score=0.5,
    train_rows=10, fit_seconds=0.1, max_export_difference=0.0,
)  # fmt: skip


@pytest.fixture
def training_set(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "rows").write_text("rows")
    return folder


def test_models_come_back_over_the_volume_and_it_is_cleared(
    tmp_path: Path, training_set: Path
) -> None:
    stale = Exchange(str(tmp_path / "data"), RUN).folder / "models"
    stale.mkdir(parents=True)
    (stale / "of an earlier attempt").touch()
    kuberay, models = KubeRay(works=trains), tmp_path / "models"
    models.mkdir()
    (found,) = train_remotely(
        jobs(kuberay), str(tmp_path / "data"), "flight_delay", RUN, training_set, models
    )

    assert models / "xgboost.onnx" == found.path
    assert b"onnx" == found.path.read_bytes()
    assert ["candidates.json", "xgboost.onnx"] == sorted(path.name for path in models.iterdir())
    assert [] == list((tmp_path / "data" / "exchange").iterdir())
    assert (
        "python -m pipelines.ray_training --usecase flight_delay --exchange"
        in (kuberay.made[0]["spec"]["entrypoint"])
    )


@pytest.mark.parametrize("status", [GOOD, {"jobDeploymentStatus": "Failed"}])
def test_a_training_that_leaves_no_models_fails_and_clears_the_volume(
    tmp_path: Path, training_set: Path, status: Object
) -> None:
    def nothing(kuberay: KubeRay, body: Object) -> None:
        words: Any = body["spec"]["entrypoint"].split()
        (Path(words[-1]) / "models").mkdir()
        kuberay.statuses = [status]

    with pytest.raises((DataError, ServiceError)):
        train_remotely(
            jobs(KubeRay(works=nothing)), str(tmp_path / "data"), "flight_delay", RUN, training_set,
            tmp_path / "models",
        )  # fmt: skip
    assert [] == list((tmp_path / "data" / "exchange").iterdir())
