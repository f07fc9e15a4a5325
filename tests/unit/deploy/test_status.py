"""Times as people say them."""

from datetime import UTC, datetime

import pytest

from deploy.status import ago

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        (None, "never"),
        ("2026-11-21T11:59:30Z", "30 s ago"),
        ("2026-11-21T11:15:00Z", "45 min ago"),
        ("2026-11-21T09:00:00Z", "3 h ago"),
        ("2026-11-18T12:00:00Z", "3 d ago"),
        ("2026-11-21T12:00:05Z", "0 s ago"),
    ],
)
def test_a_moment_is_said_in_its_largest_unit(moment: str | None, said: str) -> None:
    assert said == ago(moment, NOW)
