"""The objects of a release: where the API keeps each of them."""

from pathlib import Path

import pytest

from deploy.released import kind_of, objects

GOLDEN = sorted((Path(__file__).parents[2] / "helm" / "golden").rglob("*.yaml"))


@pytest.mark.parametrize(
    ("body", "path", "namespaced"),
    [
        ({"apiVersion": "v1", "kind": "Service"}, "/api/v1/services", True),
        ({"apiVersion": "apps/v1", "kind": "StatefulSet"}, "/apis/apps/v1/statefulsets", True),
        (
            {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"},
            "/apis/networking.k8s.io/v1/networkpolicies",
            True,
        ),
        (
            {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass"},
            "/apis/scheduling.k8s.io/v1/priorityclasses",
            False,
        ),
        (
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingAdmissionPolicy",
            },
            "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
            False,
        ),
    ],
)
def test_a_kind_is_found_under_its_plural(
    body: dict[str, str], path: str, namespaced: bool
) -> None:
    kind = kind_of(body)

    assert (path, namespaced) == (f"{kind.root}/{kind.plural}", kind.namespaced)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_objects_of_the_cluster_are_those_without_a_namespace(golden: Path) -> None:
    for body in objects(golden.read_text()):
        if "metadata" not in body:
            continue  # what the file is compared with
        there = body["metadata"].get("namespace") is not None

        assert there == kind_of(body).namespaced, body["kind"]


def test_empty_documents_are_no_objects() -> None:
    assert ["a"] == [body["kind"] for body in objects("---\n---\nkind: a\n---\n# nothing\n")]
