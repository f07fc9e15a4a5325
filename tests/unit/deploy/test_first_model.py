"""When a platform trains its first model."""

from typing import Any

import pytest

from deploy.first_model import ended, needed, object_name
from serving.operator import status


@pytest.mark.parametrize(
    ("found", "needs"),
    [
        pytest.param(
            {"phase": "waiting", "message": "waits for the first registered version"},
            True,
            id="none",
        ),
        pytest.param(
            {"phase": "waiting", "message": "MLflow cannot be reached"}, False, id="cannot tell"
        ),
        pytest.param({"phase": "starting", "champion": None}, False, id="server starts"),
        pytest.param({"phase": "serving", "champion": 1}, False, id="serves"),
        pytest.param({}, False, id="operator has not spoken"),
    ],
)
def test_only_a_use_case_without_any_version_needs_a_first_one(
    found: dict[str, Any], needs: bool
) -> None:
    assert needs == needed(found)


def test_the_operator_says_it_in_the_words_that_are_looked_for() -> None:
    found = status._without(status.Seen(servers={}, holder="", token=0))

    assert needed(found)


@pytest.mark.parametrize(
    ("conditions", "done"),
    [
        (None, None),
        ([], None),
        ([{"type": "Complete", "status": "False"}], None),
        ([{"type": "SuccessCriteriaMet", "status": "True"}], None),
        ([{"type": "Complete", "status": "True"}], True),
        ([{"type": "Failed", "status": "True"}], False),
    ],
)
def test_a_job_has_ended_when_it_is_complete_or_has_failed(
    conditions: list[dict[str, str]] | None, done: bool | None
) -> None:
    assert done is ended({"status": {"conditions": conditions}})


def test_names_of_objects_have_no_underscore() -> None:
    assert "flight-delay" == object_name("flight_delay")
