"""The platform's namespace, and what Pod Security demands in it."""

import pytest

from deploy.namespaces import lacks, wanted
from mlplatform.errors import SettingsError


def test_pods_that_are_not_restricted_are_refused_and_warned_of() -> None:
    labels = wanted("mlplatform")["metadata"]["labels"]

    assert {"restricted"} == {
        labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")
    }


def test_a_namespace_as_it_was_made_lacks_nothing() -> None:
    assert () == lacks(wanted("mlplatform"))


def test_a_label_that_somebody_weakened_is_lacking() -> None:
    weak = wanted("mlplatform")
    weak["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "baseline"

    assert ("pod-security.kubernetes.io/enforce=restricted",) == lacks(weak)


def test_a_namespace_without_labels_lacks_them_all() -> None:
    assert 5 == len(lacks({"metadata": {"name": "own"}}))


@pytest.mark.parametrize("name", ["default", "kube-system"])
def test_the_clusters_own_namespaces_are_not_taken(name: str) -> None:
    with pytest.raises(SettingsError, match=f"the namespace {name} belongs to the cluster"):
        wanted(name)
