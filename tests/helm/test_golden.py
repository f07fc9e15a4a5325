"""What a profile installs is a promise: what changes in it is reviewed as a difference of files."""

from pathlib import Path

import pytest
import yaml

from tests.helm.chart import CHART, PROFILES, needs_helm, render
from tests.helm.golden.text import alert_rules, text

pytestmark = needs_helm
GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_renders_to_its_golden_file(profile: str) -> None:
    expected = (GOLDEN / f"{profile}.yaml").read_text(encoding="utf-8")

    assert expected == text(profile), "python -m tests.helm.golden, then review"


def test_rendering_twice_gives_the_same_objects() -> None:
    first = render("full")
    second = render("full", {"settings": {}})  # other values to the cache, the same to Helm

    assert first == second


def test_the_alert_rules_in_the_chart_are_those_of_the_specs() -> None:
    for path, rules in alert_rules().items():
        assert path.read_text(encoding="utf-8") == rules, "python -m tests.helm.golden, then review"


def test_every_label_that_is_fixed_is_on_every_object() -> None:
    for found in render("full"):
        labels = found["metadata"]["labels"]

        assert labels["app.kubernetes.io/part-of"] == "mlplatform", found["metadata"]["name"]
        assert labels["app.kubernetes.io/component"], found["metadata"]["name"]
        assert labels["helm.sh/chart"] == f"mlplatform-{version()}", found["metadata"]["name"]


def version() -> str:
    return str(yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["version"])
