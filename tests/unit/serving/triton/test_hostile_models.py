"""Nothing but the signed, self-contained, standard ONNX model of this version gets through.

Each content is validly signed here: the refusal does not lean on the signature. A canary file
that the payloads would write must never appear, and nothing may be exported.
"""

import gzip
import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlplatform import signing
from mlplatform.errors import ModelError
from serving.triton.onnx_file import refuse_unsafe
from tests.unit.serving.triton.conftest import FEATURES, Signed, logistic, model
from tests.unit.signing.filler import FILES

WIDTH = len(FEATURES)


class Payload:
    """Writes the canary when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self._canary),))


def good() -> bytes:
    return bytes(logistic().SerializeToString())


def zipped(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def external(location: str) -> bytes:
    """A model whose weights lie in another file."""
    made = logistic()
    tensor = made.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return bytes(made.SerializeToString())


def external_in_constant(location: str) -> bytes:
    """The same, hidden in a Constant inside the branch of an If."""
    tensor = numpy_helper.from_array(np.zeros((WIDTH, 1), np.float32), "hidden")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["chosen"], value=tensor)],
        "branch",
        [],
        [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, [WIDTH, 1])],
    )
    nodes = [
        helper.make_node("If", ["always"], ["w"], then_branch=branch, else_branch=branch),
        helper.make_node("MatMul", ["features", "w"], ["score"]),
        helper.make_node("Sigmoid", ["score"], ["probability"]),
    ]
    return bytes(
        model(nodes, [numpy_helper.from_array(np.array([True]), "always")]).SerializeToString()
    )


def of_domain(domain: str, kind: str = "Identity") -> bytes:
    nodes = [helper.make_node(kind, ["features"], ["probability"], domain=domain)]
    return bytes(model(nodes, [], domains=("", domain)).SerializeToString())


def undeclared_domain() -> bytes:
    nodes = [helper.make_node("Identity", ["features"], ["probability"], domain="evil")]
    return bytes(model(nodes, []).SerializeToString())


def with_function() -> bytes:
    made = logistic()
    made.functions.append(
        helper.make_function(
            "",
            "Sneaky",
            ["x"],
            ["y"],
            [helper.make_node("Identity", ["x"], ["y"])],
            [helper.make_opsetid("", 17)],
        )
    )
    return bytes(made.SerializeToString())


def with_training() -> bytes:
    made = logistic()
    made.training_info.add().algorithm.CopyFrom(made.graph)
    return bytes(made.SerializeToString())


def deep() -> bytes:
    """A graph in an attribute of a node of a graph, 60 times: written by hand, ONNX refuses to."""

    def field(number: int, value: bytes) -> bytes:
        size = len(value)
        length = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
        return bytes([number << 3 | 2]) + length + value

    graph = b""
    for _ in range(60):
        graph = field(1, field(5, field(6, graph)))
    return field(7, graph)


CONTENTS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "pickle": (lambda canary: pickle.dumps(Payload(canary)), "Python pickle"),
    "old pickle": (lambda canary: pickle.dumps(Payload(canary), protocol=0), "no protobuf"),
    "gzip of the model": (lambda _: gzip.compress(good()), "gzip"),
    "gzip of a pickle": (lambda canary: gzip.compress(pickle.dumps(Payload(canary))), "gzip"),
    "zip": (lambda canary: zipped("data.pkl", pickle.dumps(Payload(canary))), "zip"),
    "pbtxt": (lambda _: str(logistic()).encode(), "no protobuf"),
    "json": (lambda _: b'{"irVersion": "8"}', "no protobuf"),
    "script": (lambda canary: f"#!/bin/sh\nmkdir {canary}\n".encode(), "no protobuf"),
    "python": (lambda canary: f"import os; os.mkdir({str(canary)!r})".encode(), "no protobuf"),
    "library": (lambda _: b"\x7fELF" + bytes(100), "native library"),
    "hdf5": (lambda _: b"\x89HDF\r\n\x1a\n", "HDF5"),
    "onnxruntime's own format": (lambda _: b"\x20\0\0\0ORTM" + bytes(64), "own format"),
    "empty": (lambda _: b"", "0 graphs"),
    "zeros": (lambda _: bytes(64), "broken"),
    "cut off": (lambda _: good()[:-7], "broken"),
    "a pickle behind the model": (lambda canary: good() + pickle.dumps(Payload(canary)), "broken"),
    "two models in one": (lambda _: good() + good(), "2 graphs"),
    "weights in another file": (lambda _: external("weights.bin"), "outside of the file"),
    "weights above": (lambda _: external("../../canary"), "outside of the file"),
    "weights anywhere": (lambda _: external("/etc/passwd"), "outside of the file"),
    "weights hidden in a branch": (lambda _: external_in_constant("../x"), "outside of the file"),
    "custom operators": (lambda _: of_domain("evil.corp", "Run"), "foreign library"),
    "undeclared custom operators": (lambda _: undeclared_domain(), "foreign library"),
    "contrib operators": (lambda _: of_domain("com.microsoft", "Gelu"), "foreign library"),
    "own functions": (lambda _: with_function(), "own functions"),
    "training graphs": (lambda _: with_training(), "training graphs"),
    "nested too deep": (lambda _: deep(), "deeper than 100"),
    "unknown operator": (
        lambda _: bytes(
            model(
                [helper.make_node("NoSuchOp", ["features"], ["probability"])], []
            ).SerializeToString()
        ),
        "onnxruntime cannot load",
    ),
}  # fmt: skip


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture(autouse=True)
def nothing_ran(canary: Path) -> Any:
    """Whatever a test plants, it must not have run."""
    yield
    assert not canary.exists()


def refused(attempt: Signed, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        attempt.export()
    assert not attempt.out.exists() or [] == list(attempt.out.iterdir())


@pytest.mark.parametrize("name", CONTENTS)
def test_a_signed_file_that_is_no_safe_onnx_model_is_refused(
    tmp_path: Path, sign: Callable[..., Signed], canary: Path, name: str
) -> None:
    make, message = CONTENTS[name]

    refused(sign(tmp_path, make(canary)), message)


def test_the_canary_would_appear_if_a_pickle_were_loaded(tmp_path: Path) -> None:
    planted = tmp_path / "proof"
    pickle.loads(pickle.dumps(Payload(planted)))  # noqa: S301 (ours, to show that it would run)

    assert planted.is_dir()


def test_the_good_model_is_accepted(signed: Signed) -> None:
    assert 3 == signed.export().served.version


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_in_a_signed_file_is_refused(signed: Signed, name: str) -> None:
    path = signed.directory / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    refused(signed, ".")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(signed: Signed, name: str) -> None:
    (signed.directory / name).unlink()

    refused(signed, f"lacks {name}")


@pytest.mark.parametrize("name", ["model.py", "config.pbtxt", "model.onnx.data", "1"])
def test_a_file_added_to_the_signed_ones_is_refused(signed: Signed, name: str) -> None:
    (signed.directory / name).write_text("import os")

    refused(signed, f"unexpected {name}")


def test_a_model_that_is_a_link_is_refused(signed: Signed, tmp_path: Path) -> None:
    (signed.directory / "model.onnx").rename(tmp_path / "model.onnx")
    (signed.directory / "model.onnx").symlink_to(tmp_path / "model.onnx")

    refused(signed, "is a link")


def test_a_directory_that_is_a_link_is_refused(signed: Signed, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(signed.directory)

    refused(replace(signed, directory=tmp_path / "link"), "must be a real folder")


@pytest.mark.parametrize(
    "name",
    ["../evil", "flight_delay/../../evil", "/tmp/evil", "flight_delay\n", "other", "", ".", "a\0b"],  # noqa: S108 (a name that must be refused)
)
def test_a_name_that_is_not_the_use_cases_is_refused(
    signed: Signed, tmp_path: Path, name: str
) -> None:
    refused(signed.but(name=name), "not the model of the use case")

    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("version", ["../x", "3", 0, -1, 3.0, None])
def test_a_version_that_is_no_number_is_refused(signed: Signed, version: Any) -> None:
    refused(signed.but(version=version), "is not a version")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"version": 4}, "may be a replay", id="an older model as a new version"),
        pytest.param({"run_id": "run-4"}, "may be a replay", id="of another run"),
        pytest.param({"digest": "0" * 64}, "may be a replay", id="of another digest"),
        pytest.param({"signature": "0" * 64}, "signed again", id="with another signature"),
    ],
)
def test_a_signed_model_under_another_record_is_refused(
    signed: Signed, changes: dict[str, Any], message: str
) -> None:
    refused(signed.but(**changes), message)


def test_an_older_signed_model_in_a_newer_versions_place_is_refused(
    tmp_path: Path, sign: Callable[..., Signed]
) -> None:
    older = sign(tmp_path, version=2, run_id="run-2")
    newer = sign(tmp_path, version=3)
    shutil.rmtree(newer.directory)
    shutil.copytree(older.directory, newer.directory)

    refused(newer, "signed again|replay")


def test_a_model_signed_with_another_key_is_refused(signed: Signed, tmp_path: Path) -> None:
    pair = signing.KeyPair(tmp_path / "evil.pem", tmp_path / "evil.pub")
    signing.create_key_pair(pair.private, pair.public)
    (signed.directory / "model.sig").unlink()
    signature = signing.sign(signed.directory, pair.private)

    refused(signed.but(signature=signature), ".")


def test_the_layout_of_another_service_is_refused(signed: Signed) -> None:
    other = signed.layout.model_copy(update={"service": "flight_delay_v2"})

    refused(replace(signed, layout=other), "uses flight_delay_v1")


def test_a_model_of_another_feature_service_is_refused(signed: Signed) -> None:
    other = signed.layout.model_copy(update={"service": "flight_delay_v2"})
    changed = signed.spec.model_copy(update={"feature_service": "flight_delay_v2"})

    refused(replace(signed, layout=other, spec=changed), "was trained on flight_delay_v1")


def test_no_cut_of_a_good_model_is_mistaken_for_one() -> None:
    content = good()

    for length in range(len(content)):
        try:
            refuse_unsafe(content[:length])
        except ModelError:
            continue
        # A cut between two fields is a message too: it must lack nothing that is looked at.
        assert content[:length].startswith(content[: content.index(b"probability")])
