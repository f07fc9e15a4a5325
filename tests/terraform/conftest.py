"""Which of these tests run: the pure ones always, the others by `make test-infra`."""

import shutil
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
PURE = (
    "test_accounts.py",
    "test_costs.py",
    "test_draining.py",
    "test_moto_retries.py",
    "test_values.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = any("tests/terraform" in str(argument) for argument in config.args)
    for item in items:
        if item.path.parent != FOLDER or item.path.name in PURE:
            continue
        if not asked:
            item.add_marker(pytest.mark.skip(reason="takes minutes: run by `make test-infra`"))
        elif shutil.which("terraform") is None:
            item.add_marker(
                pytest.mark.skip(reason="terraform is not on PATH: install 1.10 or newer")
            )
