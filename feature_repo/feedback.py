"""What live traffic adds to a training set, and what it takes out.

People label decisions that the source has no label for. And a request whose answer lacked features,
or came from the rules, is not learnt from: something was broken when it was made, and what was
broken (a feed, a clock, the request itself) may lie in its row of the history as well. Reasons are
not told apart: of most it cannot be known which of the two they are.

It writes nothing, and refuses nothing: where nobody has served or reviewed, there is none.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import polars as pl
from pydantic import SecretStr

from feature_repo import predictions
from mlplatform.canonical import dumps, sha256
from mlplatform.contracts import Window
from mlplatform.contracts.review import ReviewItem
from mlplatform.reviews import ReviewStore

COLUMNS: Final = (
    "gateway", "sequence", "request_id", "received_at", "arm", "degraded", "fallback", "reasons",
)  # fmt: skip
"""Columns of the archive (`feature_repo.predictions`) that are read here."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Feedback:
    """What was known at one time.

    Attributes:
        reviewed: Decisions that people labelled.
        degraded: `request_id`, each once, and `reasons` of requests that are not learnt from.
    """

    reviewed: tuple[ReviewItem, ...]
    degraded: pl.DataFrame

    @property
    def digest(self) -> str:
        """Return the SHA-256 of what a training set depends on; empty: of nothing."""
        given = [(item.request_id, item.label, str(item.reviewed_at)) for item in self.reviewed]
        left_out = self.degraded["request_id"].sort().to_list()
        return sha256(dumps([sorted(given), left_out])) if given or left_out else ""


NONE: Final = Feedback(
    (), pl.DataFrame(schema={"request_id": pl.String(), "reasons": pl.List(pl.String())})
)
"""Nobody has served or reviewed."""


def read(
    usecase: str, ledger_url: str | SecretStr, archive: str | Path, as_of: datetime
) -> Feedback:
    """Return what was known at a time.

    Args:
        usecase: Its name.
        ledger_url: Of the database that the reviews lie in.
        archive: Folder of the prediction log; it need not exist.
        as_of: Later requests and reviews do not count.

    Raises:
        DataError: The prediction log or a review cannot be read.
        ServiceError: The database cannot be reached.
    """
    window = Window(start=_EPOCH, end=as_of)
    answers = predictions.read(archive, usecase, window, COLUMNS)
    return Feedback(ReviewStore(ledger_url).labels(usecase, as_of), degraded(answers))


def degraded(answers: pl.DataFrame) -> pl.DataFrame:
    """Return the requests whose first live answer lacked features or came from the rules.

    A request counts by its first answer here and in quality metrics (`monitoring.cohort`).

    Args:
        answers: `COLUMNS` of the prediction log.

    Returns:
        `request_id` and `reasons`, in the order of arrival.
    """
    first = predictions.first_answers(answers)
    return first.filter(pl.col("degraded") | pl.col("fallback")).select("request_id", "reasons")


def told(left_out: pl.DataFrame) -> str:
    """Return the reasons of rows of `degraded`, the most frequent first, with their numbers."""
    counts = Counter(reason for reasons in left_out["reasons"] for reason in reasons)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} {count:,}" for reason, count in ordered)
