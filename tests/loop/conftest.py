"""The whole loop in a copy of the repository, on the first two months of real flights.

The copy is made quick (two weeks of validation and test, one trial a kind) by editing its spec,
as a user would. Everything else is what `make demo` runs: the same command, real servers.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.loop.platform_copy import Platform

QUICK = {
    "validation_days: 14": "validation_days: 7",
    "test_days: 28": "test_days: 7",
    "trials: 2": "trials: 1",
    "trials: 3": "trials: 1",
    "max_rounds: 300": "max_rounds: 40",
    "min_rows: 500": "min_rows: 200",
}

FEATURE = '''

def _fleet(raw: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Hourly: aircraft seen at an origin in the last day."""
    seen = raw["flights"].filter(pl.col("departed_at").is_not_null()).sort("departed_at")
    counts = seen.group_by_dynamic("departed_at", every="1h", period="24h", group_by="origin").agg(
        fleet=pl.col("tailnum").n_unique().cast(pl.Float32)
    )
    known = pl.col("departed_at") + timedelta(hours=24, minutes=1)
    return counts.select("origin", event_timestamp=known, created_timestamp=known, fleet="fleet")


origin_fleet = _view(
    "origin_fleet", [origin], timedelta(hours=6), "1 h", [Field(name="fleet", dtype=Float32)]
)
SERVICE = FeatureService(name="flight_delay_v1", features=[*VIEWS, origin_fleet])
BATCH = {**BATCH, "origin_fleet": _fleet}
GROUPS = {**GROUPS, "fleet": ("fleet",)}
'''
"""A new feature, as the use case's README tells to add one: in its folder and nowhere else."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the first test of a platform the time to build its model, on a busy machine too."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(1200))


@pytest.fixture(scope="session")
def new_platform(
    copy_repository: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Platform]:
    def new(name: str) -> Platform:
        folder = tmp_path_factory.mktemp(name)
        checkout = copy_repository(folder / "checkout")
        server = Path("local", "triton", ".venv")  # installed once, by `make setup`
        (checkout / server).symlink_to(ROOT / server)
        spec = checkout / "usecases" / "flight_delay" / "usecase.yaml"
        text = spec.read_text()
        for old, quick in QUICK.items():
            assert old in text
            text = text.replace(old, quick)
        spec.write_text(text)
        return Platform(checkout, folder / "root")

    return new


@pytest.fixture(scope="session")
def registered(new_platform: Callable[[str], Platform]) -> Platform:
    """A platform after its first run, with a feature added to the use case's folder."""
    platform = new_platform("registered")
    platform.append("features.py", FEATURE)
    result = platform.demo()
    assert result.returncode == 0, result.stdout + result.stderr
    return platform
