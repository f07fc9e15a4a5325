"""An orchestrator that can be asked what it ran, and a killer that stands in front of calls."""

import functools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mlplatform.contracts.retrain import RunState, ownership
from mlplatform.errors import LedgerError
from mlplatform.ledger import Ledger
from tests.unit.monitoring.signals import USECASE


class Killed(BaseException):
    """As SIGKILL: nothing in the code handles it."""


@dataclass
class Killer:
    """Counts the calls that write, and kills the caller at some of them."""

    kills: Callable[[int], str] = lambda _: ""
    """By the number of the call: `before`, `after` or nothing."""
    calls: list[str] = field(default_factory=list)

    def guard(self, target: Any, *names: str) -> None:
        for name in names:
            setattr(target, name, self._guarded(f"{type(target).__name__}.{name}", target, name))

    def _guarded(self, label: str, target: Any, name: str) -> Callable[..., Any]:
        call = getattr(target, name)

        @functools.wraps(call)
        def guarded(*arguments: Any, **options: Any) -> Any:
            self.calls.append(label)
            when = self.kills(len(self.calls) - 1)
            if when == "before":
                raise Killed
            result = call(*arguments, **options)
            if when == "after":
                raise Killed
            return result

        return guarded


def at_random(seed: int, share: float) -> Callable[[int], str]:
    chance = random.Random(seed)  # noqa: S311 (a test's toss)
    return lambda _: chance.choice(["before", "after"]) if chance.random() < share else ""


@dataclass
class FakeOrchestrator:
    """Keeps runs as KFP does: it looks for the key, then starts; both are calls of their own."""

    runs: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    """Key and parameters by run."""
    states: dict[str, RunState] = field(default_factory=dict)

    def submit(self, pipeline: str, parameters: Mapping[str, str], key: str) -> str:
        return self.look(key) or self.start(pipeline, parameters, key)

    def look(self, key: str) -> str | None:
        return next((run for run, (carried, _) in self.runs.items() if carried == key), None)

    def start(self, pipeline: str, parameters: Mapping[str, str], key: str) -> str:
        run = f"{pipeline}-{len(self.runs) + 1}"
        self.runs[run] = (key, dict(parameters))
        self.states[run] = "running"
        return run

    def state(self, run: str) -> RunState:
        return self.states.get(run, "unknown")

    def first_step(self, run: str, ledger: Ledger, now: datetime) -> bool:
        """Play a run's first step: take the request, or fail; return whether it goes on."""
        key, _ = self.runs[run]
        try:
            ledger.append(ownership(USECASE, key, run, now))
        except LedgerError:
            self.states[run] = "failed"
            return False
        return True
