"""What monitoring needs of a version is registered with it, and believed only as it was signed."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from local.broken_model import register_broken
from mlplatform.clients.registry import Registry
from mlplatform.contracts import ModelRef, Window
from mlplatform.errors import DataError, ModelError, NotFoundError, ServiceError
from monitoring.champion import Watched, load
from pipelines.steps.onnx_scoring import Scorer
from pipelines.steps.split import matrix
from tests.unit.registry.conftest import FEATURES, NOW, ROWS, Work
from tests.unit.signing.filler import FILES

MakeWork = Callable[..., Work]


def watched(registry: Registry, work: Work, ref: ModelRef, cache: Path) -> Watched:
    return load(registry, ref.name, ref.version, work.keys.public, cache)


def kept(cache: Path, ref: ModelRef) -> Path:
    (folder,) = (cache / ref.name).iterdir()
    return folder


def test_a_version_is_watched_with_its_own_training_rows_scores_and_evaluation(
    registry: Registry, make_work: MakeWork, tmp_path: Path
) -> None:
    work = make_work("watched_model")
    ref = work.run(registry)

    found = watched(registry, work, ref, tmp_path / "cache")
    profile, rows = found.reference.profile, found.reference.rows
    tested = rows.filter(pl.col("event_timestamp") >= work.evaluation.window.start)
    answers = Scorer(work.candidate.path, 1).probability(matrix(tested, FEATURES))
    scored = tested["score"].is_not_null().to_numpy()

    assert (ref.version, work.evaluation) == (found.version, found.evaluation)
    assert (work.candidate.digest, FEATURES) == (found.manifest.model_digest, profile.features)
    assert work.training_set.window.start == profile.window.start
    assert ROWS == profile.training_rows
    assert profile.calibration is not None
    assert profile.score_rows == scored.sum() == rows["score"].count() > ROWS // 4
    assert np.array_equal(answers[scored], tested["score"].to_numpy()[scored], equal_nan=True)


def test_it_is_fetched_once_however_many_ask_at_the_same_time(
    registry: Registry, make_work: MakeWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = make_work("asked_model")
    ref, cache = work.run(registry), tmp_path / "cache"

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: watched(registry, work, ref, cache), range(4)))
    with monkeypatch.context() as patch:
        patch.delattr(Registry, "download")
        again = watched(registry, work, ref, cache)

    assert {ref.version} == {one.version for one in [*found, again]}
    assert sorted(FILES) == sorted(path.name for path in kept(cache, ref).iterdir())


def test_a_file_that_was_changed_where_it_is_kept_is_refused_and_where_it_lies_is_said(
    registry: Registry, make_work: MakeWork, tmp_path: Path
) -> None:
    work, cache = make_work("changed_model"), tmp_path / "cache"
    ref = work.run(registry)
    watched(registry, work, ref, cache)
    folder = kept(cache, ref)

    for path in folder.iterdir():
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ModelError, match=rf"cannot be watched: .*{folder}: remove that"):
            watched(registry, work, ref, cache)
        path.write_bytes(content)
    assert ref.version == watched(registry, work, ref, cache).version


@pytest.mark.parametrize("name", ["profile.json", "reference.parquet", "evaluation.json"])
def test_a_file_that_the_registry_holds_otherwise_than_it_was_signed_is_refused_by_all_who_read_it(
    registry: Registry,
    make_work: MakeWork,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    title = f"held_{name.replace('.', '_')}"
    work = make_work(title)
    ref = work.run(registry)
    download = Registry.download

    def tampered(self: Registry, name_: str, version: int, to: Path) -> Path:
        stored = download(self, name_, version, to)
        (stored / name).write_bytes((stored / name).read_bytes() + b"\n")
        return stored

    monkeypatch.setattr(Registry, "download", tampered)

    with pytest.raises(ModelError, match=r"cannot be watched: .*is not what was signed"):
        watched(registry, work, ref, tmp_path / "cache")
    with pytest.raises(ModelError, match="is not what was signed"):
        register_broken(
            registry, title, ref.version, keys=work.keys, workdir=tmp_path / "broken", now=NOW
        )
    with pytest.raises(ModelError, match="is not what was signed"):
        replace(work, training_set=work.training_set.model_copy(update={"digest": "e" * 64})).run(
            registry
        )


def test_a_model_on_too_few_days_is_registered_and_says_that_its_drift_cannot_be_judged(
    registry: Registry, make_work: MakeWork, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = make_work("short_model")
    path = tmp_path / "short.parquet"
    newest = NOW - timedelta(days=15)
    pl.read_parquet(work.training_set.path).filter(
        pl.col("event_timestamp") >= newest
    ).write_parquet(path)
    training_set = work.training_set.model_copy(update={"path": path})

    with caplog.at_level(logging.WARNING, "mlplatform.register"):
        ref = replace(work, training_set=training_set).run(registry)
    profile = watched(registry, work, ref, tmp_path / "cache").reference.profile

    assert ref.created
    assert (None, 14) == (profile.calibration, profile.windows)
    assert "take a longer reference" in profile.uncalibrated
    assert profile.uncalibrated in caplog.text


def test_the_same_model_watched_in_another_way_is_another_version(
    registry: Registry, make_work: MakeWork, tmp_path: Path
) -> None:
    work = make_work("rarer_model")
    monitoring = work.spec.monitoring.model_copy(update={"false_alarm_rate": 0.001})
    rarer = replace(work, spec=work.spec.model_copy(update={"monitoring": monitoring}))

    refs = [one.run(registry) for one in (work, rarer, rarer)]
    found = [watched(registry, work, ref, tmp_path / "cache") for ref in refs]

    assert [1, 2, 2] == [ref.version for ref in refs]
    assert [0.01, 0.001, 0.001] == [
        one.reference.profile.calibration.false_alarm_rate  # type: ignore[union-attr]
        for one in found
    ]


def test_an_evaluation_on_other_days_than_the_training_set_leaves_no_score_to_compare(
    registry: Registry, make_work: MakeWork, tmp_path: Path
) -> None:
    work = make_work("elsewhere_model")
    elsewhere = Window(start=NOW + timedelta(days=1), end=NOW + timedelta(days=31))
    evaluation = work.evaluation.model_copy(update={"window": elsewhere})

    ref = replace(work, evaluation=evaluation).run(registry)

    known = watched(registry, work, ref, tmp_path / "cache").reference.profile
    assert 0 == known.score_rows
    assert known.calibration is not None


def test_a_training_set_that_is_gone_leaves_nothing_registered(
    registry: Registry, make_work: MakeWork, tmp_path: Path
) -> None:
    work = make_work("gone_model")
    training_set = work.training_set.model_copy(update={"path": tmp_path / "gone.parquet"})

    with pytest.raises(DataError, match=r"gone.parquet cannot be read"):
        replace(work, training_set=training_set).run(registry)
    assert None is registry.newest("gone_model")


def test_what_was_never_registered_or_cannot_be_kept_is_told_as_such(
    registry: Registry, make_work: MakeWork, tmp_path: Path
) -> None:
    work = make_work("kept_nowhere_model")
    ref = work.run(registry)
    (tmp_path / "file").touch()

    with pytest.raises(NotFoundError):
        watched(registry, work, ref.model_copy(update={"version": 99}), tmp_path)
    with pytest.raises(ServiceError, match="choose a folder that this process may write"):
        watched(registry, work, ref, tmp_path / "file")
