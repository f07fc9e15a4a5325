"""What a client of a replay saw: a running tally for who watches, and its own ledger at the end."""

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl

from local.load import Answer
from local.traffic import Traffic
from serving.gateway.answer import Answer as Scored

_RECENT: Final = 1000
"""Answers over which the running percentiles are taken."""
_OK: Final = 200
HOPS: Final = ("features_us", "inference_us", "decision_us", "total_us")


@dataclass
class Tally:
    """What has come back so far."""

    total: int
    sent: int = 0
    answered: int = 0
    refused: int = 0
    lost: int = 0
    degraded: int = 0
    fallback: int = 0
    positive: int = 0
    pushed: int = 0
    event_us: int = 0
    seconds: float = 0.0
    """During which requests were sent."""
    recent: deque[tuple[float, ...]] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def add(self, answer: Answer) -> None:
        """Count one answer."""
        if (scored := scored_of(answer)) is not None:
            self.answered += 1
            self.degraded += scored.degraded
            self.fallback += scored.fallback
            self.positive += scored.decision
            hops = (getattr(scored.latency, hop) / 1000 for hop in HOPS)
            self.recent.append((answer.seconds * 1000, *hops))
        elif answer.status:
            self.refused += 1
        else:
            self.lost += 1

    def line(self) -> dict[str, Any]:
        """Return the state as one line for who shows it; milliseconds, NaN before any answer."""
        values = np.array(self.recent) if self.recent else np.full((1, 1 + len(HOPS)), np.nan)
        names = ("client", *(hop.removesuffix("_us") for hop in HOPS))
        median, tail = np.percentile(values, (50, 99), axis=0)
        return {
            "seconds": self.seconds,
            "total": self.total,
            "sent": self.sent,
            "answered": self.answered,
            "refused": self.refused,
            "lost": self.lost,
            "degraded": self.degraded,
            "fallback": self.fallback,
            "positive": self.positive,
            "pushed": self.pushed,
            "event_time": datetime.fromtimestamp(self.event_us / 1e6, UTC).isoformat(),
            "p50": dict(zip(names, median.tolist(), strict=True)),
            "p99": dict(zip(names, tail.tolist(), strict=True)),
        }


DECODER: Final = msgspec.json.Decoder(Scored)


def scored_of(answer: Answer) -> Scored | None:
    """Return what a good answer says; None for any other, a body that is none included."""
    try:
        return DECODER.decode(answer.body) if answer.status == _OK else None
    except msgspec.DecodeError:
        return None


def ledger(requests: Traffic, answers: list[Answer]) -> pl.DataFrame:
    """Return the client's own ledger: one row for each request that was sent."""
    scored = [scored_of(answer) for answer in answers]
    rows = requests.rows.select("request_id", "event_timestamp").head(len(answers))
    return rows.with_columns(
        pl.Series("status", [a.status for a in answers], dtype=pl.Int32),
        pl.Series("ms", [a.seconds * 1000 for a in answers], dtype=pl.Float64),
        pl.Series("late_ms", [(a.sent - a.due) * 1000 for a in answers], dtype=pl.Float64),
        *(
            pl.Series(name, [getattr(s, name) if s else None for s in scored], dtype=kind)
            for name, kind in (
                ("version", pl.Int64),
                ("arm", pl.String),
                ("epoch", pl.Int64),
                ("score", pl.Float64),
                ("decision", pl.Boolean),
                ("degraded", pl.Boolean),
                ("fallback", pl.Boolean),
                ("reasons", pl.List(pl.String)),
            )
        ),
        *(
            pl.Series(hop, [getattr(s.latency, hop) if s else None for s in scored], dtype=pl.Int64)
            for hop in HOPS
        ),
    )
