"""The servers around a gateway, real ones, and the gateway itself as a process."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from feature_repo import packed
from local.processes import free_port
from mlplatform.clients.redis_sync import RedisSync, connect
from mlplatform.contracts import Arm, Prediction, Route, ServedModel, Shadow
from serving.predictions import stream

ROOT = Path(__file__).parents[4]
USECASE = "flight_delay"
SCORE = f"/v1/{USECASE}/score"
AT = datetime(2013, 6, 1, 14, tzinfo=UTC)
AT_US = int(AT.timestamp()) * 1_000_000


def wait_for(condition: Callable[[], Any], seconds: float = 20, what: str = "it") -> Any:
    """Return the first true value of a condition."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not become true in {seconds} s"
        time.sleep(0.01)
    return found


def request(**changes: Any) -> dict[str, Any]:
    """One valid request; a change to ... leaves the field out."""
    values: dict[str, Any] = {
        "flight_key": "2013-06-01-AA-100-JFK",
        "origin": "JFK",
        "dest": "LAX",
        "carrier": "AA",
        "tailnum": "N12345",
        "distance": 2475,
        "scheduled_arrival": "2013-06-01T20:00:00Z",
        "event_timestamp": "2013-06-01T14:00:00Z",
    } | changes
    return {name: value for name, value in values.items() if value is not ...}


@dataclass
class Reply:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Gateway:
    """A gateway process.

    Args:
        root: Folder of its log and its spill.
        redis_url: Its Redis.
        module: What is run.
        settings: Of the gateway.
    """

    def __init__(
        self,
        root: Path,
        redis_url: str,
        module: str = "tests.unit.serving.gateway.patient_gateway",
        **settings: Any,
    ) -> None:
        self._module = module
        self.port = free_port()
        self.log = root / f"gateway-{self.port}.log"
        self.spill = root / "spill"
        self._environment = os.environ | {
            "MLPLATFORM_REDIS_URL": redis_url,
            "MLPLATFORM_GATEWAY_PORT": str(self.port),
            "MLPLATFORM_GATEWAY_SPILL": str(self.spill),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            **{f"MLPLATFORM_GATEWAY_{name.upper()}": str(v) for name, v in settings.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, path: str = "/readyz") -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_for(lambda: self.answers(path), what=f"{path}; {self.log.read_text()[-2000:]}")

    def answers(self, path: str) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        try:
            return self.get(path).status == 200
        except OSError:
            return False

    def workers(self) -> list[int]:
        assert self.process is not None
        pid = self.process.pid
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            answer = connection.getresponse()
            return Reply(
                answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
            )
        finally:
            connection.close()

    def get(self, path: str) -> Reply:
        return self.send("GET", path)

    def score(self, body: Any, path: str = SCORE) -> Reply:
        return self.send("POST", path, msgspec.json.encode(body), content_type="application/json")

    def stop(self, seconds: float = 15) -> int:
        """End it as a supervisor does; return its status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """End it at once, with its workers."""
        if self.process is not None and self.process.poll() is None:
            workers = self.workers()
            for pid in (self.process.pid, *workers):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait(10)


@dataclass
class Store:
    """The Redis of a gateway, seen from outside."""

    url: str
    client: RedisSync = field(init=False)

    def __post_init__(self) -> None:
        self.client = connect(self.url)

    def close(self) -> None:
        self.client.close()

    def publish(self, route: Route) -> None:
        self.client.execute("SET", f"route:{USECASE}", route.model_dump_json())

    def features(self, model: ServedModel, row: Mapping[str, Any], at_us: int, **skip: Any) -> None:
        """Write the features of one request: each field is 1, each view as of `at_us`.

        Args:
            model: Whose layout.
            row: The request.
            at_us: Event time.
            skip: Views that are not written.
        """
        for group in model.layout.groups:
            key = packed.group_key(model.layout, group, [row[name] for name in group.keys])
            if key is None:
                continue
            for place in packed.sections(group):
                if place.view.name in skip:
                    continue
                moment = np.array([at_us - 60_000_000], dtype=np.int64)
                columns = {
                    slot.name: (
                        moment
                        if slot.dtype == "timestamp"
                        else np.ones(1, packed.TYPES[slot.dtype]),
                        np.zeros(1, np.bool_),
                    )
                    for slot in place.slots
                }
                (content,) = packed.encode(place, columns, moment, moment)
                self.client.execute("SETRANGE", key, place.offset, content)

    def rows(self) -> list[Prediction]:
        """Everything in the stream of the prediction log."""
        entries = self.client.execute("XRANGE", stream.key(USECASE), "-", "+")
        return [stream.unpack(fields[1]) for _, fields in entries]


def route(
    *arms: tuple[str, float, str, ServedModel],
    epoch: int = 1,
    salt: str = "salt",
    shadow: tuple[float, str, ServedModel] | None = None,
) -> Route:
    return Route(
        usecase=USECASE,
        epoch=epoch,
        salt=salt,
        arms=tuple(Arm(name=n, weight=w, url=u, model=m) for n, w, u, m in arms),
        shadow=None if shadow is None else Shadow(share=shadow[0], url=shadow[1], model=shadow[2]),
    )
