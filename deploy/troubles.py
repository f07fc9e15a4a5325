"""What keeps something from running: what it is, and what to do."""

import re
from typing import NamedTuple


class Trouble(NamedTuple):
    """Something that keeps a pod, or a workload's pods, from running."""

    what: str
    advice: str = ""
    """What to do; empty: wait."""

    def __str__(self) -> str:
        return f"{self.what}: {self.advice}" if self.advice else self.what


class Rule(NamedTuple):
    """How a message of Kubernetes is read."""

    pattern: re.Pattern[str]
    what: str
    """With names in braces that are filled in."""
    advice: str


def rule(pattern: str, what: str, advice: str) -> Rule:
    """Return a rule for messages that hold a regular expression."""
    return Rule(re.compile(pattern), what, advice)
