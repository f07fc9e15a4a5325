"""A step that is repeated in the same folder does the same again."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from mlplatform.contracts import ModelRef
from mlplatform.errors import ModelError
from pipelines import versions


def test_a_version_is_fetched_anew_and_refused_for_the_same_reason(tmp_path: Path) -> None:
    class Registry:
        def download(self, _name: str, _version: int, to: Path) -> Path:
            to.mkdir()  # as MLflow's adapter: it must not exist
            return to

    now = datetime(2013, 7, 1, tzinfo=UTC)
    ref = ModelRef(
        name="m", version=1, digest="d", uri="u", signature="s", run_id="r", created=True,
        registered_at=now,
    )  # fmt: skip

    for _ in range(2):
        with pytest.raises(ModelError, match=r"lacks .*model\.onnx"):
            versions.verified(
                cast("Any", Registry()), ref, tmp_path / "public.pem", tmp_path / "champion"
            )
