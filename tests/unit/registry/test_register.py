"""Registering end to end in a real MLflow server."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import mlflow.onnx
import numpy as np
import pandas as pd
import pytest

from local.mlflow_server import Server
from mlplatform import signing
from mlplatform.clients.registry import Registry
from mlplatform.contracts import GateReport
from mlplatform.errors import ModelError, PlatformError, ServiceError
from pipelines.steps.register import CHALLENGER, register

MakeWork = Callable[..., Any]


@pytest.fixture
def client(server: Server) -> Any:
    return mlflow.MlflowClient(server.url, server.url)


def states(client: Any, name: str) -> dict[int, str]:
    found = client.search_model_versions(f"name = '{name}'")
    return {int(version.version): version.tags["state"] for version in found}


def runs(client: Any, name: str) -> list[str]:
    experiment = client.get_experiment_by_name(name)
    found = client.search_runs([experiment.experiment_id])
    return sorted(run.info.status for run in found)


def test_a_registered_model_is_signed_and_marked_as_challenger(
    registry: Registry, make_work: MakeWork, tmp_path: Path
) -> None:
    work = make_work("signed_model")

    ref = work.run(registry)
    stored = registry.download(ref.name, ref.version, tmp_path / "stored")
    manifest = signing.verify(stored, work.keys.public, name="signed_model", version=1)

    assert ref == registry.get("signed_model", 1).model_copy(update={"created": True})
    assert (1, True) == (ref.version, ref.created)
    assert ref.version == registry.by_alias("signed_model", CHALLENGER).version  # type: ignore[union-attr]
    assert None is registry.by_alias("signed_model", "champion")
    assert (ref.run_id, work.candidate.digest, "0123abc") == (
        manifest.run_id,
        manifest.model_digest,
        manifest.git_commit,
    )
    assert ref.signature == signing.file_digest(stored / "model.sig")


def test_the_signed_directory_comes_back_byte_for_byte(
    registry: Registry, make_work: MakeWork, tmp_path: Path
) -> None:
    work = make_work("byte_model")

    ref = work.run(registry)
    stored = registry.download(ref.name, ref.version, tmp_path / "stored")
    made = work.workdir / "byte_model-v1"

    assert {path.name: path.read_bytes() for path in made.iterdir()} == {
        path.name: path.read_bytes() for path in stored.iterdir()
    }
    assert work.candidate.path.read_bytes() == (stored / "model.onnx").read_bytes()


def test_the_feature_config_says_how_to_call_the_model(
    registry: Registry, make_work: MakeWork
) -> None:
    work = make_work("config_model")

    work.run(registry)
    config = json.loads((work.workdir / "config_model-v1" / "feature_config.json").read_text())

    assert {
        "feature_service": "flight_delay_v1",
        "features": [
            {"name": "distance", "dtype": "float32"},
            {"name": "hour", "dtype": "float32"},
            {"name": "wind", "dtype": "float32"},
        ],
        "input": "features",
        "output": "probability",
        "label": "late",
        "request_inputs": ["distance", "scheduled_departure"],
        "threshold": 0.4,
    } == config


def test_mlflow_loads_the_same_model_by_both_flavours(
    registry: Registry, server: Server, make_work: MakeWork
) -> None:
    work = make_work("flavour_model")
    ref = work.run(registry)
    inputs = pd.DataFrame(
        {"distance": [1.0, 0.0], "hour": [1.0, 0.0], "wind": [0.0, 0.0]}, dtype="float32"
    )

    mlflow.set_tracking_uri(server.url)
    mlflow.set_registry_uri(server.url)
    native = mlflow.onnx.load_model(f"models:/{ref.name}/{ref.version}")
    generic = mlflow.pyfunc.load_model(f"models:/{ref.name}@{CHALLENGER}")
    predicted = generic.predict(inputs)["probability"].to_numpy()

    assert work.candidate.path.read_bytes() == native.SerializeToString()
    assert ["distance", "hour", "wind"] == generic.metadata.signature.inputs.input_names()
    assert ["probability"] == generic.metadata.signature.outputs.input_names()
    np.testing.assert_allclose([0.7310586, 0.5], predicted, rtol=1e-6)


def test_the_run_holds_metrics_parameters_commit_and_lineage(
    registry: Registry, client: Any, make_work: MakeWork
) -> None:
    work = make_work("logged_model")

    ref = work.run(registry)
    run = client.get_run(ref.run_id)
    dataset = run.inputs.dataset_inputs[0]

    assert "FINISHED" == run.info.status
    assert {
        "training_loss": 0.41,
        "dataset_rows": 2400,
        "feature_count": 3,
        "data_age_hours": 12.5,
        "test_pr_auc": 0.5,
        "test_pr_auc_low": 0.45,
    }.items() <= run.data.metrics.items()
    assert {"model.max_depth": "6", "seed": "7"}.items() <= run.data.params.items()
    assert "0123abc" == run.data.tags["git_commit"]
    assert "0.05 better, at least 0.01 asked" == run.data.tags["gate.beats_baseline"]
    assert "logged_model_training_set" == dataset.dataset.name
    assert "d" * 64 == {tag.key: tag.value for tag in dataset.tags}["digest"]


def test_the_same_model_on_the_same_data_is_registered_once(
    registry: Registry, client: Any, make_work: MakeWork
) -> None:
    work = make_work("same_model")

    first = work.run(registry)
    second = work.run(registry)

    assert first.model_copy(update={"created": False}) == second
    assert {1: "complete"} == states(client, "same_model")
    assert ["FINISHED"] == runs(client, "same_model")


@pytest.mark.parametrize(
    "changed",
    [pytest.param({"weight": 0.7}, id="other-model"), pytest.param({"data": "e" * 64}, id="data")],
)
def test_another_model_or_other_data_is_a_new_version(
    registry: Registry, make_work: MakeWork, changed: dict[str, Any], request: Any
) -> None:
    name = f"new_{request.node.callspec.id.replace('-', '_')}"

    make_work(name).run(registry)
    second = make_work(name, **changed).run(registry)

    assert (2, True) == (second.version, second.created)
    assert 2 == registry.by_alias(name, CHALLENGER).version  # type: ignore[union-attr]


def test_running_an_old_registration_again_leaves_a_newer_challenger(
    registry: Registry, make_work: MakeWork
) -> None:
    make_work("old_model").run(registry)
    make_work("old_model", weight=0.9).run(registry)

    again = make_work("old_model").run(registry)

    assert (1, False) == (again.version, again.created)
    assert 2 == registry.by_alias("old_model", CHALLENGER).version  # type: ignore[union-attr]


def test_a_champion_does_not_become_its_own_challenger(
    registry: Registry, client: Any, make_work: MakeWork
) -> None:
    work = make_work("champion_model")
    ref = work.run(registry)
    registry.set_alias(ref.name, "champion", ref.version)
    client.delete_registered_model_alias(ref.name, CHALLENGER)

    work.run(registry)

    assert None is registry.by_alias(ref.name, CHALLENGER)


def test_an_alias_that_a_slower_registration_overwrote_is_given_back(
    registry: Registry, make_work: MakeWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, fast = make_work("slow_model"), make_work("slow_model", weight=0.9)
    set_alias = Registry.set_alias

    def overtaken(self: Registry, name: str, alias: str, version: int) -> None:
        monkeypatch.setattr(Registry, "set_alias", set_alias)
        fast.run(registry)  # registers and becomes challenger just before the slow one sets it
        set_alias(self, name, alias, version)

    monkeypatch.setattr(Registry, "set_alias", overtaken)
    slow.run(registry)

    assert 2 == registry.by_alias("slow_model", CHALLENGER).version  # type: ignore[union-attr]


def test_concurrent_registrations_sign_the_version_they_got(
    registry: Registry, make_work: MakeWork, tmp_path: Path
) -> None:
    works = [make_work("parallel_model", weight=weight) for weight in (0.1, 0.2, 0.3)]

    with ThreadPoolExecutor(3) as pool:
        refs = list(pool.map(lambda work: work.run(registry), works))

    assert [1, 2, 3] == sorted(ref.version for ref in refs)
    for ref, work in zip(refs, works, strict=True):
        stored = registry.download(ref.name, ref.version, tmp_path / str(ref.version))
        manifest = signing.verify(
            stored, work.keys.public, name=ref.name, version=ref.version, run_id=ref.run_id
        )
        assert work.candidate.digest == manifest.model_digest
    assert 3 == registry.by_alias("parallel_model", CHALLENGER).version  # type: ignore[union-attr]


STAGES = ["log", "reserve", "upload", "download", "complete", "end_run", "set_alias"]


class Crash(BaseException):
    """As Ctrl-C: not an error that somebody handles."""


@pytest.mark.parametrize(
    ("stage", "gone", "after"),
    [
        *(pytest.param(stage, True, False, id=f"killed-before-{stage}") for stage in STAGES),
        *(pytest.param(stage, True, True, id=f"killed-after-{stage}") for stage in STAGES),
        pytest.param("log", False, False, id="interrupted-in-log"),
        pytest.param("upload", False, False, id="interrupted-in-upload"),
        pytest.param("complete", False, False, id="interrupted-in-complete"),
        pytest.param("complete", False, True, id="interrupted-after-complete"),
    ],
)
def test_a_crash_at_any_stage_leaves_nothing_to_pick_up_and_can_be_run_again(
    registry: Registry,
    client: Any,
    make_work: MakeWork,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    gone: bool,
    after: bool,
) -> None:
    name = f"crash_{stage}_{'killed' if gone else 'interrupted'}_{'after' if after else 'before'}"
    work = make_work(name)
    original = getattr(Registry, stage)

    with monkeypatch.context() as patch:

        def crashing(self: Registry, *args: Any, **kwargs: Any) -> Any:
            if after:
                original(self, *args, **kwargs)
            if gone:  # a killed process cleans nothing up
                for cleanup in ("discard", "end_run"):
                    patch.setattr(Registry, cleanup, lambda *_args, **_kwargs: True)
            else:
                patch.setattr(Registry, stage, original)
            raise Crash

        patch.setattr(Registry, stage, crashing)
        with pytest.raises(Crash):
            work.run(registry)
    visible = registry.find_by_digest(name, work.candidate.digest, "d" * 64)
    aliased = registry.by_alias(name, CHALLENGER)

    if aliased is not None:
        assert ("set_alias", True) == (stage, after)
    if visible is None:
        assert "complete" not in states(client, name).values()
    ref = work.run(registry)
    assert {ref.version: "complete"} == states(client, name)
    assert ref.version == registry.by_alias(name, CHALLENGER).version  # type: ignore[union-attr]
    assert 1 == runs(client, name).count("FINISHED")
    assert (visible is None) == ref.created


def test_a_model_that_the_registry_changed_is_never_completed(
    registry: Registry, client: Any, make_work: MakeWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = make_work("tampered_model")
    download = Registry.download

    def tampering(self: Registry, name: str, version: int, to: Path) -> Path:
        stored = download(self, name, version, to)
        path = stored / "feature_config.json"
        path.write_text(path.read_text().replace("0.4", "0.1"))
        return stored

    monkeypatch.setattr(Registry, "download", tampering)

    with pytest.raises(ModelError, match="is not what was signed"):
        work.run(registry)
    assert {} == states(client, "tampered_model")
    assert None is registry.by_alias("tampered_model", CHALLENGER)


def test_a_version_number_is_not_given_twice(
    registry: Registry, make_work: MakeWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = make_work("numbered_model")
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "upload", _fails)
        with pytest.raises(ServiceError, match="planted"):
            work.run(registry)

    ref = work.run(registry)

    assert 2 == ref.version


def _fails(*_args: Any, **_kwargs: Any) -> None:
    raise ServiceError("planted")


def test_a_model_that_failed_a_gate_is_refused(registry: Registry, make_work: MakeWork) -> None:
    work = make_work("refused_model")
    failed = work.gate.results[0].model_copy(update={"passed": False, "reason": "0.00 better"})
    gate = work.gate.model_copy(update={"results": (failed,)})

    with pytest.raises(ModelError, match=r"gates did not pass \(beats_baseline: 0.00 better\)"):
        _register(work, registry, gate=gate)


def test_an_empty_gate_report_is_refused(registry: Registry, make_work: MakeWork) -> None:
    work = make_work("refused_model")

    with pytest.raises(ModelError, match="gate report is empty"):
        _register(work, registry, gate=GateReport(candidate="xgboost", results=()))


@pytest.mark.parametrize("field", ["gate", "evaluation"])
def test_a_report_of_another_candidate_is_refused(
    registry: Registry, make_work: MakeWork, field: str
) -> None:
    work = make_work("refused_model")
    other = getattr(work, field).model_copy(update={"candidate": "lightgbm"})

    with pytest.raises(ModelError, match="is of lightgbm"):
        _register(work, registry, **{field: other})


def test_a_file_that_changed_after_the_training_is_refused(
    registry: Registry, make_work: MakeWork
) -> None:
    work = make_work("refused_model")
    work.candidate.path.write_bytes(work.candidate.path.read_bytes() + b"\0")

    with pytest.raises(ModelError, match="the file was changed after the training"):
        work.run(registry)


def test_inputs_in_another_order_are_refused(registry: Registry, make_work: MakeWork) -> None:
    work = make_work("refused_model")
    turned = work.training_set.model_copy(update={"features": ("hour", "distance", "wind")})

    with pytest.raises(ModelError, match="are not the training set's 3 in order"):
        _register(work, registry, training_set=turned)


def test_a_refused_model_leaves_no_trace(registry: Registry, client: Any) -> None:
    assert None is client.get_experiment_by_name("refused_model")
    assert None is registry.by_alias("refused_model", CHALLENGER)


def test_a_missing_private_key_leaves_nothing_registered(
    registry: Registry, client: Any, make_work: MakeWork, tmp_path: Path
) -> None:
    work = make_work("keyless_model")
    keys = signing.KeyPair(tmp_path / "absent.pem", work.keys.public)

    with pytest.raises(PlatformError, match=r"private key .*absent.pem cannot be used"):
        _register(work, registry, keys=keys)
    assert {} == states(client, "keyless_model")
    assert ["FAILED"] == runs(client, "keyless_model")


def _register(work: Any, registry: Registry, **changed: Any) -> None:
    fields = ("spec", "training_set", "candidate", "evaluation", "gate")
    given = {field: getattr(work, field) for field in (*fields, "keys", "workdir")} | changed
    now = work.training_set.window.end
    register(registry=registry, git_commit="0123abc", now=now, **given)
