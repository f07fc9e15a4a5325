"""config.pbtxt is a function of the spec; its texts for each target are kept and reviewed."""

from pathlib import Path
from typing import Any

import pytest

from mlplatform.errors import ModelError
from serving.triton.config import Target, describe, render
from tests.unit.serving.triton.conftest import spec

GOLDEN = Path(__file__).with_name("golden")


def text(target: Target = "embedded", **serving: Any) -> str:
    return render(describe("flight_delay", 3, 59, spec(**serving).serving, target))


@pytest.mark.parametrize(
    ("name", "target", "backend"),
    [
        pytest.param("embedded", "embedded", "onnxruntime", id="embedded"),
        pytest.param("gpu", "gpu", "onnxruntime", id="gpu"),
        pytest.param("tensorrt", "gpu", "tensorrt", id="tensorrt"),
    ],
)
def test_the_text_of_a_target_is_the_kept_one(name: str, target: Target, backend: str) -> None:
    expected = (GOLDEN / f"{name}.pbtxt").read_text(encoding="utf-8")

    assert expected == text(target, inference={"backend": backend})


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt", "fil"])
def test_one_machine_runs_onnxruntime_whatever_the_gpu_nodes_run(backend: str) -> None:
    assert text() == text(inference={"backend": backend})


def test_fil_on_a_gpu_node_is_refused_with_what_it_would_need() -> None:
    with pytest.raises(
        ModelError, match=r"only model\.onnx is signed.* It would need that file in"
    ):
        text("gpu", inference={"backend": "fil"})


@pytest.mark.parametrize(
    ("max_batch", "max_rows", "expected"),
    [pytest.param(64, 256, 256, id="requests"), pytest.param(128, 16, 128, id="batches")],
)
def test_the_largest_batch_holds_the_largest_request(
    max_batch: int, max_rows: int, expected: int
) -> None:
    made = text(inference={"max_batch": max_batch}, max_rows=max_rows)

    assert f"\nmax_batch_size: {expected}\n" in made


def test_a_gpu_waits_half_of_the_queue_budget_and_one_machine_does_not_wait() -> None:
    budget = spec().serving.latency_ms.model_dump() | {"queue": 8, "total": 53}

    assert "max_queue_delay_microseconds: 4000\n" in text("gpu", latency_ms=budget)
    assert "\ndynamic_batching {}\n" in text("embedded", latency_ms=budget)


@pytest.mark.parametrize("target", ["embedded", "gpu"])
def test_no_target_has_a_queue_policy_which_stalls_the_batcher(target: Target) -> None:
    assert "queue_policy" not in text(target)


def test_only_the_registered_version_is_loaded() -> None:
    assert "version_policy { specific { versions: [3] } }" in text()


def test_both_batches_that_a_server_meets_are_warmed_up() -> None:
    made = text(inference={"max_batch": 32})

    assert ["batch_size: 1", "batch_size: 32"] == [
        line.strip() for line in made.splitlines() if line.strip().startswith("batch_size")
    ]


def test_each_instance_of_the_spec_is_asked_for() -> None:
    assert "instance_group [{ kind: KIND_GPU count: 4 }]" in text("gpu", inference={"instances": 4})
