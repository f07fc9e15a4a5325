"""Live progress: the steps' lines reach the person, everything reaches the log."""

import subprocess
import sys
from pathlib import Path

from rich.console import Console

from local.progress import Progress

CHATTER = """
print("[KFP Executor] a screen of JSON")
print("    mlplatform.train | INFO | xgboost 1/3: 0.44")
print("    mlplatform.validate | ERROR | the data is refused:")
print("      flights: tailnum is missing")
print("")
print("a library's warning")
"""


def follow(code: str, folder: Path) -> tuple[str, str, list[str]]:
    console = Console(record=True, width=200, quiet=False, file=(folder / "shown").open("w"))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        tail = Progress(console).follow(process, folder / "log")
    console.file.close()
    return console.export_text(), (folder / "log").read_text(), tail


def test_lines_of_steps_are_shown_and_the_rest_goes_to_the_log(tmp_path: Path) -> None:
    shown, log, tail = follow(CHATTER, tmp_path)

    assert "train         xgboost 1/3: 0.44" in shown
    assert "screen of JSON" not in shown
    assert "a library's warning" not in shown
    assert "a screen of JSON" in log
    assert "a library's warning" == tail[-1]


def test_an_error_of_several_lines_is_shown_whole(tmp_path: Path) -> None:
    shown, _, _ = follow(CHATTER, tmp_path)

    assert "the data is refused:" in shown
    assert "flights: tailnum is missing" in shown


def test_text_that_looks_like_markup_is_shown_as_it_is(tmp_path: Path) -> None:
    shown, _, _ = follow("print('mlplatform.gate | INFO | [bold]not bold[/]')", tmp_path)

    assert "[bold]not bold[/]" in shown
