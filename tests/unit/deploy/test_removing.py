"""What is left, and why something does not go."""

from deploy.removing import kept_volumes, why_it_stays
from mlplatform.clients.kubernetes import Object


def test_a_namespace_that_stays_says_why() -> None:
    conditions = [
        {"status": "True", "message": "Some resources are remaining: modelrollouts. has 1"},
        {"status": "False", "message": "All resources successfully discovered"},
    ]

    assert "Some resources are remaining: modelrollouts. has 1" == why_it_stays(
        {"status": {"conditions": conditions}}
    )


def test_a_namespace_that_says_nothing_is_said_to() -> None:
    assert "Kubernetes does not say why" == why_it_stays({})


def test_only_volumes_that_outlive_their_claims_are_left() -> None:
    def volume(name: str, namespace: str, policy: str) -> Object:
        spec = {"claimRef": {"namespace": namespace}, "persistentVolumeReclaimPolicy": policy}
        return {"metadata": {"name": name}, "spec": spec}

    volumes: list[Object] = [
        volume("kept", "own", "Retain"),
        volume("going", "own", "Delete"),
        volume("others", "shop", "Retain"),
        {"metadata": {"name": "free"}, "spec": {"persistentVolumeReclaimPolicy": "Retain"}},
    ]

    assert ["kept"] == kept_volumes(volumes, "own")
