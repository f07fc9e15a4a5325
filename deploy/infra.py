"""`python -m deploy.infra plan|apply|destroy ENV`: the cloud below the cluster, by Terraform.

`apply` leaves in `build/cluster/` what `make deploy ENV=...` needs: the chart's values, and the
objects that are applied before it. Nothing in there is a secret.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy import infra_draining, infra_secrets, infra_values
from deploy.infra_aws import Account
from deploy.infra_costs import Prices, estimate, total
from deploy.infra_terraform import Environment, changes
from deploy.progress import Progress
from deploy.values import FOLDER, IMAGES
from mlplatform.errors import PlatformError, SettingsError

REGION: Final = "us-east-1"
_DRIFT: Final = Path("build/infra")
_HEADER: Final = (
    "# Written by `make infra-apply ENV={0}` from Terraform's outputs; edit terraform/envs/{0}.\n"
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, or 1 when it cannot be done."""
    parser = argparse.ArgumentParser(prog="deploy.infra", description=__doc__)
    parser.add_argument("command", choices=("plan", "apply", "destroy", "drift", "values"))
    parser.add_argument("environment", help="a folder of terraform/envs")
    parser.add_argument("--region", default=os.environ.get("AWS_REGION", REGION))
    parser.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_args(arguments)
    console = Console()
    work = Infrastructure(options.environment, Account(options.region), console, yes=options.yes)
    try:
        return 0 if getattr(work, options.command)() else 1
    except PlatformError as error:
        console.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        return 1


class Infrastructure:
    """The commands on one environment.

    Args:
        environment: Its name.
        account: In which it lives.
        console: Where it is told.
        yes: Whether nobody is asked.
    """

    def __init__(
        self, environment: str, account: Account, console: Console, *, yes: bool = False
    ) -> None:
        self._environment = Environment(environment, account)
        self._account, self._console, self._yes = account, console, yes
        self._progress = Progress(console)

    def plan(self) -> bool:
        """Show what `apply` would change and what a month would cost; nothing is changed."""
        self._environment.init()
        self._tell(self._environment.plan())
        return True

    def apply(self) -> bool:
        """Make AWS as the files say, fill empty secrets, and write what `make deploy` needs."""
        self._environment.init()
        plan = self._environment.plan()
        self._tell(plan)
        if any(changes(plan).values()):
            if not self._agreed(
                f"Change {self._environment.name} in account {self._account.number()}?"
            ):
                return False
            self._environment.apply()
        given = self._environment.outputs()
        self._progress.step("secrets", lambda: infra_secrets.ensure(self._account, given))
        return self.values()

    def values(self) -> bool:
        """Write what `make deploy` needs, from the outputs of what was applied."""
        self._environment.init()
        given = self._given()
        key = infra_secrets.verifying_key(self._account, given)
        name = self._environment.name
        self._write(f"infra-{name}.yaml", infra_values.values(given, key))
        self._write(f"infra-{name}-gpu.yaml", infra_values.gpu_values(given))
        image = _database_image()
        if image is None:
            self._console.print(
                f"make the images with `make images REGISTRY={given['image_registry']}`, then "
                f"`make infra-apply ENV={name}` again writes what is applied before the release",
                soft_wrap=True,
            )
        else:
            self._write(
                f"infra-{name}-objects.yaml", *infra_values.objects(given, "mlplatform", image)
            )
        return True

    def drift(self) -> bool:
        """Compare AWS with the files; a difference is written to a file, and is a failure."""
        report = _DRIFT / self._environment.name / "drift.md"
        report.unlink(missing_ok=True)
        self._environment.init()
        found = self._environment.drift()
        if not found:
            self._progress.say("drift", "none")
            return True
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(f"{found}\n", encoding="utf-8")
        self._progress.say("drift", f"found: see {report}", style="red")
        return False

    def destroy(self) -> bool:
        """Remove the environment: first what the cluster made by itself, then all else."""
        self._environment.init()
        given = self._given()
        if not given["expendable"]:
            raise SettingsError(
                f"{self._environment.name} is not expendable, so its data are protected: set "
                f"`expendable = true` in {self._environment.folder}/terraform.tfvars, run "
                f"`make infra-apply ENV={self._environment.name}`, and then destroy it"
            )
        what = f"{self._environment.name} in account {self._account.number()}, with all of its data"
        if not self._agreed(f"Destroy {what}?"):
            return False
        step = self._progress.step
        step("load balancers", lambda: infra_draining.drain_balancers(given))
        step("GPU nodes", lambda: infra_draining.drain_gpu_nodes(self._account, given))
        self._environment.plan("-destroy")
        self._environment.apply()
        return self._report_leftovers()

    def _report_leftovers(self) -> bool:
        tags = {"Project": "mlplatform", "Environment": self._environment.name}
        left = infra_draining.leftovers(
            self._account.tagged(tags), self._account.removed_gateways()
        )
        for arn in left:
            self._console.print(f"left: {arn}", soft_wrap=True)
        self._progress.say(
            "leftovers",
            f"{len(left)} resources still carry the tags: look at each, it may cost on"
            if left
            else "none; keys wait 30 days before they are deleted, at no cost",
        )
        return not left

    def _given(self) -> infra_values.Outputs:
        given = self._environment.outputs()
        if not given:
            name = self._environment.name
            raise SettingsError(f"{name} was not applied yet: run `make infra-apply ENV={name}`")
        return given

    def _tell(self, plan: Any) -> None:
        prices = Prices.load()
        lines = estimate(plan, prices)
        table = Table(
            title=f"A month, in USD at list prices of {prices.date} ({prices.region})", box=None
        )
        for heading in ("", "least nodes", "most nodes"):
            table.add_column(heading, justify="left" if not heading else "right")
        for line in [*lines, total(lines)]:
            table.add_row(line.what, f"{line.least:,.2f}", f"{line.most:,.2f}")
        self._console.print(table)
        self._console.print(
            ", ".join(f"{count} to {what}" for what, count in changes(plan).items())
        )

    def _write(self, name: str, *documents: Any) -> None:
        import yaml

        FOLDER.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump_all(documents, sort_keys=False, width=100)
        (FOLDER / name).write_text(_HEADER.format(self._environment.name) + text, encoding="utf-8")
        self._progress.say("written", str(FOLDER / name))

    def _agreed(self, question: str) -> bool:
        return self._yes or self._console.input(f"{question} Type yes: ") == "yes"


def _database_image(path: Path = IMAGES) -> str | None:
    """Return the image with `psql` in it, by digest; None while there is none."""
    import yaml

    if not path.is_file():
        return None
    image = yaml.safe_load(path.read_text(encoding="utf-8"))["images"]["postgres"]
    return f"{image['repository']}@{image['digest']}"


if __name__ == "__main__":
    sys.exit(main())
