"""The monthly estimate: arithmetic on a small plan with round prices, and refusals."""

from typing import Any

import pytest

from deploy.infra_costs import Line, Prices, Usage, estimate, total
from mlplatform.errors import SettingsError

PRICES = Prices(
    date="2025-01",
    region="us-east-1",
    sources=(),
    hours_per_month=100,
    cluster=1.0,
    nat_gateway=0.5,
    public_address=0.1,
    interface_endpoint=0.2,
    instances={"m7i.xlarge": 2.0, "g5.xlarge": 10.0},
    databases={"db.m7g.large": 3.0},
    caches={"cache.m7g.large": 4.0},
    spot_share=0.5,
    disk_gib=0.1,
    database_gib=0.2,
    key=1.0,
    secret=0.4,
    alarm=0.1,
    usage={"images_gib": Usage(amount=30, price=0.1)},
)


def resource(kind: str, **values: Any) -> dict[str, Any]:
    return {"type": kind, "mode": "managed", "values": values}


def group(name: str, kind: str, least: int, most: int, capacity: str) -> list[dict[str, Any]]:
    disk = [{"ebs": [{"volume_size": 50}]}]
    scaling = [{"min_size": least, "max_size": most}]
    return [
        resource("aws_launch_template", name=f"mlplatform-dev-{name}", block_device_mappings=disk),
        resource(
            "aws_eks_node_group",
            node_group_name=name,
            instance_types=[kind],
            capacity_type=capacity,
            scaling_config=scaling,
        ),
    ]


def plan(*resources: dict[str, Any]) -> dict[str, Any]:
    module = {"resources": list(resources)}
    return {"planned_values": {"root_module": {"child_modules": [module]}}}


def lines(*resources: dict[str, Any]) -> dict[str, tuple[float, float]]:
    return {line.what: (line.least, line.most) for line in estimate(plan(*resources), PRICES)}


def test_nodes_cost_their_hours_and_disks_at_the_least_and_at_the_most() -> None:
    found = lines(*group("serving", "m7i.xlarge", 2, 5, "ON_DEMAND"))

    assert found["nodes serving: 2 to 5 m7i.xlarge"] == (2 * 205.0, 5 * 205.0)


def test_spot_nodes_cost_a_share_and_none_costs_nothing() -> None:
    found = lines(*group("gpu", "g5.xlarge", 0, 1, "SPOT"))

    assert found["nodes gpu: 0 to 1 g5.xlarge"] == (0.0, 505.0)


def test_a_standby_doubles_the_database_with_its_storage() -> None:
    found = lines(
        resource(
            "aws_db_instance", instance_class="db.m7g.large", multi_az=True, allocated_storage=50
        )
    )

    assert found["PostgreSQL, 2 x db.m7g.large"] == (620.0, 620.0)


def test_endpoints_cost_in_each_zone_and_a_gateway_endpoint_nothing() -> None:
    found = lines(
        *(resource("aws_subnet", availability_zone=zone) for zone in "aabbc"),
        resource("aws_vpc_endpoint", vpc_endpoint_type="Interface"),
        resource("aws_vpc_endpoint", vpc_endpoint_type="Gateway"),
    )

    assert found["interface endpoints"][0] == pytest.approx(60.0)


def test_the_sum_has_assumed_usage_in_it() -> None:
    found = estimate(plan(resource("aws_eks_cluster")), PRICES)

    assert total(found) == Line("together", 103.0, 103.0)


def test_a_type_without_a_price_is_refused_and_not_guessed() -> None:
    with pytest.raises(SettingsError, match=r"no price for x9\.huge.*`instances`"):
        lines(*group("serving", "x9.huge", 1, 1, "ON_DEMAND"))


def test_the_price_file_holds_what_the_estimate_needs() -> None:
    prices = Prices.load()

    assert prices.region == "us-east-1"
    assert prices.sources
    assert 0 < prices.spot_share < 1
