"""Which model is best: decided on validation rows, so that the test window decides nothing."""

from collections.abc import Sequence

from mlplatform.contracts import HIGHER_IS_BETTER, Candidate, Metric
from mlplatform.errors import ModelError


def best_index(scores: Sequence[float], metric: Metric) -> int:
    """Return the position of the best score; the first one of equals."""
    sign = 1.0 if HIGHER_IS_BETTER[metric] else -1.0
    return max(range(len(scores)), key=lambda index: (sign * scores[index], -index))


def winner(candidates: Sequence[Candidate], metric: Metric) -> Candidate:
    """Return the candidate (not the baseline) with the best validation score.

    Raises:
        ModelError: There is no candidate beside the baseline.
    """
    contenders = [candidate for candidate in candidates if candidate.role == "candidate"]
    if not contenders:
        raise ModelError(
            f"no model has the role candidate among {[item.name for item in candidates]}: "
            "add one to training.candidates"
        )
    return contenders[best_index([item.validation_score for item in contenders], metric)]
