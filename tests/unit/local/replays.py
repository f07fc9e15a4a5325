"""Replays for the tests of what is told of them."""

from datetime import UTC, datetime
from typing import Any

from local.replayed import Hop, Replayed


def replayed(**values: Any) -> Replayed:
    hop = Hop(p50=1, p99=2, budget=50)
    known = dict.fromkeys(
        ("refused", "lost", "unlogged", "doubled", "mislogged", "degraded", "fallback"), 0
    )
    moment = datetime(2013, 12, 1, tzinfo=UTC)
    good: dict[str, Any] = {
        "usecase": "flight_delay",
        "version": 1,
        "start": moment,
        "end": moment,
        "per_second": 100,
        "sent": 10,
        "answered": 10,
        "positive": 2,
        "p999_ms": 3,
        "hops": {"client": hop},
        "compared": 10,
        "equal": 10,
        "differing": {},
    }
    return Replayed.model_validate(good | known | values)
