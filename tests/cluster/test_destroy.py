"""The end: what the commands made, they remove."""

from mlplatform.clients.kubernetes import NAMESPACES, Cluster
from tests.cluster.installation import NAMESPACE, Installation

_EVERYWHERE = (
    "crd,clusterrole,clusterrolebinding,priorityclass,validatingadmissionpolicy,"
    "validatingadmissionpolicybinding"
)


def test_destroying_the_platform_leaves_nothing(platform: Installation, cluster: Cluster) -> None:
    platform.command("destroy", "--yes")

    assert cluster.find(NAMESPACES, NAMESPACE) is None
    of_ours = ("-l", "app.kubernetes.io/part-of=mlplatform", "-o", "name")
    assert "" == platform.kubectl("get", _EVERYWHERE, *of_ours).strip()
