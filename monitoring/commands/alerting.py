"""Alert rules for Prometheus, and the metrics of the monitor itself."""

import argparse
import sys
import threading
from pathlib import Path

from feature_repo import catalog, layout
from mlplatform.settings import ArchiveSettings, LedgerSettings, MonitoringSettings
from monitoring import alerts
from monitoring.exporter import Exporter, serve, sources


def rules(options: argparse.Namespace, stop: threading.Event) -> int:
    """Print the alert rules that follow from a spec, or a cluster's, or write them to a file."""
    del stop
    text = alerts.cluster_text() if options.cluster else _of_usecase(options.usecase)
    if options.out is None:
        sys.stdout.write(text)
    else:
        options.out.write_text(text, encoding="utf-8")
    return 0


def _of_usecase(name: str) -> str:
    views = layout.load(name).views
    ttls = {view.name: view.ttl_seconds for view in views if view.ttl_seconds is not None}
    return alerts.text(catalog.spec(name), ttls)


def metrics(options: argparse.Namespace, stop: threading.Event) -> int:
    """Serve what is known to Prometheus, until `stop` is set."""
    settings, names = MonitoringSettings.load(), options.usecase
    archive, ledger_url = Path(ArchiveSettings.load().root), LedgerSettings.load().url
    for name in names:
        catalog.spec(name)  # an unknown name is an error now, and not an empty page
    found = {name: sources(name, ledger_url, settings.root, archive) for name in names}
    host = options.host or settings.metrics_host
    port = settings.metrics_port if options.port is None else options.port
    with serve(Exporter(found), host, port) as bound:
        sys.stdout.write(f"metrics of {', '.join(names)} at http://{host}:{bound}/metrics\n")
        sys.stdout.flush()
        stop.wait()
    return 0
