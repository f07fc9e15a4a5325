"""Helm values that follow from the repository: the use cases, and the time they live in.

Values are written to `build/cluster/`, where a person can read what was given to Helm, and are the
same bytes for the same specs: a second deployment has nothing to do.
"""

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from deploy.helm import CHART
from deploy.target import Profile
from feature_repo import catalog
from mlplatform.contracts import UseCase
from mlplatform.errors import SettingsError

FOLDER: Final = Path("build/cluster")
IMAGES: Final = FOLDER / "images.yaml"
"""Written by `make images`."""
USECASES: Final = FOLDER / "usecases.yaml"

_PER_GATEWAY: Final = 200.0
"""Requests per second that one gateway process answers beside everything else on a laptop of two
cores, within its budgets: the pace of `make demo`."""
_RECORDED: Final = timedelta(days=365)
"""A source whose newest event is older holds a recording, and is replayed."""
_SHARE: Final = 1 / 4
"""Of a recording's span: enough before it to learn from, and enough after it to live through."""
_HEADER: Final = "# Written by `make deploy` from usecases/*/usecase.yaml; edit those.\n"


def gateways(peak_qps: float) -> int:
    """Return how many gateways hold a peak while one of them is drained."""
    return math.ceil(peak_qps / _PER_GATEWAY) + 1


def usecase_values(spec: UseCase) -> dict[str, Any]:
    """Return what the chart needs to know of a use case."""
    return {"name": spec.name, "gateway": {"replicas": gateways(spec.serving.peak_qps)}}


def rendered(specs: Iterable[UseCase], clock_shift_seconds: int) -> str:
    """Return the values as YAML.

    Args:
        specs: Of all use cases.
        clock_shift_seconds: Added to the clock of all roles.

    Raises:
        SettingsError: There is no use case.
    """
    import yaml

    found = [usecase_values(spec) for spec in specs]
    if not found:
        raise SettingsError(
            "there is no use case to deploy: add a folder under usecases/ (docs/customize.md)"
        )
    values: dict[str, Any] = {"usecases": found}
    if clock_shift_seconds:
        values["settings"] = {"clockShiftSeconds": clock_shift_seconds}
    return _HEADER + yaml.safe_dump(values, sort_keys=False)


def clock_shift(spans: Iterable[tuple[datetime, datetime] | None], now: datetime) -> int:
    """Return by how much the platform's clock has to be shifted for recorded data, in seconds.

    Args:
        spans: Time of the first and of the last label of each use case; None: it has none.
        now: The machine's time.

    Returns:
        0 where data are of today. For a recording, the platform begins to live after its first
        quarter, at the time of day that it is now.
    """
    for span in filter(None, spans):
        first, last = span
        if now - last <= _RECORDED:
            continue
        begin = (first + _SHARE * (last - first)).replace(hour=0, minute=0, second=0, microsecond=0)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return round((begin - midnight).total_seconds())
    return 0


def source_span(usecase: str) -> tuple[datetime, datetime] | None:
    """Return the time of the first and of the last label of a use case's source.

    Raises:
        SpecError: The use case is incomplete.
        DataError: Its source cannot be read.
    """
    code = catalog.load(usecase)
    read = code.read(datetime.fromtimestamp(0, UTC), datetime.now(UTC))
    times = code.labels(read)["event_timestamp"]
    first, last = times.min(), times.max()
    if isinstance(first, datetime) and isinstance(last, datetime):
        return first, last
    return None


def files(profile: Profile, own: Iterable[Path] = ()) -> tuple[Path, ...]:
    """Return the files of values, in Helm's order: later ones win.

    Args:
        profile: Of the chart.
        own: Those of the environment, and the person's.

    Raises:
        SettingsError: One of them is missing.
    """
    found = (CHART / "ci" / f"{profile}-values.yaml", IMAGES, USECASES, *own)
    for path in found:
        if not path.is_file():
            advice = "make the images with `make images`" if path == IMAGES else "name a file"
            raise SettingsError(f"there is no {path}, which Helm is to be given: {advice}")
    return found


def setting(paths: Iterable[Path], *keys: str) -> Any:
    """Return what the chart is told for a key: the last file that says it, or the chart itself."""
    return said([CHART / "values.yaml", *paths], *keys)


def said(paths: Iterable[Path], *keys: str) -> Any:
    """Return what the last of these files says for a key; None: none of them does."""
    import yaml

    found = None
    for path in paths:
        value: Any = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        found = found if value is None else value
    return found


def write(text: str) -> None:
    """Write the use cases' values where they differ from what is there."""
    if not USECASES.is_file() or USECASES.read_text(encoding="utf-8") != text:
        USECASES.parent.mkdir(parents=True, exist_ok=True)
        USECASES.write_text(text, encoding="utf-8")
