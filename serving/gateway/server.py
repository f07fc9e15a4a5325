"""One model version on its Triton server, as the gateway uses it.

It builds the model's inputs, asks for scores within a deadline, and refuses what is no probability.
Its breaker keeps a dead server from costing anything. A route that no longer needs it retires it:
it is closed after its last open request.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from feature_repo.online import OnlineReader
from mlplatform.clients.triton import TritonLink
from mlplatform.contracts import ServedModel
from mlplatform.errors import ServiceError
from serving.gateway.breaker import Breaker

LATE: Final = "inference_late"
DOWN: Final = "inference_down"

Missing = Literal["inference_late", "inference_down"]
Matrix = npt.NDArray[np.float32]

_READY_SECONDS: Final = 1.0
"""For the answer to "are you ready"; it takes about a millisecond."""


class ModelServer:
    """A model version and the connections to its server.

    Args:
        url: Of its Triton server.
        model: What it must be fed.
        inputs: What the use case's request-time features read.

    Raises:
        ServiceError: The address is none.
        SpecError: The layout of the features cannot be read.
    """

    def __init__(self, url: str, model: ServedModel, inputs: tuple[str, ...]) -> None:
        self.url, self.model = url, model
        self.reader = OnlineReader(model.layout, model.features, inputs)
        self.keys = tuple({key: None for group in model.layout.groups for key in group.keys})
        self.views = tuple(view.name for view in model.layout.views)
        self.breaker = Breaker()
        self.answered = False
        """Whether it has said that it is ready."""
        self._empty = _empty_inputs(model, inputs)
        self._index = {name: index for index, name in enumerate(model.features)}
        self._view_of = {f.name: view.name for view in model.layout.views for f in view.fields}
        self._columns: dict[tuple[str, ...], npt.NDArray[np.intp]] = {}
        self._link = TritonLink(url, model.name, model.version)
        self._open = 0
        self._retired = False
        self._closing: asyncio.Future[None] | None = None

    def empty(self, rows: int, defaults: Mapping[str, float]) -> tuple[Matrix, dict[str, Any]]:
        """Return the inputs and the view fields of rows whose features are unknown."""
        matrix = np.full((rows, len(self._index)), np.nan, dtype=np.float32)
        for name, value in defaults.items():
            if name in self._index:
                matrix[:, self._index[name]] = value
        return matrix, {name: np.full(rows, null) for name, null in self._empty.items()}

    def put_defaults(
        self,
        matrix: Matrix,
        missing: npt.NDArray[np.bool_],
        views: tuple[str, ...],
        defaults: Mapping[str, float],
    ) -> None:
        """Put the declared defaults into the inputs of views that some rows do not have.

        Args:
            matrix: The inputs [N, F].
            missing: Which of the views a row lacks, [N, views].
            views: Their names.
            defaults: Value by feature; features without one are left.
        """
        for name, value in defaults.items():
            view = self._view_of.get(name)
            if view in views and name in self._index:
                matrix[missing[:, views.index(view)], self._index[name]] = value

    def columns_of(self, views: tuple[str, ...]) -> npt.NDArray[np.intp]:
        """Return the numbers of some views in the layout's order."""
        if views not in self._columns:
            self._columns[views] = np.array([self.views.index(view) for view in views], np.intp)
        return self._columns[views]

    def fill(self, matrix: Matrix, features: Mapping[str, npt.NDArray[Any]]) -> None:
        """Put request-time features into the inputs; those that the model does not use are left."""
        index = self._index
        for name, values in features.items():
            if name in index:
                matrix[:, index[name]] = values

    async def infer(self, matrix: Matrix, seconds: float) -> npt.NDArray[np.float32] | Missing:
        """Return the probabilities [N], or why there are none."""
        if not self.breaker.allows():
            return DOWN
        try:
            async with asyncio.timeout(seconds):
                found = await self._link.infer(matrix)
        except TimeoutError:
            self.breaker.failed()
            return LATE
        except ServiceError:
            self.breaker.failed()
            return DOWN
        self.breaker.succeeded()
        return found

    async def check(self) -> bool:
        """Return whether the server says that the version is ready."""
        try:
            async with asyncio.timeout(_READY_SECONDS):
                ready = await self._link.ready()
        except TimeoutError:
            ready = False
        self.answered = self.answered or ready
        return ready

    def take(self) -> None:
        """Count a request that will need the server; `release` it afterwards."""
        self._open += 1

    def release(self) -> None:
        """Tell that a request that had taken the server has ended."""
        self._open -= 1
        if self._retired and not self._open:
            self._closing = asyncio.ensure_future(self._link.close())

    async def retire(self) -> None:
        """Close the connections after the last open request."""
        self._retired = True
        if not self._open:
            await self._link.close()


def _empty_inputs(model: ServedModel, inputs: tuple[str, ...]) -> dict[str, Any]:
    """Return the null of each view field that request-time features read."""
    nulls: dict[str, Any] = {}
    for view in model.layout.views:
        for field in view.fields:
            if field.name in inputs:
                moment = field.dtype == "timestamp"
                nulls[field.name] = np.datetime64("NaT", "us") if moment else np.nan
    return nulls
