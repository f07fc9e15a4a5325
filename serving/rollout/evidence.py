"""Reads what a rollout has shown: the archived predictions and the labels that have matured.

The files of the archive never change, so each is read once and its rows are kept, without the
feature vectors: a look at an archive that has grown reads what is new. Entities are kept as the
hash that assigns them, a number of 64 bits; two of a million have the same one with probability
3e-8. It refuses to go on without a file: a look at a part of the rows would not be the evidence.
Without the labels it goes on and says so, because errors do harm whether labels come or not.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import polars as pl

from feature_repo import predictions
from feature_repo.labels import matured
from mlplatform.contracts import Rollout, UseCase
from mlplatform.contracts.rollout import Statistics
from mlplatform.errors import DataError, shorten
from serving.gateway import scoring, server
from serving.gateway.assignment import Assignment
from serving.rollout import sums

Labels = Callable[[datetime, datetime], pl.DataFrame]
"""Returns the labels of predictions made since the first time, as they are known at the second:
`request_id`, `event_timestamp`, `label_timestamp` and the label, one row for each prediction."""

_READ: Final = (
    "gateway", "sequence", "request_id", "event_time", "received_at", "entity", "arm", "version",
    "epoch", "score", "decision", "degraded", "fallback", "reasons", "total_us",
)  # fmt: skip
_ERRORS: Final = (server.DOWN, scoring.REQUEST_FAILED, scoring.RULES_FAILED)
"""Reasons that say that a request went wrong, not merely that it was late or lacked features."""
_PAUSE: Final = timedelta(minutes=1)
"""Between two questions to the source of labels, by the rollout's clock: a driver looks several
times a second, labels come hours late, and behind the source may be a warehouse."""
_CLOCKS: Final = timedelta(hours=1)
"""By which the clock of the archive (Redis's) may be behind the driver's."""


class EvidenceReader:
    """The evidence of one use case's rollouts; a `ports.Reader`.

    Args:
        spec: The use case.
        archive_root: Folder of the archive (`ArchiveSettings.root`).
        labels: Reads the labels; may raise anything.
        now: The clock of the rollout; in a replay it is the data's.
    """

    def __init__(
        self,
        spec: UseCase,
        archive_root: str | Path,
        labels: Labels,
        now: Callable[[], datetime],
    ) -> None:
        self._spec, self._root, self._labels, self._now = spec, archive_root, labels, now
        budget = spec.serving.latency_ms
        self._inside_us = 1000 * (budget.total - budget.network)
        self._rollout = ""
        """Whose rows are kept."""
        self._files: frozenset[str] = frozenset()
        self._rows = pl.DataFrame()
        self._labelled: tuple[datetime, datetime, pl.DataFrame] | None = None
        """The last answer of the labels' source, with what it was asked."""

    def read(self, rollout: Rollout) -> Statistics:
        """Return all that the rollout has shown by now.

        Raises:
            DataError: A file of the archive is damaged.
        """
        at = self._now()
        self._catch_up(rollout)
        labels, unread = None, ""
        if any(guardrail.metric == sums.LOSS for guardrail in rollout.plan.guardrails):
            try:
                labels = self._matured(rollout, at)
            except DataError as error:
                unread = str(error)
        return sums.statistics(rollout, self._rows, labels, at, unread)

    def _catch_up(self, rollout: Rollout) -> None:
        """Bring the kept rows up to date with the archive."""
        known = self._files if rollout.id == self._rollout else frozenset()
        files, new = predictions.read_new(
            self._root,
            self._spec.name,
            _READ,
            known=known,
            since=sums.oldest(rollout) - _CLOCKS,
        )
        if known == files and known:
            return
        rows = [self._prepared(new, rollout)]
        if known:
            # Files that were merged into another one come again with that one.
            rows.append(self._rows.filter(pl.col("part").is_in(list(known & files))))
        self._rows = pl.concat(rows).sort(sums.ORDER)
        self._rollout, self._files = rollout.id, files

    def _prepared(self, rows: pl.DataFrame, rollout: Rollout) -> pl.DataFrame:
        """Return the rows that may count, with the columns that are summed."""
        earlier = pl.col("epoch").is_between(1, rollout.first_epoch, closed="left")
        recent = pl.col("event_time") >= sums.oldest(rollout)
        rows = rows.filter((pl.col("epoch") >= rollout.first_epoch) | (earlier & recent))
        assignment = Assignment(rollout.salt)
        entities = rows["entity"].unique()
        units = pl.DataFrame(
            {"entity": entities, "unit": [assignment.of(name) for name in entities.to_list()]},
            schema_overrides={"unit": pl.UInt64()},
        )
        return rows.join(units, on="entity", maintain_order="left").select(
            "part", "gateway", "sequence", "request_id", "event_time", "received_at", "unit", "arm",
            "version", "epoch", "score",
            whole=~(pl.col("degraded") | pl.col("fallback")),
            error_rate=pl.any_horizontal(
                pl.col("reasons").list.contains(reason) for reason in _ERRORS
            ),
            fallback_rate=pl.col("fallback"),
            budget_overrun_rate=pl.col("total_us") > self._inside_us,
            # What the rules decide is no model's: a slow champion must not look like a change.
            decision_rate=pl.when(~pl.col("fallback")).then("decision"),
        )  # fmt: skip

    def _matured(self, rollout: Rollout, at: datetime) -> pl.DataFrame:
        """Return `sums.LABELS` of the rollout's requests."""
        started = self._rows.filter(pl.col("epoch") >= rollout.first_epoch)["event_time"].min()
        if not isinstance(started, datetime):
            return pl.DataFrame(schema=sums.LABELS)
        since = max(started, sums.oldest(rollout))  # whatever time a client has made up
        delay = timedelta(hours=self._spec.label.delay_hours)
        try:
            found = matured(self._spec, self._labels_since(since, at), at).select(
                pl.col("request_id"),
                label=pl.col(self._spec.label.name).cast(pl.Float64),
                known=pl.max_horizontal("label_timestamp", pl.col("event_timestamp") + delay),
            )
            twice = found.filter(pl.col("request_id").is_duplicated())["request_id"]
        except Exception as error:  # whatever the use case's source raises
            raise DataError(
                f"the labels of {self._spec.name} since {since:%Y-%m-%d %H:%M} cannot be read: "
                f"{shorten(error)}; mend their source, until then {rollout.id} waits"
            ) from error
        if not twice.is_empty():
            raise DataError(
                f"the labels of {self._spec.name} name {twice[0]!r} and {twice.n_unique() - 1} "
                "other requests more than once; mend their source: one row for each prediction"
            )
        return found

    def _labels_since(self, since: datetime, at: datetime) -> pl.DataFrame:
        """Return the labels, at most a minute old."""
        if self._labelled is not None:
            asked_since, asked_at, labels = self._labelled
            if since == asked_since and timedelta() <= at - asked_at < _PAUSE:
                return labels
        labels = self._labels(since, at)
        self._labelled = since, at, labels
        return labels
