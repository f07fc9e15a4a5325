"""The gateway with planted faults: the use case's code fails where a request's distance says so.

Its spec declares defaults, one for a feature of a required view and one of another view; its limit
is one batch of `MAX_ROWS`, and a model server that hangs keeps it for two seconds.
"""

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any, Final

from feature_repo import catalog
from mlplatform.contracts import UseCase
from serving.gateway import tensors
from serving.gateway.__main__ import main

RULES_FAIL: Final = 98
REQUEST_FAILS: Final = 99
BREAKS: Final = "breaks"
"""Id of a request to the Open Inference Protocol whose answer cannot be made."""
DEFAULTS: Final = {"carrier_late_rate_7d": 0.25, "route_late_rate_30d": 0.125}
MAX_ROWS: Final = 512
_FACTOR: Final = 100


def planted(spec: UseCase) -> UseCase:
    """Return a spec with defaults and a hundred times the budget."""
    budget = spec.serving.latency_ms.model_dump()
    changes = {
        "latency_ms": type(spec.serving.latency_ms)(**{k: _FACTOR * v for k, v in budget.items()}),
        "peak_qps": 0.01,
        "max_rows": MAX_ROWS,
        "defaults": DEFAULTS,
    }
    return spec.model_copy(update={"serving": spec.serving.model_copy(update=changes)})


if __name__ == "__main__":
    load, encode = catalog.load_serving, tensors.encode

    def load_planted(name: str) -> catalog.ServingCode:
        code = load(name)

        def rules(columns: Mapping[str, Any]) -> Any:
            if (columns["distance"] == RULES_FAIL).any():
                raise KeyError(str(columns["tailnum"][0]))
            return code.rules(columns)

        def request(columns: Mapping[str, Any]) -> Any:
            if (columns["distance"] == REQUEST_FAILS).any():
                raise ValueError(str(columns["scheduled_arrival"]))
            return code.request(columns)

        return dataclasses.replace(code, spec=planted(code.spec), rules=rules, request=request)

    def encode_planted(head: dict[str, Any], *arguments: Any) -> Any:
        if head.get("id") == BREAKS:
            raise RuntimeError(BREAKS)
        return encode(head, *arguments)

    catalog.load_serving = load_planted
    tensors.encode = encode_planted  # type: ignore[assignment]  # passes its arguments on
    sys.exit(main())
