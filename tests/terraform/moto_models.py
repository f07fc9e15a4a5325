"""What moto is told and forgets, put into its models after the call: part of `moto_stubs`."""

from typing import Any

from tests.terraform.moto_elasticache import ACCOUNT, REGION


def remember_descriptions() -> None:
    """Let a rule of a security group have a description where its source is another group."""
    from moto.ec2.models.security_groups import SecurityGroupRule  # type: ignore[import-not-found]

    def description(rule: Any) -> str | None:
        for source in (rule.ip_range, rule.source_group):
            if source and source.get("Description"):
                return str(source["Description"])
        return None

    SecurityGroupRule.description = property(description)


def after_eks(method: str, parts: list[str], body: dict[str, Any]) -> None:
    """Keep how a cluster lets people in, and how a node group is updated."""
    from moto.eks.models import eks_backends  # type: ignore[import-not-found]

    clusters = eks_backends[ACCOUNT][REGION].clusters
    if method == "POST" and parts == ["clusters"]:
        clusters[body["name"]].access_config = body["accessConfig"]
    if method == "POST" and len(parts) == 3 and parts[2] == "node-groups":
        group = clusters[parts[1]].nodegroups[body["nodegroupName"]]
        group.update_config = body["updateConfig"]
        group.remote_access = None  # moto lets everybody in by a key that nobody gave


def after_query(form: dict[str, str]) -> None:
    """Keep what RDS and EC2 were told."""
    from moto.ec2.models import ec2_backends  # type: ignore[import-not-found]
    from moto.rds.models import rds_backends  # type: ignore[import-not-found]

    databases, network = rds_backends[ACCOUNT][REGION], ec2_backends[ACCOUNT][REGION]
    action = form.get("Action")
    if action == "CreateDBInstance":
        instance = databases.databases[form["DBInstanceIdentifier"]]
        instance.performance_insights_enabled = form.get("EnablePerformanceInsights") == "true"
        instance.performance_insights_kms_key_id = form.get("PerformanceInsightsKMSKeyId")
    if action == "ModifyDBParameterGroup":
        group = databases.db_parameter_groups[form["DBParameterGroupName"]]
        for parameter in group.parameters.values():
            parameter["Source"] = "user"
    if action == "CreateLaunchTemplate":
        [template] = network.describe_launch_templates(template_names=[form["LaunchTemplateName"]])
        for version in template.versions:
            # Tags of the template itself: moto hands them on to what is launched.
            version.data["TagSpecifications"] = [
                one
                for one in version.data.get("TagSpecifications", [])
                if one["ResourceType"] != "launch-template"
            ]
