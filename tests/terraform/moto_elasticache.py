"""ElastiCache, where moto has no model of it or keeps too little: part of `moto_stubs`."""

import re
from typing import Any
from xml.sax.saxutils import escape

ACCOUNT = "123456789012"
REGION = "us-east-1"
Reply = tuple[int, str, str]
"""Status, type of content, body."""


class MissingError(Exception):
    """There is no such object."""


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
        self.tags[arn("elasticache", f"parametergroup:{name}")] = _tags(form)
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
            f"<ARN>{arn('elasticache', f'parametergroup:{name}')}</ARN></CacheParameterGroup>"
        )

    def _create_user_group(self, form: dict[str, str]) -> str:
        users = [value for key, value in form.items() if key.startswith("UserIds.member.")]
        name = form["UserGroupId"]
        self.groups[name] = {"engine": form["Engine"], "users": users}
        self.tags[arn("elasticache", f"usergroup:{name}")] = _tags(form)
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
            f"<ARN>{arn('elasticache', f'usergroup:{name}')}</ARN>"
        )

    def _create_replication_group(self, form: dict[str, str]) -> str:
        name = form["ReplicationGroupId"]
        self.nodes[name] = form
        self.tags[arn("elasticache", f"replicationgroup:{name}")] = _tags(form)
        return f"<ReplicationGroup>{self._replication_xml(name)}</ReplicationGroup>"

    def _describe_replication_groups(self, form: dict[str, str]) -> str:
        if form["ReplicationGroupId"] not in self.nodes:
            raise MissingError("ReplicationGroupNotFoundFault")
        found = self._replication_xml(form["ReplicationGroupId"])
        return (
            f"<ReplicationGroups><ReplicationGroup>{found}</ReplicationGroup></ReplicationGroups>"
        )

    def _modify_replication_group(self, form: dict[str, str]) -> str:
        name = form["ReplicationGroupId"]
        self.nodes[name] |= {key: one for key, one in form.items() if key in self.nodes[name]}
        return f"<ReplicationGroup>{self._replication_xml(name)}</ReplicationGroup>"

    def _delete_replication_group(self, form: dict[str, str]) -> str:
        if self.nodes.pop(form["ReplicationGroupId"], None) is None:
            raise MissingError("ReplicationGroupNotFoundFault")
        return ""

    def _replication_xml(self, name: str) -> str:
        kept = self.nodes[name]
        same = (
            "AtRestEncryptionEnabled", "AutoMinorVersionUpgrade", "CacheNodeType", "Engine",
            "KmsKeyId", "SnapshotRetentionLimit", "SnapshotWindow", "TransitEncryptionEnabled",
            "TransitEncryptionMode",
        )  # fmt: skip
        found = "".join(f"<{key}>{escape(kept[key])}</{key}>" for key in same if key in kept)
        numbers = range(1, int(kept.get("NumCacheClusters", "1")) + 1)
        members = "".join(f"<ClusterId>{name}-{number:03d}</ClusterId>" for number in numbers)
        users = "".join(
            f"<member>{one}</member>"
            for key, one in kept.items()
            if key.startswith("UserGroupIds.")
        )
        failover = "enabled" if kept.get("AutomaticFailoverEnabled") == "true" else "disabled"
        zones = "enabled" if kept.get("MultiAZEnabled") == "true" else "disabled"
        logs = "LogDeliveryConfigurations.LogDeliveryConfigurationRequest.1."
        where = f"{logs}DestinationDetails.CloudWatchLogsDetails.LogGroup"
        logged = (
            f"<LogDeliveryConfiguration><LogType>{kept[logs + 'LogType']}</LogType>"
            f"<DestinationType>{kept[logs + 'DestinationType']}</DestinationType>"
            f"<LogFormat>{kept[logs + 'LogFormat']}</LogFormat><Status>active</Status>"
            "<DestinationDetails><CloudWatchLogsDetails>"
            f"<LogGroup>{kept[where]}</LogGroup>"
            "</CloudWatchLogsDetails></DestinationDetails></LogDeliveryConfiguration>"
        )
        endpoint = (
            f"<Address>master.{name}.cache.amazonaws.com</Address><Port>{kept['Port']}</Port>"
        )
        return (
            f"<ReplicationGroupId>{name}</ReplicationGroupId><Status>available</Status>{found}"
            f"<Description>{escape(kept['ReplicationGroupDescription'])}</Description>"
            f"<MemberClusters>{members}</MemberClusters><UserGroupIds>{users}</UserGroupIds>"
            f"<AutomaticFailover>{failover}</AutomaticFailover><MultiAZ>{zones}</MultiAZ>"
            f"<NodeGroups><NodeGroup><NodeGroupId>0001</NodeGroupId><Status>available</Status>"
            f"<PrimaryEndpoint>{endpoint}</PrimaryEndpoint><NodeGroupMembers>"
            + "".join(
                f"<NodeGroupMember><CacheClusterId>{name}-{number:03d}</CacheClusterId>"
                "</NodeGroupMember>"
                for number in numbers
            )
            + "</NodeGroupMembers></NodeGroup></NodeGroups><ClusterEnabled>false</ClusterEnabled>"
            "<ClusterMode>disabled</ClusterMode><DataTiering>disabled</DataTiering>"
            "<NetworkType>ipv4</NetworkType><IpDiscovery>ipv4</IpDiscovery>"
            f"<LogDeliveryConfigurations>{logged}</LogDeliveryConfigurations>"
            f"<ARN>{arn('elasticache', f'replicationgroup:{name}')}</ARN>"
        )

    def _describe_cache_clusters(self, form: dict[str, str]) -> str | None:
        group, _, number = form.get("CacheClusterId", "").rpartition("-")
        if group not in self.nodes or not number.isdigit():
            return None
        kept = self.nodes[group]
        same = (
            "AtRestEncryptionEnabled", "AutoMinorVersionUpgrade", "CacheNodeType",
            "CacheSubnetGroupName", "Engine", "PreferredMaintenanceWindow", "ReplicationGroupId",
            "SnapshotRetentionLimit", "SnapshotWindow", "TransitEncryptionEnabled",
            "TransitEncryptionMode",
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


def _elasticache() -> Any:
    from moto.elasticache.models import elasticache_backends  # type: ignore[import-not-found]

    return elasticache_backends[ACCOUNT][REGION]


def arn(service: str, name: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{name}"


def _tags(form: dict[str, str]) -> dict[str, str]:
    found, index = {}, 1
    while f"Tags.Tag.{index}.Key" in form:
        found[form[f"Tags.Tag.{index}.Key"]] = form[f"Tags.Tag.{index}.Value"]
        index += 1
    return found


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
