"""A step that is repeated in the same folder does the same again."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlplatform.contracts import ModelRef
from mlplatform.errors import ModelError
from pipelines import tasks


def test_the_champion_is_fetched_anew_and_refused_for_the_same_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Registry:
        def download(self, _name: str, _version: int, to: Path) -> Path:
            to.mkdir()  # as MLflow's adapter: it must not exist
            return to

    monkeypatch.setattr(tasks, "_registry", Registry)
    now = datetime(2013, 7, 1, tzinfo=UTC)
    ref = ModelRef(
        name="m", version=1, digest="d", uri="u", signature="s", run_id="r", created=True,
        registered_at=now,
    )  # fmt: skip

    for _ in range(2):
        with pytest.raises(ModelError, match=r"lacks .*model\.onnx"):
            tasks._verified(ref, tmp_path / "champion")
