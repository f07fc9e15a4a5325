"""Requests that schemathesis makes out of the description find nothing that it does not say."""

from datetime import datetime
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from feature_repo import catalog
from serving.gateway.openapi import description
from tests.unit.serving.gateway.stack import USECASE, Gateway, request

SCHEMA = schemathesis.openapi.from_dict(description({USECASE: catalog.spec(USECASE)}, "test"))

# The description asks for times of this century, which a generator of all times hardly ever hits.
schemathesis.openapi.format(
    "date-time",
    st.builds(
        lambda moment, offset: f"{moment.isoformat()}{offset}",
        st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31)),  # noqa: DTZ001
        st.sampled_from(["Z", "+00:00", "-04:00", "+23:59"]),
    ),
)


@SCHEMA.parametrize()
@settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
def test_no_generated_request_finds_a_fault(gateway: Gateway, case: Any) -> None:
    case.call_and_validate(base_url=f"http://127.0.0.1:{gateway.port}")


def test_the_gateway_is_well_after_all_of_them(gateway: Gateway) -> None:
    assert 200 == gateway.score(request()).status
    assert "Traceback" not in gateway.log.read_text()
