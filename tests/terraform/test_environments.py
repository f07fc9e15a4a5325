"""Both environments from nothing to nothing in an AWS on loopback: apply, compare, destroy."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from deploy import values
from deploy.cloud_environment import CloudEnvironment
from deploy.helm import Helm
from deploy.infra_terraform import by_type
from deploy.target import Profile, Target
from feature_repo import catalog
from tests.helm.schemas import check
from tests.terraform.clouds import ENVIRONMENTS, TFVARS, Cloud, moto

pytestmark = pytest.mark.timeout(2400)
GOLDEN = Path(__file__).with_name("golden")
both = pytest.mark.parametrize("name", ENVIRONMENTS)


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Cloud]]:
    """Both environments, each in an account of its own, applied by the command side by side."""
    folder = tmp_path_factory.mktemp("clouds")
    with ExitStack() as stack, ThreadPoolExecutor() as together:
        made = {
            name: Cloud(name, folder / name, stack.enter_context(moto(folder / f"{name}.log")))
            for name in ENVIRONMENTS
        }
        applied = together.map(lambda cloud: cloud.run("apply", "--yes"), made.values())
        for done in applied:
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        yield made


@both
def test_what_is_applied_is_what_was_reviewed(name: str, clouds: Mapping[str, Cloud]) -> None:
    state = json.loads(clouds[name].terraform("show", "-json"))
    expected = json.loads((GOLDEN / f"{name}.json").read_text())

    assert expected == by_type({"planned_values": state["values"]})


@both
def test_a_second_look_finds_no_difference(name: str, clouds: Mapping[str, Cloud]) -> None:
    done = clouds[name].run("drift")

    assert done.returncode == 0, done.stdout + done.stderr


@both
def test_the_network_has_three_zones_and_databases_have_no_way_out(
    name: str, clouds: Mapping[str, Cloud]
) -> None:
    ec2 = clouds[name].client("ec2")
    named = [{"Name": "tag:Environment", "Values": [name]}]
    subnets = ec2.describe_subnets(Filters=named)["Subnets"]
    zones = {one["AvailabilityZone"] for one in subnets}
    tables = ec2.describe_route_tables(
        Filters=[*named, {"Name": "tag:Name", "Values": [f"mlplatform-{name}-data"]}]
    )["RouteTables"]
    routes = [route["DestinationCidrBlock"] for route in tables[0]["Routes"]]

    assert len(zones) == 3
    assert not any(one["MapPublicIpOnLaunch"] for one in subnets)
    assert "0.0.0.0/0" not in routes


@both
def test_the_control_plane_logs_encrypts_secrets_and_is_reached_from_inside(
    name: str, clouds: Mapping[str, Cloud]
) -> None:
    cluster = clouds[name].client("eks").describe_cluster(name=f"mlplatform-{name}")["cluster"]
    logged = [one["types"] for one in cluster["logging"]["clusterLogging"] if one["enabled"]]

    assert sorted(logged[0]) == ["api", "audit", "authenticator", "controllerManager", "scheduler"]
    assert cluster["encryptionConfig"][0]["resources"] == ["secrets"]
    assert cluster["resourcesVpcConfig"]["endpointPrivateAccess"]
    assert cluster["resourcesVpcConfig"]["publicAccessCidrs"] == ["203.0.113.0/24"]


@both
def test_gpu_nodes_are_tainted_and_none_runs_unasked(
    name: str, clouds: Mapping[str, Cloud]
) -> None:
    eks = clouds[name].client("eks")
    group = eks.describe_nodegroup(clusterName=f"mlplatform-{name}", nodegroupName="gpu")
    found = group["nodegroup"]

    assert found["scalingConfig"]["minSize"] == 0
    assert found["taints"] == [
        {"key": "nvidia.com/gpu", "value": "present", "effect": "NO_SCHEDULE"}
    ]
    assert found["capacityType"] == ("SPOT" if name == "dev" else "ON_DEMAND")


@both
def test_pods_cannot_reach_the_credentials_of_their_node(
    name: str, clouds: Mapping[str, Cloud]
) -> None:
    ec2 = clouds[name].client("ec2")
    templates = ec2.describe_launch_templates(
        Filters=[{"Name": "tag:Environment", "Values": [name]}]
    )["LaunchTemplates"]
    found = []
    for one in templates:
        versions = ec2.describe_launch_template_versions(LaunchTemplateId=one["LaunchTemplateId"])
        found.append(versions["LaunchTemplateVersions"][-1]["LaunchTemplateData"])

    assert len(found) == (2 if name == "dev" else 3)
    for data in found:
        assert data["MetadataOptions"]["HttpTokens"] == "required"
        assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        assert data["BlockDeviceMappings"][0]["Ebs"]["Encrypted"]


@both
@pytest.mark.parametrize("purpose", ["artifacts", "offline"])
def test_buckets_are_versioned_encrypted_and_closed(
    name: str, purpose: str, clouds: Mapping[str, Cloud]
) -> None:
    s3 = clouds[name].client("s3")
    bucket = clouds[name].outputs()["buckets"][purpose]
    rules = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    closed = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    lifecycle = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]

    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert all(closed.values())
    assert [rule["Status"] for rule in lifecycle] == ["Enabled"]


@both
def test_the_database_survives_a_zone_in_prod_and_is_backed_up(
    name: str, clouds: Mapping[str, Cloud]
) -> None:
    rds = clouds[name].client("rds")
    found = rds.describe_db_instances(DBInstanceIdentifier=f"mlplatform-{name}")["DBInstances"][0]

    assert found["StorageEncrypted"]
    assert not found["PubliclyAccessible"]
    assert found["MultiAZ"] == (name == "prod")
    assert found["DeletionProtection"] == (name == "prod")
    assert found["BackupRetentionPeriod"] == (35 if name == "prod" else 7)
    assert found["MasterUserSecret"]["SecretArn"].startswith("arn:aws:secretsmanager:")


@both
def test_redis_speaks_tls_to_users_with_passwords(name: str, clouds: Mapping[str, Cloud]) -> None:
    cache = clouds[name].client("elasticache")
    [group] = cache.describe_replication_groups(ReplicationGroupId=f"mlplatform-{name}")[
        "ReplicationGroups"
    ]
    users = {
        one["UserId"]: one["Authentication"]["Type"] for one in cache.describe_users()["Users"]
    }

    assert group["TransitEncryptionEnabled"]
    assert group["AtRestEncryptionEnabled"]
    assert len(group["MemberClusters"]) == (2 if name == "prod" else 1)
    for role in ("gateway", "features", "archiver", "operator"):
        assert users[f"mlplatform-{name}-{role}"] == "password"


@both
def test_images_are_scanned_and_their_tags_never_move(
    name: str, clouds: Mapping[str, Cloud]
) -> None:
    found = clouds[name].client("ecr").describe_repositories()["repositories"]
    ours = [one for one in found if one["repositoryName"].startswith(f"mlplatform-{name}/")]

    assert len(ours) == 10
    assert all(one["imageScanningConfiguration"]["scanOnPush"] for one in ours)
    assert all(one["imageTagMutability"] == "IMMUTABLE" for one in ours)


@both
def test_an_account_gets_its_rights_only_as_itself(name: str, clouds: Mapping[str, Cloud]) -> None:
    iam = clouds[name].client("iam")
    role = iam.get_role(RoleName=f"mlplatform-{name}-features")["Role"]
    trust = role["AssumeRolePolicyDocument"]["Statement"][0]
    policy = iam.get_role_policy(RoleName=role["RoleName"], PolicyName="buckets")["PolicyDocument"]
    written = [one["Resource"] for one in policy["Statement"] if one["Sid"] == "Write"]

    assert trust["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    assert (
        trust["Condition"]["StringEquals"]["aws:RequestTag/kubernetes-service-account"]
        == "mlplatform-features"
    )
    assert written == [[f"arn:aws:s3:::mlplatform-{name}-123456789012-offline/features/*"]]


@both
def test_no_secret_is_in_the_state(name: str, clouds: Mapping[str, Cloud]) -> None:
    secrets = clouds[name].client("secretsmanager")
    entry = secrets.get_secret_value(SecretId=f"mlplatform-{name}/mlplatform-ledger")
    [address] = json.loads(entry["SecretString"]).values()
    password = address.split(":")[2].split("@")[0]
    state = clouds[name].terraform("state", "pull")

    assert f"@{clouds[name].outputs()['database']['host']}:5432/ledger?sslmode=require" in address
    assert len(password) > 40
    assert password not in state


@both
def test_somebody_is_told_of_alarms_and_of_the_budget(
    name: str, clouds: Mapping[str, Cloud]
) -> None:
    alarms = clouds[name].client("cloudwatch").describe_alarms()["MetricAlarms"]
    ours = [one for one in alarms if one["AlarmName"].startswith(f"mlplatform-{name}-")]
    budget = (
        clouds[name]
        .client("budgets")
        .describe_budget(AccountId="123456789012", BudgetName=f"mlplatform-{name}")["Budget"]
    )
    topic = clouds[name].outputs()["alarm_topic_arn"]

    assert len(ours) == (6 if name == "dev" else 10)
    assert all(one["AlarmActions"] == [topic] for one in ours)
    assert budget["CostFilters"] == {"TagKeyValue": [f"user:Environment${name}"]}


@both
@pytest.mark.parametrize("profile", ["full", "gpu"])
@pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")
def test_the_outputs_render_a_release_and_no_file_is_edited(
    name: str, profile: Profile, clouds: Mapping[str, Cloud], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clouds[name].folder)
    values.write(values.rendered([catalog.spec("flight_delay")], 0))
    files = values.files(profile, CloudEnvironment(name).values(profile))
    text = Helm(Target(f"mlplatform-{name}", "mlplatform")).rendered(files, "1.34.0")
    objects = [one for one in yaml.safe_load_all(text) if one]
    kinds: dict[str, list[str]] = {}
    for one in objects:
        kinds.setdefault(one["kind"], []).append(one["metadata"]["name"])
        check(one)

    assert "StatefulSet" not in kinds
    assert "mlplatform-ledger" in kinds["ExternalSecret"]
    assert "mlplatform-data" not in kinds.get("PersistentVolumeClaim", [])


Said = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def endings(clouds: Mapping[str, Cloud]) -> Mapping[str, list[Said]]:
    """What the commands said that removed both environments, side by side."""

    def end(cloud: Cloud) -> list[Said]:
        if cloud.name == "dev":
            return [cloud.run("destroy", "--yes")]
        refused = cloud.run("destroy", "--yes")
        cloud.write_variables(TFVARS + "expendable = true\n")
        return [refused, cloud.run("apply", "--yes"), cloud.run("destroy", "--yes")]

    with ThreadPoolExecutor() as together:
        return dict(zip(clouds, together.map(end, clouds.values()), strict=True))


def test_prod_is_destroyed_only_when_it_was_made_expendable(
    endings: Mapping[str, list[Said]],
) -> None:
    refused, made_expendable, _ = endings["prod"]

    assert refused.returncode == 1
    assert "not expendable" in refused.stdout
    assert made_expendable.returncode == 0


@both
def test_destroying_leaves_nothing(
    name: str, clouds: Mapping[str, Cloud], endings: Mapping[str, list[Said]]
) -> None:
    done = endings[name][-1]

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert clouds[name].terraform("state", "list") == ""
