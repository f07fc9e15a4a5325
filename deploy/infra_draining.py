"""Before Terraform destroys: what the cluster made in AWS by itself has to go first.

A load balancer that a Service asked for, or a GPU machine that the autoscaler started, is in no
state of Terraform's. It keeps the network from being removed, and costs on.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from deploy.infra_aws import Account
from deploy.infra_values import Outputs
from deploy.programs import call
from mlplatform.errors import PlatformError, ServiceError

_WAIT_SECONDS: Final = 900.0
"""For machines to be gone: EKS lets their pods end first, for a quarter of an hour at most."""
_POLL_SECONDS: Final = 10.0


def context_of(kubeconfig: Mapping[str, Any], endpoint: str) -> str | None:
    """Return the context of kubeconfig that leads to a cluster; None: none does.

    Args:
        kubeconfig: As `kubectl config view -o json` prints it.
        endpoint: Address of the cluster's API server.
    """
    leading = {
        one["name"]
        for one in kubeconfig.get("clusters") or ()
        if one["cluster"].get("server", "").lower() == endpoint.lower()
    }
    for one in kubeconfig.get("contexts") or ():
        if one["context"]["cluster"] in leading:
            return str(one["name"])
    return None


def balanced(services: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return namespace and name of the Services that have a load balancer."""
    return [
        (one["metadata"]["namespace"], one["metadata"]["name"])
        for one in services["items"]
        if one["spec"].get("type") == "LoadBalancer"
    ]


def drain_balancers(given: Outputs) -> str:
    """Remove the Services that have load balancers; return what was done, in words.

    A Service goes only when its balancer is gone: Kubernetes holds it by a finalizer.

    Raises:
        ServiceError: The cluster refuses.
    """
    try:
        kubeconfig = json.loads(call("kubectl", "config", "view", "--output", "json"))
    except PlatformError:
        kubeconfig = {}
    context = context_of(kubeconfig, str(given["cluster"]["endpoint"]))
    if context is None:
        name = given["cluster"]["name"]
        return (
            f"no context of kubeconfig leads to {name}, so its Services were not looked at: "
            f"`aws eks update-kubeconfig --name {name}` makes one"
        )
    place = ("--context", context)
    found = json.loads(
        call("kubectl", "get", "services", "--all-namespaces", "--output", "json", *place)
    )
    services = balanced(found)
    for namespace, name in services:
        call(
            "kubectl",
            *("delete", "service", name, "--namespace", namespace, "--wait=true", *place),
            timeout_seconds=_WAIT_SECONDS,
        )
    return f"{len(services)} Services with load balancers removed"


def drain_gpu_nodes(
    account: Account, given: Outputs, sleep: Callable[[float], None] = time.sleep
) -> str:
    """Bring the GPU nodes to none and wait until they are gone; return what was done, in words.

    Raises:
        ServiceError: AWS refuses, or machines are still there.
    """
    cluster, group = given["cluster"]["name"], given["gpu"]["node_group"]
    account.empty_node_group(cluster, group)
    waited = 0.0
    while machines := account.nodes(cluster, group):
        if waited >= _WAIT_SECONDS:
            raise ServiceError(
                f"GPU machines are still there after {waited / 60:.0f} minutes: "
                f"{', '.join(machines)}; a pod that does not end may hold them. End it, and run "
                "the command again"
            )
        sleep(_POLL_SECONDS)
        waited += _POLL_SECONDS
    return f"the group {group} has no nodes"


def leftovers(found: Sequence[str], gone: Sequence[str]) -> list[str]:
    """Return what is left and costs on, or stands in the way.

    Args:
        found: ARNs of all that carries the environment's tags.
        gone: Identifiers of what is listed though it is gone.
    """
    # Keys wait for their 30 days, and are then gone by themselves.
    return [
        arn for arn in found if ":kms:" not in arn and arn.rsplit("/", maxsplit=1)[-1] not in gone
    ]
