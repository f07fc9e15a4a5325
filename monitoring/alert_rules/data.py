"""Rules on what feeds the model and on what was seen of it, window by window."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from mlplatform.contracts import UseCase
from monitoring.alert_rules.rule import FEW, Rule, duration, tolerated

_OLD: Final = 0.1
"""Of a view's rows, the freshest: where even these are older than the TTL, nothing new comes.
The median would not do: an aircraft that is seldom here has old rows in the best of views."""
_UNLABELLED: Final = 0.1
"""Share of matured requests without a label, from which metrics may be of another population."""
_ARCHIVED: Final = timedelta(minutes=10)
"""The archiver makes a file every few seconds while there are rows."""
_CAUSES: Final[Mapping[str, tuple[str, str, str]]] = {
    "DataFault": (
        "data_fault",
        "a feed is broken",
        "The newest window shows it; the model answers from broken data, and nothing is retrained.",
    ),
    "Skew": (
        "skew",
        "serving computes other features than training",
        "Vectors of the newest window differ from those that training would see.",
    ),
    "InputDrift": (
        "input_drift",
        "the inputs have moved",
        "The trigger asks for a retraining when enough windows agree.",
    ),
    "OutputDrift": (
        "output_drift",
        "the scores have moved, the inputs have not",
        "The trigger asks for a retraining when enough windows agree.",
    ),
    "PerformanceLoss": (
        "performance_loss",
        "the model is worse than registered",
        "On matured labels, by more than the spec accepts.",
    ),
}
"""By alert: the cause, what it is, and what follows."""


def rules(spec: UseCase, ttls: Mapping[str, float]) -> tuple[Rule, ...]:
    """Return the rules.

    Args:
        spec: The use case's.
        ttls: Feature view → seconds from which its rows count as none.
    """
    return (*_views(spec, ttls), *_archive(spec), *_found(spec), *_windows(spec))


def _views(spec: UseCase, ttls: Mapping[str, float]) -> list[Rule]:
    us, bound = f'usecase="{spec.name}"', tolerated(spec)
    found = []
    for view in spec.serving.required_views:
        lacking = f'mlplatform_gateway_reasons_total{{{us},arm!="shadow",reason="stale:{view}"}}'
        rows = f'mlplatform_gateway_rows_total{{{us},arm!="shadow"}}'
        found.append(
            Rule(
                "FeatureViewStale",
                f"sum(rate({lacking}[30m]))\n/ sum(rate({rows}[30m])) > {bound}\n"
                f"and sum(increase({lacking}[30m])) >= {FEW}",
                f"requests find no fresh row of {view}",
                f"{{{{ $value | humanizePercentage }}}} of them; {bound:.10g} is tolerated.",
                lasts=timedelta(minutes=10),
                labels={"view": view, "sign": "lacking"},
            )
        )
    for view, seconds in sorted(ttls.items()):
        age = f'mlplatform_gateway_feature_age_seconds_%s{{{us},view="{view}"}}[1h]'
        found.append(
            Rule(
                "FeatureViewStale",
                f"histogram_quantile({_OLD}, sum by (le) (rate({age % 'bucket'}))) "
                f"> {seconds:.10g}\nand sum(increase({age % 'count'})) >= {FEW}",
                f"nothing new comes to {view}",
                f"{1 - _OLD:.0%} of its rows are older than "
                "{{ $value | humanizeDuration }}; from "
                f"{seconds:.10g} s on they count as none.",
                lasts=timedelta(minutes=10),
                labels={"view": view, "sign": "age"},
            )
        )
    return found


def _archive(spec: UseCase) -> list[Rule]:
    us = f'usecase="{spec.name}"'
    written = f'mlplatform_gateway_log_rows_total{{{us},state="written"}}'
    return [
        Rule(
            "ArchiverBehind",
            f"time() - mlplatform_archive_newest_timestamp_seconds{{{us}}} "
            f"> {_ARCHIVED.total_seconds():.0f}\n"
            f"and on() sum(increase({written}[{duration(_ARCHIVED)}])) > 0",
            "the prediction log is not archived",
            "Rows are written to Redis, and the newest file is {{ $value | humanizeDuration }} "
            "old: monitoring sees nothing newer, and Redis fills.",
            lasts=timedelta(minutes=5),
        )
    ]


def _found(spec: UseCase) -> list[Rule]:
    us = f'usecase="{spec.name}"'
    found = [
        Rule(name, f'mlplatform_monitor_finding{{{us},cause="{cause}"}} == 1', what, then)
        for name, (cause, what, then) in _CAUSES.items()
    ]
    for name, layer in (
        ("InfrastructureTrouble", "infrastructure"),
        ("PipelineTrouble", "pipeline"),
    ):
        found.append(
            Rule(
                name,
                f'mlplatform_monitor_layer_ok{{{us},layer="{layer}"}} == 0',
                f"the {layer} was not well in the newest window",
                "mlplatform_monitor_vital_ok says which sign of life is out of its limit.",
            )
        )
    return found


def _windows(spec: UseCase) -> list[Rule]:
    us = f'usecase="{spec.name}"'
    window = timedelta(hours=spec.monitoring.window_hours)
    delay = timedelta(hours=spec.label.delay_hours)
    ends = f'mlplatform_monitor_window_end_timestamp_seconds{{{us},watch="%s"}}'
    asked = f"sum(increase(mlplatform_gateway_requests_total{{{us}}}[{duration(2 * window)}]))"
    return [
        Rule(
            "MonitorDidNotRun",
            f"time() - max({ends % 'inputs'}) > 2 * {window.total_seconds():.0f}\n"
            f"or absent({ends % 'inputs'}) and on() {asked} >= {FEW}",
            "no window was judged in time",
            "Windows are "
            f"{duration(window)} long, and the newest that was judged ended earlier than "
            "two of them ago, or there is none.",
            lasts=window / 4,
        ),
        Rule(
            "LabelsMissing",
            f"mlplatform_monitor_unlabelled_share{{{us}}} > {_UNLABELLED}\n"
            f"or time() - {ends % 'performance'} > "
            f"{delay.total_seconds():.0f} + 3 * {window.total_seconds():.0f}",
            "labels do not come",
            "A share of matured requests without a label, or the seconds since the end of the "
            f"newest window whose labels came: {{{{ $value | humanize }}}}. Labels may take "
            f"{duration(delay)}.",
            lasts=window / 4,
        ),
    ]
