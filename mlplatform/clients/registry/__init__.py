"""The model registry: the only package that knows MLflow.

What a registered version is here. MLflow holds one logged model (its ONNX flavour, loadable by
`mlflow.onnx` and `mlflow.pyfunc`) whose artifacts are

    MLmodel, requirements.txt, …   MLflow's own files
    model.onnx                     the same bytes again, where MLflow's loader looks for them
    signed/                        the signed directory, byte for byte: what is served

The copy costs one model's size and keeps the signed directory free of files that MLflow writes.

The manifest inside the signed directory names the version, and MLflow assigns versions. So the
version is *reserved first*: the row is made with the tag `state: pending`, its number goes into
the manifest, then the files go up, and the state turns to `complete`. MLflow gives a number once
(a primary key, also after a deletion), so concurrent registrations never share one, and a
version that is still pending is invisible to every lookup here and never has an alias.

It refuses pickles by construction (only ONNX files go up) and keeps MLflow's exceptions in.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from mlplatform.clients.registry.connection import Connection
from mlplatform.clients.registry.package import SIGNED, lay_out
from mlplatform.contracts import ModelRef
from mlplatform.errors import NotFoundError, ServiceError
from mlplatform.settings import RegistrySettings

_STATE: Final = "state"
_PENDING: Final = "pending"
_COMPLETE: Final = "complete"
_DATASET_DIGEST_LIMIT: Final = 36  # characters that MLflow's schema has for a dataset's digest


@dataclass(frozen=True)
class Dataset:
    """What a run was trained on, for the lineage."""

    name: str
    digest: str
    uri: str
    features: tuple[str, ...]


@dataclass(frozen=True)
class Reservation:
    """A version number that is ours, not yet visible to anybody."""

    name: str
    version: int
    run_id: str
    logged_model: str


class Registry:
    """Runs, versions and aliases of one MLflow server."""

    def __init__(self, settings: RegistrySettings) -> None:
        self._mlflow = Connection(settings)
        self._address = self._mlflow.address

    def by_alias(self, name: str, alias: str) -> ModelRef | None:
        """Return the version that an alias (`champion`, `challenger`) names; None without one."""
        try:
            with self._mlflow.calling(f"looking up {name}@{alias}") as mlflow:
                client = self._mlflow.client(mlflow)
                version = client.get_registered_model(name).aliases.get(alias)
                if version is None:
                    return None
                found = client.get_model_version(name, version)
        except NotFoundError:
            return None
        return self._ref(found, created=False)

    def get(self, name: str, version: int) -> ModelRef:
        """Return a complete version.

        Raises:
            NotFoundError: There is no such version, or its registration was never completed.
        """
        with self._mlflow.calling(f"looking up version {version} of {name}") as mlflow:
            found = self._mlflow.client(mlflow).get_model_version(name, str(version))
        if found.tags.get(_STATE) != _COMPLETE:
            raise NotFoundError(
                f"version {version} of {name} was never completed: its registration stopped "
                "half-way and it may not be used; register the model again"
            )
        return self._ref(found, created=False)

    def find_by_digest(
        self, name: str, digest: str, data_digest: str, tags: Mapping[str, str] | None = None
    ) -> ModelRef | None:
        """Return the newest complete version of these very bytes and data; None without one.

        Args:
            name: Registered name.
            digest: SHA-256 of the ONNX file.
            data_digest: SHA-256 of the training set's content.
            tags: Other tags that it must have been reserved with.
        """
        wanted = {_STATE: _COMPLETE, "model_digest": digest, "data_digest": data_digest}
        found = self._versions(name, wanted | dict(tags or {}))
        return self._ref(found[0], created=False) if found else None

    def newest(self, name: str) -> ModelRef | None:
        """Return the complete version with the highest number; None without one."""
        found = self._versions(name, {_STATE: _COMPLETE})
        return self._ref(found[0], created=False) if found else None

    def start_run(self, experiment: str, title: str, tags: Mapping[str, str], now: datetime) -> str:
        """Start a run in the experiment, which is made when absent; return the run's id."""
        with self._mlflow.calling(f"starting a run in {experiment}") as mlflow:
            client = self._mlflow.client(mlflow)
            known = client.get_experiment_by_name(experiment)
            if known is None:
                try:
                    experiment_id = client.create_experiment(experiment)
                except mlflow.MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                    experiment_id = client.get_experiment_by_name(experiment).experiment_id
            else:
                experiment_id = known.experiment_id
            run = client.create_run(
                experiment_id, start_time=_millis(now), tags=dict(tags), run_name=title
            )
            return str(run.info.run_id)

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, object],
        metrics: Mapping[str, float],
        dataset: Dataset,
        now: datetime,
    ) -> None:
        """Write parameters, metrics and the dataset's lineage to a run."""
        with self._mlflow.calling(f"logging to run {run_id}") as mlflow:
            from mlflow.data.meta_dataset import MetaDataset
            from mlflow.data.sources import LocalArtifactDatasetSource
            from mlflow.entities import DatasetInput, InputTag, Metric, Param
            from mlflow.types.schema import ColSpec, Schema

            source = LocalArtifactDatasetSource(dataset.uri)
            lineage = MetaDataset(
                source,
                name=dataset.name,
                digest=dataset.digest[:_DATASET_DIGEST_LIMIT],
                schema=Schema([ColSpec("float", feature) for feature in dataset.features]),
            )
            tags = [
                InputTag("mlflow.data.context", "training"),
                InputTag("digest", dataset.digest),
            ]
            client = self._mlflow.client(mlflow)
            client.log_batch(
                run_id,
                metrics=[Metric(key, value, _millis(now), 0) for key, value in metrics.items()],
                params=[Param(key, str(value)) for key, value in params.items()],
            )
            client.log_inputs(run_id, [DatasetInput(lineage._to_mlflow_entity(), tags)])  # noqa: SLF001 (mlflow.log_input does the same; the client has no public way)

    def end_run(self, run_id: str, *, succeeded: bool) -> None:
        """Close a run; one that was closed before stays as it is."""
        with self._mlflow.calling(f"closing run {run_id}") as mlflow:
            client = self._mlflow.client(mlflow)
            if client.get_run(run_id).info.status == "RUNNING":
                client.set_terminated(run_id, "FINISHED" if succeeded else "FAILED")

    def reserve(
        self, name: str, run_id: str, *, digest: str, data_digest: str, tags: Mapping[str, str]
    ) -> Reservation:
        """Take the next version number for these bytes; pending, so nobody can pick it up.

        An older pending version of the same bytes and data was left by a registration that
        stopped half-way, and is deleted. Of two registrations of the same bytes at once the
        newer wins: the other's next call says that its version is gone.
        """
        with self._mlflow.calling(f"reserving a version of {name}") as mlflow:
            client = self._mlflow.client(mlflow)
            try:
                client.create_registered_model(name)
            except mlflow.MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            experiment = client.get_run(run_id).info.experiment_id
            logged = client.create_logged_model(experiment, name=name, source_run_id=run_id)
            about = {
                **tags, _STATE: _PENDING, "model_digest": digest, "data_digest": data_digest,
                "logged_model": logged.model_id,
            }  # fmt: skip
            made = client.create_model_version(
                name,
                source=f"models:/{logged.model_id}",
                run_id=run_id,
                tags=about,
                await_creation_for=0,
                model_id=logged.model_id,
            )
        ours = Reservation(name, int(made.version), run_id, logged.model_id)
        wanted = {_STATE: _PENDING, "model_digest": digest, "data_digest": data_digest}
        for version in self._versions(name, wanted):
            if int(version.version) < ours.version:
                left = version.tags.get("logged_model", "")
                self.discard(Reservation(name, int(version.version), version.run_id, left))
        return ours

    def upload(self, reservation: Reservation, directory: Path, features: tuple[str, ...]) -> None:
        """Store a signed directory as the reserved version's model.

        Args:
            reservation: From `reserve`.
            directory: The signed model directory.
            features: Names of the model's inputs in order, for MLflow's signature.
        """
        what = f"uploading version {reservation.version} of {reservation.name}"
        with (
            self._mlflow.calling(what) as mlflow,
            tempfile.TemporaryDirectory(prefix="mlplatform-") as scratch,
        ):
            package = Path(scratch) / "model"
            lay_out(
                package,
                directory,
                features,
                run_id=reservation.run_id,
                model_id=reservation.logged_model,
            )
            client = self._mlflow.client(mlflow)
            client.log_model_artifacts(reservation.logged_model, str(package))
            client.finalize_logged_model(reservation.logged_model, "READY")

    def complete(self, reservation: Reservation, signature: str) -> ModelRef:
        """Make a reserved version visible.

        Args:
            reservation: Whose files are stored and verified.
            signature: SHA-256 of its signature file.
        """
        name, version = reservation.name, str(reservation.version)
        with self._mlflow.calling(f"completing version {version} of {name}") as mlflow:
            client = self._mlflow.client(mlflow)
            client.set_model_version_tag(name, version, "signature", signature)
            client.set_model_version_tag(name, version, _STATE, _COMPLETE)
            found = client.get_model_version(name, version)
        return self._ref(found, created=True)

    def discard(self, reservation: Reservation) -> bool:
        """Delete a reserved version; return False when it is complete and stays."""
        name, version = reservation.name, str(reservation.version)
        with self._mlflow.calling(f"discarding version {version} of {name}") as mlflow:
            client = self._mlflow.client(mlflow)
            if client.get_model_version(name, version).tags.get(_STATE) == _COMPLETE:
                return False
            client.delete_model_version(name, version)
            if reservation.logged_model:
                client.delete_logged_model(reservation.logged_model)
        if reservation.run_id:
            self.end_run(reservation.run_id, succeeded=False)
        return True

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias at a complete version."""
        self.get(name, version)
        with self._mlflow.calling(f"setting {name}@{alias} to version {version}") as mlflow:
            self._mlflow.client(mlflow).set_registered_model_alias(name, alias, str(version))

    def remove_alias(self, name: str, alias: str) -> None:
        """Take an alias away; one that is not there stays away."""
        with self._mlflow.calling(f"removing {name}@{alias}") as mlflow:
            self._mlflow.client(mlflow).delete_registered_model_alias(name, alias)

    def download(self, name: str, version: int, to: Path) -> Path:
        """Fetch the signed directory of a version, pending ones included.

        Args:
            name: Registered name.
            version: Version number.
            to: Folder to make; must not exist.

        Returns:
            `to`, holding exactly the files of the signed directory. They are not verified here.
        """
        with (
            self._mlflow.calling(f"downloading version {version} of {name}") as mlflow,
            tempfile.TemporaryDirectory(prefix="mlplatform-") as scratch,
        ):
            root = self._mlflow.client(mlflow).get_model_version_download_uri(name, str(version))
            fetched = mlflow.artifacts.download_artifacts(
                artifact_uri=f"{root}/{SIGNED}", dst_path=scratch, tracking_uri=self._address
            )
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(fetched, to)
        return to

    def url(self, ref: ModelRef) -> str:
        """Return the address of a version's page in the MLflow UI."""
        return f"{self._address}/#/models/{quote(ref.name, safe='')}/versions/{ref.version}"

    def _versions(self, name: str, tags: Mapping[str, str]) -> list[Any]:
        """Return the versions that carry all the tags, newest first."""
        wanted = [f"name = '{name}'", *(f"tags.{key} = '{value}'" for key, value in tags.items())]
        found: list[Any] = []
        with self._mlflow.calling(f"searching the versions of {name}") as mlflow:
            client, token = self._mlflow.client(mlflow), None
            while True:
                page = client.search_model_versions(" and ".join(wanted), page_token=token)
                found += page
                token = page.token
                if not token:
                    break
        return sorted(found, key=lambda version: -int(version.version))

    def _ref(self, version: Any, *, created: bool) -> ModelRef:
        tags = version.tags
        lacking = [key for key in ("model_digest", "signature") if not tags.get(key)]
        if lacking or tags.get(_STATE) != _COMPLETE:
            raise ServiceError(
                f"version {version.version} of {version.name} in {self._address} was not "
                "registered by this platform (its tags are missing): point the alias at a "
                "version that was"
            )
        return ModelRef(
            name=version.name,
            version=int(version.version),
            digest=tags["model_digest"],
            uri=f"models:/{version.name}/{version.version}/{SIGNED}",
            signature=tags["signature"],
            run_id=version.run_id,
            created=created,
            registered_at=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
        )


def _millis(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
