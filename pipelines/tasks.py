"""What each component calls: load the settings, open the clients, run the step, keep its result.

The composition root of a step's process. Steps know neither KFP nor where services live; this
module knows both and decides nothing.
"""

import logging
import tempfile
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from pydantic import JsonValue

from feature_repo import catalog
from mlplatform.contracts import Evaluation, GateReport, ModelRef
from mlplatform.errors import DataError, shorten
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
from pipelines import artifacts, times, versions
from pipelines.decisions import decisions
from pipelines.earlier_runs import previous_rows, take_request
from pipelines.identity import run_identity
from pipelines.journal import Journal
from pipelines.step_process import log_to_stderr, step_process

if TYPE_CHECKING:
    from feature_repo.feedback import Feedback
    from mlplatform.clients.ray_job import RayJobs
    from mlplatform.clients.registry import Registry
    from mlplatform.signing import KeyPair


def validate(usecase: str, as_of: str, run_id: str, report: str, request: str = "") -> None:
    """Land new raw events, check them and the labels; write the report to folder `report`.

    An empty `as_of` is what time it is now, and the later steps of the run look from there. A run
    that was started for a request takes it first, and ends where another run has it.
    """
    from feature_repo import ingest
    from pipelines.steps import validate as step

    root = DataSettings.load().root
    with _process("validate", usecase, run_id) as journal:
        if request:
            take_request(_ledger(), usecase, request, run_id, journal, _now())
        code, moment = catalog.load(usecase), times.moment(as_of) if as_of else _now()
        ingest.land(usecase, root, moment)
        journal.update(
            as_of=moment.isoformat(),
            identity=run_identity(
                code.folder, f"{root}/raw/{usecase}", moment, _feedback(usecase, moment).digest
            ),
            git_commit=PlatformSettings.load().git_commit,
        )
        raw = ingest.read_raw(usecase, root, moment)
        previous = previous_rows(_ledger(), code.spec, moment)
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
    with _process("training_set", usecase, run_id) as journal:
        code, out = catalog.load(usecase), Path(training_set)
        moment = times.moment(as_of or _looked_from(usecase, run_id))
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
    """Fit all candidates, here or on a Ray cluster; write them to folder `models`."""
    compute = ComputeSettings.load()
    with _process("train", usecase, run_id) as journal:
        out, data = Path(models), Path(training_set)
        out.mkdir(parents=True, exist_ok=True)
        if compute.ray == "job":
            from pipelines.ray_training import train_remotely

            root = DataSettings.load().root
            candidates = train_remotely(_ray_jobs(), root, usecase, run_id, data, out)
        else:
            from pipelines.steps.train import train as step

            rows = artifacts.read_training_set(data)
            candidates = step(catalog.spec(usecase), rows, out, compute.cpus)
            artifacts.write_candidates(out, candidates)
        journal["candidates"] = [item.model_dump(mode="json") for item in candidates]


def evaluate(
    usecase: str, run_id: str, training_set: str, models: str, evaluation: str
) -> dict[str, float]:
    """Measure all candidates; write evaluations to folder `evaluation`, return the winner's."""
    from pipelines.steps.evaluate import evaluate as step

    with _process("evaluate", usecase, run_id) as journal:
        spec, out = catalog.spec(usecase), Path(evaluation)
        out.mkdir(parents=True, exist_ok=True)
        data = artifacts.read_training_set(Path(training_set))
        candidates = artifacts.read_candidates(Path(models))
        champion = versions.champion(_registry(), spec.name, data, _keys().public, out / "champion")
        results = step(spec, data, candidates, data.groups, champion, spec.training.seed)
        artifacts.write(out, "evaluations", results)
        journal["evaluations"] = [item.model_dump(mode="json") for item in results]
        winner = results[0]
    return {name: value.estimate for name, value in winner.metrics.items()}


def gate(usecase: str, run_id: str, models: str, evaluation: str, report: str) -> str:
    """Decide; write the `GateReport` to folder `report`, return `accepted` or `rejected`."""
    from pipelines.steps.gate import gate as step

    with _process("gate", usecase, run_id) as journal:
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

    with _process("register", usecase, run_id) as journal:
        spec, data = catalog.spec(usecase), artifacts.read_training_set(Path(training_set))
        report = artifacts.read(Path(gates), "gates", GateReport)
        result = step(
            spec,
            data,
            next(
                item
                for item in artifacts.read_candidates(Path(models))
                if item.name == report.candidate
            ),
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
            _now(),
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
    with _process("batch_score", usecase, run_id) as journal:
        code, window = catalog.load(usecase), times.window(start, end)
        registry = _registry()
        ref = versions.asked_for(registry, code.spec.name, model)
        with tempfile.TemporaryDirectory(prefix="mlplatform-") as scratch:
            directory, signed = versions.verified(
                registry, ref, _keys().public, Path(scratch) / "model"
            )
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
                out=Path(output) / usecase / f"v{ref.version}" / times.folder_name(window),
                git_commit=PlatformSettings.load().git_commit,
                now=_now(),
            )
        artifacts.write(Path(manifest), "scores", result)
        journal["scores"] = result.model_dump(mode="json")


def record(usecase: str, run_id: str, state: str, error: str) -> None:
    """Turn the journal of this run into rows of the ledger; running it twice adds nothing."""
    log_to_stderr()
    ledger = _ledger()
    journal = Journal(DataSettings.load().root, usecase, run_id).read()
    rows = decisions(usecase, run_id, journal, state=state, error=error, now=_now())
    for decision in rows:
        ledger.append(decision)
    if ComputeSettings.load().ray == "job":
        _ray_jobs().remove(run_id, "train")  # of a step that was killed outright
    logging.getLogger("mlplatform.record").info("%d decisions on the ledger", len(rows))


def _process(step: str, usecase: str, run_id: str) -> AbstractContextManager[dict[str, JsonValue]]:
    return step_process(step, Journal(DataSettings.load().root, usecase, run_id))


def _looked_from(usecase: str, run_id: str) -> str:
    """Return the time from which this run's validation looked."""
    first = Journal(DataSettings.load().root, usecase, run_id).read().get("validate", {})
    if "as_of" not in first:
        raise DataError(f"run {run_id} has no validation that says from what time it looks")
    return str(first["as_of"])


def _now() -> datetime:
    """Return what time it is for the platform."""
    return PlatformSettings.load().clock()


def _ledger() -> Ledger:
    return Ledger(LedgerSettings.load().url)


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


def _keys() -> "KeyPair":
    from mlplatform.signing import KeyPair

    settings = SigningSettings.load()
    return KeyPair(private=settings.private_key, public=settings.public_key)


def _ray_jobs() -> "RayJobs":
    from mlplatform.clients.kubernetes import Cluster
    from mlplatform.clients.ray_job import RayJobs

    return RayJobs(Cluster.connect())


def _registry() -> "Registry":
    from mlplatform.clients.registry import Registry

    return Registry(RegistrySettings.load())
