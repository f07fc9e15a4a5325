"""Whether serving saw what training would see: the skew audits of a replay, added up."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from mlplatform.contracts.skew import SkewReport


@dataclass(frozen=True)
class Audited:
    """Equal rows of those compared, and which features differed."""

    rows: int
    equal: int
    differing: dict[str, int]
    """Feature → rows in which it differed."""


def audited(reports: Iterable[SkewReport]) -> Audited:
    """Add audits up; answers that said that features were not read are not compared."""
    rows = equal = 0
    differing: Counter[str] = Counter()
    for report in reports:
        rows += report.rows - report.announced_rows
        equal += report.rows - report.mismatched_rows
        differing.update({one.feature: one.mismatched - one.announced for one in report.features})
    return Audited(rows, equal, {name: count for name, count in differing.items() if count})
