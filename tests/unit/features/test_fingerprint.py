"""A view's history belongs to the code that computed it."""

from pathlib import Path

from feature_repo.fingerprint import of_code, start_over_if_changed

CODE = "def speed(way, time):\n    return way / time\n"


def folder_with(tmp_path: Path, code: str) -> Path:
    (tmp_path / "views.py").write_text(code)
    return tmp_path


def test_comments_and_layout_do_not_count(tmp_path: Path) -> None:
    plain = of_code(folder_with(tmp_path, CODE))

    assert plain == of_code(
        folder_with(tmp_path, f"# why\n\n{CODE.replace('way, time', 'way,time')}")
    )


def test_other_code_counts(tmp_path: Path) -> None:
    plain = of_code(folder_with(tmp_path, CODE))

    assert plain != of_code(folder_with(tmp_path, CODE.replace("/", "*")))
    (tmp_path / "windows.py").write_text("DAYS = 30\n")
    assert plain != of_code(folder_with(tmp_path, CODE))


def test_history_of_the_same_code_is_gone_on_with(tmp_path: Path) -> None:
    history = tmp_path / "view"
    assert not start_over_if_changed(history, "a")
    (history / "part-1.parquet").touch()

    assert not start_over_if_changed(history, "a")
    assert (history / "part-1.parquet").exists()


def test_history_of_other_code_is_kept_aside(tmp_path: Path) -> None:
    history = tmp_path / "view"
    for code in ("a", "b", "a"):
        start_over_if_changed(history, code)
        (history / f"part-{code}.parquet").touch()

    assert ["part-a.parquet"] == [path.name for path in history.glob("part-*")]
    aside = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob(".superseded/*/part-*"))
    assert ["part-a.parquet", "part-b.parquet"] == [path.name for path in aside]


def test_parts_that_somebody_else_wrote_are_left_alone(tmp_path: Path) -> None:
    history = tmp_path / "view"
    history.mkdir()
    (history / "part-1.parquet").touch()

    assert not start_over_if_changed(history, "a")
    assert (history / "part-1.parquet").exists()
