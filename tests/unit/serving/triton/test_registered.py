"""What a real registry holds is exported; what it does not hold is not."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from local.mlflow_server import mlflow_server
from mlplatform import signing
from mlplatform.clients.registry import Registry
from mlplatform.contracts import Manifest, ModelRef
from mlplatform.errors import ModelError, NotFoundError
from mlplatform.settings import RegistrySettings
from serving.triton.export import Export, export
from tests.unit.serving.triton.conftest import (
    FEATURES,
    REQUEST_FEATURES,
    SERVICE,
    layout,
    logistic,
    spec,
)
from tests.unit.signing.filler import fill

NOW = datetime(2013, 12, 31, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield Registry(RegistrySettings(tracking_uri=server.url, timeout_seconds=10))


def register(
    registry: Registry, keys: signing.KeyPair, folder: Path, *, signed_as: int | None = None
) -> ModelRef:
    """Register the small model; `signed_as` signs it as another version than its own."""
    run_id = registry.start_run("flight_delay", "test", {}, NOW)
    folder.mkdir()
    (folder / "model.onnx").write_bytes(logistic().SerializeToString())
    fill(folder)
    digest = signing.file_digest(folder / "model.onnx")
    reserved = registry.reserve("flight_delay", run_id, digest=digest, data_digest="d", tags={})
    manifest = Manifest(
        name="flight_delay",
        version=signed_as or reserved.version,
        run_id=run_id,
        model_digest=digest,
        data_digest="d",
        git_commit="0123abc",
        feature_service=SERVICE,
        features=FEATURES,
        created_at=NOW,
    )
    signing.write_manifest(folder, manifest)
    signature = signing.sign(folder, keys.private)
    registry.upload(reserved, folder, FEATURES)
    return registry.complete(reserved, signature)


def exported(registry: Registry, keys: signing.KeyPair, version: int, out: Path) -> Export:
    return export(
        registry,
        "flight_delay",
        version,
        spec=spec(),
        layout=layout(),
        request_features=REQUEST_FEATURES,
        public_key=keys.public,
        target="embedded",
        out=out,
    )


@pytest.mark.loop
def test_a_registered_version_is_fetched_verified_and_exported(
    registry: Registry, keys: signing.KeyPair, tmp_path: Path
) -> None:
    ref = register(registry, keys, tmp_path / "model")
    made = exported(registry, keys, ref.version, tmp_path / "out")

    assert (ref.version, ref.digest) == (made.served.version, made.served.digest)
    assert made == exported(registry, keys, ref.version, tmp_path / "out")


@pytest.mark.loop
def test_a_version_that_was_signed_as_another_is_refused(
    registry: Registry, keys: signing.KeyPair, tmp_path: Path
) -> None:
    ref = register(registry, keys, tmp_path / "model", signed_as=999)

    with pytest.raises(ModelError, match="may be a replay"):
        exported(registry, keys, ref.version, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.loop
def test_a_version_that_nobody_registered_is_not_there(
    registry: Registry, keys: signing.KeyPair, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError):
        exported(registry, keys, 1234, tmp_path / "out")
