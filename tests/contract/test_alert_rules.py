"""The alerts are a promise: derived from the spec, measured by what is exposed, and explained."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from feature_repo import catalog, layout
from mlplatform.contracts import UseCase
from mlplatform.settings import CONCERNS
from monitoring.alert_rules.rule import SEVERITIES, duration
from monitoring.alerts import cluster_rules, cluster_text, rules, text
from monitoring.gauges import METRICS

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden" / "alerts.yaml"
CLUSTER_GOLDEN = GOLDEN.with_name("cluster_alerts.yaml")
USECASE = "flight_delay"
SPEC = catalog.spec(USECASE)

Values = dict[str, Any]


@cache
def ttls() -> dict[str, float]:
    views = [view for group in layout.load(USECASE).groups for view in group.views]
    return {view.name: view.ttl_seconds for view in views if view.ttl_seconds}


def golden() -> str:
    """The rules of the reference use case, as they are derived now."""
    return text(SPEC, ttls())


def found(spec: UseCase = SPEC) -> list[dict[str, Any]]:
    return [rule for group in rules(spec, ttls())["groups"] for rule in group["rules"]]


def of_cluster() -> list[dict[str, Any]]:
    return [rule for group in cluster_rules()["groups"] for rule in group["rules"]]


def alerts(spec: UseCase = SPEC) -> list[dict[str, Any]]:
    return [rule for rule in found(spec) if "alert" in rule] + of_cluster()


def selectors(expr: str) -> Iterator[tuple[str, dict[str, tuple[str, str]]]]:
    """Each metric that an expression names, with its matchers: label → operator and value."""
    for name, inside in re.findall(r"([a-z_:][a-z0-9_:]*)\{([^}]*)\}", expr):
        matchers = re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', inside)
        yield name, {label: (operator, value) for label, operator, value in matchers}


def test_the_rules_are_those_of_the_golden_file() -> None:
    assert GOLDEN.read_text() == golden(), "make golden, then review"
    assert CLUSTER_GOLDEN.read_text() == cluster_text(), "make golden, then review"


def test_every_alert_has_a_rule_and_every_rule_a_severity() -> None:
    named = {rule["alert"]: rule["labels"]["severity"] for rule in alerts()}

    assert dict(SEVERITIES) == named


def test_every_alert_has_a_section_in_the_runbooks_and_every_section_an_alert() -> None:
    document = (ROOT / "docs" / "operations.md").read_text()
    sections = re.findall(r"^### ([A-Z]\w+)$", document, re.MULTILINE)
    links = {rule["annotations"]["runbook_url"] for rule in alerts()}

    assert sorted(SEVERITIES) == sorted(sections)
    assert {f"docs/operations.md#{name.lower()}" for name in sections} == links


def test_the_runbooks_say_how_severe_an_alert_is() -> None:
    document = (ROOT / "docs" / "operations.md").read_text()
    said = dict(re.findall(r"^### ([A-Z]\w+)\n(\w+) ·", document, re.MULTILINE))

    assert dict(SEVERITIES) == said


def test_the_runbooks_name_commands_and_settings_that_exist() -> None:
    document = (ROOT / "docs" / "operations.md").read_text()
    modules = set(re.findall(r"python -m ([a-z][\w.]*)", document))
    orders = set(re.findall(r"python -m monitoring ([a-z|]+)", document))
    shown = subprocess.run(
        [sys.executable, "-m", "monitoring", "--help"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    known = re.search(r"\{([a-z,]+)\}", shown)
    variables = {concern.variable(name) for concern in CONCERNS for name in concern.model_fields}

    assert [] == [name for name in modules if find_spec(f"{name}.__main__") is None]
    assert known is not None
    assert set() == {one for order in orders for one in order.split("|")} - set(known[1].split(","))
    assert set() == set(re.findall(r"MLPLATFORM_[A-Z_]+", document)) - variables


def test_the_runbooks_name_targets_of_the_makefile() -> None:
    document = (ROOT / "docs" / "operations.md").read_text()
    named = set(re.findall(r"`make ([a-z-]+)", document))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert named
    assert set() == named - targets


def change(section: str, **values: Any) -> Callable[[], UseCase]:
    def changed() -> UseCase:
        part = getattr(SPEC, section).model_copy(update=values)
        return SPEC.model_copy(update={section: part})

    return changed


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        pytest.param(
            change("serving", availability=0.99),
            {"ErrorBudgetBurnsFast", "ErrorBudgetBurns", "InferenceFails"},
            id="availability",
        ),
        pytest.param(
            change(
                "serving",
                latency_ms=SPEC.serving.latency_ms.model_copy(
                    update={"features": 20.0, "total": 60.0}
                ),
            ),
            {"LatencyOverBudget", "recorded"},
            id="latency",
        ),
        pytest.param(
            change("serving", latency_ms=SPEC.serving.latency_ms.model_copy(update={"queue": 0.0})),
            {"InferenceQueues", "LatencyOverBudget"},
            id="no queue",
        ),
        pytest.param(change("serving", peak_qps=50.0), {"PredictionLogQueues"}, id="peak traffic"),
        pytest.param(change("serving", required_views=()), {"FeatureViewStale"}, id="views"),
        pytest.param(
            change("rollout", guardrails=SPEC.rollout.guardrails[1:]),
            {"RulesAnswer", "AnswersDegraded", "FeatureViewStale"},
            id="fallback margin",
        ),
        pytest.param(change("rollout", deadline_hours=48.0), {"RetrainingStuck"}, id="deadline"),
        pytest.param(
            change("monitoring", window_hours=6.0),
            {"MonitorDidNotRun", "LabelsMissing", "RetrainingRefused", "RetrainingStuck"},
            id="window",
        ),
        pytest.param(
            change("monitoring", stop_after_no_gain=5), {"RetrainingWithoutGain"}, id="no gain"
        ),
        pytest.param(change("label", delay_hours=96.0), {"LabelsMissing"}, id="label delay"),
    ],
)
def test_what_the_spec_says_is_what_the_rules_watch(
    changed: Callable[[], UseCase], names: set[str]
) -> None:
    def by_name(spec: UseCase) -> dict[str, list[tuple[str, str]]]:
        pairs: dict[str, list[tuple[str, str]]] = {}
        for rule in found(spec):
            name = rule.get("alert", "recorded")
            pairs.setdefault(name, []).append((rule["expr"], rule.get("for", "")))
        return pairs

    before, after = by_name(SPEC), by_name(changed())
    differ = {name for name in before | after if before.get(name) != after.get(name)}

    assert names == differ


def test_what_is_said_of_the_monitor_is_what_it_exposes() -> None:
    recorded = {rule["record"] for rule in found() if "record" in rule}
    wrong = []
    for rule in found():
        for name, matchers in selectors(rule["expr"]):
            if name.startswith(("mlplatform_gateway_", "nv_")) or name in recorded:
                continue  # tests/unit/serving/gateway/test_alert_metrics.py scrapes these
            labels = {"usecase", *METRICS[name.removeprefix("mlplatform_")][1]}
            wrong += [(rule["alert"], name, label) for label in set(matchers) - labels]

    assert [] == wrong


def test_every_selector_names_its_use_case_or_model() -> None:
    for rule in found():
        for name, matchers in selectors(rule["expr"]):
            label = "model" if name.startswith("nv_") else "usecase"
            assert ("=", USECASE) == matchers.get(label), (rule, name)


def test_every_expression_is_promql() -> None:
    promql_parser = pytest.importorskip("promql_parser", reason="the dependency group dev has it")

    for rule in found() + of_cluster():
        promql_parser.parse(rule["expr"])


def test_a_clusters_rules_read_what_clusters_have_and_name_the_platforms_own_objects() -> None:
    wrong = []
    for rule in of_cluster():
        for name, matchers in selectors(rule["expr"]):
            names = [value for _, value in matchers.values()]
            known = name.startswith(("kube_", "kubelet_volume_stats_"))
            if not known or not any(
                "mlplatform-" in value or "mlplatform|" in value for value in names
            ):
                wrong.append((rule["alert"], name))

    assert [] == wrong
    assert all("usecase" not in rule["labels"] for rule in of_cluster())


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0s"), (90, "90s"), (300, "5m"), (5400, "90m"), (86400, "1d")]
)
def test_durations_are_written_as_prometheus_reads_them(seconds: int, shown: str) -> None:
    assert shown == duration(timedelta(seconds=seconds))
