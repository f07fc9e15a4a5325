"""The middle of the peer chain: what a careful person writes between `feast serve` and MLflow.

FastAPI on uvicorn (uvloop, httptools), one kept-alive httpx client. Features from Feast's server,
request-time features by the use case's own function, the score from `mlflow models serve` in the
fastest of its JSON formats. It does less than the gateway: no deadlines, no time to live of
features, no routes, no log.
"""

import importlib.util
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

from feature_repo import catalog

_KEYS: Final = ("origin", "dest", "carrier", "tailnum")


class Flight(BaseModel):
    """A request of the use case `flight_delay`."""

    flight_key: str
    origin: str
    dest: str
    carrier: str
    tailnum: str | None = None
    distance: int
    scheduled_arrival: datetime
    event_timestamp: datetime


def create() -> FastAPI:
    """Return the application; the addresses of its ends are in the environment."""
    if importlib.util.find_spec("sniffio") is None:
        # httpcore looks for it at each step of a request, each time on the whole import path.
        sys.modules["sniffio"] = None  # type: ignore[assignment]  # Python's way to say: not there
    feast, mlflow = os.environ["BENCH_FEAST_URL"], os.environ["BENCH_MLFLOW_URL"]
    service, names = os.environ["BENCH_SERVICE"], os.environ["BENCH_FEATURES"].split(",")
    code = catalog.load_serving(os.environ["BENCH_USECASE"])
    threshold = code.spec.serving.decision_threshold

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with httpx.AsyncClient() as client:
            app.state.client = client
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/ping")
    async def ping() -> str:
        return "ok"

    @app.post("/score")
    async def score(flight: Flight) -> dict[str, Any]:
        client: httpx.AsyncClient = app.state.client
        entities = {key: [getattr(flight, key)] for key in _KEYS}
        found = await client.post(
            f"{feast}/get-online-features", json={"feature_service": service, "entities": entities}
        )
        known = values(found.raise_for_status().json())
        columns = {
            "event_timestamp": _times(flight.event_timestamp),
            "scheduled_arrival": _times(flight.scheduled_arrival),
            "distance": np.array([flight.distance]),
            "previous_scheduled_arrival": _times(known["previous_scheduled_arrival"]),
            "previous_landed_at": _times(known["previous_landed_at"]),
        }
        for name, column in code.request(columns).items():
            value = float(column[0])
            known[name] = None if np.isnan(value) else value
        answer = await client.post(
            f"{mlflow}/invocations", json={"inputs": {name: [known[name]] for name in names}}
        )
        probability = answer.raise_for_status().json()["predictions"][0]["probability"]
        return {"score": probability, "decision": probability >= threshold}

    return app


def values(answer: dict[str, Any]) -> dict[str, Any]:
    """Return feature → value of the one entity that Feast's server was asked for."""
    names = answer["metadata"]["feature_names"]
    return {
        name: result["values"][0] for name, result in zip(names, answer["results"], strict=True)
    }


def _times(moment: datetime | str | int | None) -> np.ndarray[Any, Any]:
    """Return one UTC time as numpy has it; Feast's server writes it as text or in seconds."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if isinstance(moment, int):
        moment = datetime.fromtimestamp(moment, UTC)
    if moment is None:
        return np.array(["NaT"], dtype="datetime64[us]")
    naive = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    return np.array([naive], dtype="datetime64[us]")
