"""prepare_aws.py against stand-ins for AWS: what it makes, what it refuses, and in which order things go."""

import importlib.util
import json
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "cluster" / "prepare_aws.py"
RESULTS = "fs-1"


class Absent(Exception):
    pass


class Account:
    """A client of every service at once; `calls` holds what changes something, in order."""

    region_name = "us-west-2"
    exceptions = SimpleNamespace(NoSuchEntityException=Absent)

    def __init__(self, *, roles: tuple[str, ...] = (), up: tuple[str, ...] = ()) -> None:
        self.roles, self.up = set(roles), list(up)
        self.mounts, self.file_systems = ["mt-1", "mt-2"], [RESULTS]
        self.groups = [{"GroupId": "sg-1", "IpPermissions": []}]
        self.calls: list[str] = []
        self.filters: list[Any] = []

    def client(self, service: str) -> "Account":
        return self

    def __getattr__(self, name: str) -> Any:  # every other request
        return lambda **options: self.calls.append(name) or {}

    def get_role(self, **options: str) -> None:
        if options["RoleName"] not in self.roles:
            raise Absent

    def create_service_linked_role(self, **options: str) -> None:
        self.calls.append(f"role for {options['AWSServiceName']}")

    def get_paginator(self, name: str) -> Any:
        assert name == "describe_instances"
        return SimpleNamespace(paginate=self._pages)

    def _pages(self, **options: Any) -> list[Any]:
        self.filters = options["Filters"]
        return [{"Reservations": [{"Instances": [{"InstanceId": found}]}]} for found in self.up]

    def terminate_instances(self, **options: list[str]) -> None:
        self.calls.append(f"end {' '.join(options['InstanceIds'])}")
        self.up.clear()

    def describe_vpcs(self, **options: Any) -> Any:
        return {"Vpcs": [{"VpcId": "vpc-1"}]}

    def describe_security_groups(self, **options: Any) -> Any:
        return {"SecurityGroups": self.groups}

    def describe_file_systems(self, **options: Any) -> Any:
        return {"FileSystems": [{"FileSystemId": found} for found in self.file_systems]}

    def describe_mount_targets(self, **options: Any) -> Any:
        return {"MountTargets": [{"MountTargetId": found} for found in self.mounts]}

    def delete_mount_target(self, **options: str) -> None:
        self.mounts.remove(options["MountTargetId"])
        self.calls.append("delete_mount_target")


@pytest.fixture
def script() -> Any:
    spec = importlib.util.spec_from_file_location("prepare_aws", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(script: Any, account: Account, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
    monkeypatch.setattr(script, "_session", lambda region: account)
    script.main(list(arguments))
    return account.calls


@pytest.mark.parametrize("arguments", [["--help"], ["--delete-file-system"], []])
def test_help_and_wrong_arguments_need_no_boto3(arguments: list[str]) -> None:
    code = f"import sys; sys.modules['boto3'] = None; sys.argv = ['x', *{arguments}]; import runpy; "
    code += f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == (0 if arguments == ["--help"] else 2), done.stderr
    assert "--end-instances" in done.stdout + done.stderr


def test_without_boto3_the_extra_to_install_is_named(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(SystemExit, match=r"boto3 is missing: pip install .*\[cluster,aws\]"):
        script.main(["--delete"])


@pytest.mark.parametrize("is_there", [True, False])
def test_the_accounts_role_for_spot_machines_is_made_where_it_is_missing(script: Any, is_there: bool) -> None:
    account = Account(roles=("AWSServiceRoleForEC2Spot",) if is_there else ())
    script.make_spot_role(account)
    assert account.calls == ([] if is_there else ["role for spot.amazonaws.com"])


def test_a_first_start_makes_it(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "make_role", lambda session, bucket, group_id: None)
    monkeypatch.setattr(script, "make_bucket", lambda s3, bucket, region: None)
    monkeypatch.setattr(script, "make_file_system", lambda session, group_id: RESULTS)
    calls = _run(script, Account(), monkeypatch, "--bucket", "b", "--ssh-from", "203.0.113.7/32")
    assert "role for spot.amazonaws.com" in calls


@pytest.mark.parametrize("more", [(), ("--delete-file-system",)])
def test_nothing_is_deleted_while_a_machine_is_up(
    script: Any, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    account = Account(up=("i-head", "i-worker"))
    with pytest.raises(SystemExit, match=r"2 machines of qa-sweeps are up \(i-head, i-worker\).*ray down"):
        _run(script, account, monkeypatch, "--delete", *more)
    assert account.calls == []
    assert {"Name": "tag:ray-cluster-name", "Values": ["qa-sweeps"]} in account.filters
    (states,) = [item["Values"] for item in account.filters if item["Name"] == "instance-state-name"]
    assert set(states) == {"pending", "running", "stopping", "stopped"}


def test_the_file_system_with_the_results_stays_unless_it_is_named(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = _run(script, Account(), monkeypatch, "--delete")
    assert "delete_role" in calls
    assert not {"delete_mount_target", "delete_file_system", "delete_security_group"} & set(calls)
    assert f"kept: file system {RESULTS}" in capsys.readouterr().out


def test_the_results_go_last(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _run(script, Account(), monkeypatch, "--delete", "--delete-file-system")
    assert calls[-4:] == ["delete_mount_target"] * 2 + ["delete_security_group", "delete_file_system"]


def test_workers_of_a_lost_head_are_ended_and_then_the_rest_may_go(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account(up=("i-1", "i-2"))
    assert _run(script, account, monkeypatch, "--end-instances") == ["end i-1 i-2"]
    account = Account(up=("i-1",))
    calls = _run(script, account, monkeypatch, "--end-instances", "--delete")
    assert calls[0] == "end i-1"
    assert "delete_role" in calls


def _may(policy: dict[str, Any], action: str, resource: str, tags: dict[str, str]) -> bool:
    """Tell whether a statement allows it: with wildcards, and conditions on the tags of the request or resource."""
    for statement in policy["Statement"]:
        actions, resources = statement["Action"], statement["Resource"]
        actions = [actions] if isinstance(actions, str) else actions
        resources = [resources] if isinstance(resources, str) else resources
        wanted = statement.get("Condition", {}).get("StringEquals", {})
        if (
            any(fnmatchcase(action, item) for item in actions)
            and any(fnmatchcase(resource, item) for item in resources)
            and all(tags.get(name) == value for name, value in wanted.items())
        ):
            return True
    return False


def test_the_head_launches_machines_of_its_own_cluster_into_its_own_group_alone(script: Any) -> None:
    policy = script.head_policy("us-west-2", "123456789012", "results", "sg-1")
    json.dumps(policy)
    here = "arn:aws:ec2:us-west-2:123456789012"
    own = {"aws:RequestTag/ray-cluster-name": "qa-sweeps"}
    run = "ec2:RunInstances"
    for part in ("subnet/s", "network-interface/n", "volume/v", "key-pair/k", "spot-instances-request/r"):
        assert _may(policy, run, f"{here}:{part}", {}), part
    assert _may(policy, run, "arn:aws:ec2:us-west-2::image/ami-1", {})
    assert _may(policy, run, f"{here}:instance/i", own)
    assert _may(policy, run, f"{here}:security-group/sg-1", {})
    assert not _may(policy, run, f"{here}:instance/i", {})
    assert not _may(policy, run, f"{here}:instance/i", {"aws:RequestTag/ray-cluster-name": "other"})
    assert not _may(policy, run, f"{here}:security-group/sg-2", own)
    assert not _may(policy, run, "arn:aws:ec2:eu-west-1:123456789012:instance/i", own)
    assert not _may(policy, "ec2:TerminateInstances", f"{here}:instance/i", {})
    assert not _may(policy, "iam:PassRole", "*", own)
