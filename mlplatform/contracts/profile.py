"""What a version was trained on, in the form that monitoring compares live windows with.

It is made once, at registration, from the training set, and is signed with the model: thresholds
that could be edited later would be no thresholds.
"""

from pydantic import Field

from mlplatform.contracts.base import Contract, Window
from mlplatform.contracts.drift import DriftCalibration


class Profile(Contract):
    """What the reference rows of a version are, and what a window may differ from them by."""

    usecase: str
    feature_service: str
    features: tuple[str, ...] = Field(min_length=1, description="Model inputs, in order.")
    window: Window = Field(description="Event times of the training set's rows.")
    training_rows: int = Field(gt=0, description="Of the whole training set.")
    window_hours: float = Field(gt=0, description="Length of the windows of the reference.")
    windows: int = Field(ge=0, description="Kept in the reference.")
    rows: int = Field(ge=0, description="Kept of these windows.")
    row_share: float = Field(
        gt=0, le=1, description="Of these windows' rows; 1: all are kept. Divide counts by it."
    )
    score_rows: int = Field(
        ge=0,
        description="Those with a score: of whole windows that the model was not fitted on.",
    )
    calibration: DriftCalibration | None = Field(
        description="Thresholds of the features and the score; None: there are none."
    )
    uncalibrated: str = Field(default="", description="Why not, and what to do; empty: they are.")
