"""`make upgrade`: what `make deploy` would change, before it does."""

from rich.console import Console
from rich.text import Text

from deploy.differences import Difference, coloured, differences, refused
from deploy.installing import Installation, Plan
from deploy.progress import Progress
from mlplatform.clients.kubernetes import Cluster
from mlplatform.errors import NotFoundError, ServiceError


def preview(console: Console, plan: Plan) -> list[Difference]:
    """Print what a deployment would change, and return it; nothing is written.

    Raises:
        NotFoundError: There is nothing to upgrade.
        ServiceError: The API server would refuse a change; with each of them.
    """
    current, planned = Installation(plan, Progress(console)).preview()
    if current is None:
        raise NotFoundError(
            f"there is no platform in {plan.target.namespace} of {plan.target.context} to upgrade: "
            "install it with `make deploy`"
        )
    found = differences(current.manifest, planned.manifest)
    for difference in found:
        console.print(Text(f"\n{difference.name} is {difference.change}", style="bold"))
        for line, style in coloured(difference.diff):
            console.print(Text(line, style=style), soft_wrap=True)
    said = refused(Cluster.connect(plan.target.namespace, plan.target.context), found)
    if said:
        raise ServiceError(
            "the API server would refuse this:\n"
            + "\n".join(f"  {line}" for line in said)
            + "\nnothing was changed; what is immutable has to be deleted first"
        )
    counts = dict.fromkeys(("made", "changed", "removed"), 0)
    for difference in found:
        counts[difference.change] += 1
    shown = ", ".join(f"{number} {change}" for change, number in counts.items() if number)
    console.print(f"\n{shown or 'nothing would change'}")
    return found
