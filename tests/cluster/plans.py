"""Plans of rollouts that say seconds where real ones say hours."""

from typing import Any, Final

_SECOND: Final = 1 / 3600

QUICK: Final[dict[str, Any]] = {
    "shadow_hours": 5 * _SECOND,
    "shadow_share": 1.0,
    "weights": [0.2, 0.5],
    "min_exposure": 100,
    # Of decisions alone: what a busy machine does to latency is harm to a version as well.
    "guardrails": [{"metric": "decision_rate", "margin": 0.3}],
    "rollback_alpha": 0.01,
    "promotion_alpha": 0.01,
    "stale_hours": 120 * _SECOND,
    "soak_hours": 5 * _SECOND,
    "deadline_hours": 900 * _SECOND,
}
"""Takes a sound version to its promotion in about a minute of traffic."""

UNSEEN: Final = QUICK | {
    "shadow_hours": 0.0,
    "shadow_share": 0.0,
    "weights": [0.1, 0.5],
    "min_exposure": 500,
    "guardrails": [{"metric": "decision_rate", "margin": 0.1}],
}
"""Without a shadow, so that users meet a broken version."""
