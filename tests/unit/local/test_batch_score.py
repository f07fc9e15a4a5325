"""Which window is scored, and what a person reads of a run that failed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from feature_repo import catalog
from local.batch_score import found, main, manifest_of, parser, window
from local.told import ended
from local.workspace import Workspace
from mlplatform.contracts import Window
from mlplatform.errors import DataError, PlatformError
from pipelines.steps.batch_score import BatchScores
from tests.unit.local import stories

CODE = catalog.load("flight_delay")
DAY = timedelta(days=1)
START = datetime(2013, 5, 1, tzinfo=UTC)


def scored(**changes: object) -> BatchScores:
    content: dict[str, object] = {
        "file": "scores-0.parquet",
        "sha256": "0" * 64,
        "usecase": "flight_delay",
        "window": Window(start=START, end=START + DAY),
        "rows": 2,
        "acted": 1,
        "threshold": 0.5,
        "model": "flight_delay",
        "version": 3,
        "digest": "d" * 64,
        "signature": "s" * 64,
        "feature_service": "flight_delay_v1",
        "git_commit": "0123abc",
        "created_at": START,
    }
    return BatchScores.model_validate(content | changes)


@pytest.mark.parametrize(
    ("arguments", "start", "end"),
    [
        pytest.param(["--start", "2013-05-01"], START, START + DAY, id="start"),
        pytest.param(["--end", "2013-05-02"], START, START + DAY, id="end"),
        pytest.param(
            ["--start", "2013-05-01", "--end", "2013-05-01T06:00+02:00"],
            START,
            START + timedelta(hours=4),
            id="both, in another zone",
        ),
    ],
)
def test_a_window_is_a_day_long_unless_both_ends_are_given(
    arguments: list[str], start: datetime, end: datetime, tmp_path: Path
) -> None:
    options = parser().parse_args(arguments)

    assert Window(start=start, end=end) == window(
        options.start, options.end, Workspace(tmp_path), CODE
    )


def test_without_a_window_the_last_day_before_the_demos_moment_is_scored(tmp_path: Path) -> None:
    # The source is the year 2013; before its story the demo stands after a quarter of it.
    made = window(None, None, Workspace(tmp_path), CODE)

    assert DAY == made.end - made.start
    assert datetime(2013, 4, 2, tzinfo=UTC) == made.end


def test_after_the_demos_story_it_is_the_last_day_that_was_lived_through(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    story = stories.full()
    story.write(workspace.summary)

    assert story.end == window(None, None, workspace, CODE).end
    assert None is ended(workspace.summary, "another")
    workspace.summary.write_text("{")
    assert None is ended(workspace.summary, story.usecase)


def test_a_window_that_ends_before_it_starts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not after its start"):
        window(START, START, Workspace(tmp_path), CODE)


def test_a_time_that_is_none_is_refused_by_the_command_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--start", "yesterday"])
    assert "--start" in capsys.readouterr().err


def test_a_use_case_that_nobody_made_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--usecase", "nothing", "--root", str(tmp_path)])

    assert 1 == stopped.value.code
    assert "there is no use case 'nothing'" in capsys.readouterr().out


def test_the_step_that_failed_is_named_with_its_reason(tmp_path: Path) -> None:
    journal = {"validate": {"rows": 3}, "batch_score": {"error": "the window is empty"}}

    with pytest.raises(PlatformError, match="batch score failed: the window is empty"):
        found(journal, tmp_path / "log")  # type: ignore[arg-type]


def test_a_run_that_ended_early_names_its_log(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"before it had scored: see .*/log"):
        found({"validate": {}}, tmp_path / "log")


def test_the_manifest_is_found_among_those_of_other_windows(tmp_path: Path) -> None:
    folder = tmp_path / "flight_delay" / "v3"
    both = [scored(), scored(window=Window(start=START, end=START + 2 * DAY))]
    for number, scores in enumerate(both):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "manifest.json").write_text(scores.model_dump_json())

    assert [folder / "0" / "manifest.json", folder / "1" / "manifest.json"] == [
        manifest_of(scores, tmp_path) for scores in both
    ]
    with pytest.raises(DataError, match="somebody has removed it"):
        manifest_of(scored(rows=5), tmp_path)
