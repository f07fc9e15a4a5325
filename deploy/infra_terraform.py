"""Terraform on one environment: init, plan, apply, outputs, destroy.

State lies in a bucket of the account itself, whose name follows from the account's number, so no
file has to be edited for it. What Terraform says while it works goes to the person, unabridged.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from deploy.infra_aws import Account
from deploy.infra_values import Outputs, outputs
from deploy.programs import call, find
from mlplatform.errors import ServiceError, SettingsError

ENVIRONMENTS: Final = Path("terraform/envs")
SIZES: Final = "build/cluster/sizes-{}.tfvars.json"
"""Node groups that a use case's plan asks for; read where it exists."""
_PLAN: Final = "environment.tfplan"
_SECONDS: Final = 120.0


class Environment:
    """One root of Terraform.

    Args:
        name: Of the folder, `dev` or `prod`.
        account: In which it lives.
    """

    def __init__(self, name: str, account: Account) -> None:
        self.name, self._account = name, account
        self.folder = ENVIRONMENTS / name

    def init(self) -> None:
        """Make the state's bucket where it is missing, and fetch provider and state.

        Raises:
            SettingsError: Terraform is not on PATH, or there is no such environment.
            ServiceError: AWS or Terraform failed.
        """
        if not (self.folder / "main.tf").is_file():
            known = ", ".join(sorted(one.name for one in ENVIRONMENTS.iterdir() if one.is_dir()))
            raise SettingsError(f"there is no environment {self.name!r}: ENV= takes {known}")
        find("terraform")
        bucket = f"mlplatform-{self._account.number()}-state"
        self._account.ensure_state_bucket(bucket)
        backend = (
            "-backend-config=backend.hcl",
            f"-backend-config=bucket={bucket}",
            f"-backend-config=region={self._account.region}",
        )
        self._call("init", "-input=false", "-no-color", *backend)

    def plan(self, *more: str) -> Mapping[str, Any]:
        """Write a plan and return it.

        Raises:
            ServiceError: Terraform failed.
        """
        self._show("plan", "-input=false", f"-out={_PLAN}", *self._sizes(), *more)
        found: Mapping[str, Any] = json.loads(self._call("show", "-json", _PLAN))
        return found

    def drift(self) -> str:
        """Return what differs from the description, in Markdown; empty: nothing. Takes no lock.

        Addresses and actions only: a value may be a secret.

        Raises:
            ServiceError: Terraform failed.
        """
        plan = self.plan("-lock=false", "-refresh=true")
        changed = [
            f"- `{one['address']}`: {' and '.join(one['change']['actions'])}"
            for one in plan.get("resource_changes", ())
            if one["change"]["actions"] not in (["no-op"], ["read"])
        ]
        return "\n".join(changed)

    def apply(self) -> None:
        """Do what the plan says, and nothing else.

        Raises:
            ServiceError: Terraform failed; what was done is in the state, and `apply` goes on.
        """
        self._show("apply", "-input=false", _PLAN)

    def outputs(self) -> Outputs:
        """Return the outputs; none where nothing was applied.

        Raises:
            ServiceError: Terraform failed.
        """
        return outputs(json.loads(self._call("output", "-json")))

    def _sizes(self) -> tuple[str, ...]:
        path = Path(SIZES.format(self.name))
        return (f"-var-file={path.resolve()}",) if path.is_file() else ()

    def _call(self, *arguments: str) -> str:
        return call("terraform", *arguments, folder=self.folder, timeout_seconds=_SECONDS)

    def _show(self, command: str, *arguments: str) -> None:
        plain = () if sys.stdout.isatty() else ("-no-color",)
        done = subprocess.run(
            [find("terraform"), command, *plain, *arguments], cwd=self.folder, check=False
        )
        if done.returncode:
            raise ServiceError(
                f"`terraform {command}` failed in {self.folder}: see above; what was done is in "
                "the state, and the same command goes on from there"
            )


def changes(plan: Mapping[str, Any]) -> Mapping[str, int]:
    """Return how many resources a plan creates, changes, replaces and removes."""
    counted: Counter[str] = Counter()
    for one in plan.get("resource_changes", ()):
        actions = one["change"]["actions"]
        counted["replace" if len(actions) > 1 else actions[0]] += one["mode"] == "managed"
    return {name: counted[name] for name in ("create", "update", "replace", "delete")}


def by_type(plan: Mapping[str, Any]) -> Mapping[str, int]:
    """Return how many resources of each type there are after a plan."""
    from deploy.infra_costs import resources

    return dict(sorted(Counter(one["type"] for one in resources(plan)).items()))
