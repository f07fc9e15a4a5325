from typing import Any

import pytest

from deploy.custom_resources import established


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, False),
        ({"conditions": None}, False),
        ({"conditions": []}, False),
        ({"conditions": [{"type": "NamesAccepted", "status": "True"}]}, False),
        ({"conditions": [{"type": "Established", "status": "False"}]}, False),
        ({"conditions": [{"type": "Established", "status": "True"}]}, True),
    ],
    ids=str,
)
def test_a_definition_is_established_when_the_api_server_says_so(
    status: dict[str, Any], expected: bool
) -> None:
    assert expected == established({"metadata": {"name": "one"}, "status": status})
