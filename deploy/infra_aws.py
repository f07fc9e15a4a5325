"""AWS, as far as the commands of the infrastructure need it beside Terraform.

The one importer of boto3 in `deploy`. It looks, makes the bucket of Terraform's state, puts values
into empty secrets and brings node groups to zero; all else is Terraform's.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from mlplatform.errors import ServiceError, shorten

_NONE_YET: Final = ("ResourceNotFoundException", "404", "NoSuchBucket")
_Found = TypeVar("_Found")


class Account:
    """The AWS account that the environment's credentials belong to.

    Args:
        region: Of everything.
    """

    def __init__(self, region: str) -> None:
        self.region = region

    def number(self) -> str:
        """Return the account's number.

        Raises:
            ServiceError: AWS is out of reach, or knows no credentials.
        """
        found = self._call("sts", lambda client: client.get_caller_identity())
        return str(found["Account"])

    def ensure_state_bucket(self, name: str) -> bool:
        """Make the bucket of Terraform's state: versioned, encrypted, closed. True: new.

        Raises:
            ServiceError: AWS refuses, or the name belongs to somebody else.
        """
        if self._call("s3", lambda client: _or_none(lambda: client.head_bucket(Bucket=name))):
            return False
        place: dict[str, Any] = {}
        if self.region != "us-east-1":
            place = {"CreateBucketConfiguration": {"LocationConstraint": self.region}}
        closed = dict.fromkeys(
            ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"),
            True,
        )

        def make(client: Any) -> None:
            client.create_bucket(Bucket=name, **place)
            client.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=closed)
            # A state that was overwritten by mistake can be had back.
            client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})

        self._call("s3", make)
        return True

    def secret(self, name: str) -> Mapping[str, str] | None:
        """Return the values of an entry in Secrets Manager; None while it has none.

        Raises:
            ServiceError: AWS refuses.
        """
        found = self._call(
            "secretsmanager",
            lambda client: _or_none(lambda: client.get_secret_value(SecretId=name)),
        )
        return json.loads(found["SecretString"]) if found and "SecretString" in found else None

    def put_secret(self, name: str, values: Mapping[str, str]) -> None:
        """Put values into an entry.

        Raises:
            ServiceError: AWS refuses.
        """
        text = json.dumps(dict(values))
        self._call(
            "secretsmanager",
            lambda client: client.put_secret_value(SecretId=name, SecretString=text),
        )

    def set_redis_password(self, user: str, password: str) -> None:
        """Let a user of ElastiCache in with a password; open connections stay.

        Raises:
            ServiceError: AWS refuses.
        """
        mode = {"Type": "password", "Passwords": [password]}
        self._call(
            "elasticache",
            lambda client: client.modify_user(UserId=user, AuthenticationMode=mode),
        )

    def empty_node_group(self, cluster: str, group: str) -> None:
        """Bring a node group to no nodes; their pods are evicted first.

        Raises:
            ServiceError: AWS refuses.
        """
        self._call(
            "eks",
            lambda client: client.update_nodegroup_config(
                clusterName=cluster,
                nodegroupName=group,
                scalingConfig={"minSize": 0, "desiredSize": 0},
            ),
        )

    def nodes(self, cluster: str, group: str) -> list[str]:
        """Return the machines of a node group that are not gone yet.

        Raises:
            ServiceError: AWS refuses.
        """
        filters = [
            {"Name": "tag:eks:cluster-name", "Values": [cluster]},
            {"Name": "tag:eks:nodegroup-name", "Values": [group]},
            {"Name": "instance-state-name", "Values": ["pending", "running", "shutting-down"]},
        ]
        found = self._call("ec2", lambda client: client.describe_instances(Filters=filters))
        return [one["InstanceId"] for some in found["Reservations"] for one in some["Instances"]]

    def tagged(self, tags: Mapping[str, str]) -> list[str]:
        """Return the ARNs of all resources that carry these tags.

        Raises:
            ServiceError: AWS refuses.
        """
        filters = [{"Key": key, "Values": [value]} for key, value in tags.items()]

        def look(client: Any) -> list[str]:
            pages = client.get_paginator("get_resources").paginate(TagFilters=filters)
            return [one["ResourceARN"] for page in pages for one in page["ResourceTagMappingList"]]

        return sorted(self._call("resourcegroupstaggingapi", look))

    def removed_gateways(self) -> list[str]:
        """Return the NAT gateways that are gone: AWS goes on listing them for an hour.

        Raises:
            ServiceError: AWS refuses.
        """
        filters = [{"Name": "state", "Values": ["deleted", "deleting"]}]
        found = self._call("ec2", lambda client: client.describe_nat_gateways(Filters=filters))
        return [one["NatGatewayId"] for one in found["NatGateways"]]

    def _call(self, service: str, work: Callable[[Any], _Found]) -> _Found:
        import boto3  # type: ignore[import-untyped]
        from botocore.exceptions import (  # type: ignore[import-untyped]
            BotoCoreError,
            ClientError,
        )

        try:
            return work(boto3.client(service, region_name=self.region))
        except (BotoCoreError, ClientError) as error:
            raise ServiceError(
                f"AWS ({service}, {self.region}) did not do what was asked: {shorten(error)}; "
                "`aws sts get-caller-identity` tells whose credentials are used"
            ) from error


def _or_none(work: Callable[[], Any]) -> Any:
    """Return what was found; None where there is nothing yet."""
    from botocore.exceptions import ClientError

    try:
        return work()
    except ClientError as error:
        if error.response["Error"]["Code"] in _NONE_YET:
            return None
        raise
