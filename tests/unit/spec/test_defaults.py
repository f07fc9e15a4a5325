"""What a spec means where it says nothing."""

from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from mlplatform.contracts.base import Contract
from mlplatform.contracts.usecase.operation import Inference, RolloutPlan, Serving

PROMISED: dict[type[Contract], dict[str, Any]] = {
    Serving: {
        "decision_threshold": 0.5,
        "inference": Inference(),
        "max_rows": 256,
        "request": {},
        "required_views": (),
        "defaults": {},
    },
    Inference: {"backend": "onnxruntime", "max_batch": 64, "instances": 1},
    RolloutPlan: {"shadow_share": 1.0, "stale_hours": 24},
}


@pytest.mark.parametrize("section", PROMISED, ids=lambda section: section.__name__)
def test_a_default_is_the_one_that_was_promised(section: type[Contract]) -> None:
    found = {
        name: field.default
        for name, field in section.model_fields.items()
        if field.default is not PydanticUndefined
    }

    assert PROMISED[section] == found
