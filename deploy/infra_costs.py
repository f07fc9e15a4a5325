"""What an environment costs in a month: computed from Terraform's plan and the dated price file.

Pure: a plan and prices in, lines out. Two figures, because node groups follow the load: with each
group at its least, and with each at its most. A type without a price is refused, not guessed.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict

from mlplatform.errors import SettingsError

PRICES: Final = Path("terraform/prices.yaml")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Usage(_Frozen):
    """An assumed amount of a month, and the price of one of it."""

    amount: float
    price: float


class Prices(_Frozen):
    """The price file: US dollars in one region."""

    date: str
    region: str
    sources: tuple[str, ...]
    hours_per_month: float
    cluster: float
    nat_gateway: float
    public_address: float
    interface_endpoint: float
    instances: Mapping[str, float]
    databases: Mapping[str, float]
    caches: Mapping[str, float]
    spot_share: float
    disk_gib: float
    database_gib: float
    key: float
    secret: float
    alarm: float
    usage: Mapping[str, Usage]

    @classmethod
    def load(cls, path: Path = PRICES) -> Self:
        """Return the prices in the file."""
        import yaml

        return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Line:
    """One line of the estimate, in dollars by month."""

    what: str
    least: float
    most: float


def resources(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield all resources that there are after a plan (`terraform show -json`)."""
    modules = [plan["planned_values"]["root_module"]]
    while modules:
        module = modules.pop()
        yield from (one for one in module.get("resources", ()) if one["mode"] == "managed")
        modules += module.get("child_modules", ())


def estimate(plan: Mapping[str, Any], prices: Prices) -> list[Line]:
    """Return the lines of the estimate, dearest first.

    Raises:
        SettingsError: The file has no price for a type that the plan uses.
    """
    found = list(resources(plan))
    lines = [*_nodes(found, prices), *_always(found, prices)]
    lines += [
        Line(name.replace("_", " "), one.amount * one.price, one.amount * one.price)
        for name, one in prices.usage.items()
    ]
    return sorted(lines, key=lambda line: (-line.most, line.what))


def total(lines: Iterable[Line]) -> Line:
    """Return the sum."""
    kept = list(lines)
    return Line("together", sum(line.least for line in kept), sum(line.most for line in kept))


def _nodes(found: Iterable[Mapping[str, Any]], prices: Prices) -> Iterator[Line]:
    kept = list(found)
    disks = {
        one["values"]["name"]: one["values"]["block_device_mappings"][0]["ebs"][0]["volume_size"]
        for one in kept
        if one["type"] == "aws_launch_template"
    }
    for one in kept:
        if one["type"] != "aws_eks_node_group":
            continue
        group = one["values"]
        kind = group["instance_types"][0]
        price = _price(prices.instances, kind, "instances")
        if group["capacity_type"] == "SPOT":
            price *= prices.spot_share
        [disk] = [
            size for name, size in disks.items() if name.endswith(f"-{group['node_group_name']}")
        ]
        node = price * prices.hours_per_month + disk * prices.disk_gib
        scaling = group["scaling_config"][0]
        least, most = scaling["min_size"], scaling["max_size"]
        name = f"nodes {group['node_group_name']}: {least} to {most} {kind}"
        yield Line(name, least * node, most * node)


def _always(found: Iterable[Mapping[str, Any]], prices: Prices) -> Iterator[Line]:
    """Yield what costs the same whatever the load."""
    by_type: dict[str, list[Mapping[str, Any]]] = {}
    for one in found:
        by_type.setdefault(one["type"], []).append(one.get("values", {}))
    hours = prices.hours_per_month
    zones = len({one["availability_zone"] for one in by_type.get("aws_subnet", ())})
    endpoints = [
        one for one in by_type.get("aws_vpc_endpoint", ()) if one["vpc_endpoint_type"] != "Gateway"
    ]
    counted = {
        "control plane": len(by_type.get("aws_eks_cluster", ())) * prices.cluster * hours,
        "NAT gateways": len(by_type.get("aws_nat_gateway", ())) * prices.nat_gateway * hours,
        "public addresses": len(by_type.get("aws_eip", ())) * prices.public_address * hours,
        "interface endpoints": len(endpoints) * zones * prices.interface_endpoint * hours,
        "keys": len(by_type.get("aws_kms_key", ())) * prices.key,
        "secrets": len(by_type.get("aws_secretsmanager_secret", ())) * prices.secret,
        "alarms": len(by_type.get("aws_cloudwatch_metric_alarm", ())) * prices.alarm,
    }
    for one in by_type.get("aws_db_instance", ()):
        nodes = 2 if one["multi_az"] else 1
        price = _price(prices.databases, one["instance_class"], "databases")
        storage = one["allocated_storage"] * prices.database_gib
        counted[f"PostgreSQL, {nodes} x {one['instance_class']}"] = nodes * (
            price * hours + storage
        )
    for one in by_type.get("aws_elasticache_replication_group", ()):
        nodes = one["num_cache_clusters"]
        price = _price(prices.caches, one["node_type"], "caches")
        counted[f"Redis, {nodes} x {one['node_type']}"] = nodes * price * hours
    yield from (Line(what, cost, cost) for what, cost in counted.items() if cost)


def _price(prices: Mapping[str, float], kind: str, block: str) -> float:
    if kind not in prices:
        raise SettingsError(
            f"{PRICES} has no price for {kind}: add it to the block `{block}`, from its sources"
        )
    return prices[kind]
