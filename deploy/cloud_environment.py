"""The cluster of an environment that Terraform made: how it is reached, and what is given to Helm.

`make infra-apply` has written the chart's values and the objects that are applied before it. Here a
context of kubeconfig is made from the outputs, so that a runner that has never seen the cluster
deploys to it without a step by hand.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.namespaces import MANAGER
from deploy.programs import call
from deploy.released import kind_of, objects
from deploy.target import Profile
from deploy.values import FOLDER
from mlplatform.clients.kubernetes import Cluster, contexts
from mlplatform.errors import ServiceError, SettingsError

_REGION: Final = "AWS_REGION"


@dataclass(frozen=True)
class CloudEnvironment:
    """What a deployment to an environment needs to know."""

    name: str

    @property
    def context(self) -> str:
        """Of kubeconfig."""
        return f"mlplatform-{self.name}"

    @property
    def objects(self) -> Path:
        """What is applied before the release."""
        return FOLDER / f"infra-{self.name}-objects.yaml"

    def values(self, profile: Profile) -> tuple[Path, ...]:
        """Return the chart's values; later ones win."""
        files = [FOLDER / f"infra-{self.name}.yaml"]
        if profile == "gpu":
            files.append(FOLDER / f"infra-{self.name}-gpu.yaml")
        return tuple(files)

    def ensure_files(self, profile: Profile) -> str:
        """Make sure of the files that Terraform's outputs give; return where they are.

        Raises:
            SettingsError: The environment was not applied yet.
            ServiceError: AWS or Terraform failed.
        """
        from deploy import infra

        wanted = [*self.values(profile), self.objects]
        if not all(path.is_file() for path in wanted):
            infra.main(["values", self.name])
        lacking = [str(path) for path in wanted if not path.is_file()]
        if lacking:
            raise SettingsError(
                f"{', '.join(lacking)} could not be written: run `make infra-apply ENV={self.name}`"
            )
        return f"{self.name}: {', '.join(path.name for path in wanted)}"

    def ensure_context(self) -> str:
        """Make sure of the context of kubeconfig; return it.

        Raises:
            SettingsError: The environment was not applied yet, or a program is missing.
            ServiceError: AWS or Terraform failed.
        """
        if self.context not in contexts().names:
            from deploy.infra import REGION
            from deploy.infra_aws import Account
            from deploy.infra_terraform import Environment

            terraform = Environment(self.name, Account(os.environ.get(_REGION, REGION)))
            terraform.init()
            given = terraform.outputs()
            if not given:
                raise SettingsError(
                    f"{self.name} was not applied yet: run `make infra-apply ENV={self.name}`"
                )
            call("aws", *_update(given["cluster"]["name"], given["region"], self.context))
        return self.context


def _update(cluster: str, region: str, context: str) -> tuple[str, ...]:
    where = ("--name", cluster, "--region", region)
    return ("eks", "update-kubeconfig", *where, "--alias", context)


def ensure_objects(cluster: Cluster, path: Path) -> str:
    """Apply what is to be there before the release; return how much it is.

    Raises:
        ServiceError: The API server is away, or refuses one.
    """
    names = []
    for body in objects(path.read_text(encoding="utf-8")):
        name = f"{body['kind']}/{body['metadata']['name']}"
        try:
            cluster.apply(kind_of(body), body, MANAGER)
        except ServiceError as error:
            raise ServiceError(f"{name} of {path} is refused: {error}") from error
        names.append(name)
    return f"{len(names)} objects of {path.name} are as they should be"
