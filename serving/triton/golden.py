"""Golden inference: fixed rows and the probabilities that the exported bytes give for them.

A server whose process lives, and says that it is ready, may still not answer (its backend died)
or answer with another model. These rows are asked before the first request and from then on; the
comparison knows nothing of Triton.

It refuses a model that does not map `features` float32 [N, F] to `probability` float32 [N, 1],
that gives no probability for one of the rows, or whose answer for a row depends on chance or on
the rows beside it: in a server those are other people's requests.
"""

import math
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from mlplatform.contracts.base import Contract
from mlplatform.errors import ModelError, shorten
from serving.triton.onnx_file import refuse_unsafe

Floats = npt.NDArray[np.float32]

TOLERANCE: Final = 1e-5
"""Largest |answer - golden|, as for the export from the training library to ONNX."""

_ROWS: Final = 8
_SEED: Final = 20130101  # any; fixed, so that exporting again gives the same rows
_SCALES: Final = (1.0, 10.0, 100.0, 1000.0)  # features are rates, counts, minutes, miles
_MISSING_SHARE: Final = 0.2
_DECIMALS: Final = 6
"""Of the kept answers: a tenth of the tolerance, so that the last bit of another machine's
onnxruntime does not make another file."""


class Golden(Contract):
    """Rows with the probabilities that a healthy server gives for them."""

    rows: tuple[tuple[float | None, ...], ...] = Field(min_length=1, description="null: missing.")
    answers: tuple[float, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.rows) != len(self.answers) or len({len(row) for row in self.rows}) != 1:
            raise ValueError("the rows have unequal lengths, or are not as many as the answers")
        return self

    def features(self) -> Floats:
        """Return the rows, float32 [N, F] with NaN for missing."""
        rows = [[math.nan if value is None else value for value in row] for row in self.rows]
        return np.array(rows, dtype=np.float32)

    def matches(self, answers: npt.NDArray[Any]) -> bool:
        """Return whether each of these answers is within 1e-5 of the golden one."""
        golden = np.array(self.answers)
        return answers.shape == golden.shape and bool(
            np.all(np.abs(answers.astype(np.float64) - golden) <= TOLERANCE)  # False for NaN
        )


def golden(content: bytes, width: int) -> Golden:
    """Return the fixed rows with the answers of an ONNX model, which is checked on the way.

    Args:
        content: The model's bytes, already verified.
        width: Number of features that its manifest names.

    Raises:
        ModelError: The model is refused; says why.
    """
    refuse_unsafe(content)
    session = _session(content)
    _refuse_signature(session, width)
    rows = _rows(width)
    together = _answers(session, rows)
    alone = np.concatenate([_answers(session, rows[[index]]) for index in range(len(rows))])
    if not (together.min() >= 0 and together.max() <= 1):  # False for NaN
        raise ModelError(
            f"the model answers {shorten(together.tolist())} to the golden rows, which are no "
            "probabilities: train it again"
        )
    if not np.allclose(together, alone, rtol=0, atol=TOLERANCE):
        raise ModelError(
            "the model answers the same row differently, by chance or by the rows beside it: "
            "requests that share a batch would change each other's answers; export another graph"
        )
    return Golden(
        rows=tuple(
            tuple(None if math.isnan(value) else value for value in row) for row in rows.tolist()
        ),
        answers=tuple(round(float(answer), _DECIMALS) for answer in together),
    )


def _session(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class
        raise ModelError(
            f"onnxruntime cannot load model.onnx: {shorten(error)}; export the model again"
        ) from error


def _refuse_signature(session: Any, width: int) -> None:
    inputs = [(item.name, item.type, item.shape) for item in session.get_inputs()]
    outputs = [(item.name, item.type, item.shape) for item in session.get_outputs()]
    # The number of rows is free, which onnxruntime reports as a name or as None.
    free = [shape[0] if shape else 0 for _, _, shape in (*inputs, *outputs)]
    expected = (
        [("features", "tensor(float)", [*free[:1], width])],
        [("probability", "tensor(float)", [*free[-1:], 1])],
    )
    if (inputs, outputs) != expected or any(isinstance(rows, int) for rows in free):
        raise ModelError(
            f"the model maps {shorten(inputs)} to {shorten(outputs)}, not features float32 "
            f"[N, {width}] to probability float32 [N, 1]: it was not exported by this platform"
        )


def _answers(session: Any, rows: Floats) -> Floats:
    try:
        answers: Floats = session.run(["probability"], {"features": rows})[0]
    except Exception as error:
        raise ModelError(
            f"the model cannot answer the golden rows: {shorten(error)}; export it again"
        ) from error
    if answers.shape != (len(rows), 1):
        raise ModelError(
            f"the model answers {len(rows)} rows with {list(answers.shape)}, not one probability "
            "each: export it again"
        )
    return np.asarray(answers[:, 0], dtype=np.float32)


def _rows(width: int) -> Floats:
    """Return zeros, all missing, and rows of several magnitudes with some values missing."""
    chance = np.random.default_rng(_SEED)
    rows: npt.NDArray[np.float64] = chance.normal(size=(_ROWS, width))
    rows *= np.resize(_SCALES, _ROWS)[:, None]
    rows[chance.random(rows.shape) < _MISSING_SHARE] = np.nan
    rows[0], rows[1] = 0, np.nan
    return rows.astype(np.float32)
