"""The KFP shells: each component is one import and one call, so that its logic runs anywhere."""

from typing import Final

BASE_IMAGE: Final = "mlplatform-python:dev"
"""The image with kfp and this repository installed; `PipelineSettings.image` replaces it."""
