"""Make what `cluster.yaml` needs in an AWS account, and print what to fill in: `python cluster/prepare_aws.py --help`.

A security group (everything within it, ssh from given addresses, nothing else), the head's role (launch and end the
machines of this cluster, read and write one bucket), the account's own role for spot machines, a file system that every
machine mounts, and a private bucket. Run again, it changes only what differs.

`--delete` takes away the head's role, and with `--delete-file-system` also the file system with the results on it and
the group, which it needs; never the bucket, nor the role for spot machines, which belongs to the account. It refuses
while machines of the cluster are up. `--end-instances` ends those, head and workers: `ray down` needs a head, and one
that is lost leaves its workers running.
"""

import argparse
import ipaddress
import json
import time
from typing import Any

NAME = "qa-sweeps"  # of group, file system and cluster; `cluster.yaml` names them
HEAD = "qa-sweeps-head"  # of the head's role and profile
SPOT_SERVICE, SPOT_ROLE = "spot.amazonaws.com", "AWSServiceRoleForEC2Spot"
UP = ("pending", "running", "stopping", "stopped")  # states of a machine that costs something
PATIENCE_SECONDS = 600  # for the file system, and for machines to end


def main(arguments: list[str] | None = None) -> None:
    """Parse the arguments (None: this process's own) and do it."""
    parser = _parser()
    options = parser.parse_args(arguments)
    takes_away = options.delete or options.end_instances
    if not takes_away and not (options.bucket and options.ssh_from):
        parser.error("--bucket and --ssh-from are needed")
    if options.delete_file_system and not options.delete:
        parser.error("--delete-file-system: found without --delete; allowed: with it")
    session = _session(options.region)
    if takes_away:
        if options.end_instances:
            end_instances(session.client("ec2"))
        if options.delete:
            delete_all(session, with_file_system=options.delete_file_system)
        return
    group_id = make_security_group(session.client("ec2"), options.ssh_from)
    make_spot_role(session.client("iam"))
    make_role(session, options.bucket, group_id)
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


def make_spot_role(iam: Any) -> None:
    """Make the role with which EC2 starts spot machines, which a fresh account lacks and the head may not make.

    Without it every request for a spot machine fails, and the cluster takes machines at the full price.
    """
    if not _exists(lambda: iam.get_role(RoleName=SPOT_ROLE), iam.exceptions.NoSuchEntityException):
        iam.create_service_linked_role(AWSServiceName=SPOT_SERVICE)


def make_role(session: Any, bucket: str, group_id: str) -> None:
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
    policy = json.dumps(head_policy(session.region_name, account, bucket, group_id))
    iam.put_role_policy(RoleName=HEAD, PolicyName=HEAD, PolicyDocument=policy)
    if not _exists(
        lambda: iam.get_instance_profile(InstanceProfileName=HEAD), iam.exceptions.NoSuchEntityException
    ):
        iam.create_instance_profile(InstanceProfileName=HEAD)
    if not iam.get_instance_profile(InstanceProfileName=HEAD)["InstanceProfile"]["Roles"]:
        iam.add_role_to_instance_profile(InstanceProfileName=HEAD, RoleName=HEAD)


def head_policy(region: str, account: str, bucket: str, group_id: str) -> dict[str, Any]:
    """Return the head's rights: it launches workers into its group, and ends and tags machines of its cluster alone."""
    own = {"StringEquals": {"aws:ResourceTag/ray-cluster-name": NAME}}
    as_own = {"StringEquals": {"aws:RequestTag/ray-cluster-name": NAME}}
    here = f"arn:aws:ec2:{region}:{account}"
    instances = f"{here}:instance/*"
    # What a launch touches beside the machine itself; of groups the cluster's alone, so that no other door opens.
    parts = ("subnet/*", "network-interface/*", "volume/*", "key-pair/*", "spot-instances-request/*")
    launching = {"StringEquals": {"ec2:CreateAction": "RunInstances"}}
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"},  # knows no narrower resource
            {"Effect": "Allow", "Action": "ec2:RunInstances", "Resource": instances, "Condition": as_own},
            {
                "Effect": "Allow",
                "Action": "ec2:RunInstances",
                "Resource": [
                    f"arn:aws:ec2:{region}::image/*",
                    f"{here}:security-group/{group_id}",
                    *(f"{here}:{part}" for part in parts),
                ],
            },
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


def end_instances(ec2: Any) -> None:
    """End every machine that carries the cluster's name, and wait until none is up."""
    up = _up(ec2)
    if up:
        ec2.terminate_instances(InstanceIds=up)
    _until(lambda: not _up(ec2), "machines of the cluster are still up")
    print(f"ended {len(up)} machines of {NAME}")


def delete_all(session: Any, *, with_file_system: bool) -> None:
    """Take away the head's role, and if told group and file system, the results last; what is absent is passed over.

    Raises:
        SystemExit: machines of the cluster are up; nothing was taken away.
    """
    efs, iam, ec2 = session.client("efs"), session.client("iam"), session.client("ec2")
    up = _up(ec2)
    if up:
        raise SystemExit(
            f"--delete: {len(up)} machines of {NAME} are up ({', '.join(up)}); end them first with "
            "`ray down cluster/cluster.yaml`, or with --end-instances where the head is lost"
        )
    gone = iam.exceptions.NoSuchEntityException
    for remove in (
        lambda: iam.remove_role_from_instance_profile(InstanceProfileName=HEAD, RoleName=HEAD),
        lambda: iam.delete_instance_profile(InstanceProfileName=HEAD),
        lambda: iam.delete_role_policy(RoleName=HEAD, PolicyName=HEAD),
        lambda: iam.delete_role(RoleName=HEAD),
    ):
        _exists(remove, gone)
    file_system_id = _file_system(efs)
    if file_system_id is not None and not with_file_system:
        print(f"kept: file system {file_system_id} with the results on it, and group {NAME}, which it needs")
        return
    if file_system_id is not None:
        for target in efs.describe_mount_targets(FileSystemId=file_system_id)["MountTargets"]:
            efs.delete_mount_target(MountTargetId=target["MountTargetId"])
        _wait_gone(lambda: efs.describe_mount_targets(FileSystemId=file_system_id)["MountTargets"])
    for group in _groups(ec2):
        ec2.delete_security_group(GroupId=group["GroupId"])
    if file_system_id is not None:
        efs.delete_file_system(FileSystemId=file_system_id)


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
        "--delete", action="store_true", help="take away the head's role; refused while machines are up"
    )
    parser.add_argument(
        "--delete-file-system",
        action="store_true",
        help="with --delete: also the file system, with all results that lie on it, and the group",
    )
    parser.add_argument(
        "--end-instances",
        action="store_true",
        help="end every machine of the cluster, such as workers of a head that is lost; before --delete",
    )
    return parser


def _session(region: str) -> Any:
    try:
        import boto3
    except ImportError as error:
        raise SystemExit("boto3 is missing: pip install -c constraints.txt -e '.[cluster,aws]'") from error
    return boto3.Session(region_name=region)


def _up(ec2: Any) -> list[str]:
    """Return the ids of the cluster's machines that are not ended."""
    filters = [
        {"Name": "tag:ray-cluster-name", "Values": [NAME]},
        {"Name": "instance-state-name", "Values": list(UP)},
    ]
    pages = ec2.get_paginator("describe_instances").paginate(Filters=filters)
    return [
        str(instance["InstanceId"])
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    ]


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
