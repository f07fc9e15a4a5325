"""Rules on what Kubernetes runs of the platform: for a cluster, whichever use cases it serves.

They are measured by kube-state-metrics and the kubelets, which every Prometheus for clusters has.
Names of objects are fixed, so the rules hold in each namespace with a platform, and name it. What
the platform itself exposes is watched by the other rules, in a cluster and out of it.
"""

from datetime import timedelta
from typing import Final

from monitoring.alert_rules.rule import Rule

_MINUTE: Final = timedelta(minutes=1)
_UNLED_SECONDS: Final = 60
"""Without a renewal of the operator's lease: it lasts 15 s, and a replica that waits takes it."""
_FREE: Final = 0.15
"""Of a volume: what grows by itself, the archive, takes weeks to fill the rest of 10 GiB."""
_RESTARTS: Final = 3
"""Of one container in an hour: a node that is drained, or a limit that was hit once, is fewer."""
_OURS: Final = 'pod=~"(mlplatform|triton|training)-.*"'
_CLAIMS: Final = 'persistentvolumeclaim=~"(data-)?mlplatform-.*"'


def rules() -> tuple[Rule, ...]:
    """Return the rules."""
    return (*_operator(), *_workloads(), *_jobs(), *_volumes())


def _operator() -> list[Rule]:
    lease = 'kube_lease_renew_time{lease="mlplatform-operator"}'
    return [
        Rule(
            "NobodyDrivesRollouts",
            f"time() - max by (namespace) ({lease}) > {_UNLED_SECONDS}",
            "no operator holds the lease",
            "For {{ $value | humanizeDuration }}: a new version that does harm is not rolled "
            "back, and a model server that has to be made is not made.",
            lasts=5 * _MINUTE,
        )
    ]


def _workloads() -> list[Rule]:
    deployment, stateful = 'deployment=~"(mlplatform|triton)-.*"', 'statefulset=~"mlplatform-.*"'
    restarts = f"kube_pod_container_status_restarts_total{{{_OURS}}}"
    return [
        Rule(
            "WorkloadNotReady",
            f"kube_deployment_status_replicas_available{{{deployment}}}\n"
            f"< kube_deployment_spec_replicas{{{deployment}}}\n"
            f"or kube_statefulset_status_replicas_ready{{{stateful}}}\n"
            f"< kube_statefulset_replicas{{{stateful}}}",
            "{{ $labels.deployment }}{{ $labels.statefulset }} lacks pods",
            "{{ $value }} are ready, which is fewer than are wanted.",
            lasts=15 * _MINUTE,
        ),
        Rule(
            "ContainerRestarts",
            f"increase({restarts}[1h]) > {_RESTARTS}",
            "{{ $labels.container }} in {{ $labels.pod }} ends again and again",
            "{{ $value | humanize }} restarts in an hour: its last log says why.",
        ),
    ]


def _jobs() -> list[Rule]:
    once = 'job_name=~"mlplatform-(registry-setup|materialize|judge)-.*"'
    cron_job = '{cronjob="mlplatform-materialize"}'
    return [
        Rule(
            "JobFailed",
            f'kube_job_failed{{{once},condition="true"}} == 1',
            "{{ $labels.job_name }} has failed",
            "It is not tried again; the next one of a schedule does what it left.",
        ),
        Rule(
            "MaterializationLate",
            f"kube_cronjob_status_last_schedule_time{cron_job}\n"
            f"> kube_cronjob_status_last_successful_time{cron_job}",
            "features are not materialized",
            "The newest scheduled run has not succeeded; only what is pushed is at the present.",
            lasts=timedelta(hours=1),
        ),
    ]


def _volumes() -> list[Rule]:
    available = f"kubelet_volume_stats_available_bytes{{{_CLAIMS}}}"
    return [
        Rule(
            "VolumeFills",
            f"{available}\n/ kubelet_volume_stats_capacity_bytes{{{_CLAIMS}}} < {_FREE}",
            "{{ $labels.persistentvolumeclaim }} is nearly full",
            "{{ $value | humanizePercentage }} of it are free.",
            lasts=15 * _MINUTE,
        )
    ]
