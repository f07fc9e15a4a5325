"""The init container of a model server: it leaves what is to be served, or says why not."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from feature_repo import catalog
from mlplatform import signing
from mlplatform.clients.registry import Registry
from mlplatform.contracts import Manifest, ModelRef
from mlplatform.errors import NotFoundError, ServiceError
from mlplatform.settings import RegistrySettings
from serving.triton import fetch
from tests.unit.serving.triton.conftest import logistic
from tests.unit.signing.filler import fill

USECASE = "flight_delay"
FEATURES = ("distance_miles", "departure_hour", "scheduled_minutes")
NOW = datetime(2013, 12, 31, 12, tzinfo=UTC)


class FolderRegistry(Registry):
    """Holds version 3 of the use case's model; may be away."""

    def __init__(self, folder: Path, ref: ModelRef) -> None:
        self.folder, self.ref = folder, ref
        self.failure: Exception | None = None

    def __call__(self, settings: RegistrySettings) -> "FolderRegistry":
        """Be made from the settings, in the place of the class."""
        del settings
        return self

    def get(self, name: str, version: int) -> ModelRef:
        if self.failure is not None:
            raise self.failure
        if (name, version) != (self.ref.name, self.ref.version):
            raise NotFoundError(f"there is no version {version} of {name}")
        return self.ref

    def download(self, name: str, version: int, to: Path) -> Path:
        self.get(name, version)
        shutil.copytree(self.folder, to)
        return to


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderRegistry:
    keys = tmp_path / "signing.pem", tmp_path / "signing.pub.pem"
    signing.create_key_pair(*keys)
    folder = tmp_path / "signed"
    folder.mkdir()
    (folder / signing.MODEL).write_bytes(logistic(len(FEATURES)).SerializeToString())
    fill(folder)
    digest = signing.file_digest(folder / signing.MODEL)
    manifest = Manifest(
        name=USECASE,
        version=3,
        run_id="run",
        model_digest=digest,
        data_digest="d",
        git_commit="0123abc",
        feature_service=catalog.spec(USECASE).feature_service,
        features=FEATURES,
        created_at=NOW,
    )
    signing.write_manifest(folder, manifest)
    ref = ModelRef(
        name=USECASE,
        version=3,
        digest=digest,
        uri="models:/x",
        signature=signing.sign(folder, keys[0]),
        run_id="run",
        created=False,
        registered_at=NOW,
    )
    found = FolderRegistry(folder, ref)
    monkeypatch.setattr(fetch, "Registry", found)
    monkeypatch.setenv("MLPLATFORM_SIGNING_PUBLIC_KEY", str(keys[1]))
    return found


@pytest.fixture
def run(registry: FolderRegistry, tmp_path: Path) -> Callable[..., int]:
    """Runs the command line, in a pod with a termination log."""
    (tmp_path / "log").touch()

    def main(version: int = 3, digest: str = "", target: str = "embedded") -> int:
        arguments = [
            "--usecase", USECASE, "--version", str(version), "--target", target,
            "--digest", digest or registry.ref.digest, "--out", str(tmp_path / "models"),
        ]  # fmt: skip
        return fetch.main(arguments, log=tmp_path / "log")

    return main


def repository(tmp_path: Path) -> Path:
    return tmp_path / "models" / "repository"


@pytest.mark.parametrize(("target", "backend"), [("embedded", "python"), ("server", "onnxruntime")])
def test_what_is_to_be_served_lies_where_the_server_looks(
    run: Callable[..., int], tmp_path: Path, target: str, backend: str
) -> None:
    assert 0 == run(target=target)

    model = repository(tmp_path) / USECASE
    assert (model / "3" / "model.onnx").is_file()
    assert f'backend: "{backend}"' in (model / "config.pbtxt").read_text()


def test_the_folder_may_be_mounted_elsewhere(run: Callable[..., int], tmp_path: Path) -> None:
    run()

    moved = (tmp_path / "models").rename(tmp_path / "mounted")
    assert (moved / "repository" / USECASE / "3" / "model.onnx").is_file()


def test_a_container_that_starts_again_finds_its_work_done(
    run: Callable[..., int], tmp_path: Path
) -> None:
    assert [0, 0] == [run(), run()]
    assert "" == (tmp_path / "log").read_text()


def test_another_digest_than_the_one_asked_for_is_refused(
    run: Callable[..., int], registry: FolderRegistry, tmp_path: Path
) -> None:
    assert 1 == run(digest="f" * 64)

    said = (tmp_path / "log").read_text()
    assert f"has digest {registry.ref.digest}, but {'f' * 64} was asked for" in said
    assert not repository(tmp_path).exists()
    assert 0 == run(digest=f"sha256:{registry.ref.digest}")


def test_a_model_that_was_changed_is_refused(
    run: Callable[..., int],
    registry: FolderRegistry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = registry.folder / signing.MODEL
    path.write_bytes(logistic(len(FEATURES), weight=5).SerializeToString())

    assert 1 == run()
    assert not repository(tmp_path).exists()
    assert (tmp_path / "log").read_text() == capsys.readouterr().err.rstrip("\n") != ""


def test_a_version_that_nobody_registered_is_refused(run: Callable[..., int]) -> None:
    assert 1 == run(version=9)


def test_a_registry_that_is_away_may_come_back(
    run: Callable[..., int], registry: FolderRegistry, tmp_path: Path
) -> None:
    registry.failure = ServiceError("MLflow is away")
    assert 75 == run()
    assert "MLflow is away" == (tmp_path / "log").read_text()

    registry.failure = None
    assert 0 == run()


def test_a_wrong_setting_is_no_refusal(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPLATFORM_REGISTRY_TIMEOUT_SECONDS", "soon")

    assert 2 == run()


def test_without_a_termination_log_the_reason_is_said_all_the_same(
    registry: FolderRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.failure = ServiceError("MLflow is away")
    arguments = ["--usecase", USECASE, "--version", "3", "--digest", "d", "--out", str(tmp_path)]

    assert 75 == fetch.main(arguments, log=tmp_path / "none")
    assert "MLflow is away" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
