"""The gateway with ten times the budget: tests of what it does wait for no scheduler.

Run as `python -m tests.unit.serving.gateway.patient_gateway`, instead of `serving.gateway`. On a
busy machine a process may stand still for longer than a hop's budget, which the gateway answers
rightly, and which is not what these tests ask. The peak rate is a tenth, so that the limit of open
work is the same.
"""

import dataclasses
import sys

from feature_repo import catalog
from mlplatform.contracts import UseCase
from serving.gateway.__main__ import main

FACTOR = 10


def patient(spec: UseCase) -> UseCase:
    """Return a spec with ten times the budget."""
    budget = spec.serving.latency_ms.model_dump()
    changes = {
        "latency_ms": type(spec.serving.latency_ms)(**{k: FACTOR * v for k, v in budget.items()}),
        "peak_qps": spec.serving.peak_qps / FACTOR,
    }
    return spec.model_copy(update={"serving": spec.serving.model_copy(update=changes)})


if __name__ == "__main__":
    load = catalog.load_serving

    def load_patiently(name: str) -> catalog.ServingCode:
        code = load(name)
        return dataclasses.replace(code, spec=patient(code.spec))

    catalog.load_serving = load_patiently
    sys.exit(main())
