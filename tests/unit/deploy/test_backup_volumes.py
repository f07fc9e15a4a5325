"""Volumes are packed while they are written to, and swapped so that nothing is lost on the way."""

import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from deploy.backups import manifest, pod_script
from deploy.backups.volumes import ARTIFACTS, DATA, MountedVolume
from mlplatform.errors import ServiceError
from tests.unit.deploy.local_shell import LocalShell

STATE = "predictions/u/_commits/000000000001.json"
ROWS = "predictions/u/date=2013-04-01/hour=00/part-1-1.parquet"
RAW = "features/raw/u/flights/a.parquet"


def filled(root: Path, **contents: str) -> Path:
    for name in (ROWS, STATE, RAW, "features/offline/view.parquet", "writer.lock"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(contents.get("text", "content"))
    (root / "predictions" / ".part.tmp").write_text("not whole yet")
    return root


def volume_at(root: Path) -> MountedVolume:
    return MountedVolume(LocalShell(root, sys.executable), DATA)


def names(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        return [member.name for member in archive if member.isreg()]


@pytest.fixture
def volume(tmp_path: Path) -> MountedVolume:
    return volume_at(filled(tmp_path / "volume"))


def test_what_cannot_be_made_again_is_packed_and_state_comes_after_the_files_it_is_of(
    volume: MountedVolume, tmp_path: Path
) -> None:
    count = volume.pack(tmp_path / "data.tar")

    assert [ROWS, STATE, RAW] == names(tmp_path / "data.tar")
    assert 3 == count == manifest.check_archive(tmp_path / "data.tar", DATA.folders)
    assert 3 == volume.files()


def packed(tmp_path: Path, text: str) -> tuple[Path, str]:
    file = tmp_path / f"{text}.tar"
    volume_at(filled(tmp_path / text, text=text)).pack(file)
    return file, manifest.described(file)[1]


def test_what_was_packed_comes_back_and_what_was_there_is_kept(tmp_path: Path) -> None:
    file, digest = packed(tmp_path, "then")
    root = filled(tmp_path / "now", text="now")
    volume = volume_at(root)

    volume.unpack(file, digest)
    between = (root / ROWS).read_text()
    volume.swap("one")

    assert "now" == between
    assert ("then", "then") == ((root / ROWS).read_text(), (root / RAW).read_text())
    assert "now" == (root / ".replaced-one" / ROWS).read_text()
    assert "now" == (root / "features/offline/view.parquet").read_text()
    assert not (root / ".restoring").exists()


def test_a_swap_that_is_repeated_keeps_what_was_there_first(tmp_path: Path) -> None:
    file, digest = packed(tmp_path, "then")
    root = filled(tmp_path / "now", text="now")
    volume = volume_at(root)
    for _ in range(2):
        volume.unpack(file, digest)
        volume.swap("one")

    assert "then" == (root / ROWS).read_text()
    assert "now" == (root / ".replaced-one" / ROWS).read_text()


def test_the_next_restore_removes_what_the_one_before_it_kept(tmp_path: Path) -> None:
    file, digest = packed(tmp_path, "then")
    root = filled(tmp_path / "now", text="now")
    volume = volume_at(root)
    for name in ("one", "two"):
        volume.unpack(file, digest)
        volume.swap(name)

    assert not (root / ".replaced-one").exists()
    assert "then" == (root / ".replaced-two" / ROWS).read_text()


def test_folders_that_the_backup_has_none_of_are_gone_afterwards(tmp_path: Path) -> None:
    source = tmp_path / "then"
    (source / "predictions").mkdir(parents=True)
    file = tmp_path / "data.tar"
    volume_at(source).pack(file)
    root = filled(tmp_path / "now")
    volume = volume_at(root)

    volume.unpack(file, manifest.described(file)[1])
    volume.swap("one")

    assert [] == list((root / "predictions").iterdir())
    assert not (root / "features/raw").exists()


def test_a_volume_without_named_folders_is_restored_as_a_whole(tmp_path: Path) -> None:
    for name, text in (("then", "a"), ("now", "b")):
        (tmp_path / name / "1" / "run").mkdir(parents=True)
        (tmp_path / name / "1" / "run" / "model.onnx").write_text(text)
    (tmp_path / "now" / "2").mkdir()
    (tmp_path / "now" / "lost+found").mkdir()
    file = tmp_path / "artifacts.tar"
    MountedVolume(LocalShell(tmp_path / "then", sys.executable), ARTIFACTS).pack(file)
    volume = MountedVolume(LocalShell(tmp_path / "now", sys.executable), ARTIFACTS)

    volume.unpack(file, manifest.described(file)[1])
    volume.swap("one")

    assert "a" == (tmp_path / "now" / "1" / "run" / "model.onnx").read_text()
    assert {"1", "lost+found", ".replaced-one"} == {p.name for p in (tmp_path / "now").iterdir()}


class Losing(LocalShell):
    """Carries all but the last bytes."""

    def run(self, *command: str, given: Any = "", into: Path | None = None) -> Any:
        said = super().run(*command, given=given, into=into)
        if into is not None:
            into.write_bytes(into.read_bytes()[:-100])
        return said


def test_a_copy_of_which_not_all_arrived_is_no_copy(tmp_path: Path) -> None:
    root = filled(tmp_path / "volume")
    volume = MountedVolume(Losing(root, sys.executable), DATA)

    with pytest.raises(ServiceError, match="bytes arrived"):
        volume.pack(tmp_path / "data.tar")


def test_a_restore_of_which_not_all_arrived_replaces_nothing(tmp_path: Path) -> None:
    file, _ = packed(tmp_path, "then")
    root = filled(tmp_path / "now", text="now")

    with pytest.raises(ServiceError, match="nothing was replaced"):
        volume_at(root).unpack(file, "0" * 64)

    assert "now" == (root / ROWS).read_text()


def vanishing(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Let a file be listed, and gone when it is read."""
    found = pod_script._below

    def below(folder: Path) -> Iterator[Path]:
        for one in found(folder):
            if one == path:
                one.unlink(missing_ok=True)
            yield one

    monkeypatch.setattr(pod_script, "_below", below)


def pack(root: Path, out: IO[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    class Standard:
        buffer = out

        @staticmethod
        def flush() -> None: ...

    monkeypatch.setattr(sys, "stdout", Standard())
    pod_script.pack(root, list(DATA.folders))


def test_state_that_vanishes_while_it_is_packed_was_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = filled(tmp_path / "volume")
    vanishing(monkeypatch, root / STATE)
    with (tmp_path / "data.tar").open("wb") as out:
        pack(root, out, monkeypatch)

    assert [ROWS, RAW] == names(tmp_path / "data.tar")


def test_rows_that_vanish_while_they_are_packed_make_the_copy_worthless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = filled(tmp_path / "volume")
    vanishing(monkeypatch, root / ROWS)

    with (tmp_path / "data.tar").open("wb") as out, pytest.raises(FileNotFoundError):
        pack(root, out, monkeypatch)
