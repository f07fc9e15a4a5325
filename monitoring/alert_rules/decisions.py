"""Rules on what the platform decided: retrainings, rollouts, the ledger, and seeing itself."""

from datetime import timedelta
from typing import Final

from mlplatform.contracts import UseCase
from monitoring.alert_rules.rule import Rule, duration

_DAY: Final = timedelta(days=1)
"""How long an end that nobody can undo, a rollout's, stays an alert; also a long training."""


def rules(spec: UseCase) -> tuple[Rule, ...]:
    """Return the rules."""
    return (*_retraining(spec), *_rollout(spec), *_itself(spec))


def _retraining(spec: UseCase) -> list[Rule]:
    us, plan = f'usecase="{spec.name}"', spec.rollout
    window = timedelta(hours=spec.monitoring.window_hours)
    hours = plan.shadow_hours + plan.deadline_hours + plan.soak_hours + plan.stale_hours
    longest = timedelta(hours=hours) + _DAY
    phase = f'mlplatform_trigger_phase{{{us},phase="%s"}} == 1'
    since = f"time() - mlplatform_trigger_phase_since_timestamp_seconds{{{us}}} > %s"

    def stuck(name: str, than: timedelta) -> str:
        return f"({since % f'{than.total_seconds():.0f}'} and on(usecase) {phase % name})"

    return [
        Rule(
            "TrainingFailed",
            f'mlplatform_training_last{{{us},verdict="failed"}} == 1',
            "the newest training run broke down",
            "A gate that said no is no failure; this is one. The ledger has the step and its "
            "message.",
        ),
        Rule(
            "RetrainingRefused",
            f'mlplatform_trigger_decision{{{us},kind="refuse",reason=~"data_fault|skew"}} == 1',
            "a retraining is refused: {{ $labels.reason }}",
            f"For {duration(2 * window)} or longer: the feed is broken, or serving differs from "
            "training.",
            lasts=2 * window,
        ),
        Rule(
            "RetrainingAwaitsApproval",
            phase % "awaiting_approval",
            "a retraining waits for a person",
            "Nothing is trained until somebody approves or denies it.",
        ),
        Rule(
            "RetrainingStuck",
            f"{stuck('ready', window)}\nor {stuck('submitted', longest)}",
            "a retraining does not go on",
            "{{ $value | humanizeDuration }} in its phase: nobody submits it, or its run or "
            "rollout does not end.",
        ),
        Rule(
            "RetrainingWithoutGain",
            f"mlplatform_trigger_without_gain{{{us}}} >= {spec.monitoring.stop_after_no_gain}",
            "retraining no longer helps, and has stopped",
            "{{ $value }} runs in a row brought no better model.",
        ),
    ]


def _rollout(spec: UseCase) -> list[Rule]:
    us = f'usecase="{spec.name}"'
    recent = (
        f'mlplatform_rollout_phase{{{us},phase="%s"}} == 1\n'
        f"and on(usecase) time() - mlplatform_rollout_entered_timestamp_seconds{{{us}}} "
        f"< {_DAY.total_seconds():.0f}"
    )
    return [
        Rule(
            "RolloutRolledBack",
            recent % "rolled_back",
            "version {{ $labels.version }} was rolled back",
            "It did harm, its server failed, or a person said so: the version before answers.",
        ),
        Rule(
            "RolloutHeld",
            recent % "held",
            "version {{ $labels.version }} was held",
            "The evidence did not come in time: it has no traffic.",
        ),
        Rule(
            "RolloutFrozen",
            f"mlplatform_rollout_frozen{{{us}}} == 1",
            "a rollout waits: both versions are worse than before",
            "What they share is the cause, not the new version.",
            lasts=timedelta(minutes=30),
        ),
    ]


def _itself(spec: UseCase) -> list[Rule]:
    us = f'usecase="{spec.name}"'
    source = f"mlplatform_monitor_source_up{{{us}}}"
    return [
        Rule(
            "LedgerBroken",
            f"mlplatform_ledger_intact{{{us}}} == 0",
            "the ledger's chain of hashes is broken",
            "A row was edited, removed or inserted; decisions cannot be trusted until it is "
            "known which.",
        ),
        Rule(
            "MonitorBlind",
            f"{source} == 0 or absent({source})",
            "alerts on the monitor cannot fire",
            "Its exporter is down, cannot be scraped, or cannot read {{ $labels.source }}.",
            lasts=timedelta(minutes=15),
        ),
    ]
