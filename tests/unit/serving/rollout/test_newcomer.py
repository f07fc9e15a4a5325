"""A registered version has its rollout once, by itself."""

import pytest

from mlplatform.contracts.rollout import Phase
from serving.rollout.newcomer import newcomer
from tests.unit.serving.rollout.builders import reach


@pytest.mark.parametrize(
    ("challenger", "champion", "expected"),
    [(None, None, None), (None, 3, None), (2, None, 2), (4, 3, 4), (3, 3, None), (2, 3, None)],
)
def test_before_any_rollout_it_is_a_challenger_that_is_newer_than_the_champion(
    challenger: int | None, champion: int | None, expected: int | None
) -> None:
    assert expected == newcomer(challenger, champion, None)


@pytest.mark.parametrize("phase", ["shadow", "promoted", "rolled_back", "held"])
def test_a_version_that_had_its_rollout_has_no_second_one_however_that_went(phase: Phase) -> None:
    last, _ = reach(phase)
    version = last.challenger.version

    assert None is newcomer(version, last.champion.version, last)
    assert version + 1 == newcomer(version + 1, last.champion.version, last)
