"""What each account may do, asked of the API server for every verb on every resource."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import yaml

from mlplatform.clients.kubernetes import Cluster, Kind
from tests.cluster.chart_namespace import applied, restricted_namespace
from tests.helm.chart import PROFILES, Object, needs_helm, of_kind, render

pytestmark = needs_helm

REVIEWS: Final = Kind("authorization.k8s.io/v1", "subjectaccessreviews", namespaced=False)
VERBS: Final = (
    "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection",
)  # fmt: skip
SUBRESOURCES: Final = {
    "pods": ("log", "exec", "attach", "portforward", "ephemeralcontainers", "eviction", "binding"),
    "serviceaccounts": ("token",),
    "apps/deployments": ("scale", "status"),
    "apps/statefulsets": ("scale",),
    "nodes": ("proxy",),
    "services": ("proxy",),
    "mlplatform.dev/modelrollouts": ("status",),
}
"""Ways around: each does what its resource alone does not show."""
POWERS: Final = (
    ("impersonate", "users"), ("impersonate", "groups"), ("impersonate", "serviceaccounts"),
    ("bind", "rbac.authorization.k8s.io/roles"), ("escalate", "rbac.authorization.k8s.io/roles"),
    ("bind", "rbac.authorization.k8s.io/clusterroles"),
    ("escalate", "rbac.authorization.k8s.io/clusterroles"),
    ("approve", "certificates.k8s.io/signers"), ("sign", "certificates.k8s.io/signers"),
)  # fmt: skip
LEFT: Final = ("ray.io/rayjobs", "batch/jobs")
"""Resources that are asked for although this cluster may not know them."""
TABLE: Final[dict[str, dict[str, dict[str, list[str]]]]] = yaml.safe_load(
    (Path(__file__).parent / "rbac.yaml").read_text(encoding="utf-8")
)


class Right(NamedTuple):
    """Something that an account may do."""

    resource: str
    """As in the table: group/resource/subresource."""
    where: str
    """Empty: in the namespace; `everywhere`, or the name of the one object."""
    verb: str


def rights(table: Mapping[str, Iterable[str]]) -> set[Right]:
    found = set()
    for line, verbs in table.items():
        resource, _, where = line.partition(" ")
        found |= {Right(resource, where, verb) for verb in verbs}
    return found


def expected(profile: str, account: str) -> set[Right]:
    found = rights(TABLE["everybody"])
    for section in ("always", profile):
        found |= rights(TABLE[section].get(account, {}))
    # What holds everywhere holds in the namespace as well.
    return found | {right._replace(where="") for right in found if right.where == "everywhere"}


def asked(cluster: Cluster, objects: list[Object]) -> list[Right]:
    """Return all that is asked for: all kinds of this cluster, and all names of the chart."""
    resources = {_name(kind) for kind in cluster.kinds()} | {*LEFT}
    resources |= {resource for _, resource in POWERS}
    resources |= {f"{name}/{sub}" for name, subs in SUBRESOURCES.items() for sub in subs}
    resources |= {
        line.partition(" ")[0]
        for section in ("always", *PROFILES)
        for table in TABLE[section].values()
        for line in table
    }
    resources |= {line.partition(" ")[0] for line in TABLE["everybody"]}
    names = {
        (_of(rule, resource), name)
        for role in of_kind(objects, "Role").values()
        for rule in role["rules"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [])
    }
    places = [(resource, where) for resource in sorted(resources) for where in ("", "everywhere")]
    return [
        *(Right(resource, where, verb) for resource, where in places for verb in VERBS),
        *(
            Right(resource, where, verb)
            for verb, resource in POWERS
            for where in ("", "everywhere")
        ),
        *(Right(resource, name, verb) for resource, name in sorted(names) for verb in VERBS),
    ]


def _name(kind: Kind) -> str:
    group, _, _ = kind.version.rpartition("/")
    return f"{group}/{kind.plural}".lstrip("/")


def _of(rule: Any, resource: str) -> str:
    return f"{rule['apiGroups'][0]}/{resource}".lstrip("/")


def _is_name(right: Right) -> bool:
    """Whether it is about one object; what may be done to all is no news about one."""
    return right.where not in {"", "everywhere"}


def allowed(cluster: Cluster, account: str, right: Right) -> bool:
    parts = right.resource.split("/")
    group = parts.pop(0) if "." in parts[0] or parts[0] in {"apps", "batch"} else ""
    attributes = {
        "verb": right.verb,
        "group": group,
        "resource": parts[0],
        "subresource": parts[1] if len(parts) > 1 else "",
        "namespace": "" if right.where == "everywhere" else cluster.namespace,
        "name": "" if right.where == "everywhere" else right.where,
    }
    accounts = f"system:serviceaccounts:{cluster.namespace}"
    body = {
        "apiVersion": REVIEWS.version,
        "kind": "SubjectAccessReview",
        "metadata": {},
        "spec": {
            "user": f"system:serviceaccount:{cluster.namespace}:{account}",
            "groups": ["system:serviceaccounts", accounts, "system:authenticated"],
            "resourceAttributes": attributes,
        },
    }
    return bool(cluster.create(REVIEWS, body)["status"]["allowed"])


@pytest.fixture(scope="module", params=PROFILES)
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def objects(profile: str, namespace: Cluster) -> list[Object]:
    return render(profile, namespace=namespace.namespace)


@pytest.fixture(scope="module")
def namespace(profile: str) -> Iterator[Cluster]:
    """With the accounts and roles of a profile."""
    with restricted_namespace() as cluster:
        made = render(profile, namespace=cluster.namespace)
        kinds = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
        applied(cluster, made, *kinds)
        yield cluster


def test_every_account_may_do_what_the_table_says_and_nothing_else(
    profile: str, namespace: Cluster, objects: list[Object]
) -> None:
    accounts = sorted(of_kind(objects, "ServiceAccount"))
    questions = asked(namespace, objects)
    # Beside minimal, only those whose rights differ; the rest has none in any profile.
    swept = [one for one in accounts if profile == "minimal" or TABLE[profile].get(one)]
    wrong = {}
    with ThreadPoolExecutor(4) as pool:
        for account in swept:
            answers = pool.map(lambda right, who=account: allowed(namespace, who, right), questions)
            granted = {right for right, yes in zip(questions, answers, strict=True) if yes}
            granted -= {
                one for one in granted if _is_name(one) and one._replace(where="") in granted
            }
            if granted != (wanted := expected(profile, account)):
                wrong[account] = {"more": granted - wanted, "less": wanted - granted}

    assert {} == wrong
    assert {*TABLE["always"]} == {*accounts}


def test_nobody_reads_secrets_or_enters_pods(namespace: Cluster, objects: list[Object]) -> None:
    """What the table must never come to say."""
    for account in of_kind(objects, "ServiceAccount"):
        for verb, resource in (("get", "secrets"), ("list", "secrets"), ("create", "pods/exec")):
            assert not allowed(namespace, account, Right(resource, "", verb)), account


def test_no_rule_of_the_chart_has_a_wildcard(objects: list[Object]) -> None:
    for kind in ("Role", "ClusterRole"):
        for role in of_kind(objects, kind).values():
            for rule in role["rules"]:
                assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
