"""What each component calls: load the settings, open the clients, run the step, keep its result.

The composition root of a step's process. Steps know neither KFP nor where services live; this
module knows both and decides nothing. A step that fails on purpose leaves its message in the
journal and exits with 1, without a traceback.
"""

import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from pydantic import JsonValue

from feature_repo import catalog
from mlplatform.contracts import (
    Candidate,
    Champion,
    Evaluation,
    GateReport,
    Manifest,
    ModelRef,
    TrainingSet,
    UseCase,
    Window,
)
from mlplatform.contracts.retrain import owner, ownership
from mlplatform.errors import (
    DataError,
    LedgerError,
    NotFoundError,
    PlatformError,
    StaleError,
    shorten,
)
from mlplatform.ledger import Ledger
from mlplatform.settings import (
    ArchiveSettings,
    ComputeSettings,
    DataSettings,
    LedgerSettings,
    PlatformSettings,
    RegistrySettings,
    SigningSettings,
)
from pipelines import artifacts
from pipelines.decisions import decisions
from pipelines.identity import run_identity
from pipelines.journal import Journal

if TYPE_CHECKING:
    from feature_repo.feedback import Feedback
    from mlplatform.clients.registry import Registry
    from mlplatform.signing import KeyPair


def validate(usecase: str, as_of: str, run_id: str, report: str, request: str = "") -> None:
    """Land new raw events, check them and the labels; write the report to folder `report`.

    A run that was started for a request takes it first, and ends where another run has it.
    """
    from feature_repo import ingest
    from pipelines.steps import validate as step

    root = DataSettings.load().root
    with _task("validate", usecase, run_id) as journal:
        if request:
            _take(usecase, request, run_id, journal)
        code, moment = catalog.load(usecase), _moment(as_of)
        ingest.land(usecase, root, moment)
        journal.update(
            as_of=moment.isoformat(),
            identity=run_identity(
                code.folder, f"{root}/raw/{usecase}", moment, _feedback(usecase, moment).digest
            ),
            git_commit=PlatformSettings.load().git_commit,
        )
        raw = ingest.read_raw(usecase, root, moment)
        previous = _previous_rows(code.spec, moment)
        result = step.validate(code.spec, raw, _labels(code, raw), moment, previous)
        artifacts.write(Path(report), "validation", result)
        journal["report"] = result.model_dump(mode="json")
        step.check(result)


def build_training_set(usecase: str, as_of: str, run_id: str, training_set: str) -> None:
    """Append features, join, and write the training set to folder `training_set`."""
    from feature_repo import ingest
    from feature_repo.store import apply, join_features, open_store
    from pipelines.steps.training_set import build_training_set as step

    root = DataSettings.load().root
    with _task("training_set", usecase, run_id) as journal:
        code, moment, out = catalog.load(usecase), _moment(as_of), Path(training_set)
        out.mkdir(parents=True, exist_ok=True)
        store = open_store(root)
        apply(store)
        raw = ingest.read_raw(usecase, root, moment)
        ingest.write_features(usecase, store, raw, moment)
        service = code.spec.feature_service

        def join(labels: pl.DataFrame) -> pl.DataFrame:
            return join_features(store, service, labels)

        result = step(
            code.spec,
            code.labels(raw),
            join=join,
            request=code.request,
            request_inputs=code.request_inputs,
            groups=code.groups,
            as_of=moment,
            out=out,
            live=_feedback(usecase, moment),
        )
        artifacts.write_training_set(out, result)
        journal["training_set"] = result.model_dump(mode="json")


def train(usecase: str, run_id: str, training_set: str, models: str) -> None:
    """Fit all candidates; write them to folder `models`."""
    from pipelines.steps.train import train as step

    with _task("train", usecase, run_id) as journal:
        out, data = Path(models), artifacts.read_training_set(Path(training_set))
        out.mkdir(parents=True, exist_ok=True)
        candidates = step(catalog.spec(usecase), data, out, ComputeSettings.load().cpus)
        artifacts.write_candidates(out, candidates)
        journal["candidates"] = [item.model_dump(mode="json") for item in candidates]


def evaluate(
    usecase: str, run_id: str, training_set: str, models: str, evaluation: str
) -> dict[str, float]:
    """Measure all candidates; write evaluations to folder `evaluation`, return the winner's."""
    from pipelines.steps.evaluate import evaluate as step

    with _task("evaluate", usecase, run_id) as journal:
        spec, out = catalog.spec(usecase), Path(evaluation)
        out.mkdir(parents=True, exist_ok=True)
        data = artifacts.read_training_set(Path(training_set))
        candidates = artifacts.read_candidates(Path(models))
        champion = _champion(spec.name, data, out / "champion")
        results = step(spec, data, candidates, data.groups, champion, spec.training.seed)
        artifacts.write(out, "evaluations", results)
        journal["evaluations"] = [item.model_dump(mode="json") for item in results]
        winner = results[0]
    return {name: value.estimate for name, value in winner.metrics.items()}


def gate(usecase: str, run_id: str, models: str, evaluation: str, report: str) -> str:
    """Decide; write the `GateReport` to folder `report`, return `accepted` or `rejected`."""
    from pipelines.steps.gate import gate as step

    with _task("gate", usecase, run_id) as journal:
        evaluations = artifacts.read_all(Path(evaluation), "evaluations", Evaluation)
        candidates = artifacts.read_candidates(Path(models))
        result = step(catalog.spec(usecase), evaluations, candidates)
        artifacts.write(Path(report), "gates", result)
        journal["report"] = result.model_dump(mode="json")
    return "accepted" if result.passed else "rejected"


def register(
    usecase: str, run_id: str, training_set: str, models: str, evaluation: str, gates: str
) -> ModelRef:
    """Sign and register the accepted candidate as challenger."""
    from pipelines.steps.register import register as step

    with _task("register", usecase, run_id) as journal:
        spec, data = catalog.spec(usecase), artifacts.read_training_set(Path(training_set))
        report = artifacts.read(Path(gates), "gates", GateReport)
        result = step(
            spec,
            data,
            _named(artifacts.read_candidates(Path(models)), report.candidate),
            next(
                item
                for item in artifacts.read_all(Path(evaluation), "evaluations", Evaluation)
                if item.candidate == report.candidate
            ),
            report,
            _registry(),
            _keys(),
            PlatformSettings.load().git_commit,
            Path(gates) / "signed",
            datetime.now(UTC),
            request_inputs=data.request_inputs,
            threshold=spec.serving.decision_threshold,
        )
        journal["model"] = result.model_dump(mode="json")
        journal["registry_url"] = _registry().url(result)
    return result


def batch_score(
    usecase: str, run_id: str, model: str, start: str, end: str, output: str, manifest: str
) -> None:
    """Score a window below folder `output`; write the manifest to folder `manifest` as well."""
    from feature_repo import ingest
    from feature_repo.store import apply, join_features, open_store
    from pipelines.steps.batch_score import batch_score as step

    root = DataSettings.load().root
    with _task("batch_score", usecase, run_id) as journal:
        code, window = catalog.load(usecase), _window(start, end)
        ref = _asked_for(code.spec.name, model)
        with tempfile.TemporaryDirectory(prefix="mlplatform-") as scratch:
            directory, signed = _verified(ref, Path(scratch) / "model")
            store = open_store(root)
            apply(store)
            raw = ingest.read_raw(usecase, root, window.end)
            ingest.write_features(usecase, store, raw, window.end)

            def join(rows: pl.DataFrame) -> pl.DataFrame:
                return join_features(store, signed.feature_service, rows)

            result = step(
                code.spec,
                code.labels(raw),
                window=window,
                join=join,
                request=code.request,
                request_inputs=code.request_inputs,
                model=directory / "model.onnx",
                ref=ref,
                manifest=signed,
                out=Path(output) / usecase / f"v{ref.version}" / _name(window),
                git_commit=PlatformSettings.load().git_commit,
                now=datetime.now(UTC),
            )
        artifacts.write(Path(manifest), "scores", result)
        journal["scores"] = result.model_dump(mode="json")


def record(usecase: str, run_id: str, state: str, error: str) -> None:
    """Turn the journal of this run into rows of the ledger; running it twice adds nothing."""
    _log_to_stderr()
    ledger = Ledger(LedgerSettings.load().url)
    journal = Journal(DataSettings.load().root, usecase, run_id).read()
    rows = decisions(usecase, run_id, journal, state=state, error=error, now=datetime.now(UTC))
    for decision in rows:
        ledger.append(decision)
    logging.getLogger("mlplatform.record").info("%d decisions on the ledger", len(rows))


@contextmanager
def _task(step: str, usecase: str, run_id: str) -> Iterator[dict[str, JsonValue]]:
    """Give a step its journal record; keep it whether the step ends well or not."""
    _log_to_stderr()
    journal = Journal(DataSettings.load().root, usecase, run_id)
    content: dict[str, JsonValue] = {"started_at": datetime.now(UTC).isoformat()}
    started = time.perf_counter()
    try:
        yield content
    except PlatformError as error:
        content["error"] = str(error)
        logging.getLogger(f"mlplatform.{step}").error("%s", error)  # noqa: TRY400  # expected: no traceback
        sys.exit(1)
    except Exception as error:
        content["error"] = f"{type(error).__name__}: {error}"
        raise
    except BaseException:
        content["error"] = "interrupted"
        raise
    finally:
        content["seconds"] = round(time.perf_counter() - started, 3)
        journal.write(step, content)


def _log_to_stderr() -> None:
    """Send the platform's own lines to stderr as `mlplatform.<step> | text`."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s | %(levelname)s | %(message)s"))
    logger = logging.getLogger("mlplatform")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise PlatformError(f"{text!r} is not a time: write it as 2014-01-02T00:00:00Z") from error
    if moment.tzinfo is None:
        raise PlatformError(f"{text!r} has no zone: write it in UTC, ending in Z")
    return moment.astimezone(UTC)


def _window(start: str, end: str) -> Window:
    window = Window(start=_moment(start), end=_moment(end))
    if window.start >= window.end:
        raise DataError(
            f"the window from {start} to {end} is empty: its end is not after its start"
        )
    return window


def _name(window: Window) -> str:
    """Return a window as the name of a folder; names sort as windows do."""
    return "-".join(f"{moment:%Y%m%dT%H%M%S%fZ}" for moment in (window.start, window.end))


def _take(usecase: str, request: str, run: str, journal: dict[str, JsonValue]) -> None:
    """Take a retraining request for this run; a step that is repeated takes it again.

    Raises:
        StaleError: Another run has it, and trains.
    """
    ledger = Ledger(LedgerSettings.load().url)
    mine = ownership(usecase, request, run, datetime.now(UTC))
    journal["request"] = request
    try:
        ledger.append(mine)
    except LedgerError:
        taken = ledger.get(mine.key)
        if taken is None or owner(taken.decision) == run:
            raise
        journal["owner"] = owner(taken.decision)
        raise StaleError(
            f"run {owner(taken.decision)} trains what request {request} asked for already: "
            "this run ends here, and nothing is lost"
        ) from None


def _previous_rows(spec: UseCase, moment: datetime) -> int | None:
    """Labels that the source gave the last training set of this feature service; None: no set.

    Those of people do not count, and those that were left out for how they were answered do: the
    rule on size looks for labels that the source has lost.

    A run that looks from an earlier time has fewer rows by nature and is no regression.
    """
    entries = Ledger(LedgerSettings.load().url).entries(usecase=spec.name, kind="training_set")
    built = [entry.decision.evidence for entry in entries]
    sizes = [
        _count(row, "rows") + _count(row, "degraded_rows") - _count(row, "reviewed_rows")
        for row in built
        if row["feature_service"] == spec.feature_service and _moment(str(row["as_of"])) <= moment
    ]
    return sizes[-1] if sizes else None


def _count(row: Mapping[str, JsonValue], name: str) -> int:
    """Return a number of a ledger row; 0 where its release did not count that yet."""
    value = row.get(name)
    return value if isinstance(value, int) else 0


def _feedback(usecase: str, moment: datetime) -> "Feedback":
    """Return what people and live traffic said of the labels by the time of the run."""
    from feature_repo import feedback

    return feedback.read(usecase, LedgerSettings.load().url, ArchiveSettings.load().root, moment)


def _labels(code: catalog.UseCaseCode, raw: catalog.Raw) -> pl.DataFrame:
    """Return the labels, or no rows when the raw tables are too broken to compute them.

    Validation then names the broken table or column, which says more than the failed expression.
    """
    try:
        return code.labels(raw)
    except pl.exceptions.PolarsError as error:
        text = "labels cannot be computed from these tables: %s"
        logging.getLogger("mlplatform.validate").warning(text, shorten(error))
        return pl.DataFrame()


def _champion(name: str, data: TrainingSet, folder: Path) -> Champion | None:
    """Fetch the model that is served now and verify it; None before the first rollout."""
    from mlplatform.signing import MODEL

    ref = _registry().by_alias(name, "champion")
    if ref is None:
        return None
    directory, manifest = _verified(ref, folder)
    title = f"{name} version {ref.version}"
    if gone := [feature for feature in manifest.features if feature not in data.features]:
        raise DataError(
            f"the champion, {title}, reads {', '.join(gone)}, which feature service "
            f"{data.feature_service} no longer has, so the two cannot be compared: keep the "
            "feature in the service until a model without it is champion"
        )
    return Champion(name=title, path=directory / MODEL, features=manifest.features)


def _verified(ref: ModelRef, folder: Path) -> tuple[Path, Manifest]:
    """Fetch a version to `folder`; return it when it is the model that was registered."""
    from mlplatform import signing

    shutil.rmtree(folder, ignore_errors=True)  # a step that is repeated finds what it left
    directory = _registry().download(ref.name, ref.version, folder)
    manifest = signing.verify(
        directory,
        _keys().public,
        name=ref.name,
        version=ref.version,
        run_id=ref.run_id,
        model_digest=ref.digest,
        signature=ref.signature,
    )
    return directory, manifest


def _asked_for(name: str, model: str) -> ModelRef:
    """Return the version that a number or an alias names."""
    if model.isdecimal():
        return _registry().get(name, int(model))
    found = _registry().by_alias(name, model)
    if found is None:
        raise NotFoundError(
            f"no version of {name} is {model!r}: give a version's number, or the alias champion "
            "or challenger when there is one"
        )
    return found


def _keys() -> "KeyPair":
    from mlplatform.signing import KeyPair

    settings = SigningSettings.load()
    return KeyPair(private=settings.private_key, public=settings.public_key)


def _registry() -> "Registry":
    from mlplatform.clients.registry import Registry

    return Registry(RegistrySettings.load())


def _named(candidates: tuple[Candidate, ...], name: str) -> Candidate:
    return next(candidate for candidate in candidates if candidate.name == name)
