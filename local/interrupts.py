"""Ctrl-C, SIGTERM and SIGHUP end a command in order: everything that it started is ended."""

import signal


def interrupts() -> None:
    """Turn these signals into KeyboardInterrupt, also where a shell started us without SIGINT."""
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, _interrupt)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
