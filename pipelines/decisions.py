"""From the journal of a run to rows of the ledger. Pure: same journal, same rows."""

from datetime import datetime
from typing import Any

from pydantic import JsonValue

from mlplatform.canonical import dumps, sha256
from mlplatform.contracts import Decision, GateReport, ModelRef, TrainingSet, ValidationReport
from mlplatform.contracts.decision import DecisionKind

Records = dict[str, dict[str, JsonValue]]
"""Step results by step, as `pipelines.journal` keeps them."""

ORDER = ("validate", "training_set", "train", "evaluate", "gate", "register")
"""The steps in the order in which they run."""


def decisions(
    usecase: str, run: str, journal: Records, *, state: str, error: str, now: datetime
) -> tuple[Decision, ...]:
    """Return what this run decided, the run's own outcome last.

    Args:
        usecase: Name of the use case.
        run: The run's id; keys derive from it and from what was decided, so recording twice
            changes nothing and a retry that decides otherwise adds rows.
        journal: What the steps left.
        state: KFP's final status: SUCCEEDED, FAILED or CANCELLED.
        error: KFP's message, empty on success.
        now: The time of recording.
    """
    first = journal.get("validate", {})
    common: dict[str, JsonValue] = {
        "run": run,
        "as_of": first.get("as_of"),
        "identity": first.get("identity"),
        "git_commit": first.get("git_commit"),
    }
    if "request" in first:
        common["request"] = first["request"]

    def row(
        kind: DecisionKind, subject: str, verdict: str, reason: str, **evidence: Any
    ) -> Decision:
        # A retried run may decide differently: what it decides is then a row of its own.
        said = {name: value for name, value in evidence.items() if name != "seconds"}
        content = sha256(dumps([verdict, reason, said]))[:16]
        return Decision(
            key=f"{usecase}/{run}/{kind}/{content}",
            usecase=usecase,
            kind=kind,
            subject=subject,
            verdict=verdict,
            reason=reason,
            evidence={**common, **evidence},
            actor="pipelines.record",
            at=now,
        )

    rows: list[Decision] = []
    if content := first.get("report"):
        report = ValidationReport.model_validate(content)
        failed = [f"{item.table}: {item.rule}" for item in report.failures]
        reason = "; ".join(failed) or f"all {len(report.results)} rules hold"
        verdict = "passed" if report.passed else "failed"
        rows.append(row("validation", run, verdict, reason, tables=report.tables, failed=failed))
    if content := journal.get("training_set", {}).get("training_set"):
        data = TrainingSet.model_validate(content)
        reason = f"{data.rows:,} rows, {100 * data.positive_rate:.1f} % positive"
        evidence = data.model_dump(mode="json", exclude={"path"})
        rows.append(row("training_set", data.digest, "built", reason, **evidence))
    accepted: bool | None = None
    if content := journal.get("gate", {}).get("report"):
        gates = GateReport.model_validate(content)
        accepted = gates.passed
        chosen = [item for item in gates.results if not item.passed] or gates.results
        reason = "; ".join(f"{item.gate}: {item.reason}" for item in chosen)
        verdict = "accepted" if accepted else "rejected"
        rows.append(
            row("gate", gates.candidate, verdict, reason, gates=gates.model_dump(mode="json"))
        )
    model: ModelRef | None = None
    if content := journal.get("register", {}).get("model"):
        model = ModelRef.model_validate(content)
        verdict = "registered" if model.created else "unchanged"
        how = "registered and signed" if model.created else "holds these very bytes already"
        reason = f"{model.name} version {model.version} {how}"
        evidence = model.model_dump(mode="json")
        rows.append(
            row("registration", f"{model.name}/{model.version}", verdict, reason, **evidence)
        )
    verdict, reason = _outcome(journal, state=state, error=error, accepted=accepted, model=model)
    rows.append(row("run", run, verdict, reason, seconds=_seconds(journal)))
    return tuple(rows)


def _outcome(
    journal: Records, *, state: str, error: str, accepted: bool | None, model: ModelRef | None
) -> tuple[str, str]:
    """Return the run's verdict and its reason."""
    if owner := journal.get("validate", {}).get("owner"):
        return "duplicate", f"run {owner} trains what was asked for already; nothing was done here"
    for step in ORDER:
        if message := journal.get(step, {}).get("error"):
            return "failed", f"{step}: {message}"
    if model is not None:
        return "registered", f"{model.name} version {model.version}"
    if accepted is False:
        return "rejected", "a gate did not hold; the model was not registered"
    done = [step for step in ORDER if step in journal]
    last = f"after {done[-1]}" if done else "before the first step ended"
    return "failed", f"{state.lower()} {last}: {error or 'the step left no message; see its log'}"


def _seconds(journal: Records) -> dict[str, JsonValue]:
    return {step: journal[step].get("seconds") for step in ORDER if step in journal}
