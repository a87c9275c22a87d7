"""Make what `cluster.yaml` needs in an AWS account, and print what to fill in: `python cluster/prepare_aws.py --help`.

A security group (everything within it, ssh from given addresses, nothing else), the head's role (launch and end the
machines of this cluster, read and write one bucket), a file system that every machine mounts, and a private bucket.
Run again, it changes only what differs; `--delete` takes away group, role and file system, never the bucket.
"""

import argparse
import ipaddress
import json
import time
from typing import Any

NAME = "qa-sweeps"  # of group, file system and cluster; `cluster.yaml` names them
HEAD = "qa-sweeps-head"  # of the head's role and profile
PATIENCE_SECONDS = 600  # for the file system


def main(arguments: list[str] | None = None) -> None:
    """Parse the arguments (None: this process's own) and do it."""
    import boto3

    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.delete and not (options.bucket and options.ssh_from):
        parser.error("--bucket and --ssh-from are needed")
    session = boto3.Session(region_name=options.region)
    if options.delete:
        delete_all(session)
        return
    group_id = make_security_group(session.client("ec2"), options.ssh_from)
    make_role(session, options.bucket)
    make_bucket(session.client("s3"), options.bucket, options.region)
    file_system_id = make_file_system(session, group_id)
    print(f"FILE_SYSTEM_ID: {file_system_id}")
    print(f"BUCKET: {options.bucket}")
    print(f"security group {NAME} ({group_id}): ssh from {', '.join(options.ssh_from)}")


def make_security_group(ec2: Any, ssh_from: list[str]) -> str:
    """Return the id of the group, whose incoming rules are exactly the wanted ones afterwards."""
    vpc_id = _default_vpc(ec2)
    found = _groups(ec2)
    group_id = (
        found[0]["GroupId"]
        if found
        else ec2.create_security_group(GroupName=NAME, Description="Machines of qa-sweeps", VpcId=vpc_id)[
            "GroupId"
        ]
    )
    wanted = [
        {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group_id}]},
        {
            "IpProtocol": "tcp",
            "FromPort": 22,
            "ToPort": 22,
            "IpRanges": [{"CidrIp": address, "Description": "ssh"} for address in ssh_from],
        },
    ]
    present = _groups(ec2)[0]["IpPermissions"]
    if present:
        ec2.revoke_security_group_ingress(GroupId=group_id, IpPermissions=present)
    ec2.authorize_security_group_ingress(GroupId=group_id, IpPermissions=wanted)
    return str(group_id)


def make_role(session: Any, bucket: str) -> None:
    """Make the head's role and instance profile; the role's rights are exactly `head_policy` afterwards."""
    iam = session.client("iam")
    account = session.client("sts").get_caller_identity()["Account"]
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
    if not _exists(lambda: iam.get_role(RoleName=HEAD), iam.exceptions.NoSuchEntityException):
        iam.create_role(RoleName=HEAD, AssumeRolePolicyDocument=json.dumps(trust))
    policy = json.dumps(head_policy(session.region_name, account, bucket))
    iam.put_role_policy(RoleName=HEAD, PolicyName=HEAD, PolicyDocument=policy)
    if not _exists(
        lambda: iam.get_instance_profile(InstanceProfileName=HEAD), iam.exceptions.NoSuchEntityException
    ):
        iam.create_instance_profile(InstanceProfileName=HEAD)
    if not iam.get_instance_profile(InstanceProfileName=HEAD)["InstanceProfile"]["Roles"]:
        iam.add_role_to_instance_profile(InstanceProfileName=HEAD, RoleName=HEAD)


def head_policy(region: str, account: str, bucket: str) -> dict[str, Any]:
    """Return the head's rights: it launches workers, and ends and tags machines of its own cluster alone."""
    own = {"StringEquals": {"aws:ResourceTag/ray-cluster-name": NAME}}
    instances = f"arn:aws:ec2:{region}:{account}:instance/*"
    launching = {"StringEquals": {"ec2:CreateAction": "RunInstances"}}
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": ["ec2:Describe*", "ec2:RunInstances"], "Resource": "*"},
            {"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": instances, "Condition": launching},
            {
                "Effect": "Allow",
                "Action": ["ec2:CreateTags", "ec2:TerminateInstances"],
                "Resource": instances,
                "Condition": own,
            },
            # The image is named by a public parameter.
            {
                "Effect": "Allow",
                "Action": "ssm:GetParameters",
                "Resource": f"arn:aws:ssm:{region}::parameter/aws/service/*",
            },
            {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{bucket}"},
            {
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
                "Resource": f"arn:aws:s3:::{bucket}/*",
            },
        ],
    }


def make_bucket(s3: Any, bucket: str, region: str) -> None:
    """Make the bucket, or keep the one of this account, and close it to the public."""
    if bucket not in [item["Name"] for item in s3.list_buckets()["Buckets"]]:
        # The oldest region is the one that must not be named.
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=bucket, **place)
    closed = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=dict.fromkeys(closed, True))


def make_file_system(session: Any, group_id: str) -> str:
    """Return the id of the encrypted file system, reachable from the group in every zone."""
    efs, ec2 = session.client("efs"), session.client("ec2")
    file_system_id = _file_system(efs)
    if file_system_id is None:
        made = efs.create_file_system(
            CreationToken=NAME,
            Encrypted=True,
            ThroughputMode="elastic",
            Tags=[{"Key": "Name", "Value": NAME}],
        )
        file_system_id = str(made["FileSystemId"])
    _wait(lambda: efs.describe_file_systems(FileSystemId=file_system_id)["FileSystems"][0], "available")
    mounted = {
        target["SubnetId"]
        for target in efs.describe_mount_targets(FileSystemId=file_system_id)["MountTargets"]
    }
    subnets = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [_default_vpc(ec2)]}])["Subnets"]
    for subnet in subnets:
        if subnet["SubnetId"] not in mounted:
            efs.create_mount_target(
                FileSystemId=file_system_id, SubnetId=subnet["SubnetId"], SecurityGroups=[group_id]
            )
    return file_system_id


def delete_all(session: Any) -> None:
    """Take away file system, role and group, in this order; what is not there is passed over."""
    efs, iam, ec2 = session.client("efs"), session.client("iam"), session.client("ec2")
    file_system_id = _file_system(efs)
    if file_system_id is not None:
        for target in efs.describe_mount_targets(FileSystemId=file_system_id)["MountTargets"]:
            efs.delete_mount_target(MountTargetId=target["MountTargetId"])
        _wait_gone(lambda: efs.describe_mount_targets(FileSystemId=file_system_id)["MountTargets"])
        efs.delete_file_system(FileSystemId=file_system_id)
    gone = iam.exceptions.NoSuchEntityException
    for remove in (
        lambda: iam.remove_role_from_instance_profile(InstanceProfileName=HEAD, RoleName=HEAD),
        lambda: iam.delete_instance_profile(InstanceProfileName=HEAD),
        lambda: iam.delete_role_policy(RoleName=HEAD, PolicyName=HEAD),
        lambda: iam.delete_role(RoleName=HEAD),
    ):
        _exists(remove, gone)
    for group in _groups(ec2):
        ec2.delete_security_group(GroupId=group["GroupId"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--region", default="us-west-2", help="as in cluster.yaml; default: %(default)s")
    parser.add_argument(
        "--bucket", help="for results and MLflow's artifacts; made unless it is yours already"
    )
    parser.add_argument(
        "--ssh-from",
        nargs="+",
        type=_network,
        metavar="ADDRESS/BITS",
        help="networks that may log in, such as 203.0.113.7/32; the whole world is refused",
    )
    parser.add_argument(
        "--delete", action="store_true", help="take away what this script made, but the bucket"
    )
    return parser


def _network(text: str) -> str:
    network = ipaddress.ip_network(text)
    if network.version != 4 or network.prefixlen < 8:
        raise argparse.ArgumentTypeError(f"found {text}; allowed: an IPv4 network of /8 or smaller")
    return str(network)


def _default_vpc(ec2: Any) -> str:
    found = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not found:
        raise SystemExit("this region has no default VPC; make one with: aws ec2 create-default-vpc")
    return str(found[0]["VpcId"])


def _groups(ec2: Any) -> list[dict[str, Any]]:
    filters = [
        {"Name": "group-name", "Values": [NAME]},
        {"Name": "vpc-id", "Values": [_default_vpc(ec2)]},
    ]
    return list(ec2.describe_security_groups(Filters=filters)["SecurityGroups"])


def _file_system(efs: Any) -> str | None:
    found = efs.describe_file_systems(CreationToken=NAME)["FileSystems"]
    return str(found[0]["FileSystemId"]) if found else None


def _exists(call: Any, absent: type[Exception]) -> bool:
    try:
        call()
    except absent:
        return False
    return True


def _wait(describe: Any, state: str) -> None:
    _until(lambda: describe()["LifeCycleState"] == state, f"the file system is not {state}")


def _wait_gone(describe: Any) -> None:
    _until(lambda: not describe(), "the mount targets are still there")


def _until(condition: Any, problem: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{problem} after {PATIENCE_SECONDS} s; run the same command again")
        time.sleep(5)


if __name__ == "__main__":
    main()
