"""The kinds by their name in the spec. A new kind is a module here and a word in `ModelKind`."""

from typing import Final

from mlplatform.contracts.usecase.training import ModelKind
from pipelines.models import lightgbm_trees, logistic_regression, xgboost_trees
from pipelines.models.kind import Kind

KINDS: Final[dict[ModelKind, Kind]] = {
    "logistic_regression": logistic_regression.KIND,
    "xgboost": xgboost_trees.KIND,
    "lightgbm": lightgbm_trees.KIND,
}
