"""An order is never kept without a name."""

import getpass

import pytest

from mlplatform.errors import DataError
from mlplatform.people import actor
from tests.unit.people.nameless import take_the_name


@pytest.mark.parametrize("named", [None, ""])
def test_who_is_not_named_is_the_user(named: str | None) -> None:
    assert getpass.getuser() == actor(named)


def test_a_user_without_a_name_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    take_the_name(monkeypatch)

    with pytest.raises(DataError, match=r"no name.*--actor NAME.*LOGNAME=NAME"):
        actor()
    assert "ana" == actor("ana")
    monkeypatch.setenv("LOGNAME", "bo")
    assert "bo" == actor()
