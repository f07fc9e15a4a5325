"""Rewrite the golden files: `make golden`. Review the difference before you commit it."""

from pathlib import Path
from tempfile import TemporaryDirectory

from monitoring.alerts import cluster_text
from tests.contract import test_alert_rules
from tests.contract.test_compiled_pipelines import CASES, GOLDEN, compiled

if __name__ == "__main__":
    for case in CASES:
        with TemporaryDirectory() as folder:
            (GOLDEN / f"{case}.yaml").write_text(compiled(Path(folder), case))
    test_alert_rules.GOLDEN.write_text(test_alert_rules.golden())
    test_alert_rules.CLUSTER_GOLDEN.write_text(cluster_text())
