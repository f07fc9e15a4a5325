"""The demonstration refuses what cannot become a story before it trains or moves anything."""

import sys
from pathlib import Path

import pytest
from rich.console import Console

from local.demo import _start_over, main
from local.progress import Progress
from local.workspace import Workspace
from mlplatform.errors import PlatformError

KEPT = "written by hand"


def demo(monkeypatch: pytest.MonkeyPatch, root: Path, *arguments: str) -> object:
    """Run the command in a folder that an earlier run has left; return its exit status."""
    (root / "data").mkdir(parents=True)
    command = ["demo", "--root", str(root), "--as-of", "2013-04-02", *arguments]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--live-from", "2013-03-01"), "choose a later --live-from"),
        (("--replay-days", "0.5"), "hold no whole window of 24 h"),
        (("--replay-days", "-3"), "hold no whole window of 24 h"),
        (("--usecase", "nothing"), "there is no use case 'nothing'"),
    ],
    ids=["live before it was trained", "half a window", "days below zero", "no use case"],
)
def test_what_cannot_become_a_story_is_refused_and_nothing_is_moved(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    says: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "400")

    assert 1 == demo(monkeypatch, tmp_path / "root", *arguments)
    assert says in capsys.readouterr().out
    assert (tmp_path / "root" / "data").exists()


@pytest.mark.parametrize("pace", ["0", "-1", "nan", "inf", "fast"])
def test_a_pace_that_is_none_is_refused_by_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    pace: str,
) -> None:
    assert 2 == demo(monkeypatch, tmp_path, "--rate", pace)
    assert "--rate" in capsys.readouterr().err


def started_over(root: Path) -> Path:
    """Start over in a folder, as a run does that holds it; return where the old things are."""
    workspace = Workspace(root)
    with workspace.lock():
        _start_over(Progress(Console(quiet=True)), workspace)
    return root.with_name(f"{root.name}-before")


def left(root: Path, what: str) -> None:
    (root / "data").mkdir(parents=True)
    (root / "summary.json").write_text(what)


def test_what_the_last_run_left_lies_beside_and_what_lay_there_is_gone(tmp_path: Path) -> None:
    root = tmp_path / "demo"
    assert not started_over(root).exists()
    for what in ("first", "second"):
        left(root, what)
        before = started_over(root)

        assert what == (before / "summary.json").read_text()
        assert ["lock"] == [path.name for path in root.iterdir()]


@pytest.mark.parametrize("where", ["demo", "demo-before"])
def test_a_folder_of_somebody_else_is_refused_and_keeps_what_it_holds(
    tmp_path: Path, where: str
) -> None:
    root, own = tmp_path / "demo", tmp_path / where
    own.mkdir(exist_ok=True)
    (own / "thesis.tex").write_text(KEPT)
    if own != root:
        left(root, "first")

    with pytest.raises(PlatformError, match="that no run has left: choose another --root"):
        started_over(root)
    assert KEPT == (own / "thesis.tex").read_text()


@pytest.mark.parametrize("moves", [0, 1, 2, 3])
def test_who_is_killed_while_it_starts_over_starts_over_the_next_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, moves: int
) -> None:
    root = tmp_path / "demo"
    left(root, "first")
    (root / "gateway.log").touch()
    done: list[Path] = []
    rename = Path.rename

    def killed(path: Path, target: Path) -> Path:
        if len(done) == moves:
            raise KeyboardInterrupt
        done.append(path)
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        if moves < 3:
            with pytest.raises(KeyboardInterrupt):
                started_over(root)
        else:
            started_over(root)
    started_over(root)

    assert ["lock"] == [path.name for path in root.iterdir()]
