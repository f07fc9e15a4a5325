"""The compiled pipeline is a promise: what changes in it is reviewed as a difference of files."""

from pathlib import Path

import pytest
import yaml

from mlplatform.settings import PipelineSettings
from pipelines.compile import compile_all

GOLDEN = Path(__file__).parent / "golden"

GPU = PipelineSettings(
    image="registry.example.com/mlplatform-python@sha256:" + "0" * 64,
    gpu_count=1,
    node_selector={"pool": "ml"},
)
RAY = PipelineSettings(image=GPU.image, gpu_count=1, ray="job")
CASES = {
    "batch_scoring": ("batch_scoring", PipelineSettings()),
    "training": ("training", PipelineSettings()),
    "training-gpu": ("training", GPU),
    "training-ray": ("training", RAY),
}
"""The pipeline and the settings of each golden file."""


def compiled(out: Path, case: str) -> str:
    """Return a case's pipeline as it is compiled now."""
    name, settings = CASES[case]
    (path,) = [path for path in compile_all(out, settings) if path.stem == name]
    return path.read_text()


@pytest.mark.parametrize("name", CASES)
def test_the_pipeline_compiles_to_its_golden_file(name: str, tmp_path: Path) -> None:
    expected = (GOLDEN / f"{name}.yaml").read_text()

    assert expected == compiled(tmp_path, name), "make golden, then review"


def test_compiling_twice_gives_equal_bytes(tmp_path: Path) -> None:
    first = compile_all(tmp_path / "first", PipelineSettings())
    second = compile_all(tmp_path / "second", PipelineSettings())

    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def executors_of(case: str) -> tuple[dict[str, dict[str, object]], ...]:
    pipeline, platform = yaml.safe_load_all((GOLDEN / f"{case}.yaml").read_text())
    executors = pipeline["deploymentSpec"]["executors"]
    placed = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return executors, placed


@pytest.fixture(scope="module")
def documents() -> tuple[dict[str, dict[str, object]], ...]:
    """The pipeline and its Kubernetes settings, by task, of the case with a GPU."""
    return executors_of("training-gpu")


Documents = tuple[dict[str, dict[str, object]], ...]


def test_only_training_asks_for_a_gpu(documents: Documents) -> None:
    executors, placed = documents
    asking = [name for name, spec in executors.items() if "accelerator" in str(spec["container"])]

    assert ["exec-train"] == asking
    assert ["exec-train"] == [name for name, spec in placed.items() if "tolerations" in spec]


def test_training_on_a_ray_cluster_leaves_its_gpus_to_the_cluster() -> None:
    executors, placed = executors_of("training-ray")
    told = [name for name, spec in executors.items() if "COMPUTE_RAY" in str(spec["container"])]

    assert ["exec-record", "exec-train"] == sorted(told)
    assert [] == [n for n, spec in executors.items() if "accelerator" in str(spec["container"])]
    assert "/dev/shm" not in str(placed)  # noqa: S108  # no path of this machine


def test_only_registration_can_read_the_signing_key(documents: Documents) -> None:
    readers = [name for name, spec in documents[1].items() if "secretAsVolume" in spec]

    assert ["exec-register"] == readers


def test_a_task_gets_the_secrets_of_the_services_that_it_speaks_to(documents: Documents) -> None:
    secrets = {name: str(spec.get("secretAsEnv", "")) for name, spec in documents[1].items()}

    ledger = [name for name, text in secrets.items() if "MLPLATFORM_LEDGER_URL" in text]
    registry = [name for name, text in secrets.items() if "MLPLATFORM_REGISTRY_PASSWORD" in text]
    assert ["exec-build-training-set", "exec-record", "exec-validate"] == sorted(ledger)
    assert ["exec-evaluate", "exec-register"] == sorted(registry)


def test_every_task_has_limits_a_timeout_and_the_image(documents: Documents) -> None:
    executors, placed = documents

    images = {spec["container"]["image"] for spec in executors.values()}  # type: ignore[index]
    assert {GPU.image} == images
    assert [] == [name for name, spec in executors.items() if "memoryLimit" not in str(spec)]
    assert [] == [name for name in executors if "activeDeadlineSeconds" not in placed[name]]


def test_batch_scoring_can_read_no_private_key_and_the_registry_only_where_it_scores() -> None:
    _, placed = executors_of("batch_scoring")
    secrets = {name: str(spec.get("secretAsEnv", "")) for name, spec in placed.items()}

    assert [] == [name for name, spec in placed.items() if "secretAsVolume" in spec]
    assert ["exec-batch-score"] == [
        n for n, text in secrets.items() if "MLPLATFORM_REGISTRY_PASSWORD" in text
    ]
    assert ["exec-validate"] == [
        n for n, text in secrets.items() if "MLPLATFORM_LEDGER_URL" in text
    ]
