"""An export appears whole, never changes, and is compared byte by byte when made again."""

import os
import resource
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlplatform.contracts.serving import ServedModel
from mlplatform.errors import ModelError, ServiceError
from serving.triton import export as module
from serving.triton.config import Target
from serving.triton.export import Export
from serving.triton.golden import Golden
from tests.unit.serving.triton.conftest import FEATURES, Signed, layout, logistic, spec

MODEL = "repository/flight_delay"
FILES = {
    "embedded": [
        "golden.json",
        f"{MODEL}/3/__pycache__",
        f"{MODEL}/3/model.onnx",
        f"{MODEL}/3/model.py",
        f"{MODEL}/config.pbtxt",
        "served.json",
    ],
    "gpu": ["golden.json", f"{MODEL}/3/model.onnx", f"{MODEL}/config.pbtxt", "served.json"],
}


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("target", ["embedded", "gpu"])
def test_a_signed_model_becomes_what_triton_loads(signed: Signed, target: Target) -> None:
    made = signed.export(target)

    assert signed.out == made.folder.parent
    assert made.folder.name.startswith(f"flight_delay-v3-{target}-")
    assert FILES[target] == sorted(files(made.folder))
    assert (signed.directory / "model.onnx").read_bytes() == files(made.folder)[
        f"{MODEL}/3/model.onnx"
    ]


def test_the_gateway_is_told_what_the_model_must_be_fed(signed: Signed) -> None:
    served = signed.export().served

    assert ("flight_delay", 3, signed.ref.digest, FEATURES, 0.5, layout()) == (
        served.name,
        served.version,
        served.digest,
        served.features,
        served.threshold,
        served.layout,
    )


def test_the_version_directory_is_the_registered_version(
    tmp_path: Path, sign: Callable[..., Signed]
) -> None:
    made = sign(tmp_path, version=17, run_id="run-17").export()

    assert ["17"] == [path.name for path in (made.repository / "flight_delay").glob("[0-9]*")]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0])
def test_everybody_may_read_an_export_and_its_owner_remove_it(signed: Signed, mask: int) -> None:
    before = os.umask(mask)
    try:
        folder = signed.export().folder
    finally:
        os.umask(before)
    paths = [folder, *folder.rglob("*")]
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in paths}

    assert {(True, 0o755), (False, 0o444)} == modes


@pytest.mark.parametrize(
    ("request_features", "named"),
    [
        pytest.param(("distance", "hour"), "delay", id="one"),
        pytest.param((), "distance, hour, delay", id="several"),
        pytest.param(("distance", "hours", "DELAY"), "hour, delay", id="by other names"),
    ],
)
def test_a_model_that_reads_what_nothing_gives_is_refused_with_the_names(
    signed: Signed, request_features: tuple[str, ...], named: str
) -> None:
    with pytest.raises(ModelError, match=f"version 3 reads {named}, which neither the views"):
        replace(signed, request_features=request_features).export()
    assert not signed.out.exists()


def test_a_view_that_no_longer_has_a_feature_is_noticed(signed: Signed) -> None:
    (group,) = signed.layout.groups
    (view,) = group.views
    less = view.model_copy(update={"fields": view.fields[1:]})
    changed = signed.layout.model_copy(
        update={"groups": (group.model_copy(update={"views": (less,)}),)}
    )

    with pytest.raises(ModelError, match="version 3 reads wind, which neither"):
        replace(signed, layout=changed).export()


def test_what_was_exported_can_be_read_back(signed: Signed) -> None:
    made = signed.export()
    served, golden = ((made.folder / name).read_bytes() for name in ("served.json", "golden.json"))

    assert made.served == ServedModel.model_validate_json(served)
    assert made.golden == Golden.model_validate_json(golden)


def test_exporting_again_changes_nothing(signed: Signed) -> None:
    made = signed.export()
    before = {path: path.stat().st_mtime_ns for path in made.folder.rglob("*")}

    assert made == signed.export()
    assert before == {path: path.stat().st_mtime_ns for path in made.folder.rglob("*")}
    assert [made.folder] == list(signed.out.iterdir())


def test_both_targets_of_a_version_lie_beside_each_other(signed: Signed) -> None:
    assert signed.export("gpu").folder != signed.export("embedded").folder


@pytest.mark.parametrize("name", [name for name in FILES["embedded"] if "__pycache__" not in name])
def test_a_changed_byte_anywhere_is_refused(signed: Signed, name: str) -> None:
    path = signed.export().folder / name
    content = path.read_bytes()
    path.chmod(0o644)

    for position in np.linspace(0, len(content) - 1, 12).astype(int).tolist():
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ModelError, match=f"{name} differs"):
            signed.export()
    path.write_bytes(content)
    assert 3 == signed.export().served.version


@pytest.mark.parametrize("name", FILES["embedded"])
def test_a_file_that_is_gone_is_refused(signed: Signed, name: str) -> None:
    (signed.export().folder / name).unlink()

    with pytest.raises(ModelError, match=f"{name} is missing"):
        signed.export()


@pytest.mark.parametrize(
    "name", ["added", "repository/other/config.pbtxt", f"{MODEL}/4/model.onnx", f"{MODEL}/3/x.so"]
)
def test_an_added_file_is_refused(signed: Signed, name: str) -> None:
    path = signed.export().folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")

    with pytest.raises(ModelError, match="was added"):
        signed.export()


@pytest.mark.parametrize("name", FILES["embedded"])
def test_a_link_to_the_same_bytes_is_refused(signed: Signed, name: str, tmp_path: Path) -> None:
    path = signed.export().folder / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ModelError, match=f"{name} differs"):
        signed.export()


def test_bytecode_in_place_of_the_file_that_prevents_it_is_refused(signed: Signed) -> None:
    place = signed.export().repository / "flight_delay" / "3" / "__pycache__"
    place.unlink()
    place.mkdir()
    (place / "model.cpython-311.pyc").write_bytes(b"planted")

    with pytest.raises(ModelError, match=r"model\.cpython-311\.pyc was added"):
        signed.export()


@pytest.mark.parametrize("where", ["to a folder", "to nowhere"])
def test_a_link_in_place_of_the_folder_is_refused_and_not_followed(
    signed: Signed, tmp_path: Path, where: str
) -> None:
    target = tmp_path / "target"
    if where == "to a folder":
        target.mkdir()
    folder = signed.export().folder
    folder.rename(tmp_path / "moved")
    folder.symlink_to(target)

    with pytest.raises(ModelError, match="it is no folder"):
        signed.export()
    assert [] == list(target.glob("*"))


def test_a_changed_spec_is_another_folder(signed: Signed) -> None:
    first = signed.export()
    stricter = replace(signed, spec=spec(decision_threshold=0.7)).export()

    assert 0.7 == stricter.served.threshold
    assert first.folder != stricter.folder
    assert first.folder == signed.export().folder


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Files can grow to so many bytes; the interpreter ignores the signal that comes with it."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


@pytest.mark.parametrize("name", [f"{MODEL}/config.pbtxt", "served.json"])
def test_a_full_disk_is_said_with_advice_and_leaves_nothing_behind(
    signed: Signed, tmp_path: Path, name: str
) -> None:
    size = (signed.export().folder / name).stat().st_size
    other = replace(signed, out=tmp_path / "other")

    with full_disk(size - 1), pytest.raises(ServiceError, match=r"cannot be written.*free some"):
        other.export()
    assert [] == list(other.out.iterdir())
    assert 3 == other.export().served.version


def test_a_folder_that_cannot_be_made_is_said_with_advice(signed: Signed, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ServiceError, match="a folder that this process may write"):
        replace(signed, out=tmp_path / "file" / "out").export()


def test_exports_at_the_same_time_agree_on_one_folder(signed: Signed) -> None:
    made: list[Export] = []
    threads = [threading.Thread(target=lambda: made.append(signed.export())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 4 * [made[0]] == made
    assert [made[0].folder] == list(signed.out.iterdir())


def test_another_model_of_the_same_version_does_not_replace_the_first(
    signed: Signed, tmp_path: Path, sign: Callable[..., Signed]
) -> None:
    first = signed.export()
    before = files(first.folder)
    other = sign(tmp_path / "other", bytes(logistic(weight=0.5).SerializeToString()))

    assert first.folder != replace(other, out=signed.out).export().folder
    assert before == files(first.folder)


def test_the_copied_model_file_is_the_one_of_the_package(signed: Signed) -> None:
    source = Path(module.__file__).with_name("embedded_model.py").read_bytes()

    assert source == files(signed.export().folder)[f"{MODEL}/3/model.py"]
