"""The loop, one window of live traffic after the other.

    serve -> judge and decide -> retrain -> roll out -> tell

`Loop.live` is these lines, and each is the code that a cluster runs: there the gateway answers
whoever asks, the monitor and the submitter are jobs on a schedule, the pipeline runs on Kubeflow,
and who hosts the rollout's driver looks for newcomers. Here they follow each other, in the data's
own time.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from local.alert_lines import AlertLines
from local.followed import Followed, state
from local.live_traffic import LiveTraffic
from local.told import Day, Line, line
from mlplatform.clients.registry import Registry
from mlplatform.contracts import Window
from mlplatform.contracts.retrain import IN_FLIGHT, History
from mlplatform.ledger import Ledger
from monitoring.requests import RequestStore
from monitoring.rounds import Rounds
from monitoring.submit import Submitter
from serving.rollout.newcomer import newcomer
from serving.rollout.store import RolloutStore


@dataclass(frozen=True)
class Parts:
    """What the loop is made of."""

    usecase: str
    traffic: LiveTraffic
    rounds: Rounds
    requests: RequestStore
    submitter: Submitter
    registry: Registry
    rollouts: RolloutStore
    followed: Followed
    told: AlertLines
    ledger: Ledger


class Loop:
    """Lives through windows.

    Args:
        parts: Makes them, given what tells the time.
        start: What time it is.

    Attributes:
        before: Rows of the ledger that are older than the loop.
    """

    def __init__(self, parts: Callable[[Callable[[], datetime]], Parts], start: datetime) -> None:
        self._now = start
        self._parts = parts(lambda: self._now)
        self._seen = self.before = self._parts.ledger.head().count

    @property
    def retrained(self) -> bool:
        """Whether a model was trained anew, and it is known what came of it."""
        stored = self._parts.requests.read(self._parts.usecase)
        last = None if stored is None else stored.history.last
        return last is not None and last.phase not in IN_FLIGHT

    @property
    def rolling_out(self) -> bool:
        """Whether a rollout is under way."""
        return self._parts.followed.under_way

    def live(self, window: Window, act: str, withheld: Collection[str] = ()) -> Day:
        """Live through one window; return what it brought.

        Args:
            window: The next one.
            act: What the story is about.
            withheld: Feature views whose feed has stopped.

        Raises:
            PlatformError: A part of the platform failed.
        """
        parts = self._parts
        # Every request is answered and logged, each after the features that were known by then.
        parts.traffic.until(window.end, withheld)
        self._now = window.end
        # Is the data whole, has the world moved, what do labels say? Trigger and people hear it.
        report, history = parts.rounds.go(window, self._now)
        # What the trigger asks for is trained: once for each request, on labels that have matured.
        history = parts.submitter.tick() or history
        # What was registered takes over, or does not, on the evidence of the windows that follow.
        self._roll_out_what_was_registered(history)
        rollout = parts.followed.tell()
        return Day(
            act=act,
            report=report,
            withheld=tuple(withheld),
            decisions=self._decided(window),
            rollout="" if rollout is None else state(rollout),
            alerts=parts.told.taken(),
        )

    def _roll_out_what_was_registered(self, history: History) -> None:
        """Ask for the rollout of a challenger that is newer than what serves, once."""
        parts, name = self._parts, self._parts.usecase
        challenger, champion = (
            None if found is None else found.version
            for found in (parts.registry.by_alias(name, a) for a in ("challenger", "champion"))
        )
        stored = parts.rollouts.read(name)
        version = newcomer(challenger, champion, None if stored is None else stored.rollout)
        if version is None:
            return
        why = history.last.request.reason.replace("_", " ") if history.last else "by hand"
        title = f"version {version} is to take over (retraining: {why})"
        parts.followed.ask(version, title)

    def _decided(self, window: Window) -> tuple[Line, ...]:
        """Return what the ledger was told since the window before."""
        entries = self._parts.ledger.entries(self._parts.usecase)
        new = [entry for entry in entries if entry.seq > self._seen]
        self._seen = max([self._seen, *(entry.seq for entry in new)])
        return tuple(line(entry.decision, window.end) for entry in new)
