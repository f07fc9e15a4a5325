"""Small real models, signed as the registration step signs them, and one running server."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper, numpy_helper
from ruamel.yaml import YAML

from local.supervisor import Handle, Supervisor
from local.triton_server import triton_program
from mlplatform import signing
from mlplatform.contracts import Manifest, ModelRef, UseCase
from mlplatform.contracts.serving import OnlineField, OnlineGroup, OnlineLayout, OnlineView
from serving.triton.config import Target
from serving.triton.export import Export, export_signed
from tests.unit.signing.filler import fill

NOW = datetime(2013, 12, 31, 12, tzinfo=UTC)
FEATURES = ("distance", "hour", "wind", "delay")
REQUEST_FEATURES = ("distance", "hour", "delay")
"""All but the one that lies in the online store."""
SERVICE = "flight_delay_v1"


def logistic(width: int = len(FEATURES), *, weight: float = 0.01) -> Any:
    """A logistic model that reads a missing value as 0, as ONNX's own message."""
    weights = np.linspace(weight, 2 * weight, width, dtype=np.float32).reshape(-1, 1)
    nodes = [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "features"], ["filled"]),
        helper.make_node("MatMul", ["filled", "weights"], ["score"]),
        helper.make_node("Sigmoid", ["score"], ["probability"]),
    ]
    zero = numpy_helper.from_array(np.float32(0), "zero")
    return model(nodes, [zero, numpy_helper.from_array(weights, "weights")], width=width)


def model(
    nodes: list[Any],
    constants: list[Any],
    *,
    width: int = len(FEATURES),
    domains: tuple[str, ...] = ("",),
    rows: int | str | None = "rows",
) -> Any:
    """A model from `features` to `probability` out of these nodes."""
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [rows, width])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [rows, 1])],
        constants,
    )
    opsets = [helper.make_opsetid(domain, 1 if domain else 17) for domain in domains]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@dataclass(frozen=True)
class Signed:
    """A signed directory with what the registry says of it; `export` exports it."""

    directory: Path
    ref: ModelRef
    spec: UseCase
    layout: OnlineLayout
    public_key: Path
    out: Path
    request_features: tuple[str, ...] = REQUEST_FEATURES

    def but(self, **changes: Any) -> Self:
        """The same with other values of the registry's record."""
        return replace(self, ref=self.ref.model_copy(update=changes))

    def export(self, target: Target = "embedded") -> Export:
        return export_signed(
            self.directory,
            self.ref,
            spec=self.spec,
            layout=self.layout,
            request_features=self.request_features,
            public_key=self.public_key,
            target=target,
            out=self.out,
        )


def spec(**serving: Any) -> UseCase:
    """The reference use case, with other values in `serving`."""
    path = Path(__file__).parents[4] / "usecases" / "flight_delay" / "usecase.yaml"
    values: dict[str, Any] = YAML(typ="safe").load(path)
    values["serving"].update(serving)
    return UseCase.model_validate(values)


def layout() -> OnlineLayout:
    """A layout of one view with one of the model's inputs, and one field that it does not read."""
    view = OnlineView(
        name="weather",
        ttl_seconds=3600,
        fields=(
            OnlineField(name="wind", dtype="float64"),
            OnlineField(name="pressure", dtype="float64"),
        ),
    )
    return OnlineLayout(
        project="tests", service=SERVICE, groups=(OnlineGroup(keys=("origin",), views=(view,)),)
    )


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> signing.KeyPair:
    folder = tmp_path_factory.mktemp("keys")
    pair = signing.KeyPair(folder / "key.pem", folder / "key.pub")
    signing.create_key_pair(pair.private, pair.public)
    return pair


@pytest.fixture(scope="session")
def sign(keys: signing.KeyPair) -> Callable[..., Signed]:
    """Return a maker of signed directories: from the folder and the content of `model.onnx`."""

    def make(
        folder: Path,
        content: bytes | None = None,
        *,
        version: int = 3,
        run_id: str = "run-3",
        features: tuple[str, ...] = FEATURES,
    ) -> Signed:
        directory = folder / f"signed-{version}"
        directory.mkdir(parents=True)
        if content is None:
            content = bytes(logistic(len(features)).SerializeToString())
        (directory / "model.onnx").write_bytes(content)
        fill(directory)
        manifest = Manifest(
            name="flight_delay",
            version=version,
            run_id=run_id,
            model_digest=signing.file_digest(directory / "model.onnx"),
            data_digest="d" * 64,
            git_commit="0123abc",
            feature_service=SERVICE,
            features=features,
            created_at=NOW,
        )
        signing.write_manifest(directory, manifest)
        signature = signing.sign(directory, keys.private)
        ref = ModelRef(
            name="flight_delay",
            version=version,
            digest=manifest.model_digest,
            uri=f"models:/flight_delay/{version}/signed",
            signature=signature,
            run_id=run_id,
            created=True,
            registered_at=NOW,
        )
        return Signed(directory, ref, spec(), layout(), keys.public, folder / "out")

    return make


@pytest.fixture
def signed(tmp_path: Path, sign: Callable[..., Signed]) -> Signed:
    return sign(tmp_path)


@dataclass(frozen=True)
class Running:
    """A Triton server under supervision."""

    export: Export
    handle: Handle
    url: str

    @property
    def stub(self) -> int:
        """Process id of the program that runs the model."""
        (found,) = stubs(self.handle.pid)
        return found


def stubs(server: int) -> list[int]:
    """Process ids of the backend's programs below a server."""
    children = Path(f"/proc/{server}/task/{server}/children")
    return [int(pid) for pid in children.read_text().split()] if children.exists() else []


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[Export, Path], Running]]:
    """Return a starter of servers; all of them end with the session."""
    with Supervisor() as supervisor:

        def start(export: Export, root: Path) -> Running:
            port, metrics = free_ports(2)
            handle = supervisor.start(triton_program(export, port, metrics, root=root))
            return Running(export, handle, f"http://127.0.0.1:{port}")

        yield start


@pytest.fixture(scope="session")
def running(
    tmp_path_factory: pytest.TempPathFactory,
    sign: Callable[..., Signed],
    serve: Callable[[Export, Path], Running],
) -> Running:
    """One server for the tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("triton")
    return serve(sign(folder).export(), folder / "server")


@pytest.fixture
def rows() -> npt.NDArray[np.float32]:
    """Some rows of features, with missing values."""
    chance = np.random.default_rng(7)
    values = chance.normal(size=(5, len(FEATURES))).astype(np.float32)
    values[1, 2] = np.nan
    return values
