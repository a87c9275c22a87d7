"""`ray up` of cluster.yaml against an EC2 emulator, in a network namespace without a way out.

The emulator (moto) hands out invented public addresses, which `ray up` then calls by ssh: nothing answers and no packet
leaves. So no machine is ever set up here; what is asserted is what was requested. moto needs an environment of its own,
since its dependencies and MLflow's exclude each other: $QA_SWEEPS_MOTO names one, or it is installed for the test.
"""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.namespaces import PROJECT, Host, Lab, lab, missing

REASON = missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]
PORT, REGION, BUCKET = 5566, "us-west-2", "results-of-sweeps"
AWS = {
    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{PORT}",
    "AWS_ACCESS_KEY_ID": "invented",
    "AWS_SECRET_ACCESS_KEY": "invented",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "PYTHONPATH": "/mnt/lab/boto:/mnt/project",
    "RAY_USAGE_STATS_ENABLED": "0",
    "AUTOSCALER_NODE_START_WAIT_S": "5",  # nothing answers, however long one waits
}
CLIENT = ("boto3", "botocore", "s3transfer", "jmespath")
# What the autoscaler on the head does when trials wait, with Ray's own code; its answers stand in the emulator.
REQUEST_WORKERS = """
    import sys, yaml
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config, validate_config
    config = prepare_config(yaml.safe_load(open(sys.argv[1])))
    validate_config(config)
    config = bootstrap_aws(config)
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for name in ("gpu_spot", "gpu_spot", "gpu_on_demand"):  # one at a time: the emulator gives no more at once
        tags = {"ray-node-type": "worker", "ray-launch-config": "x", "ray-user-node-type": name}
        provider.create_node(config["available_node_types"][name]["node_config"], tags, 1)
"""
STATE = """
    import boto3, json
    ec2, iam, efs, s3 = (boto3.client(name) for name in ("ec2", "iam", "efs", "s3"))
    groups = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["qa-sweeps", "ray-autoscaler*"]}])
    roles = [role["RoleName"] for role in iam.list_roles()["Roles"]]
    buckets = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    systems = efs.describe_file_systems()["FileSystems"]
    print(json.dumps({
        "instances": [item for found in ec2.describe_instances()["Reservations"] for item in found["Instances"]],
        "groups": groups["SecurityGroups"],
        "roles": roles,
        "policies": {
            name: iam.get_role_policy(RoleName=name, PolicyName=name)["PolicyDocument"]
            for name in roles if name == "qa-sweeps-head"
        },
        "profiles": [item["InstanceProfileName"] for item in iam.list_instance_profiles()["InstanceProfiles"]],
        "file_systems": systems,
        "mounts": [
            {**target, "groups": efs.describe_mount_target_security_groups(
                MountTargetId=target["MountTargetId"])["SecurityGroups"]}
            for item in systems
            for target in efs.describe_mount_targets(FileSystemId=item["FileSystemId"])["MountTargets"]
        ],
        "buckets": buckets,
        "public": {name: s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"] for name in buckets},
        "objects": {
            name: [(item["Key"], item["Size"]) for item in s3.list_objects_v2(Bucket=name).get("Contents", [])]
            for name in buckets
        },
    }, default=str))
"""


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with moto's server."""
    named = os.environ.get("QA_SWEEPS_MOTO")
    if named:
        return Path(named)
    folder = tmp_path_factory.mktemp("moto") / "environment"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "moto[server]==5.2.5", "boto3"]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"moto cannot be installed: {done.stderr.strip()[-300:]}")
    return folder


@pytest.fixture
def cloud(moto: Path, tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path / "lab") as made:
        (packages,) = moto.glob("lib/python3*/site-packages")
        shutil.copytree(moto, made.folder / "moto", symlinks=True)
        for name in CLIENT:  # what `ray up` itself needs, without moto's other dependencies
            shutil.copytree(packages / name, made.folder / "boto" / name)
        for name in ("key", "moto.log"):
            (made.folder / name).touch()
        serve = f"/mnt/lab/moto/bin/python -m moto.server -H 127.0.0.1 -p {PORT} > /mnt/lab/moto.log 2>&1 &"
        made.caller.run(serve, MOTO_IAM_LOAD_MANAGED_POLICIES="true")
        deadline = time.monotonic() + 120
        while made.caller.run(f"exec 3<>/dev/tcp/127.0.0.1/{PORT}").returncode:
            assert time.monotonic() < deadline, (made.folder / "moto.log").read_text()
            time.sleep(0.5)
        yield made


def python(caller: Host, script: str, *arguments: str) -> str:
    """Run a script in the caller and return what it prints."""
    text = textwrap.dedent(script).replace("'", "'\"'\"'")
    done = caller.run(f"python -c '{text}' {' '.join(arguments)}", **AWS)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def state(caller: Host) -> dict[str, Any]:
    return json.loads(python(caller, STATE).splitlines()[-1])


def prepare(caller: Host, options: str) -> str:
    done = caller.run(f"python cluster/prepare_aws.py --region {REGION} {options}", **AWS)
    assert done.returncode == 0, done.stdout
    return done.stdout


def kind(instance: dict[str, Any]) -> str:
    return {tag["Key"]: tag["Value"] for tag in instance["Tags"]}["ray-user-node-type"]


def test_a_cluster_is_requested_as_described_and_nothing_is_left_of_it(cloud: Lab, tmp_path: Path) -> None:
    caller = cloud.caller
    assert "unreachable" in caller.run("ip route get 192.0.2.1").stdout  # no packet finds a way out
    wide = caller.run(f"python cluster/prepare_aws.py --bucket {BUCKET} --ssh-from 0.0.0.0/0", **AWS)
    assert wide.returncode == 2
    assert "an IPv4 network of /8 or smaller" in wide.stdout

    printed = prepare(caller, f"--bucket {BUCKET} --ssh-from 203.0.113.7/32")
    (system,) = [line.split(": ")[1] for line in printed.splitlines() if line.startswith("FILE_SYSTEM_ID")]
    text = (PROJECT / "cluster" / "cluster.yaml").read_text()
    assert text.count("FILE_SYSTEM_ID") == text.count("//BUCKET") == 1
    filled = text.replace("FILE_SYSTEM_ID", system).replace("//BUCKET", f"//{BUCKET}")
    (cloud.folder / "cluster.yaml").write_text(filled)
    checked_group(state(caller), ssh_from="203.0.113.7/32")
    prepare(caller, f"--bucket {BUCKET} --ssh-from 198.51.100.0/24")  # again, from elsewhere
    before = state(caller)
    checked_group(before, ssh_from="198.51.100.0/24")
    checked_preparation(before, system)

    assert caller.run("mkdir -p ~/.ray && echo invented > ~/.ray/auth_token").returncode == 0
    up = caller.run("ray up -y --no-config-cache /mnt/lab/cluster.yaml", **AWS)
    assert "Launched instance" in up.stdout, up.stdout[-4000:]
    python(caller, REQUEST_WORKERS, "/mnt/lab/cluster.yaml")
    after = state(caller)
    assert after["groups"] == before["groups"]  # Ray opened nothing
    checked_instances(after["instances"], group=after["groups"][0]["GroupId"])

    down = caller.run("ray down -y /mnt/lab/cluster.yaml", **AWS)
    assert down.returncode == 0, down.stdout[-4000:]
    gone = state(caller)["instances"]
    assert [item["State"]["Name"] for item in gone] == ["terminated"] * 4
    prepare(caller, "--delete")
    kept = state(caller)
    assert (kept["roles"], kept["profiles"]) == (["AWSServiceRoleForEC2Spot"], [])
    assert len(kept["file_systems"]) == len(kept["groups"]) == 1  # the results are still there
    prepare(caller, "--delete --delete-file-system")
    left = state(caller)
    assert {name: left[name] for name in ("groups", "roles", "profiles", "file_systems")} == {
        "groups": [],
        "roles": ["AWSServiceRoleForEC2Spot"],
        "profiles": [],
        "file_systems": [],
    }
    assert left["buckets"] == [BUCKET]
    prepare(caller, "--delete --delete-file-system")  # nothing there is no error


def test_results_are_copied_to_s3(cloud: Lab) -> None:
    caller, run = cloud.caller, cloud.folder / "shared" / "run"
    prepare(caller, f"--bucket {BUCKET} --ssh-from 203.0.113.7/32")
    (run / "trials/t0000/artifact").mkdir(parents=True)
    (run / "spec.json").write_text("{}")
    (run / "trials/t0000/artifact/model.safetensors").write_bytes(bytes(6_000_000))
    url = f"s3://{BUCKET}/first?region={REGION}&scheme=http&endpoint_override=127.0.0.1:{PORT}"
    done = caller.run(f"python -m sweeps.cli upload /mnt/qa-sweeps/run '{url}'", **AWS)
    assert done.returncode == 0, done.stdout
    sizes = {name: size for name, size in state(caller)["objects"][BUCKET] if not name.endswith("/")}
    assert sizes == {"first/spec.json": 2, "first/trials/t0000/artifact/model.safetensors": 6_000_000}


def checked_group(found: dict[str, Any], *, ssh_from: str) -> None:
    """One group: everything from itself, ssh from the one network, nothing else."""
    (group,) = found["groups"]
    rules = sorted(group["IpPermissions"], key=lambda rule: rule["IpProtocol"])
    inner, ssh = rules
    assert inner["IpProtocol"] == "-1"
    assert [pair["GroupId"] for pair in inner["UserIdGroupPairs"]] == [group["GroupId"]]
    assert not inner.get("IpRanges")
    assert (ssh["IpProtocol"], ssh["FromPort"], ssh["ToPort"]) == ("tcp", 22, 22)
    assert [item["CidrIp"] for item in ssh["IpRanges"]] == [ssh_from]
    assert not any(rule.get("Ipv6Ranges") or rule.get("PrefixListIds") for rule in rules)


def checked_preparation(found: dict[str, Any], system: str) -> None:
    assert sorted(found["roles"]) == ["AWSServiceRoleForEC2Spot", "qa-sweeps-head"]
    assert found["profiles"] == ["qa-sweeps-head"]
    statements = found["policies"]["qa-sweeps-head"]["Statement"]
    rights = {action for item in statements for action in [item["Action"]] for action in _list(action)}
    assert not [action for action in rights if action.split(":")[0] not in ("ec2", "s3", "ssm")]
    (ending,) = [item for item in statements if "ec2:TerminateInstances" in _list(item["Action"])]
    assert ending["Condition"] == {"StringEquals": {"aws:ResourceTag/ray-cluster-name": "qa-sweeps"}}
    assert {item["Resource"] for item in statements if "s3:" in str(item["Action"])} == {
        f"arn:aws:s3:::{BUCKET}",
        f"arn:aws:s3:::{BUCKET}/*",
    }
    assert [(item["FileSystemId"], item["Encrypted"]) for item in found["file_systems"]] == [(system, True)]
    assert len(found["mounts"]) >= 3
    assert {tuple(item["groups"]) for item in found["mounts"]} == {(found["groups"][0]["GroupId"],)}
    assert set(found["public"][BUCKET].values()) == {True}


def checked_instances(instances: list[dict[str, Any]], *, group: str) -> None:
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for item in instances:
        by_kind.setdefault(kind(item), []).append(item)
    assert {name: len(items) for name, items in by_kind.items()} == {
        "head": 1,
        "gpu_spot": 2,
        "gpu_on_demand": 1,
    }
    types = {name: {item["InstanceType"] for item in items} for name, items in by_kind.items()}
    assert types == {"head": {"m6i.large"}, "gpu_spot": {"g5.xlarge"}, "gpu_on_demand": {"g5.xlarge"}}
    market = {name: {item.get("InstanceLifecycle") for item in items} for name, items in by_kind.items()}
    assert market == {"head": {None}, "gpu_spot": {"spot"}, "gpu_on_demand": {None}}
    for name, items in by_kind.items():
        for item in items:
            assert [found["GroupId"] for found in item["SecurityGroups"]] == [group]
            assert item["MetadataOptions"]["HttpTokens"] == "required"
            profile = item.get("IamInstanceProfile", {}).get("Arn", "").rpartition("/")[2]
            assert profile == ("qa-sweeps-head" if name == "head" else "")


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
