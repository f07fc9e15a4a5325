"""The journal of a run."""

from pathlib import Path

import pytest

from mlplatform.errors import ServiceError
from pipelines.journal import Journal


def test_records_come_back_by_step(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), "flight_delay", "run-1")
    journal.write("validate", {"seconds": 1.0})
    journal.write("train", {"seconds": 2.0})

    assert {"validate": {"seconds": 1.0}, "train": {"seconds": 2.0}} == journal.read()


def test_a_retried_step_replaces_its_record(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), "flight_delay", "run-1")
    journal.write("train", {"error": "lost its node"})
    journal.write("train", {"seconds": 2.0})

    assert {"train": {"seconds": 2.0}} == journal.read()


def test_a_run_without_records_is_empty(tmp_path: Path) -> None:
    assert {} == Journal(str(tmp_path), "flight_delay", "run-1").read()


def test_runs_do_not_see_each_other(tmp_path: Path) -> None:
    Journal(str(tmp_path), "flight_delay", "run-1").write("train", {})

    assert {} == Journal(str(tmp_path), "flight_delay", "run-2").read()


def test_a_run_id_cannot_leave_the_folder(tmp_path: Path) -> None:
    Journal(str(tmp_path / "data"), "flight_delay", "../../x").write("train", {})

    assert [tmp_path / "data"] == list(tmp_path.iterdir())
    assert {"train": {}} == Journal(str(tmp_path / "data"), "flight_delay", "../../x").read()


def test_a_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, not a folder")

    with pytest.raises(ServiceError, match=r"cannot write .*train\.json.*check the data root"):
        Journal(str(tmp_path / "data"), "flight_delay", "run-1").write("train", {})
