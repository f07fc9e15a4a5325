"""Who answered over time: which version, or the rules."""

from datetime import timedelta
from typing import Final

import polars as pl

from local import told_looks as looks
from local.replayed import OK

HOURS: Final = 3
"""Over which shares are taken."""
_EVERY: Final = timedelta(hours=HOURS)
_NIGHT: Final = 4
"""Steps of `HOURS` without an answer over which shares are carried on: few fly at night."""
_RULES: Final = looks.Look(looks.INK, "the rules")


def answerers(answers: pl.DataFrame) -> list[looks.Look]:
    """Return how those who answered are drawn: each version, and the rules if they had to.

    Args:
        answers: The client's ledger (`local.tally.ledger`).
    """
    good = answers.filter(pl.col("status") == OK)
    versions = good.filter(~_by_rules())["version"].unique().sort().to_list()
    rules = good.filter(_by_rules()).height > 0
    return [*map(looks.of_version, versions), *([_RULES] if rules else [])]


def shares(answers: pl.DataFrame) -> pl.DataFrame:
    """Return who gave the answers, in percent: `event_timestamp` and a column for each of them.

    A night is bridged; in a longer silence nobody has a share. The last row ends the last step.

    Args:
        answers: The client's ledger, with at least one good answer.
    """
    names = [look.words for look in answerers(answers)]
    by_version = pl.format("version {}", "version")
    who = pl.when(_by_rules()).then(pl.lit(_RULES.words)).otherwise(by_version)
    found = (
        answers.filter(pl.col("status") == OK)
        .sort("event_timestamp")
        .with_columns(who=who)
        .group_by_dynamic("event_timestamp", every=_EVERY)
        .agg((100 * (pl.col("who") == name).mean()).alias(name) for name in names)
        .upsample("event_timestamp", every=_EVERY)
        .with_columns(pl.col(names).forward_fill(limit=_NIGHT).fill_null(0))
    )
    return pl.concat([found, found.tail(1).with_columns(pl.col("event_timestamp") + _EVERY)])


def _by_rules() -> pl.Expr:
    return pl.col("fallback").fill_null(value=False) | pl.col("version").is_null()
