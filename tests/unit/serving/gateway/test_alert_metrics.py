"""Each metric and label that an alerting rule names is there when a real server is scraped."""

import re
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from feature_repo import catalog
from local.processes import free_port
from local.supervisor import Supervisor
from local.triton_server import triton_program
from mlplatform.contracts import OnlineLayout
from monitoring.alerts import rules
from serving.triton.export import Export
from tests.unit.serving.gateway.conftest import Model, RedisProcess
from tests.unit.serving.gateway.patient_gateway import patient
from tests.unit.serving.gateway.stack import (
    AT_US,
    USECASE,
    Gateway,
    Store,
    request,
    route,
    wait_for,
)
from tests.unit.serving.gateway.stand_in import StandIn

SPEC = patient(catalog.spec(USECASE))

Scraped = dict[str, list[dict[str, str]]]
"""Labels of all samples by name."""


def parsed(content: str) -> Scraped:
    """Read the lines as they are: the client's own parser adds `_total` to counters without it."""
    found: Scraped = {}
    for name, labels in re.findall(r"^([a-z]\w*)\{([^}]*)\} ", content, re.MULTILINE):
        found.setdefault(name, []).append(dict(re.findall(r'(\w+)="([^"]*)"', labels)))
    return found


def selectors(prefix: str, layout: OnlineLayout) -> set[str]:
    """The selectors of all rules that name such a metric."""
    ttls = {v.name: v.ttl_seconds or 0 for group in layout.groups for v in group.views}
    exprs = [rule["expr"] for group in rules(SPEC, ttls)["groups"] for rule in group["rules"]]
    return {found for expr in exprs for found in re.findall(rf"{prefix}\w+\{{[^}}]*\}}", expr)}


def unmatched(selector: str, scraped: Scraped) -> str:
    """Return what is wrong with a selector; nothing where a sample has all that it asks for."""
    name, _, inside = selector.rstrip("}").partition("{")
    if name not in scraped:
        return f"no metric {name}"
    matchers = re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', inside)
    for labels in scraped[name]:
        known = all(label in labels for label, _, _ in matchers)
        if known and all(
            {
                "=": labels[label] == wanted,
                "!=": labels[label] != wanted,
                "=~": re.fullmatch(wanted, labels[label]) is not None,
                "!~": re.fullmatch(wanted, labels[label]) is None,
            }[operator]
            for label, operator, wanted in matchers
        ):
            return ""
    return f"no sample like {selector}"


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with StandIn() as server:
        yield server


def test_a_gateway_exposes_what_the_rules_watch(
    make_gateway: Callable[..., Gateway], redis: RedisProcess, champion: Model, stand_in: StandIn
) -> None:
    stand_in.mode = "refuse"
    good = ("champion", 1.0, champion.url, champion.served)
    with closing(Store(redis.url)) as store:
        store.publish(route(good, shadow=(1.0, stand_in.url, champion.served)))
        gateway = make_gateway(redis.url)
        assert gateway.score(request()).json["degraded"]  # no view has a row
        store.features(champion.served, request(), AT_US)
        assert not gateway.score(request()).json["degraded"]
        store.publish(route(("champion", 1.0, stand_in.url, champion.served), epoch=2))
        # The route may change between a request's look at it and its answer.
        wait_for(lambda: gateway.score(request()).json["fallback"], what="an answer of the rules")

        def scraped() -> Scraped:
            return parsed(gateway.get("/metrics").body.decode())

        wait_for(lambda: "mlplatform_gateway_log_rows_total" in scraped())
        wanted = selectors("mlplatform_gateway_", champion.served.layout)
        # Nothing here fails inside the gateway itself: only that status does not occur.
        wanted = {one for one in wanted if 'status=~"5..' not in one}
        wrong = {one: problem for one in wanted if (problem := unmatched(one, scraped()))}

    assert {} == wrong
    assert len(wanted) > 25


def test_a_model_server_exposes_what_the_rules_watch(
    exported: Callable[[int, float], Export], champion: Model, tmp_path: Path
) -> None:
    export, metrics = exported(77, 0.01), free_port()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with Supervisor() as supervisor:
        supervisor.start(triton_program(export, free_port(), metrics, root=tmp_path))

        def scraped() -> Scraped:
            try:
                with opener.open(f"http://127.0.0.1:{metrics}/metrics", timeout=10) as answer:
                    return parsed(answer.read().decode())
            except OSError:  # this port opens after that of the models
                return {}

        found = wait_for(scraped, what="the model server's metrics")

    wanted = selectors("nv_", champion.served.layout)
    assert {} == {one: problem for one in wanted if (problem := unmatched(one, found))}
    assert 3 == len({one.partition("{")[0] for one in wanted})
