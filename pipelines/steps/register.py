"""The last step: put the winner into the registry, signed, as challenger.

Order makes it safe to stop anywhere. The version number is reserved first, because the signed
manifest names it; the stored files are fetched back and verified before the version becomes
visible; the alias is set last. Whatever stopped earlier leaves a version that no lookup returns,
and running the step again removes it and starts over.

It refuses a model whose gates did not pass, and registers the same bytes on the same data once,
unless they are to be monitored in another way: thresholds are signed with the version.
"""

import logging
import shutil
import time
from datetime import datetime
from pathlib import Path
from typing import Final

from mlplatform import signing
from mlplatform.clients.registry import Dataset, Registry, Reservation
from mlplatform.contracts import (
    Candidate,
    Evaluation,
    GateReport,
    Manifest,
    ModelRef,
    TrainingSet,
    UseCase,
)
from mlplatform.errors import ModelError, PlatformError
from pipelines.steps import model_directory, run_record

_LOGGER = logging.getLogger("mlplatform.register")

CHALLENGER: Final = "challenger"
CHAMPION: Final = "champion"


def register(
    spec: UseCase,
    training_set: TrainingSet,
    candidate: Candidate,
    evaluation: Evaluation,
    gate: GateReport,
    registry: Registry,
    keys: signing.KeyPair,
    git_commit: str,
    workdir: Path,
    now: datetime,
    *,
    request_inputs: tuple[str, ...] = (),
    threshold: float | None = None,
) -> ModelRef:
    """Register, sign, verify and mark the candidate as challenger.

    Args:
        spec: The use case; its name is the model's and the experiment's.
        training_set: What the candidate was trained on; its rows become the reference.
        candidate: The winner.
        evaluation: The winner's, on the test window: the rows that it was not fitted or chosen on.
        gate: The winner's; must have passed.
        registry: Where to.
        keys: Signs with the private key and verifies with the public one.
        git_commit: Commit of the code that trained.
        workdir: Folder for the model directory; `<name>-v<version>` in it is replaced.
        now: Time of the registration.
        request_inputs: Raw inputs that a live request must carry.
        threshold: Probability from which the use case acts; None: it has none.

    Returns:
        The version; `created` is False when these bytes were registered before.

    Raises:
        ModelError: The gates did not pass, the inputs are not of one model, or the registry does
            not hold what was signed.
        DataError: The training set cannot be read.
        ServiceError: The registry failed; running the step again is safe.
    """
    started = time.perf_counter()
    _refuse(training_set, candidate, evaluation, gate)
    existing = registry.find_by_digest(
        spec.name, candidate.digest, training_set.digest, tags=_watched(spec)
    )
    if existing is not None:
        registry.end_run(existing.run_id, succeeded=True)
        _LOGGER.info("unchanged: the same model on the same data is version %d", existing.version)
        _challenge(registry, existing)
        return existing
    contents = model_directory.gather(
        spec, training_set, candidate, evaluation,
        request_inputs=request_inputs, threshold=threshold,
    )  # fmt: skip
    ref = _create(
        spec, training_set, candidate, contents, gate, registry, keys, git_commit, workdir, now
    )
    registry.end_run(ref.run_id, succeeded=True)
    _challenge(registry, ref)
    seconds = time.perf_counter() - started
    _LOGGER.info("%s version %d registered and signed (%.1f s)", ref.name, ref.version, seconds)
    return ref


def _refuse(
    training_set: TrainingSet, candidate: Candidate, evaluation: Evaluation, gate: GateReport
) -> None:
    if not gate.results:
        raise ModelError(
            f"{candidate.name} is refused: its gate report is empty, so nothing was shown; "
            "run the gate step"
        )
    if not gate.passed:
        failed = "; ".join(f"{r.gate}: {r.reason}" for r in gate.results if not r.passed)
        raise ModelError(f"{candidate.name} is refused: its gates did not pass ({failed})")
    for what, name in (("gate report", gate.candidate), ("evaluation", evaluation.candidate)):
        if name != candidate.name:
            raise ModelError(
                f"{candidate.name} is refused: the {what} is of {name}; "
                "pass the report of the model that is being registered"
            )
    if candidate.features != training_set.features:
        raise ModelError(
            f"{candidate.name} is refused: its {len(candidate.features)} inputs are not the "
            f"training set's {len(training_set.features)} in order; train on this training set"
        )
    if not candidate.path.is_file():
        raise ModelError(f"{candidate.name} is refused: there is no file {candidate.path}")
    digest = signing.file_digest(candidate.path)
    if digest != candidate.digest:
        raise ModelError(
            f"{candidate.name} is refused: {candidate.path} has digest {digest}, but "
            f"{candidate.digest} was evaluated; the file was changed after the training"
        )


def _create(
    spec: UseCase,
    training_set: TrainingSet,
    candidate: Candidate,
    contents: model_directory.Contents,
    gate: GateReport,
    registry: Registry,
    keys: signing.KeyPair,
    git_commit: str,
    workdir: Path,
    now: datetime,
) -> ModelRef:
    """Run the stages up to the visible version; undo what was begun when one fails."""
    tags = run_record.tags(spec, training_set, gate, git_commit)
    run_id = registry.start_run(spec.name, candidate.name, tags, now)
    reservation: Reservation | None = None
    try:
        registry.log(
            run_id,
            params=run_record.params(spec, candidate),
            metrics=run_record.metrics(training_set, candidate, contents.evaluation),
            dataset=Dataset(
                name=f"{spec.name}_training_set",
                digest=training_set.digest,
                uri=training_set.path.resolve().as_uri(),
                features=training_set.features,
            ),
            now=now,
        )
        reservation = registry.reserve(
            spec.name,
            run_id,
            digest=candidate.digest,
            data_digest=training_set.digest,
            tags={"git_commit": git_commit, "feature_service": spec.feature_service}
            | _watched(spec),
        )
        manifest = Manifest(
            name=spec.name,
            version=reservation.version,
            run_id=run_id,
            model_digest=candidate.digest,
            data_digest=training_set.digest,
            git_commit=git_commit,
            feature_service=spec.feature_service,
            features=candidate.features,
            created_at=now,
        )
        directory = workdir / f"{manifest.name}-v{manifest.version}"
        model_directory.write(directory, contents, manifest)
        signature = signing.sign(directory, keys.private)
        registry.upload(reservation, directory, candidate.features)
        _verify_stored(registry, manifest, signature, keys.public, workdir)
        return registry.complete(reservation, signature)
    except BaseException:  # Ctrl-C too: a version that is begun is given back
        _give_back(registry, run_id, reservation)
        raise


def _give_back(registry: Registry, run_id: str, reservation: Reservation | None) -> None:
    """Undo as far as the registry still answers; the error that led here is the one to raise."""
    try:
        if reservation is None:
            registry.end_run(run_id, succeeded=False)
        elif not registry.discard(reservation):
            _LOGGER.info("version %d was complete and stays", reservation.version)
    except PlatformError as error:
        _LOGGER.warning("the next registration will clear what is left: %s", error)


def _verify_stored(
    registry: Registry, manifest: Manifest, signature: str, public_key: Path, workdir: Path
) -> None:
    """Fetch what the registry holds and verify it as a server would."""
    stored = workdir / f"{manifest.name}-v{manifest.version}-stored"
    shutil.rmtree(stored, ignore_errors=True)
    try:
        registry.download(manifest.name, manifest.version, stored)
        signing.verify(
            stored,
            public_key,
            name=manifest.name,
            version=manifest.version,
            run_id=manifest.run_id,
            model_digest=manifest.model_digest,
            signature=signature,
        )
    finally:
        shutil.rmtree(stored, ignore_errors=True)


def _challenge(registry: Registry, ref: ModelRef) -> None:
    """Point `challenger` at the version if it is the newest; a rerun must not undo a newer one.

    MLflow sets an alias without comparing. So it is looked at again afterwards: a version that
    became visible meanwhile may have set the alias before us, and is given it back. One that
    becomes visible later sets it later.
    """
    champion = registry.by_alias(ref.name, CHAMPION)
    if champion is not None and champion.version >= ref.version:
        _LOGGER.info("%s stays: the champion is version %d", CHALLENGER, champion.version)
        return
    current = registry.by_alias(ref.name, CHALLENGER)
    version = _newest(registry, ref)
    if version > ref.version or (current is not None and current.version == version):
        _LOGGER.info("%s stays: the newest is version %d", CHALLENGER, version)
        return
    registry.set_alias(ref.name, CHALLENGER, version)
    overtaken_by = _newest(registry, ref)
    if overtaken_by > version:
        registry.set_alias(ref.name, CHALLENGER, overtaken_by)
    _LOGGER.info("%s is now version %d", CHALLENGER, max(version, overtaken_by))


def _newest(registry: Registry, ref: ModelRef) -> int:
    newest = registry.newest(ref.name)
    return ref.version if newest is None else newest.version


def _watched(spec: UseCase) -> dict[str, str]:
    """Return what the reference is made for: with another, the same model is another version."""
    watched = spec.monitoring
    return {"reference": f"windows of {watched.window_hours:g} h, {watched.false_alarm_rate:g}"}
