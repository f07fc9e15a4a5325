"""Requests become runs: one run for each key, though a submitter may die anywhere or be two.

The request is stored before, the run's id after; who finds a request without one asks the
orchestrator again, which looks for the key before it starts anything. Meanwhile a claim keeps
others away. What no claim can rule out, a submitter that stalls between its look and its start
for longer than its claim, the run itself does: its first step takes the request on the ledger
(`contracts.retrain.ownership`), and a second run that finds it taken ends.
"""

import logging
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final, Protocol

from mlplatform.contracts.retrain import (
    History,
    Outcome,
    Retraining,
    RunState,
    owner,
    ownership_key,
)
from mlplatform.ledger import Ledger
from monitoring.history import claim, ended, submitted
from monitoring.requests import RequestStore, record

CLAIM: Final = timedelta(minutes=5)
"""Longer than KFP's eight calls of half a minute; the local runner keeps others away by itself."""

_log: Final = logging.getLogger(__name__)


class Orchestrator(Protocol):
    """Runs pipelines by name: the local runner, or KFP in a cluster."""

    def submit(self, pipeline: str, parameters: Mapping[str, str], key: str) -> str:
        """Start a run that carries the key, unless one does; return the run's id.

        It lists the runs with the key first, those of every state: a run that has failed is the
        key's run as well. The run is given the key too.

        Raises:
            ServiceError: The orchestrator is out of reach; whether it started is then unknown.
        """
        ...

    def state(self, run: str) -> RunState:
        """Return how a run is; raises ServiceError where the orchestrator is out of reach."""
        ...


class Submitter:
    """Submits what the trigger of one use case asks for, and follows it to its end.

    Args:
        usecase: Its name.
        pipeline: The training pipeline's name.
        store: Of the histories.
        orchestrator: Runs pipelines.
        gain: Whether a run that succeeded brought a better model, by the run's id. None while that
            is open: its rollout goes on. It says True when the model serves, not before: until
            then the windows judge the model before it.
        ledger: Where decisions are kept.
        now: The time.
        claim: How long others keep away from a request that this one submits.
    """

    def __init__(
        self,
        usecase: str,
        pipeline: str,
        store: RequestStore,
        orchestrator: Orchestrator,
        gain: Callable[[str], bool | None],
        ledger: Ledger,
        now: Callable[[], datetime],
        claim: timedelta = CLAIM,
    ) -> None:
        self._usecase, self._pipeline = usecase, pipeline
        self._store, self._orchestrator, self._gain = store, orchestrator, gain
        self._ledger, self._now, self._claim = ledger, now, claim
        self._name = uuid.uuid4().hex  # not the host's: a process that restarts is another one

    def tick(self) -> History | None:
        """Take the request in flight one step further; None when there never was a trigger.

        What was decided is on the ledger before anything follows from it. After an error nothing
        is lost: tick again.

        Raises:
            DataError: The stored history cannot be read.
            StaleError: Other writers were faster twenty times.
            ServiceError: The database or the orchestrator cannot be reached.
            LedgerError: The ledger's chain is broken.
        """
        stored = self._store.read(self._usecase)
        if stored is None:
            return None
        history = record(self._store, self._ledger, stored.history)
        current = history.in_flight
        if current is not None and current.phase == "ready":
            history = self._submit(history)
        elif current is not None and current.phase == "submitted":
            history = self._follow(history, current)
        return record(self._store, self._ledger, history)

    def _submit(self, history: History) -> History:
        now = self._now()
        history = self._change(lambda found: claim(found, self._name, now + self._claim, now))
        mine = history.in_flight
        if mine is None or mine.phase != "ready" or mine.claimed_by != self._name:
            return history
        if mine.as_of is None:
            return history
        key = mine.request.key
        parameters = {"usecase": self._usecase, "as_of": mine.as_of.isoformat()}
        run = self._orchestrator.submit(self._pipeline, parameters, key)
        _log.info("%s: request %s is run %s", self._usecase, key, run)
        return self._change(lambda found: submitted(found, key, run, self._now()))

    def _follow(self, history: History, current: Retraining) -> History:
        key = current.request.key
        run = self._owner(key) or current.run
        if run is None:
            return history
        state = self._orchestrator.state(run)
        outcome: Outcome | None = "failed" if state in {"failed", "unknown"} else None
        if state == "succeeded" and (gain := self._gain(run)) is not None:
            outcome = "better" if gain else "no_gain"
        if outcome is None:
            return history
        ends, why = outcome, f"run {run} is {state}"
        return self._change(lambda found: ended(found, key, ends, why, self._now()))

    def _owner(self, key: str) -> str | None:
        """Return the run that took the request: of two, not always the one that was noted."""
        taken = self._ledger.get(ownership_key(self._usecase, key))
        return None if taken is None else owner(taken.decision)

    def _change(self, step: Callable[[History], History]) -> History:
        return self._store.change(self._usecase, step, self._now())
