"""Which registered version is to be rolled out next: the rule that every driver's host follows.

Registration points `challenger` at the newest version. It has its rollout once, by itself; a second
one is asked for by a person.
"""

from mlplatform.contracts import Rollout
from serving.rollout import machine


def newcomer(challenger: int | None, champion: int | None, last: Rollout | None) -> int | None:
    """Return the version that is newer than what serves and than the last rollout's, if it is.

    Args:
        challenger: Version that the registry's alias names; None: none.
        champion: The same of the champion.
        last: The newest rollout; None: there was none.
    """
    if challenger is None:
        return None
    known = [champion or 0]
    if last is not None:
        known += [last.challenger.version, machine.serves(last).version]
    return challenger if challenger > max(known) else None
