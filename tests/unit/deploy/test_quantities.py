"""Quantities as Kubernetes writes them."""

import pytest

from deploy.quantities import memory, quantity
from mlplatform.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("250m", 0.25),
        ("2", 2.0),
        (2, 2.0),
        ("1.5", 1.5),
        ("512Mi", 512 * 1024**2),
        ("4Gi", 4 * 1024**3),
        ("1k", 1000.0),
        ("1e3", 1000.0),
        ("16392072Ki", 16392072 * 1024),
        ("100n", 1e-7),
    ],
)
def test_a_quantity_is_a_number(text: str | float, number: float) -> None:
    assert pytest.approx(number) == quantity(text)


@pytest.mark.parametrize("text", ["", "much", "1Zi", "1 Gi"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="is no quantity"):
        quantity(text)


def test_memory_is_said_in_the_unit_that_people_use() -> None:
    assert ("512 MiB", "1.5 GiB") == (memory(512 * 1024**2), memory(1.5 * 1024**3))
