"""A small complete spec, written to a folder, with any part of its text replaced."""

from collections.abc import Callable
from pathlib import Path

import pytest

SPEC = """\
name: small_case
feature_service: small_case_v1
goal:
  business: Visitors find the exit.
  ml_objective: At each corner, the probability of a wrong turn.
  problem_type: binary_classification
  north_star: pr_auc
  owner: wayfinding
label:
  name: lost
  definition: Turned around within five minutes.
  delay_hours: 20
entities:
  - {name: visitor, keys: [visitor_id]}
  - {name: corner, keys: [floor, corner_id]}
data:
  label_rate: {min: 0.1, max: 0.5}
  tables:
    turns:
      event_time: turned_at
      unique: [visitor_id, turned_at]
      columns:
        visitor_id: {type: string, pattern: "[a-z]+"}
        turned_at: {type: timestamp}
        seen_at: {type: timestamp}
        angle: {type: float, min: -180, max: 180}
      ordered:
        - {low: turned_at, high: seen_at}
split: {validation_days: 7, test_days: 7, gap_hours: 20}
training:
  candidates:
    - kind: logistic_regression
      role: baseline
      trials: 2
      search:
        C: {loguniform: [0.1, 1.0]}
    - kind: lightgbm
      trials: 2
      search:
        num_leaves: {choice: [7, 15]}
      fixed: {min_data_in_leaf: 20}
gates:
  - {kind: improvement, name: better, metric: pr_auc, against: baseline, margin: 0.01}
  - {kind: threshold, name: calibrated, metric: calibration_error, bound: 0.1}
  - {kind: slices, name: fair, metric: pr_auc, against: baseline, margin: 0.05}
slices: {columns: [floor]}
serving:
  latency_ms: {total: 50, network: 10, features: 10, queue: 5, inference: 15, decision: 10}
  peak_qps: 20
  availability: 0.99
rollout:
  assignment_unit: visitor
  shadow_hours: 6
  weights: [0.1, 0.5]
  min_exposure: 100
  guardrails:
    - {metric: error_rate, margin: 0.01}
    - {metric: loss, margin: 0.02}
  rollback_alpha: 0.01
  promotion_alpha: 0.05
  soak_hours: 12
  deadline_hours: 100
monitoring:
  window_hours: 24
  false_alarm_rate: 0.01
  persistence: [2, 3]
  max_metric_loss: {pr_auc: 0.05}
  cooldown_hours: 48
  retrains_per_week: 2
  stop_after_no_gain: 3
  schedule_days: 5
cost: {serving_per_month: 90, training_per_month: 10}
"""

WriteSpec = Callable[..., Path]


@pytest.fixture
def write_spec(tmp_path: Path) -> WriteSpec:
    """Return a function: write the spec with each (old, new) replaced once, return its path."""

    def write(*changes: tuple[str, str], folder: str = "small_case") -> Path:
        text = SPEC
        for old, new in changes:
            assert text.count(old) == 1, f"{old!r} must occur once in the small spec"
            text = text.replace(old, new)
        path = tmp_path / folder / "usecase.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def write_text(tmp_path: Path) -> WriteSpec:
    """Return a function: write any bytes as `usecase.yaml`, return its path."""

    def write(content: bytes) -> Path:
        path = tmp_path / "small_case" / "usecase.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    return write
