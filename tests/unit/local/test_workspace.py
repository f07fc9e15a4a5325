"""One run at a time in one folder; children are told where things are."""

from pathlib import Path

import pytest

from local.workspace import Workspace
from mlplatform.errors import PlatformError
from mlplatform.settings import ComputeSettings


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with (
        Workspace(tmp_path).lock(),
        pytest.raises(PlatformError, match="another run is using"),
        Workspace(tmp_path).lock(),
    ):
        pass


def test_the_folder_is_free_again_after_a_run(tmp_path: Path) -> None:
    with Workspace(tmp_path).lock():
        pass
    with Workspace(tmp_path).lock():
        pass

    assert (tmp_path / "lock").exists()


def test_the_servers_of_a_folder_run_once_and_beside_a_run_and_others_see_it(
    tmp_path: Path,
) -> None:
    workspace = Workspace(tmp_path)

    assert not workspace.served
    with workspace.lock(), workspace.serving_lock():
        assert Workspace(tmp_path).served
        with pytest.raises(PlatformError, match="another run is using"), workspace.serving_lock():
            pass
    assert not workspace.served


def test_steps_are_told_absolute_places_and_capped_threads(tmp_path: Path) -> None:
    told = Workspace(tmp_path).environment(ComputeSettings(cpus=2), "http://127.0.0.1:1")

    assert str(tmp_path / "data") == told["MLPLATFORM_DATA_ROOT"]
    assert {"2"} == {told["OMP_NUM_THREADS"], told["POLARS_MAX_THREADS"]}
    assert "local" == told["MLPLATFORM_ENVIRONMENT"]
