"""Which configurations are tried: all drawn before the first trial runs.

A search algorithm that looks at finished trials depends on which finished first; drawing up
front makes the outcome a function of spec and seed alone, on any number of cores.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlplatform.contracts import UseCase
from mlplatform.contracts.usecase.training import (
    CandidateRule,
    Choice,
    Distribution,
    ModelKind,
    Uniform,
)
from mlplatform.errors import SpecError
from pipelines.models.registry import KINDS

Value = float | int | str


@dataclass(frozen=True)
class Plan:
    """One configuration to try."""

    kind: ModelKind
    role: Literal["baseline", "candidate"]
    number: int
    """From 1 within its kind."""
    of: int
    params: dict[str, Value]


def plans(spec: UseCase) -> tuple[Plan, ...]:
    """Return the configurations of all candidates, in the order of the spec.

    Each kind draws from its own stream, keyed by its name: adding or reordering candidates does
    not change what the others try. Equal draws are tried once.

    Raises:
        SpecError: A parameter belongs to the platform.
    """
    return tuple(plan for rule in spec.training.candidates for plan in _plans(rule, spec))


def _plans(rule: CandidateRule, spec: UseCase) -> list[Plan]:
    taken = sorted(KINDS[rule.kind].reserved & (set(rule.search) | set(rule.fixed)))
    if taken:
        raise SpecError(
            f"training.candidates of {spec.name}: {taken} of {rule.kind} are set by the platform "
            "(seed, threads, objective, class weights): remove them from search and fixed"
        )
    rng = np.random.default_rng([spec.training.seed, *rule.kind.encode()])
    drawn: list[dict[str, Value]] = []
    for _ in range(rule.trials):
        params = {**rule.fixed, **{name: _draw(rule.search[name], rng) for name in rule.search}}
        if params not in drawn:
            drawn.append(params)
    return [
        Plan(rule.kind, rule.role, number, len(drawn), params)
        for number, params in enumerate(drawn, start=1)
    ]


def _draw(space: Distribution, rng: np.random.Generator) -> Value:
    if isinstance(space, Choice):
        return space.choice[int(rng.integers(len(space.choice)))]
    if isinstance(space, Uniform):
        return _short(rng.uniform(*space.uniform))
    low, high = (math.log(bound) for bound in space.loguniform)
    return _short(math.exp(rng.uniform(low, high)))


def _short(value: float) -> float:
    """Six digits: enough to search, short enough to read in a report."""
    return float(f"{value:.6g}")
