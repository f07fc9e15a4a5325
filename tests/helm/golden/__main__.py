"""Write the golden renders anew: `python -m tests.helm.golden`; review the difference."""

from pathlib import Path

from tests.helm.chart import PROFILES
from tests.helm.golden.text import text

if __name__ == "__main__":
    for name in PROFILES:
        Path(__file__).with_name(f"{name}.yaml").write_text(text(name), encoding="utf-8")
