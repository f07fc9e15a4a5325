"""What an upgrade would change, as people read it."""

from typing import Any

import pytest

from deploy.differences import differences, masked, merge_patch

BEFORE = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: mlplatform-gateway, labels: {helm.sh/chart: mlplatform-0.1.0}}
spec: {replicas: 2}
---
apiVersion: v1
kind: Service
metadata: {name: old}
"""
AFTER = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: mlplatform-gateway, labels: {helm.sh/chart: mlplatform-0.2.0}}
spec: {replicas: 3}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: new}
"""


def test_equal_manifests_do_not_differ() -> None:
    assert [] == differences(BEFORE, BEFORE)


def test_each_object_is_made_changed_or_removed() -> None:
    found = {d.name: d.change for d in differences(BEFORE, AFTER)}

    assert {
        "Deployment/mlplatform-gateway": "changed",
        "ConfigMap/new": "made",
        "Service/old": "removed",
    } == found


def test_a_change_is_shown_as_lines() -> None:
    (diff,) = [d.diff for d in differences(BEFORE, AFTER) if d.change == "changed"]

    assert "-  replicas: 2" in diff
    assert "+  replicas: 3" in diff


def test_a_new_version_of_the_chart_alone_changes_no_object() -> None:
    assert [] == differences(BEFORE, BEFORE.replace("mlplatform-0.1.0", "mlplatform-0.2.0"))


def test_all_is_made_where_nothing_was() -> None:
    assert {"made"} == {d.change for d in differences("", AFTER)}


def test_values_of_a_secret_are_never_shown() -> None:
    before = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {key: c2VjcmV0}\n"
    after = before.replace("key: c2VjcmV0", "key: c2VjcmV0, other: aGlkZGVu")

    (found,) = differences(before, after)

    assert "c2VjcmV0" not in found.diff
    assert "aGlkZGVu" not in found.diff
    assert "+  other: (hidden)" in found.diff


def test_masking_leaves_the_names() -> None:
    assert {"kind": "Secret", "data": {"key": "(hidden)"}} == masked(
        {"kind": "Secret", "data": {"key": "x"}}
    )


@pytest.mark.parametrize(
    ("before", "after", "patch"),
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": 1, "b": 2}, {"a": 1}, {"b": None}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, {"a": {"c": 3}}),
        ({"a": [1, 2]}, {"a": [1]}, {"a": [1]}),
        ({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": None}, {"a": None}, {}),
        ({}, {"a": {}}, {"a": {}}),
    ],
)
def test_only_what_differs_is_in_the_patch(
    before: dict[str, Any], after: dict[str, Any], patch: dict[str, Any]
) -> None:
    assert patch == merge_patch(before, after)
