"""The channel of one machine: alerts are lines of the progress."""

from local.progress import Progress
from mlplatform.contracts.alert import Alert


class AlertLines:
    """Says alerts, and keeps those that fire until they are taken.

    Args:
        progress: Where they are said.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._fired: list[str] = []

    def send(self, alert: Alert) -> None:
        """Print an alert."""
        fires = alert.state == "firing"
        text = f"{alert.name} {alert.state}: {alert.summary}"
        self._progress.say("alert", text, "yellow" if fires else "")
        if fires:
            self._fired.append(f"{alert.name}: {alert.summary}")

    def taken(self) -> tuple[str, ...]:
        """Return what has fired since the last call."""
        fired, self._fired = tuple(self._fired), []
        return fired
