"""Write what is made of other files anew: `python -m tests.helm.golden`; review the difference.

The alert rules in the chart follow from the specs, the golden renders from the chart.
"""

from pathlib import Path

from tests.helm.chart import PROFILES
from tests.helm.golden.text import alert_rules, text

if __name__ == "__main__":
    for path, rules in alert_rules().items():
        path.write_text(rules, encoding="utf-8")
    for name in PROFILES:
        Path(__file__).with_name(f"{name}.yaml").write_text(text(name), encoding="utf-8")
