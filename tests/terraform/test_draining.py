"""What has to go before Terraform destroys, and what is reported after it."""

import pytest

from deploy import infra_draining
from deploy.infra_aws import Account
from mlplatform.errors import ServiceError

ENDPOINT = "https://ABC.gr7.us-east-1.eks.amazonaws.com"
KUBECONFIG = {
    "clusters": [
        {"name": "ours", "cluster": {"server": ENDPOINT.lower()}},
        {"name": "other", "cluster": {"server": "https://127.0.0.1:6443"}},
    ],
    "contexts": [
        {"name": "laptop", "context": {"cluster": "other"}},
        {"name": "dev", "context": {"cluster": "ours"}},
    ],
}
OUTPUTS = {"cluster": {"name": "mlplatform-dev"}, "gpu": {"node_group": "gpu"}}


class StandIn(Account):
    """An account whose GPU machines go after some looks."""

    def __init__(self, looks: int) -> None:
        super().__init__("us-east-1")
        self.looks, self.emptied = looks, False

    def empty_node_group(self, cluster: str, group: str) -> None:
        self.emptied = (cluster, group) == ("mlplatform-dev", "gpu")

    def nodes(self, cluster: str, group: str) -> list[str]:
        assert (cluster, group) == ("mlplatform-dev", "gpu")
        self.looks -= 1
        return ["i-1"] if self.looks >= 0 else []


def test_the_context_is_the_one_that_leads_to_the_cluster() -> None:
    assert infra_draining.context_of(KUBECONFIG, ENDPOINT) == "dev"


def test_no_other_cluster_is_ever_drained() -> None:
    assert infra_draining.context_of(KUBECONFIG, "https://elsewhere") is None
    assert infra_draining.context_of({}, ENDPOINT) is None


def test_only_services_with_balancers_are_removed() -> None:
    services = {
        "items": [
            {"metadata": {"namespace": "a", "name": "inner"}, "spec": {"type": "ClusterIP"}},
            {"metadata": {"namespace": "a", "name": "outer"}, "spec": {"type": "LoadBalancer"}},
        ]
    }

    assert infra_draining.balanced(services) == [("a", "outer")]


def test_gpu_machines_are_waited_for_until_they_are_gone() -> None:
    account, slept = StandIn(looks=3), list[float]()

    assert infra_draining.drain_gpu_nodes(account, OUTPUTS, slept.append).endswith("no nodes")
    assert account.emptied
    assert len(slept) == 3


def test_gpu_machines_that_stay_are_named() -> None:
    with pytest.raises(ServiceError, match="i-1"):
        infra_draining.drain_gpu_nodes(StandIn(looks=10_000), OUTPUTS, lambda _: None)


def test_keys_that_wait_for_their_end_and_gateways_that_are_gone_are_no_leftovers() -> None:
    found = [
        "arn:aws:kms:us-east-1:1:key/a",
        "arn:aws:s3:::bucket",
        "arn:aws:ec2:us-east-1:1:natgateway/nat-gone",
        "arn:aws:ec2:us-east-1:1:natgateway/nat-there",
    ]

    assert infra_draining.leftovers(found, ["nat-gone"]) == [found[1], found[3]]
