"""Where pipelines run in a cluster."""

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import SettingsConfigDict

from mlplatform.settings.base import Settings, http_url


class KubeflowSettings(Settings):
    """The Kubeflow Pipelines API, for whoever starts runs."""

    model_config = SettingsConfigDict(env_prefix="MLPLATFORM_KUBEFLOW_")

    endpoint: Annotated[str, AfterValidator(http_url)] = Field(
        default="http://ml-pipeline.kubeflow.svc.cluster.local:8888",
        description="Address of the API server, http or https.",
    )
    namespace: str = Field(
        default="", description="Profile that runs belong to; empty: a single-user installation."
    )
    experiment: str = Field(
        default="retraining", min_length=1, description="Experiment that runs are shown under."
    )
    scheduled: bool = Field(
        default=False,
        description="Whether Kubeflow's recurring runs keep the schedule of the specs; false: the "
        "trigger does, which counts cooldown and budget as well, and they are switched off.",
    )
    service_account: str = Field(
        default="", description="Kubernetes account of a run's pods; empty: the installation's."
    )
    token_file: str = Field(
        default="",
        description="File with a token for the API, read for each call because the kubelet "
        "renews it; empty: none is sent.",
    )
    ca_file: str = Field(
        default="",
        description="Certificates that the API's is checked with; empty: the public ones.",
    )
    timeout_seconds: float = Field(
        default=20, gt=0, le=30, description="Longest wait for one answer, in seconds."
    )
