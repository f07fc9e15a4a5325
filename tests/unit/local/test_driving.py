"""The rollout's driver looks again and again, whatever comes of a look."""

import logging
import threading
from typing import cast

import pytest

from local import driving
from local.driving import driven
from serving.rollout.driver import Driver
from tests.unit.local.test_supervisor import eventually


class Failing:
    """A driver whose looks fail until it is mended."""

    def __init__(self) -> None:
        self.looks = 0
        self.broken = True

    def tick(self) -> None:
        self.looks += 1
        if self.broken:
            raise KeyError("planted")


@pytest.mark.parametrize("broken", [False, True], ids=["all is well", "each look fails"])
def test_a_driver_looks_until_the_end_and_its_failure_is_said_once(
    broken: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(driving, "_TICK_SECONDS", 0.001)
    driver = Failing()
    driver.broken = broken
    with caplog.at_level(logging.ERROR), driven(cast(Driver, driver), "flights"):
        assert eventually(lambda: driver.looks > 5)

    ended = driver.looks
    assert [] == [t.name for t in threading.enumerate() if t.name.startswith("rollout driver")]
    assert ended == driver.looks
    assert (1 if broken else 0) == caplog.text.count("could not be driven")
