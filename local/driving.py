"""The thread in which a rollout's driver looks, acts and looks again."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Final

from mlplatform.errors import shorten
from serving.rollout.driver import Driver

_LOG: Final = logging.getLogger("mlplatform.local")
_TICK_SECONDS: Final = 0.25
"""Between two looks of the driver: a verdict is acted on in the same look."""


@contextlib.contextmanager
def driven(driver: Driver, usecase: str) -> Iterator[None]:
    """Let the driver look again and again, for the length of the block, whatever comes of a look.

    A program that it starts has a thread of its own (see `ServerPool`).
    """
    stop = threading.Event()

    def drive() -> None:
        trouble = ""
        while not stop.is_set():
            try:
                driver.tick()
                trouble = ""
            except Exception as error:  # noqa: BLE001  # one that ends leaves a bad version there
                if trouble != (trouble := shorten(error)):
                    _LOG.exception("the rollout of %s could not be driven", usecase)
            stop.wait(_TICK_SECONDS)

    thread = threading.Thread(target=drive, name=f"rollout driver of {usecase}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
