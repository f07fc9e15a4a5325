"""Rules on what answers requests: the gateways, the model servers, the prediction log."""

from datetime import timedelta
from typing import Final

from mlplatform.contracts import UseCase
from monitoring.alert_rules.rule import FEW, Recording, Rule, tolerated

_BURNS: Final = (
    ("ErrorBudgetBurnsFast", 14.4, 1, "5m", "1h"),  # 2 % of 30 days in an hour
    ("ErrorBudgetBurns", 6, 6, "30m", "6h"),  # 5 % of 30 days in six hours
)
"""Name, rate, hours of the long window, both windows: Google, The Site Reliability Workbook,
chapter 5, "Multiwindow, Multi-Burn-Rate Alerts"."""
_BAD: Final = "mlplatform:bad_requests"
_MEASURED: Final = 100
"""Requests in ten minutes from which a p99 is more than its slowest request."""
_SHED: Final = 0.1
"""Share of shadow requests given up, from which a rollout waits noticeably longer for its pairs."""
_QUEUE_SECONDS: Final = 10
"""Of peak traffic in one gateway's memory: rows leave it within 10 ms when the log is well."""
_QUEUE_ROWS: Final = 5000
"""Half of what a gateway holds before it spills, for more traffic than that."""
_MINUTE: Final = timedelta(minutes=1)


def rules(spec: UseCase) -> tuple[Rule, ...]:
    """Return the rules."""
    return (*_availability(spec), *_latency(spec), *_answers(spec), *_routes(spec), *_log(spec))


def recordings(spec: UseCase) -> tuple[Recording, ...]:
    """Return what the rules on the error budget are made of: bad requests, and their share.

    Bad are those that failed inside, and those that took longer than the hops' budget; what
    callers did wrong counts neither as good nor as bad.
    """
    us, found = f'usecase="{spec.name}"', []
    asked, timed = "mlplatform_gateway_requests_total", "mlplatform_gateway_seconds"
    for over in dict.fromkeys(window for *_, short, long in _BURNS for window in (short, long)):
        # A sum of nothing is nothing, and so would be all that it is added to.
        bad = (
            f'(sum(rate({asked}{{{us},status=~"5.."}}[{over}])) or vector(0))\n'
            f'+ (sum(rate({timed}_count{{{us},hop="total"}}[{over}]))\n'
            f'- sum(rate({timed}_bucket{{{us},hop="total",le="{_inside(spec)}"}}[{over}])) '
            "or vector(0))"
        )
        good = f'sum(rate({asked}{{{us},status!~"4.."}}[{over}]))'
        found.append(Recording(f"{_BAD}:rate{over}", bad))
        found.append(Recording(f"{_BAD}:share{over}", f"{_BAD}:rate{over}{{{us}}}\n/ on() {good}"))
    return tuple(found)


def _availability(spec: UseCase) -> list[Rule]:
    us, wanted = f'usecase="{spec.name}"', spec.serving.availability
    return [
        Rule(
            name,
            f"{_BAD}:share{long}{{{us}}} > {burn} * (1 - {wanted})\n"
            f"and {_BAD}:share{short}{{{us}}} > {burn} * (1 - {wanted})\n"
            f"and {_BAD}:rate{long}{{{us}}} * {hours} * 3600 >= {FEW}",
            f"the error budget burns {burn} times too fast",
            f"{{{{ $value | humanizePercentage }}}} of the requests of {long} failed or took more "
            f"than {_inside(spec)} s; a share of {wanted:.10g} must not.",
        )
        for name, burn, hours, short, long in _BURNS
    ]


def _inside(spec: UseCase) -> str:
    """Return the budget of all hops of the gateway, seconds: a bound of its histogram."""
    return _seconds(spec.serving.latency_ms.total - spec.serving.latency_ms.network)


def _seconds(milliseconds: float) -> str:
    return str(round(milliseconds, 6) / 1000)


def _latency(spec: UseCase) -> list[Rule]:
    us, budget = f'usecase="{spec.name}"', spec.serving.latency_ms
    hops = {
        "total": budget.total - budget.network,
        "features": budget.features,
        "inference": budget.queue + budget.inference,
        "decision": budget.decision,
    }
    found = []
    for hop, milliseconds in hops.items():
        seconds = _seconds(milliseconds)
        timed = f'mlplatform_gateway_seconds_%s{{{us},hop="{hop}"}}[10m]'
        found.append(
            Rule(
                "LatencyOverBudget",
                f"histogram_quantile(0.99, sum by (le) (rate({timed % 'bucket'}))) > {seconds}\n"
                f"and sum(increase({timed % 'count'})) >= {_MEASURED}",
                f"p99 of the hop {hop} is over its budget",
                "{{ $value | humanizeDuration }}, and the spec allows " + f"{seconds} s.",
                lasts=10 * _MINUTE,
                labels={"hop": hop},
            )
        )
    if budget.queue:
        of_model = f'{{model="{spec.name}"}}[10m]'
        found.append(
            Rule(
                "InferenceQueues",
                f"sum(rate(nv_inference_queue_duration_us{of_model}))\n"
                f"/ sum(rate(nv_inference_request_success{of_model})) > {budget.queue:.10g} * 1000",
                "requests wait too long in the model server",
                "{{ $value | humanize }} us on average, and the spec allows "
                f"{budget.queue:.10g} ms.",
                lasts=10 * _MINUTE,
            )
        )
    return found


def _answers(spec: UseCase) -> list[Rule]:
    us, bound = f'usecase="{spec.name}"', tolerated(spec)
    rows, shadows = "mlplatform_gateway_rows_total", "mlplatform_gateway_shadow_shed_total"

    def of(outcome: str) -> str:
        bad = f'{rows}{{{us},arm!="shadow",outcome="{outcome}"}}[10m]'
        return (
            f'sum(rate({bad}))\n/ sum(rate({rows}{{{us},arm!="shadow"}}[10m])) > {bound}\n'
            f"and sum(increase({bad})) >= {FEW}"
        )

    failed = f'nv_inference_request_%s{{model="{spec.name}"}}[10m]'
    return [
        Rule(
            "RulesAnswer",
            of("fallback"),
            "the rules answer instead of the model",
            f"{{{{ $value | humanizePercentage }}}} of the rows; {bound:.10g} is tolerated.",
            lasts=5 * _MINUTE,
        ),
        Rule(
            "AnswersDegraded",
            of("degraded"),
            "the model answers without required features",
            f"{{{{ $value | humanizePercentage }}}} of the rows; {bound:.10g} is tolerated.",
            lasts=10 * _MINUTE,
        ),
        Rule(
            "InferenceFails",
            f"sum(rate({failed % 'failure'}))\n/ (sum(rate({failed % 'failure'})) + "
            f"sum(rate({failed % 'success'}))) > 1 - {spec.serving.availability}\n"
            f"and sum(increase({failed % 'failure'})) >= {FEW}",
            "the model server refuses requests",
            "{{ $value | humanizePercentage }} of them.",
            lasts=5 * _MINUTE,
        ),
        Rule(
            "BreakerOpen",
            f"max by (dependency) (mlplatform_gateway_breaker{{{us}}}) == 2",
            "a gateway has stopped asking {{ $labels.dependency }}",
            "It has failed too often; the gateway tries it again by itself.",
            lasts=2 * _MINUTE,
        ),
        Rule(
            "ShadowShed",
            f"sum(rate({shadows}{{{us}}}[30m]))\n/ (sum(rate({shadows}{{{us}}}[30m])) + "
            f'sum(rate({rows}{{{us},arm="shadow"}}[30m]))) > {_SHED}\n'
            f"and sum(increase({shadows}{{{us}}}[30m])) >= {FEW}",
            "shadow requests are given up under load",
            "{{ $value | humanizePercentage }} of them: the rollout waits for its evidence.",
            lasts=30 * _MINUTE,
        ),
    ]


def _routes(spec: UseCase) -> list[Rule]:
    us = f'usecase="{spec.name}"'
    epoch = f"mlplatform_gateway_route_epoch{{{us}}}"
    asked = f"mlplatform_gateway_requests_total{{{us}}}"
    return [
        Rule(
            "NothingServes",
            f"absent({epoch}) or max({epoch}) == 0",
            "no gateway follows a route",
            "Gateways are down, cannot be scraped, or there is no route: the rules answer, or "
            "nobody does.",
            lasts=5 * _MINUTE,
        ),
        Rule(
            "RoutesDiffer",
            f"max({epoch}) - min({epoch}) > 0",
            "gateways follow different routes",
            "{{ $value | humanize }} epochs apart: the rollout waits, and entities change arms.",
            lasts=5 * _MINUTE,
        ),
        Rule(
            "NoTraffic",
            f"sum(increase({asked}[30m])) == 0\nand sum(increase({asked}[30m] offset 1w)) >= {FEW}",
            "nobody asks",
            "No request for 30 minutes; a week ago there were some at this time.",
        ),
    ]


def _log(spec: UseCase) -> list[Rule]:
    us = f'usecase="{spec.name}"'
    kept = f'mlplatform_gateway_log_rows_total{{{us},state="%s"}}[%s]'
    most = min(spec.serving.peak_qps * _QUEUE_SECONDS, _QUEUE_ROWS)
    return [
        Rule(
            "PredictionLogDrops",
            f"sum(increase({kept % ('dropped', '10m')})) > 0",
            "rows of the prediction log are lost",
            "{{ $value | humanize }} rows in ten minutes: Redis is away and the disk is full.",
        ),
        Rule(
            "PredictionLogSpills",
            f"sum(increase({kept % ('spilled', '15m')})) > 0",
            "the prediction log goes to disk",
            "{{ $value | humanize }} rows in 15 minutes; they are kept and will be replayed.",
            lasts=15 * _MINUTE,
        ),
        Rule(
            "PredictionLogQueues",
            f"max by (instance) (mlplatform_gateway_log_queued_rows{{{us}}}) > {most:.10g}",
            "rows of the prediction log wait in memory",
            "{{ $value | humanize }} rows in one gateway, which are lost if it is killed.",
            lasts=2 * _MINUTE,
        ),
    ]
