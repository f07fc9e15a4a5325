"""What a benchmark writes: a list of comparisons as JSON, and the same as lines for a person.

Every benchmark under `bench/` writes `build/bench/<name>.json` through this, so that one reader
understands them all. It refuses nothing; a comparison without a goal is `met: null`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True, slots=True)
class Comparison:
    """One measure of ours beside a peer's, from the same run on the same data.

    Attributes:
        name: What was measured, against whom.
        ours: Our median.
        peer: The peer's median.
        unit: Unit of both.
        ratio: How many times less than the peer ours needs: peer / ours, of the medians.
        spread: Lowest and highest ratio over the repeats, each of neighbouring runs.
        goal: Ratio that was asked for; None: reported only.
        met: Whether the ratio reaches the goal.
    """

    name: str
    ours: float
    peer: float
    unit: str
    ratio: float | None
    spread: tuple[float, float] | None
    goal: float | None
    met: bool | None


def compare(
    name: str,
    ours: Sequence[float],
    peer: Sequence[float],
    unit: str,
    goal: float | None = None,
) -> Comparison:
    """Return the comparison of repeats that were run in turn; the less, the better.

    Args:
        name: What was measured, against whom.
        ours: Our measures, in the order of the repeats.
        peer: The peer's, as many.
        unit: Unit of both.
        goal: Ratio that is asked for.
    """
    middle, other = median(ours), median(peer)
    ratios = [theirs / mine for mine, theirs in zip(ours, peer, strict=True) if mine]
    ratio = other / middle if middle else None
    return Comparison(
        name=name,
        ours=round(middle, 4),
        peer=round(other, 4),
        unit=unit,
        ratio=None if ratio is None else round(ratio, 3),
        spread=(round(min(ratios), 3), round(max(ratios), 3)) if ratios else None,
        goal=goal,
        met=None if goal is None or ratio is None else ratio >= goal,
    )


def write(path: Path, comparisons: Sequence[Comparison]) -> None:
    """Write the list, replacing an earlier run's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(one) for one in comparisons], indent=2) + "\n")


def line(one: Comparison) -> str:
    """Return a comparison as one line."""
    ratio = "" if one.ratio is None else f"{one.ratio:.2f} times"
    spread = "" if one.spread is None else f" ({one.spread[0]:.2f} to {one.spread[1]:.2f})"
    goal = "" if one.goal is None else f", goal {one.goal:g}: {'met' if one.met else 'MISSED'}"
    return f"{one.name}: ours {one.ours:g}, peer {one.peer:g} {one.unit}; {ratio}{spread}{goal}"
