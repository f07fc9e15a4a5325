"""Prometheus' alerting rules: of a use case, derived from its spec, and of a cluster.

What the spec holds is never typed a second time: budgets, availability, windows, delays, limits.
The numbers that it does not hold stand in `monitoring.alert_rules`, each with its reason. What the
rules measure comes from the gateways (`/metrics`), the model servers and `monitoring.exporter`, and
in a cluster from kube-state-metrics as well.
"""

from collections.abc import Mapping
from io import StringIO
from types import MappingProxyType
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from mlplatform.contracts import UseCase
from monitoring.alert_rules import cluster, data, decisions, serving
from monitoring.alert_rules.rule import Recording, Rule

_NO_VIEWS: Final[Mapping[str, float]] = MappingProxyType({})
_WIDTH: Final = 4096  # long lines are not folded: an expression stays as it was written


def rules(spec: UseCase, ttls: Mapping[str, float] = _NO_VIEWS) -> dict[str, Any]:
    """Return the groups of rules, as a rule file or the spec of a PrometheusRule holds them.

    Args:
        spec: The use case's.
        ttls: Feature view → seconds from which its rows count as none (`OnlineView.ttl_seconds`);
            views without are not watched for their age.
    """
    parts: dict[str, tuple[Rule | Recording, ...]] = {
        "serving": (*serving.recordings(spec), *serving.rules(spec)),
        "data": data.rules(spec, ttls),
        "decisions": decisions.rules(spec),
    }
    return {
        "groups": [
            {"name": f"{spec.name}-{part}", "rules": [rule.rendered(spec.name) for rule in found]}
            for part, found in parts.items()
        ]
    }


def text(spec: UseCase, ttls: Mapping[str, float] = _NO_VIEWS) -> str:
    """Return the rule file as YAML; equal input gives equal bytes."""
    return _yaml(rules(spec, ttls))


def cluster_rules() -> dict[str, Any]:
    """Return the group of rules on what Kubernetes runs; the same for every cluster."""
    found = [rule.rendered() for rule in cluster.rules()]
    return {"groups": [{"name": "mlplatform-cluster", "rules": found}]}


def cluster_text() -> str:
    """Return that group as YAML."""
    return _yaml(cluster_rules())


def _yaml(found: dict[str, Any]) -> str:
    for group in found["groups"]:
        for rule in group["rules"]:
            if "\n" in rule["expr"]:
                rule["expr"] = LiteralScalarString(rule["expr"])
    yaml = YAML()
    yaml.width = _WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = StringIO()
    yaml.dump(found, out)
    return out.getvalue()
