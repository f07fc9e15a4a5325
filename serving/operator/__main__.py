"""Drive the rollouts of a namespace: `python -m serving.operator`.

Several replicas may run. The one that holds the lease drives all ModelRollouts; the others wait for
it, and take over when it is let go or no longer renewed. An API server that is away changes nothing
for requests: gateways and model servers need none; the operator goes on when it is back. At SIGTERM
it finishes the turn that it is in and leaves the lease to the next replica.
"""

import argparse
import asyncio
import logging
import signal
import sys
import threading
import time
import uuid
from typing import Final

from mlplatform.clients.kubernetes import MODEL_ROLLOUTS, Cluster
from mlplatform.errors import PlatformError, shorten
from serving.operator.compose import Settings, WarmUp, compose
from serving.operator.handlers import Hosts, registered
from serving.operator.handlers import settings as kopf_settings
from serving.operator.health import Health
from serving.operator.host import Host
from serving.operator.lease import Election, Lease
from serving.operator.store import token_of

_POLL_SECONDS: Final = 0.1
_STUCK_SECONDS: Final = 300.0
"""Without a step of the election or a turn of a host: a restart is the cure. A registry that hangs
holds a turn up for half a minute."""
_PAUSE_SECONDS: Final = 5.0
"""After kopf has ended by itself."""

_log: Final = logging.getLogger("serving.operator")


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM; return 0, or 2 when it cannot start."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.operator",
        description=__doc__,
        epilog="Settings: MLPLATFORM_OPERATOR_* and others; docs/settings.md lists them.",
    )
    parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("kopf").setLevel(logging.WARNING)
    # What is away is said once by whoever needs it, not at each try.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    # It warns that signals are not its own, which is meant: they are handled here.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
    stop = threading.Event()
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda *_: stop.set())
    try:
        loaded = Settings.load()
        cluster = Cluster.connect(loaded.operator.namespace)
        _run(loaded, cluster, stop)
    except PlatformError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _run(loaded: Settings, cluster: Cluster, stop: threading.Event) -> None:
    """Wait for the lease and drive while it is held, until asked to end."""
    operator = loaded.operator
    lease = Lease(
        cluster,
        operator.lease,
        f"{operator.name}_{uuid.uuid4().hex[:8]}",
        operator.lease_seconds,
        lambda: max((token_of(found) for found in cluster.list(MODEL_ROLLOUTS)), default=0),
    )
    election = Election(lease, operator.renew_seconds, _said)
    hosts: Hosts | None = None
    warm = WarmUp(loaded)
    warm.start()

    def make(usecase: str) -> Host:
        warm.loaded.wait()
        return compose(loaded, cluster, lease, usecase)

    def stuck() -> str:
        looked = 0.0 if hosts is None or not lease.held else hosts.slowest
        slowest = max(time.monotonic() - election.beat_at, looked)
        return f"nothing was done for {slowest:.0f} s" if slowest > _STUCK_SECONDS else ""

    questions = {"/livez": stuck, "/readyz": lambda: election.trouble or stuck()}
    with Health(operator.health_host, operator.health_port, questions), election:
        while not stop.is_set():
            if lease.held:
                _log.info("leader number %d is %s", lease.token, lease.holder)
                hosts = Hosts(cluster, lease, make)
                _lead(cluster.namespace, hosts, lease, stop, operator.tick_seconds)
                hosts = None
            stop.wait(_POLL_SECONDS)


def _lead(
    namespace: str, hosts: Hosts, lease: Lease, stop: threading.Event, tick_seconds: float
) -> None:
    """Let kopf watch until the lease is lost, or the process is asked to end."""
    ending = threading.Event()
    thread = threading.Thread(
        target=_watch, args=(namespace, hosts, ending, tick_seconds), name="kopf", daemon=True
    )
    thread.start()
    while thread.is_alive() and not stop.is_set() and not lease.lost.is_set():
        stop.wait(_POLL_SECONDS)
    if lease.lost.is_set():
        _log.warning("%s has lost the lease: another replica drives", lease.holder)
    ended = not ending.is_set() and not thread.is_alive()
    ending.set()
    thread.join()
    hosts.stop()
    if ended:
        stop.wait(_PAUSE_SECONDS)


def _watch(namespace: str, hosts: Hosts, ending: threading.Event, tick_seconds: float) -> None:
    import kopf

    try:
        asyncio.run(
            kopf.operator(
                registry=registered(hosts, tick_seconds),
                settings=kopf_settings(),
                namespaces=[namespace],
                standalone=True,
                stop_flag=ending,
            )
        )
    except Exception as error:  # noqa: BLE001 (it is begun anew)
        _log.warning("the watch of the ModelRollouts has ended: %s", shorten(error))


def _said(trouble: str) -> None:
    if trouble:
        _log.warning("the lease: %s", trouble)
    else:
        _log.info("the lease: the API server is back")


if __name__ == "__main__":
    sys.exit(main())
