"""Who reaches whom: the table of edges, and what the rendered policies come to, in both directions.

Nothing here needs a network: the policies are evaluated as their specification says. A connection
exists when the source's policies let it out and the target's let it in.
"""

import itertools
from typing import Any

import pytest
import yaml

from tests.helm.chart import CHART, NAMESPACE, Object, needs_helm, of_kind, pods, render

pytestmark = needs_helm

EDGES = yaml.safe_load((CHART / "files" / "edges.yaml").read_text(encoding="utf-8"))["edges"]
WHEN = {
    "minimal": {"minimal"},
    "full": {"kubeflow", "ray"},
    "gpu": {"kubeflow", "ray"},
}
OUTSIDE = {
    "callers": {"kubernetes.io/metadata.name": "shop"},
    "prometheus": {"kubernetes.io/metadata.name": "monitoring"},
    "kuberay": {"kubernetes.io/metadata.name": "kuberay-operator"},
}
"""Namespaces beside the platform's."""
ADDRESSES = ("api-server",)
"""What is no pod."""
PORTS = (53, 443, 5000, 5432, 6379, 6443, 8000, 8002, 8080, 8081, 8265, 8888, 9108)
ANY_PORT = 0
OWN = {"kubernetes.io/metadata.name": NAMESPACE}


def labels(name: str) -> dict[str, str]:
    if name == "steps":
        return {"pipelines.kubeflow.org/v2_component": "true"}
    if name == "kubeflow":
        return {"application-crd-id": "kubeflow-pipelines"}
    return {"app.kubernetes.io/part-of": "mlplatform", "app.kubernetes.io/component": name}


def components(objects: list[Object]) -> list[str]:
    found = {pod.labels["app.kubernetes.io/component"] for pod in pods(objects)}
    return sorted(found | {"stranger"} | ({"steps", "kubeflow"} if "ray" in found else set()))


def expected(profile: str) -> set[tuple[str, str, int]]:
    """Return the edges of the table as (from, to, port)."""
    found = set()
    for edge in EDGES:
        if edge.get("when", next(iter(WHEN[profile]))) not in WHEN[profile]:
            continue
        ports = [edge["port"]] if edge["port"] != ANY_PORT else [*PORTS]
        if edge["to"] == "api-server":
            ports = [443, 6443]
        found |= {(edge["from"], edge["to"], port) for port in ports}
    return found


def selects(selector: Any, given: dict[str, str]) -> bool:
    return all(
        given.get(key) == value for key, value in (selector.get("matchLabels") or {}).items()
    )


def matches(peers: list[Any], name: str) -> bool:
    """Return whether an end of a connection is one of a rule's peers."""
    for peer in peers:
        if "ipBlock" in peer:
            if name in ADDRESSES:
                return True
            continue
        if name in ADDRESSES:
            continue
        home = OUTSIDE.get(name, OWN)
        inside = peer.get("namespaceSelector")
        if (home is OWN if inside is None else selects(inside, home)) and selects(
            peer.get("podSelector", {}), {} if name in OUTSIDE else labels(name)
        ):
            return True
    return False


def lets(policies: list[Object], direction: str, one: str, other: str, port: int) -> bool:
    """Return whether the policies on `one` let a connection with `other` through."""
    kind, rules, peers = {
        "out": ("Egress", "egress", "to"),
        "in": ("Ingress", "ingress", "from"),
    }[direction]
    if one in OUTSIDE or one in ADDRESSES:
        return True  # not ours to restrict
    mine = [
        found["spec"]
        for found in policies
        if kind in found["spec"]["policyTypes"]
        and selects(found["spec"]["podSelector"], labels(one))
    ]
    if not mine:
        return True
    return any(
        (peers not in rule or matches(rule[peers], other))
        and ("ports" not in rule or port in {item["port"] for item in rule["ports"]})
        for spec in mine
        for rule in spec.get(rules, [])
    )


def open_ways(objects: list[Object]) -> set[tuple[str, str, int]]:
    policies = list(of_kind(objects, "NetworkPolicy").values())
    ends = [*components(objects), *OUTSIDE, *ADDRESSES]
    return {
        (one, other, port)
        for one, other in itertools.product(ends, ends)
        for port in PORTS
        if not (one in {*OUTSIDE, *ADDRESSES} and other in {*OUTSIDE, *ADDRESSES})
        and lets(policies, "out", one, other, port)
        and lets(policies, "in", other, one, port)
    }


@pytest.mark.parametrize("profile", WHEN)
def test_the_open_ways_are_those_of_the_table_and_no_others(profile: str) -> None:
    # `callers` are all namespaces by default, Prometheus' among them.
    table = expected(profile) | {(name, "gateway", 8080) for name in OUTSIDE}

    assert table == open_ways(render(profile))


@pytest.mark.parametrize("profile", WHEN)
def test_every_edge_has_a_policy_at_each_end_that_says_why(profile: str) -> None:
    policies = of_kind(render(profile), "NetworkPolicy")
    wanted = {}
    for edge in EDGES:
        if edge.get("when", next(iter(WHEN[profile]))) in WHEN[profile]:
            if edge["from"] not in OUTSIDE:
                wanted[f"mlplatform-{edge['from']}-to-{edge['to']}-out"] = edge["why"]
            if edge["to"] not in {*OUTSIDE, *ADDRESSES}:
                wanted[f"mlplatform-{edge['from']}-to-{edge['to']}-in"] = edge["why"]

    edges = {
        name: policy["metadata"]["annotations"]["mlplatform.dev/why"]
        for name, policy in policies.items()
        if name not in {"mlplatform-deny", "mlplatform-dns"}
    }
    assert wanted == edges


def test_everybody_may_ask_for_names_and_for_nothing_else_outside() -> None:
    policies = list(of_kind(render("minimal"), "NetworkPolicy").values())
    dns = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    to_all = [found["spec"] for found in policies if not found["spec"]["podSelector"]]

    assert [
        [],
        [{"to": [dns], "ports": [{"protocol": p, "port": 53} for p in ("UDP", "TCP")]}],
    ] == [spec.get("egress", []) for spec in to_all]
    assert not any("ingress" in spec for spec in to_all)


def test_a_stranger_in_the_namespace_reaches_nothing_and_nobody_reaches_it() -> None:
    ways = {way for way in open_ways(render("minimal")) if "stranger" in way}

    assert set() == ways


def test_callers_can_be_narrowed_to_one_namespace() -> None:
    callers = [{"kubernetes.io/metadata.name": "ingress"}]
    ways = open_ways(render("minimal", {"networkPolicies": {"callers": callers}}))

    assert not any(one == "callers" for one, _, _ in ways)
    assert ("prometheus", "gateway", 8080) in ways


def test_kubeflow_for_many_is_reached_in_its_namespace() -> None:
    values = {"pipeline": {"kubeflow": {"namespace": "kubeflow", "multiUser": True}}}
    policies = of_kind(render("full", values), "NetworkPolicy")
    (rule,) = policies["mlplatform-trigger-to-kubeflow-out"]["spec"]["egress"]

    inside = {"matchLabels": {"kubernetes.io/metadata.name": "kubeflow"}}
    assert [{"namespaceSelector": inside}] == rule["to"]
    assert not any("kubeflow-to" in name or "kubeflow-in" in name for name in policies)


def test_managed_stores_are_reached_at_their_addresses_by_those_that_the_table_names() -> None:
    values = {
        "redis": {"enabled": False, "managed": {"cidrs": ["10.1.0.0/24"], "port": 6380}},
        "postgres": {"enabled": False, "managed": {"cidrs": ["10.2.0.0/24"]}},
    }
    policies = of_kind(render("minimal", values), "NetworkPolicy")
    rule = policies["mlplatform-gateway-to-redis-out"]["spec"]["egress"]

    assert [
        {"to": [{"ipBlock": {"cidr": "10.1.0.0/24"}}], "ports": [{"protocol": "TCP", "port": 6380}]}
    ] == rule
    assert not any(name.endswith(("-to-redis-in", "-to-postgres-in")) for name in policies)
    assert "mlplatform-metrics-to-postgres-out" in policies


def test_a_bucket_and_a_webhook_are_reached_only_where_there_are_such() -> None:
    values = {
        "registry": {"artifacts": {"s3": "s3://models/here"}},
        "monitor": {"webhook": {"secretName": "chat", "cidrs": ["192.0.2.0/24"]}},
    }
    without, found = (of_kind(render("minimal", one), "NetworkPolicy") for one in ({}, values))

    assert {"mlplatform-registry-to-bucket-out", "mlplatform-monitor-to-webhook-out"} == (
        found.keys() - without.keys()
    )
    rule = found["mlplatform-monitor-to-webhook-out"]["spec"]["egress"][0]
    assert [{"ipBlock": {"cidr": "192.0.2.0/24"}}] == rule["to"]


def test_the_ports_of_the_table_are_those_that_containers_listen_on() -> None:
    listening = {
        (pod.labels["app.kubernetes.io/component"], port["containerPort"])
        for pod in pods(render("minimal"))
        for container in pod.containers
        for port in container.get("ports", [])
    }
    inside = {(to, port) for _, to, port in expected("minimal") if to not in ADDRESSES}

    assert inside <= listening
    # The kubelet alone asks the operator how it is, and the kubelet is on the node.
    assert {("operator", 8081)} == listening - inside
