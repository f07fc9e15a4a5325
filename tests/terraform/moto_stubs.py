"""Moto on loopback, with what it does not know yet: the only calls that are stubbed, and why.

Run by the tests in an environment of moto's own (`uv run --with moto[server]`), so that neither the
platform nor its lock knows of it. All other calls reach moto's own models of the services.

| service     | calls                                     | why                                   |
|-------------|-------------------------------------------|---------------------------------------|
| EKS         | add-ons, pod identity associations,       | moto has clusters, node groups and    |
|             | access entries and their policies, the    | Fargate profiles only                 |
|             | security group of a cluster               |                                       |
| ElastiCache | replication groups, parameter and user    | moto keeps no encryption, users or    |
|             | groups, ModifyUser, removing a subnet     | nodes of a replication group; the     |
|             | group                                     | others it does not know               |
| EFS         | the policy of backups                     | moto cannot set it                    |
| EKS, EC2,   | nothing is answered; what was told is put | moto forgets access, updates, Insight |
| RDS         | into moto's models (`moto_models.py`)     | sources and descriptions              |
| Budgets     | tags; who is told of a notification       | moto does not know, or does not tell  |
"""

import argparse
import json
import re
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote

from tests.terraform.moto_elasticache import ACCOUNT, REGION, ElastiCache, MissingError, Reply, arn
from tests.terraform.moto_models import after_eks, after_query, remember_descriptions
from tests.terraform.moto_retries import Remembering


class Eks:
    """What EKS keeps beside clusters and node groups."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str, str], dict[str, Any]] = {}

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Reply | None:
        """Return the answer, or None where moto answers."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts[0] == "tags" and (tagged := self._of(unquote(path[6:]))):
            return _json({"tags": tagged[0].get("tags", {})})
        if len(parts) == 2 and parts[0] == "clusters":
            self._secure(parts[1], going=method == "DELETE")
        if len(parts) < 3 or parts[0] != "clusters":
            return None
        handler = {
            "addons": self._addons,
            "pod-identity-associations": self._identities,
            "access-entries": self._entries,
        }.get(parts[2])
        try:
            return handler(method, parts[1], parts[3:], body) if handler else None
        except MissingError:
            return (
                404,
                "application/json",
                json.dumps({"__type": "ResourceNotFoundException", "message": "No such object"}),
            )

    @staticmethod
    def _secure(name: str, *, going: bool) -> None:
        """Give a cluster the security group that EKS makes for it; it goes with the cluster."""
        from moto.ec2.models import ec2_backends  # type: ignore[import-not-found]
        from moto.eks.models import eks_backends  # type: ignore[import-not-found]

        ec2 = ec2_backends[ACCOUNT][REGION]
        cluster = eks_backends[ACCOUNT][REGION].clusters.get(name)
        if cluster is None:
            return
        kept = cluster.resources_vpc_config
        if not kept.get("clusterSecurityGroupId"):
            network = ec2.get_subnet(kept["subnetIds"][0]).vpc_id
            made = ec2.create_security_group(f"eks-cluster-sg-{name}", "of EKS", network)
            kept["clusterSecurityGroupId"] = made.id
        if going:
            ec2.delete_security_group(group_id=kept["clusterSecurityGroupId"])

    def _of(self, arn: str) -> list[dict[str, Any]]:
        names = ("addonArn", "associationArn", "accessEntryArn")
        return [one for one in self.kept.values() if arn in [one.get(key) for key in names]]

    def _addons(self, method: str, cluster: str, rest: list[str], body: dict[str, Any]) -> Reply:
        if method == "POST" and not rest:
            key = ("addon", cluster, body["addonName"])
            associations = []
            for wanted in body.pop("podIdentityAssociations", []):
                made = self._associate(cluster, {**wanted, "namespace": "kube-system"})
                associations.append(made["associationArn"])
            self.kept[key] = {
                **body,
                "clusterName": cluster,
                "addonArn": f"{arn('eks', f'addon/{cluster}/{key[2]}')}/{uuid.uuid4()}",
                "addonVersion": body.get("addonVersion", "v1.0.0-eksbuild.1"),
                "status": "ACTIVE",
                "podIdentityAssociations": associations,
                "createdAt": 0,
                "modifiedAt": 0,
            }
            return _json({"addon": self.kept[key]})
        key = ("addon", cluster, rest[0])
        found = self._take(key, remove=method == "DELETE")
        if method == "DELETE":
            for one in found["podIdentityAssociations"]:
                self.kept.pop(("identity", cluster, one.rsplit("/", 1)[1]), None)
        return _json({"addon": found})

    def _associate(self, cluster: str, body: dict[str, Any]) -> dict[str, Any]:
        name = f"a-{uuid.uuid4().hex[:17]}"
        made = {
            **body,
            "clusterName": cluster,
            "associationId": name,
            "associationArn": arn("eks", f"podidentityassociation/{cluster}/{name}"),
            "createdAt": 0,
            "modifiedAt": 0,
        }
        self.kept["identity", cluster, name] = made
        return made

    def _identities(
        self, method: str, cluster: str, rest: list[str], body: dict[str, Any]
    ) -> Reply:
        if method == "POST" and not rest:
            return _json({"association": self._associate(cluster, body)})
        if not rest:
            found = [one for key, one in self.kept.items() if key[:2] == ("identity", cluster)]
            return _json({"associations": found})
        key = ("identity", cluster, rest[0])
        return _json({"association": self._take(key, remove=method == "DELETE")})

    def _entries(self, method: str, cluster: str, rest: list[str], body: dict[str, Any]) -> Reply:
        if method == "POST" and not rest:
            principal = body["principalArn"]
            name = principal.rsplit("/", 1)[1]
            self.kept["entry", cluster, principal] = made = {
                "kubernetesGroups": [],
                "type": "STANDARD",
                "username": principal,
                **body,
                "clusterName": cluster,
                "accessEntryArn": arn("eks", f"access-entry/{cluster}/role/{ACCOUNT}/{name}"),
                "createdAt": 0,
                "modifiedAt": 0,
            }
            return _json({"accessEntry": made})
        entry = self._take(
            ("entry", cluster, rest[0]), remove=method == "DELETE" and len(rest) == 1
        )
        if len(rest) == 1:
            return _json({"accessEntry": entry})
        policies = entry.setdefault("policies", [])
        if method == "POST":
            policies.append({**body, "associatedAt": 0, "modifiedAt": 0})
            return _json({"associatedAccessPolicy": policies[-1]})
        if method == "DELETE":
            entry["policies"] = [one for one in policies if one["policyArn"] != rest[2]]
        return _json({"associatedAccessPolicies": entry["policies"]})

    def _take(self, key: tuple[str, str, str], *, remove: bool) -> dict[str, Any]:
        if key not in self.kept:
            raise MissingError
        return self.kept.pop(key) if remove else self.kept[key]


class Efs:
    """Whether a file system is backed up."""

    def __init__(self) -> None:
        self.policies: dict[str, dict[str, Any]] = {}

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Reply | None:
        """Return the answer, or None where moto answers."""
        asked = re.fullmatch(r"/2015-02-01/file-systems/(fs-[0-9a-f]+)/backup-policy", path)
        if asked is None:
            return None
        if method == "PUT":
            self.policies[asked[1]] = body
        return _json(self.policies[asked[1]]) if asked[1] in self.policies else None


class Budgets:
    """What Budgets keeps beside budgets and notifications."""

    def __init__(self) -> None:
        self.tags: dict[str, list[dict[str, str]]] = {}

    def answer(self, target: str, body: dict[str, Any]) -> Reply | None:
        """Return the answer, or None where moto answers."""
        action = target.rsplit(".", 1)[-1]
        if action == "CreateBudget":
            name = body["Budget"]["BudgetName"]
            self.tags[f"arn:aws:budgets::{ACCOUNT}:budget/{name}"] = body.get("ResourceTags", [])
        if action == "ListTagsForResource":
            return _json({"ResourceTags": self.tags.get(body["ResourceARN"], [])})
        if action != "DescribeSubscribersForNotification":
            return None
        from moto.budgets.models import budgets_backends  # type: ignore[import-not-found]

        budget = budgets_backends[ACCOUNT]["aws"].budgets[ACCOUNT][body["BudgetName"]]
        asked = {key: one for key, one in body["Notification"].items() if key != "Threshold"}
        for one in budget.notifications:
            if asked.items() <= one.details.items():
                return _json({"Subscribers": one.subscribers})
        return 400, "application/json", json.dumps({"__type": "NotFoundException"})


class Stubbed:
    """The WSGI application: the stubs, and moto behind them."""

    def __init__(self, moto: Callable[..., Any]) -> None:
        self.moto, self.eks, self.cache = moto, Eks(), ElastiCache()
        self.budgets, self.efs = Budgets(), Efs()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        """Answer a request."""
        import io

        scope = re.search(r"/([a-z0-9-]+)/aws4_request", environ.get("HTTP_AUTHORIZATION", ""))
        service = scope[1] if scope else ""
        if service not in {"budgets", "ec2", "eks", "elasticache", "elasticfilesystem", "rds"}:
            return self.moto(environ, start)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        method, path = environ["REQUEST_METHOD"], environ["REQUEST_URI"].split("?")[0]
        queried = service in {"ec2", "elasticache", "rds"}
        form = {key: one[0] for key, one in parse_qs(body.decode()).items()} if queried else {}
        given = json.loads(body) if body and not queried else {}
        found = None
        if service == "elasticache":
            found = self.cache.answer(form)
        elif service == "eks":
            found = self.eks.answer(method, path, given)
        elif service == "budgets":
            found = self.budgets.answer(environ.get("HTTP_X_AMZ_TARGET", ""), given)
        elif service == "elasticfilesystem":
            found = self.efs.answer(method, path, given)
        if found is not None:
            status, kind, text = found
            start(f"{status} -", [("Content-Type", kind)])
            return [text.encode()]
        answered = self.moto(environ, start)
        if service == "eks":
            after_eks(method, path.strip("/").split("/"), given)
        elif queried:
            after_query(form)
        return answered


def _json(body: dict[str, Any]) -> Reply:
    return 200, "application/json", json.dumps(body)


def main() -> None:
    """Serve until the process is ended."""
    from moto.server import DomainDispatcherApplication, create_backend_app  # type: ignore[import-not-found]
    from werkzeug.serving import run_simple

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    remember_descriptions()
    app = Remembering(Stubbed(DomainDispatcherApplication(create_backend_app)))
    run_simple("127.0.0.1", options.port, app, threaded=True)


if __name__ == "__main__":
    main()
