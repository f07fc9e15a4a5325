"""Moto on loopback, with what it does not know yet: the only calls that are stubbed, and why.

Run by the tests in an environment of moto's own (`uv run --with moto[server]`), so that neither the
platform nor its lock knows of it. All other calls reach moto's own models of the services.

| service     | calls                                     | why                                   |
|-------------|-------------------------------------------|---------------------------------------|
| EKS         | add-ons, pod identity associations,       | moto has clusters, node groups and    |
|             | access entries and their policies         | Fargate profiles only                 |
| ElastiCache | parameter and user groups, ModifyUser,    | moto has users, clusters, subnet and  |
|             | removing a subnet group, the nodes of a   | replication groups, removes none, and |
|             | replication group                         | tells nothing of a group's nodes      |
| EFS         | PutBackupPolicy                           | moto knows the policy, not to set it  |
| Budgets     | tags; who is told of a notification       | moto does not know, or does not tell  |
"""

import argparse
import json
import re
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

ACCOUNT = "123456789012"
REGION = "us-east-1"
Reply = tuple[int, str, str]
"""Status, type of content, body."""


class MissingError(Exception):
    """There is no such object."""


class Eks:
    """What EKS keeps beside clusters and node groups."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str, str], dict[str, Any]] = {}

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Reply | None:
        """Return the answer, or None where moto answers."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts[0] == "tags" and (tagged := self._of(unquote(path[6:]))):
            return _json({"tags": tagged[0].get("tags", {})})
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
            return 404, "application/json", json.dumps({"message": "No such object"})

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
                "addonArn": f"{_arn('eks', f'addon/{cluster}/{key[2]}')}/{uuid.uuid4()}",
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
            for arn in found["podIdentityAssociations"]:
                self.kept.pop(("identity", cluster, arn.rsplit("/", 1)[1]), None)
        return _json({"addon": found})

    def _associate(self, cluster: str, body: dict[str, Any]) -> dict[str, Any]:
        name = f"a-{uuid.uuid4().hex[:17]}"
        made = {
            **body,
            "clusterName": cluster,
            "associationId": name,
            "associationArn": _arn("eks", f"podidentityassociation/{cluster}/{name}"),
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
                "accessEntryArn": _arn("eks", f"access-entry/{cluster}/role/{ACCOUNT}/{name}"),
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


class ElastiCache:
    """What ElastiCache keeps beside users, subnet groups and replication groups."""

    def __init__(self) -> None:
        self.parameters: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.nodes: dict[str, dict[str, str]] = {}

    def answer(self, form: dict[str, str]) -> Reply | None:
        """Return the answer, or None where moto answers."""
        action = form.get("Action", "")
        handler = getattr(self, f"_{_snake(action)}", None)
        if handler is None:
            return None
        try:
            inner = handler(form)
        except MissingError as error:
            fault = f"<Error><Type>Sender</Type><Code>{error}</Code><Message>none</Message></Error>"
            return 404, "text/xml", f"<ErrorResponse>{fault}</ErrorResponse>"
        if inner is None:
            return None
        space = "http://elasticache.amazonaws.com/doc/2015-02-02/"
        result = f"<{action}Result>{inner}</{action}Result>"
        meta = "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>"
        return (
            200,
            "text/xml",
            f'<{action}Response xmlns="{space}">{result}{meta}</{action}Response>',
        )

    def _create_cache_parameter_group(self, form: dict[str, str]) -> str:
        name = form["CacheParameterGroupName"]
        self.parameters[name] = {
            "family": form["CacheParameterGroupFamily"],
            "description": form.get("Description", ""),
            "values": {},
        }
        self.tags[_arn("elasticache", f"parametergroup:{name}")] = _tags(form)
        return self._group_xml(name)

    def _describe_cache_parameter_groups(self, form: dict[str, str]) -> str:
        name = form["CacheParameterGroupName"]
        if name not in self.parameters:
            raise MissingError("CacheParameterGroupNotFound")
        return f"<CacheParameterGroups>{self._group_xml(name)}</CacheParameterGroups>"

    def _modify_cache_parameter_group(self, form: dict[str, str]) -> str:
        name, index = form["CacheParameterGroupName"], 1
        prefix = "ParameterNameValues.ParameterNameValue."
        while f"{prefix}{index}.ParameterName" in form:
            key = form[f"{prefix}{index}.ParameterName"]
            self.parameters[name]["values"][key] = form[f"{prefix}{index}.ParameterValue"]
            index += 1
        return f"<CacheParameterGroupName>{name}</CacheParameterGroupName>"

    def _reset_cache_parameter_group(self, form: dict[str, str]) -> str:
        self.parameters[form["CacheParameterGroupName"]]["values"] = {}
        return (
            f"<CacheParameterGroupName>{form['CacheParameterGroupName']}</CacheParameterGroupName>"
        )

    def _describe_cache_parameters(self, form: dict[str, str]) -> str:
        values = self.parameters[form["CacheParameterGroupName"]]["values"]
        found = "".join(
            f"<Parameter><ParameterName>{key}</ParameterName>"
            f"<ParameterValue>{escape(value)}</ParameterValue></Parameter>"
            for key, value in values.items()
        )
        return f"<Parameters>{found}</Parameters>"

    def _delete_cache_parameter_group(self, form: dict[str, str]) -> str:
        if self.parameters.pop(form["CacheParameterGroupName"], None) is None:
            raise MissingError("CacheParameterGroupNotFound")
        return ""

    def _group_xml(self, name: str) -> str:
        group = self.parameters[name]
        return (
            f"<CacheParameterGroup><CacheParameterGroupName>{name}</CacheParameterGroupName>"
            f"<CacheParameterGroupFamily>{group['family']}</CacheParameterGroupFamily>"
            f"<Description>{escape(group['description'])}</Description>"
            f"<ARN>{_arn('elasticache', f'parametergroup:{name}')}</ARN></CacheParameterGroup>"
        )

    def _create_user_group(self, form: dict[str, str]) -> str:
        users = [value for key, value in form.items() if key.startswith("UserIds.member.")]
        name = form["UserGroupId"]
        self.groups[name] = {"engine": form["Engine"], "users": users}
        self.tags[_arn("elasticache", f"usergroup:{name}")] = _tags(form)
        return self._users_xml(name)

    def _describe_user_groups(self, form: dict[str, str]) -> str:
        if form["UserGroupId"] not in self.groups:
            raise MissingError("UserGroupNotFound")
        return f"<UserGroups><member>{self._users_xml(form['UserGroupId'])}</member></UserGroups>"

    def _delete_user_group(self, form: dict[str, str]) -> str:
        if form["UserGroupId"] not in self.groups:
            raise MissingError("UserGroupNotFound")
        found = self._users_xml(form["UserGroupId"])
        del self.groups[form["UserGroupId"]]
        return found

    def _users_xml(self, name: str) -> str:
        group = self.groups[name]
        users = "".join(f"<member>{user}</member>" for user in group["users"])
        return (
            f"<UserGroupId>{name}</UserGroupId><Status>active</Status>"
            f"<Engine>{group['engine']}</Engine><UserIds>{users}</UserIds>"
            f"<ARN>{_arn('elasticache', f'usergroup:{name}')}</ARN>"
        )

    def _create_replication_group(self, form: dict[str, str]) -> None:
        # Moto makes the group; what its nodes are told is kept for DescribeCacheClusters.
        self.nodes[form["ReplicationGroupId"]] = form

    def _describe_cache_clusters(self, form: dict[str, str]) -> str | None:
        group, _, number = form.get("CacheClusterId", "").rpartition("-")
        if group not in self.nodes or not number.isdigit():
            return None
        kept = self.nodes[group]
        same = (
            "AutoMinorVersionUpgrade", "CacheNodeType", "CacheSubnetGroupName", "Engine",
            "PreferredMaintenanceWindow", "ReplicationGroupId", "SnapshotRetentionLimit",
            "SnapshotWindow",
        )  # fmt: skip
        found = "".join(f"<{key}>{escape(kept[key])}</{key}>" for key in same if key in kept)
        secured = "".join(
            f"<member><SecurityGroupId>{value}</SecurityGroupId><Status>active</Status></member>"
            for key, value in kept.items()
            if key.startswith("SecurityGroupIds.")
        )
        parameters = kept["CacheParameterGroupName"]
        return (
            f"<CacheClusters><CacheCluster><CacheClusterId>{form['CacheClusterId']}</CacheClusterId>"
            f"<CacheClusterStatus>available</CacheClusterStatus>{found}"
            f"<EngineVersion>{kept['EngineVersion']}.0</EngineVersion>"
            f"<CacheParameterGroup><CacheParameterGroupName>{parameters}</CacheParameterGroupName>"
            "<ParameterApplyStatus>in-sync</ParameterApplyStatus></CacheParameterGroup>"
            f"<SecurityGroups>{secured}</SecurityGroups><NumCacheNodes>1</NumCacheNodes>"
            "</CacheCluster></CacheClusters>"
        )

    def _modify_user(self, form: dict[str, str]) -> str:
        user = _elasticache().users[form["UserId"]]
        user.authentication_type = form["AuthenticationMode.Type"]
        user.passwords = [value for key, value in form.items() if ".Passwords.member." in key]
        return f"<UserId>{form['UserId']}</UserId><Status>active</Status>"

    def _delete_cache_subnet_group(self, form: dict[str, str]) -> str:
        if _elasticache().cache_subnet_groups.pop(form["CacheSubnetGroupName"], None) is None:
            raise MissingError("CacheSubnetGroupNotFoundFault")
        return ""

    def _list_tags_for_resource(self, form: dict[str, str]) -> str | None:
        if form["ResourceName"] not in self.tags:
            return None
        tags = "".join(
            f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>"
            for key, value in self.tags[form["ResourceName"]].items()
        )
        return f"<TagList>{tags}</TagList>"


def efs(method: str, path: str, body: dict[str, Any]) -> Reply | None:
    """Return EFS's answer, or None where moto answers."""
    asked = re.fullmatch(r"/2015-02-01/file-systems/(fs-[0-9a-f]+)/backup-policy", path)
    if method != "PUT" or asked is None:
        return None
    from moto.efs.models import efs_backends  # type: ignore[import-not-found]

    system = efs_backends[ACCOUNT][REGION].file_systems_by_id[asked[1]]
    system._backup = body["BackupPolicy"]["Status"] == "ENABLED"
    return _json(body)


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
        self.budgets = Budgets()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        """Answer a request."""
        import io

        scope = re.search(r"/([a-z0-9-]+)/aws4_request", environ.get("HTTP_AUTHORIZATION", ""))
        service = scope[1] if scope else ""
        if service not in {"eks", "elasticache", "elasticfilesystem", "budgets"}:
            return self.moto(environ, start)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        method, path = environ["REQUEST_METHOD"], environ["REQUEST_URI"].split("?")[0]
        if service == "elasticache":
            found = self.cache.answer({key: one[0] for key, one in parse_qs(body.decode()).items()})
        else:
            given = json.loads(body) if body else {}
            if service == "eks":
                found = self.eks.answer(method, path, given)
            elif service == "budgets":
                found = self.budgets.answer(environ.get("HTTP_X_AMZ_TARGET", ""), given)
            else:
                found = efs(method, path, given)
        if found is None:
            return self.moto(environ, start)
        status, kind, text = found
        start(f"{status} -", [("Content-Type", kind)])
        return [text.encode()]


def _elasticache() -> Any:
    from moto.elasticache.models import elasticache_backends  # type: ignore[import-not-found]

    return elasticache_backends[ACCOUNT][REGION]


def _arn(service: str, name: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{name}"


def _json(body: dict[str, Any]) -> Reply:
    return 200, "application/json", json.dumps(body)


def _tags(form: dict[str, str]) -> dict[str, str]:
    found, index = {}, 1
    while f"Tags.Tag.{index}.Key" in form:
        found[form[f"Tags.Tag.{index}.Key"]] = form[f"Tags.Tag.{index}.Value"]
        index += 1
    return found


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def main() -> None:
    """Serve until the process is ended."""
    from moto.server import DomainDispatcherApplication, create_backend_app  # type: ignore[import-not-found]
    from werkzeug.serving import run_simple

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    app = Stubbed(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", options.port, app, threaded=True)


if __name__ == "__main__":
    main()
