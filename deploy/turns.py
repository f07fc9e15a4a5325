"""One deployment at a time: a Lease of the namespace, held while a command changes things.

Two at once would each undo half of what the other does, and Helm would leave a release that nobody
can upgrade. One that was killed holds it for the seconds of the lease, no longer.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from deploy.progress import Progress
from mlplatform.clients.kubernetes import LEASES, Cluster
from mlplatform.errors import StaleError
from mlplatform.people import actor
from serving.operator.lease import Election, Lease

NAME: Final = "mlplatform-deploy"
_SECONDS: Final = 15
_EVERY_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = _SECONDS + 5.0
"""In which the lease of one that was killed runs out."""


@contextmanager
def alone(cluster: Cluster, progress: Progress) -> Iterator[None]:
    """Hold the namespace's lease for the length of a block.

    Raises:
        StaleError: Somebody else changes the platform at this moment.
        ServiceError: The API server is away, or refuses.
    """
    lease = Lease(cluster, NAME, f"{actor()}@{socket.gethostname()}/{os.getpid()}", _SECONDS)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    told = False
    while not lease.turn():
        holder = ((cluster.find(LEASES, NAME) or {}).get("spec") or {}).get("holderIdentity", "")
        if time.monotonic() > deadline:
            raise StaleError(
                f"{holder or 'somebody else'} changes the platform in {cluster.namespace} at this "
                "moment: wait until that command has ended"
            )
        if not told:
            told = True
            progress.say("turn", f"{holder} was here: waiting whether it still is", style="yellow")
        time.sleep(_POLL_SECONDS)
    with Election(lease, _EVERY_SECONDS):
        yield
