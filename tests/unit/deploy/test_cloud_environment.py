"""An environment of Terraform: which files it gives, and which context it has."""

from pathlib import Path

import pytest

from deploy import cloud_environment, infra
from deploy.cloud_environment import CloudEnvironment
from mlplatform.errors import SettingsError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cloud_environment, "FOLDER", tmp_path)
    return tmp_path


def test_an_environment_has_a_context_of_its_own() -> None:
    assert "mlplatform-prod" == CloudEnvironment("prod").context


def test_only_the_profile_with_gpus_is_told_where_they_are() -> None:
    environment = CloudEnvironment("dev")

    assert ["infra-dev.yaml"] == [path.name for path in environment.values("full")]
    assert ["infra-dev.yaml", "infra-dev-gpu.yaml"] == [
        path.name for path in environment.values("gpu")
    ]


def test_files_that_are_there_are_taken_as_they_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infra, "main", lambda _: pytest.fail("asked again"))
    for name in ("infra-dev.yaml", "infra-dev-objects.yaml"):
        (folder / name).touch()

    CloudEnvironment("dev").ensure_files("full")


def test_missing_files_are_written_from_the_outputs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(arguments: list[str]) -> int:
        assert ["values", "dev"] == arguments
        for name in ("infra-dev.yaml", "infra-dev-objects.yaml"):
            (folder / name).touch()
        return 0

    monkeypatch.setattr(infra, "main", write)

    assert "infra-dev-objects.yaml" in CloudEnvironment("dev").ensure_files("full")


def test_an_environment_that_was_never_applied_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del folder
    monkeypatch.setattr(infra, "main", lambda _: 1)

    with pytest.raises(SettingsError, match="run `make infra-apply ENV=dev`"):
        CloudEnvironment("dev").ensure_files("full")
