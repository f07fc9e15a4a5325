"""Values that are right one by one and wrong together.

Each rule is a pure function whose parameters are named after the sections of a `UseCase` that it
reads; it yields (path of the value to change, what is wrong and what to do). A rule runs whenever
its sections are valid, even if others are not, so that one reading of a spec finds everything.
"""

import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Final

from mlplatform.contracts.usecase.data import ColumnRule, DataRules, Split
from mlplatform.contracts.usecase.operation import Monitoring, RolloutPlan, Serving
from mlplatform.contracts.usecase.purpose import Entity, Goal, Label
from mlplatform.contracts.usecase.tables import Found, broken_column_rules, broken_table_rules
from mlplatform.contracts.usecase.training import CandidateRule, Choice, Gate, Slices, Training

_HOURS_PER_WEEK: Final = 168


def contradictions(sections: Mapping[str, object]) -> Iterator[Found]:
    """Yield what the rules find in the given sections of a use case, by section name."""
    for rule in _RULES:
        needed = inspect.signature(rule).parameters
        if needed.keys() <= sections.keys():
            yield from rule(**{name: sections[name] for name in needed})


def _hops_add_up(serving: Serving) -> Iterator[Found]:
    budget = serving.latency_ms
    hops = budget.network + budget.features + budget.queue + budget.inference + budget.decision
    if not math.isclose(hops, budget.total, rel_tol=1e-9):
        yield (
            ("serving", "latency_ms", "total"),
            (
                f"the hops add up to {hops:g} ms but the total is {budget.total:g} ms; "
                f"set the total to {hops:g} or change a hop"
            ),
        )


def _gap_covers_the_labels_delay(split: Split, label: Label) -> Iterator[Found]:
    if split.gap_hours < label.delay_hours:
        yield (
            ("split", "gap_hours"),
            (
                f"a gap of {split.gap_hours:g} h is shorter than the label's delay of "
                f"{label.delay_hours:g} h, so training would see labels that were not known; "
                f"set it to {label.delay_hours:g} or more"
            ),
        )


def _label_rate_is_a_band(data: DataRules) -> Iterator[Found]:
    if data.label_rate.min >= data.label_rate.max:
        yield (
            ("data", "label_rate", "min"),
            f"the band is empty: its upper end is {data.label_rate.max:g}; set a lower min",
        )


def _one_baseline_and_something_to_beat_it(training: Training) -> Iterator[Found]:
    roles = [rule.role for rule in training.candidates]
    baselines = roles.count("baseline")
    if baselines != 1 or baselines == len(roles):
        yield (
            ("training", "candidates"),
            (
                f"there are {baselines} baselines among {len(roles)} candidates; "
                "give exactly one the role baseline: the one that the others must beat"
            ),
        )
    for kind in _repeated(rule.kind for rule in training.candidates):
        yield ("training", "candidates"), f"the kind {kind} appears twice; merge the two"


def _search_spaces_can_be_searched(training: Training) -> Iterator[Found]:
    for index, rule in enumerate(training.candidates):
        at = ("training", "candidates", index)
        for name, space in rule.search.items():
            if name in rule.fixed:
                yield (*at, "search", name), "is searched and fixed; remove one of the two"
            if isinstance(space, Choice):
                continue
            kind = next(iter(type(space).model_fields))
            low, high = getattr(space, kind)
            if low >= high:
                yield (
                    (*at, "search", name, kind),
                    f"the lower bound {low:g} is not below the upper {high:g}; swap or widen them",
                )
        if rule.trials > (most := _combinations(rule)):
            yield (
                (*at, "trials"),
                f"the search space has {most:g} combinations; set trials to {most:g} or widen it",
            )


def _early_stopping_can_happen(training: Training) -> Iterator[Found]:
    if training.early_stopping_rounds >= training.max_rounds:
        yield (
            ("training", "early_stopping_rounds"),
            (
                f"training ends after {training.max_rounds} rounds, so it would never stop early; "
                "set it lower or raise max_rounds"
            ),
        )


def _gates_compare_with_the_baseline(gates: tuple[Gate, ...], goal: Goal) -> Iterator[Found]:
    if not any(
        gate.kind == "improvement" and gate.against == "baseline" and gate.metric == goal.north_star
        for gate in gates
    ):
        yield (
            ("gates",),
            (
                f"no gate compares the north star {goal.north_star} with the baseline; "
                f"add {{kind: improvement, metric: {goal.north_star}, against: baseline, …}}"
            ),
        )


def _gates_can_hold(gates: tuple[Gate, ...]) -> Iterator[Found]:
    for name in _repeated(gate.name for gate in gates):
        yield ("gates",), f"two gates are named {name}; rename one"
    for index, gate in enumerate(gates):
        key, value = ("bound", gate.bound) if gate.kind == "threshold" else ("margin", gate.margin)
        most = math.inf if gate.metric == "log_loss" else 1.0
        # Against the champion a gate may ask for no more than "not worse than by this much".
        allowed = gate.kind == "improvement" and gate.against == "champion"
        least = -most if allowed else 0.0
        if not least <= value <= most:
            low = f"{least:g}"
            yield (
                ("gates", index, key),
                f"{gate.metric} allows [{low}, {most:g}]; set a {key} in it",
            )


def _slices_are_columns_known_at_prediction(
    gates: tuple[Gate, ...], slices: Slices, label: Label
) -> Iterator[Found]:
    if not slices.columns and any(gate.kind == "slices" for gate in gates):
        yield ("slices", "columns"), "a gate looks at slices but there are none; name a column"
    if label.name in slices.columns:
        yield ("slices", "columns"), f"{label.name} is the label; slice by what is known before it"
    for column in _repeated(slices.columns):
        yield ("slices", "columns"), f"{column} appears twice; remove one"


def _entities_differ(entities: tuple[Entity, ...], label: Label) -> Iterator[Found]:
    for name in _repeated(entity.name for entity in entities):
        yield ("entities",), f"two entities are named {name}; rename one"
    for index, entity in enumerate(entities):
        for key in _repeated(entity.keys):
            yield ("entities", index, "keys"), f"{key} appears twice; remove one"
    if any(label.name in entity.keys for entity in entities):
        yield ("label", "name"), "is also an entity's key; rename one"


def _assignment_unit_is_an_entity(
    rollout: RolloutPlan, entities: tuple[Entity, ...]
) -> Iterator[Found]:
    names = [entity.name for entity in entities]
    if rollout.assignment_unit not in names:
        yield (
            ("rollout", "assignment_unit"),
            f"is not an entity; choose one of {', '.join(sorted(names))}",
        )


def _requests_carry_every_key(
    serving: Serving, entities: tuple[Entity, ...], rollout: RolloutPlan
) -> Iterator[Found]:
    if not serving.request:
        return  # scored in batches only
    for entity in entities:
        for key in entity.keys:
            field = serving.request.get(key)
            if field is None:
                yield ("serving", "request"), f"lacks {key}, a key of {entity.name}; add the field"
            elif field.optional and entity.name == rollout.assignment_unit:
                yield (
                    ("serving", "request", key, "optional"),
                    (
                        f"{entity.name} picks the arm of a rollout, so {key} is always known; "
                        "remove optional, or assign by another entity"
                    ),
                )


def _request_fields_can_be_checked(serving: Serving) -> Iterator[Found]:
    for name, field in serving.request.items():
        rule = ColumnRule.model_validate(field.model_dump(exclude={"optional"}))
        for key, message in broken_column_rules(rule):
            yield ("serving", "request", name, key), message


def _weights_rise(rollout: RolloutPlan) -> Iterator[Found]:
    rising = all(low < high for low, high in pairwise(rollout.weights))
    if not rising or not all(0 < weight < 1 for weight in rollout.weights):
        yield (
            ("rollout", "weights"),
            (
                "the shares must rise within (0, 1); sort and correct them (at 1 there is no "
                "champion left to compare with: that is what promotion does)"
            ),
        )
    for metric in _repeated(guard.metric for guard in rollout.guardrails):
        yield ("rollout", "guardrails"), f"{metric} appears twice; keep one margin"


def _rollout_ends_before_its_deadline(rollout: RolloutPlan, label: Label) -> Iterator[Found]:
    fixed = rollout.shadow_hours + rollout.soak_hours
    if fixed >= rollout.deadline_hours:
        yield (
            ("rollout", "deadline_hours"),
            (
                f"shadow and soak take {fixed:g} h of it, which leaves nothing for the steps; "
                "shorten them or raise it"
            ),
        )
    waits = rollout.shadow_hours + label.delay_hours
    if waits >= rollout.deadline_hours and "loss" in {g.metric for g in rollout.guardrails}:
        yield (
            ("rollout", "deadline_hours"),
            (
                f"the guardrail on loss needs labels, and the first are known {waits:g} h after "
                "the start (shadow and the label's delay); raise it or drop that guardrail"
            ),
        )


def _persistence_is_k_of_n(monitoring: Monitoring) -> Iterator[Found]:
    k, n = monitoring.persistence
    if not 1 <= k <= n:
        yield (
            ("monitoring", "persistence"),
            f"{k} of the last {n} windows cannot be; write [k, n] with 1 ≤ k ≤ n",
        )


def _north_star_is_watched(monitoring: Monitoring, goal: Goal) -> Iterator[Found]:
    if goal.north_star not in monitoring.max_metric_loss:
        yield (
            ("monitoring", "max_metric_loss"),
            f"nobody watches the north star; add {goal.north_star} with the loss that you accept",
        )


def _retraining_fits_its_own_limits(monitoring: Monitoring) -> Iterator[Found]:
    per_week, cooldown = monitoring.retrains_per_week, monitoring.cooldown_hours
    if (per_week - 1) * cooldown > _HOURS_PER_WEEK:
        yield (
            ("monitoring", "retrains_per_week"),
            f"a cooldown of {cooldown:g} h never allows {per_week} runs in a week; lower one",
        )
    if monitoring.schedule_days is None:
        return
    if monitoring.schedule_days * 24 < cooldown:
        yield (
            ("monitoring", "schedule_days"),
            (
                f"the cooldown of {cooldown:g} h would swallow scheduled runs; "
                f"set it to {cooldown / 24:g} or more, or shorten the cooldown"
            ),
        )
    if 7 / monitoring.schedule_days > per_week:
        yield (
            ("monitoring", "schedule_days"),
            (
                f"that is more than {per_week} scheduled runs in a week, the most that "
                "retrains_per_week allows; raise one of the two"
            ),
        )


def _tables_agree_with_their_columns(data: DataRules) -> Iterator[Found]:
    for name, table in data.tables.items():
        for path, message in broken_table_rules(table):
            yield ("data", "tables", name, *path), message


def _combinations(rule: CandidateRule) -> float:
    """Return how many different configurations a search space has; infinite for real numbers."""
    sizes = [
        len(set(space.choice)) if isinstance(space, Choice) else math.inf
        for space in rule.search.values()
    ]
    return math.prod(sizes)


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


_RULES: Final[tuple[Callable[..., Iterator[Found]], ...]] = (
    _hops_add_up,
    _gap_covers_the_labels_delay,
    _label_rate_is_a_band,
    _one_baseline_and_something_to_beat_it,
    _search_spaces_can_be_searched,
    _early_stopping_can_happen,
    _gates_compare_with_the_baseline,
    _gates_can_hold,
    _slices_are_columns_known_at_prediction,
    _entities_differ,
    _assignment_unit_is_an_entity,
    _requests_carry_every_key,
    _request_fields_can_be_checked,
    _weights_rise,
    _rollout_ends_before_its_deadline,
    _persistence_is_k_of_n,
    _north_star_is_watched,
    _retraining_fits_its_own_limits,
    _tables_agree_with_their_columns,
)
