"""The cluster files: taken by Ray, closed to the world, and alike where they must be. Starts nothing."""

import copy
import ipaddress
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
CLUSTER = PROJECT / "cluster"
CLOUDS = ("cluster", "gcp")
LAUNCHED = (*CLOUDS, "local")  # by `ray up`


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())


def kubernetes() -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all((CLUSTER / "kuberay.yaml").read_text())
    return {document["kind"]: document for document in documents}


def start_commands(config: dict[str, Any]) -> list[str]:
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    return [command for command in commands if "ray start" in command]


def mappings(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from mappings(item)


def test_every_yaml_of_the_folder_is_looked_at() -> None:
    assert sorted(path.stem for path in CLUSTER.glob("*.yaml")) == sorted([*LAUNCHED, "kuberay"])


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_takes_the_file(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(read(name)))
    validate_config(prepared)
    assert prepared["provider"]["type"] == {"cluster": "aws"}.get(name, name)


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_refuses_the_file_with_a_misspelt_setting(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config({**read(name), "idle_time_minutes": 5})
    with pytest.raises(Exception, match="idle_time_minutes"):
        validate_config(prepared)


@pytest.mark.parametrize("name", LAUNCHED)
def test_every_ray_is_started_with_token_authentication_and_the_token_is_distributed(name: str) -> None:
    config = read(name)
    commands = start_commands(config)
    assert len(commands) == 2
    for command in commands:
        assert re.search(r"export [^;]*RAY_AUTH_MODE=token[^;]*;\s*ray start", command), command
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


@pytest.mark.parametrize("name", LAUNCHED)
def test_dashboard_and_tracking_server_listen_on_the_loopback_alone(name: str) -> None:
    head = " ".join(read(name)["head_start_ray_commands"])
    assert re.findall(r"--dashboard-host=(\S+)", head) == ["127.0.0.1"]
    assert "0.0.0.0" not in (CLUSTER / f"{name}.yaml").read_text()
    assert "cluster/mlflow.sh" in head
    assert re.findall(r"--host (\S+)", (CLUSTER / "mlflow.sh").read_text()) == ["127.0.0.1"]


@pytest.mark.parametrize("name", LAUNCHED)
def test_all_nodes_are_set_up_by_the_one_script_from_the_one_project(name: str) -> None:
    config = read(name)
    (command,) = config["setup_commands"]
    assert command.startswith("bash ~/qa-sweeps/cluster/setup.sh ")
    assert config["file_mounts"]["~/qa-sweeps"] == "."
    options = set(re.findall(r"--[a-z]+", command))
    known = set(re.findall(r"^ +(--[a-z]+)\)", (CLUSTER / "setup.sh").read_text(), re.MULTILINE))
    assert options
    assert options <= known


@pytest.mark.parametrize("name", CLOUDS)
def test_workers_are_spot_machines_with_an_equal_one_at_full_price_to_fall_back_to(name: str) -> None:
    config = read(name)
    types = config["available_node_types"]
    assert set(types) == {"head", "gpu_spot", "gpu_on_demand"}
    spot, full = types["gpu_spot"], types["gpu_on_demand"]
    assert spot["resources"] == full["resources"] == {"CPU": 4, "GPU": 1}
    assert spot["priority"] > full["priority"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert spot["min_workers"] == full["min_workers"] == 0
    assert spot["max_workers"] == full["max_workers"] == config["max_workers"] == 8
    assert 0 < config["idle_timeout_minutes"] <= 15
    if name == "cluster":
        assert spot["node_config"].pop("InstanceMarketOptions") == {
            "MarketType": "spot",
            "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
        }
    else:
        (scheduling,) = spot["node_config"].pop("scheduling")
        assert (scheduling["provisioningModel"], scheduling["instanceTerminationAction"]) == (
            "SPOT",
            "DELETE",
        )
        full["node_config"].pop("scheduling")
    assert spot["node_config"] == full["node_config"]


def launches(name: str, *, failed: dict[str, float], trials: int) -> dict[str, int]:
    """Return how many machines of each type Ray's autoscaler asks for when trials wait.

    Args:
        failed: how far a type has recovered from a refused request, from 0 to 1.
        trials: how many wait, one GPU each.
    """
    from ray.autoscaler._private.util import prepare_config
    from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.autoscaler_pb2 import GangResourceRequest

    config = prepare_config(copy.deepcopy(read(name)))
    types = {
        key: NodeTypeConfig(
            name=key,
            min_worker_nodes=item["min_workers"],
            max_worker_nodes=item["max_workers"],
            resources=item["resources"],
            priority=item.get("priority", 0),
        )
        for key, item in config["available_node_types"].items()
        if key != "head"
    }
    bundle = ResourceRequestUtil.make({"CPU": 1, "GPU": 1})
    request = SchedulingRequest(
        node_type_configs=types,
        disable_launch_config_check=True,
        max_num_nodes=config["max_workers"],  # no head stands in this request
        gang_resource_requests=[GangResourceRequest(requests=[bundle]) for _ in range(trials)],
        recoverable_resource_availabilities=failed,
    )
    reply = ResourceDemandScheduler(event_logger=None).schedule(request)
    return {item.instance_type: item.count for item in reply.to_launch}


@pytest.mark.parametrize("name", CLOUDS)
def test_the_autoscaler_asks_for_spot_machines_first_and_for_others_after_a_refusal(name: str) -> None:
    assert launches(name, failed={}, trials=3) == {"gpu_spot": 3}
    assert launches(name, failed={"gpu_spot": 0.0}, trials=3) == {"gpu_on_demand": 3}
    assert launches(name, failed={}, trials=12) == {"gpu_spot": 8}  # the limit holds for both types together


def test_aws_names_the_group_that_is_made_beforehand_and_gives_rights_to_the_head_alone() -> None:
    config = read("cluster")
    preparation = (CLUSTER / "prepare_aws.py").read_text()
    assert config["provider"]["security_group"] == {"GroupName": "qa-sweeps"}
    assert 'NAME = "qa-sweeps"' in preparation
    profiles = {
        name: item["node_config"].get("IamInstanceProfile")
        for name, item in config["available_node_types"].items()
    }
    assert profiles == {"head": {"Name": "qa-sweeps-head"}, "gpu_spot": None, "gpu_on_demand": None}
    assert 'HEAD = "qa-sweeps-head"' in preparation
    assert config["cluster_name"] == "qa-sweeps"  # the head's rights name it
    for item in config["available_node_types"].values():
        assert item["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}
        assert all(disk["Ebs"]["Encrypted"] for disk in item["node_config"]["BlockDeviceMappings"])
        assert not {"SecurityGroupIds", "NetworkInterfaces"} & set(item["node_config"])


def test_local_clusters_use_the_autoscaler_that_starts_their_workers() -> None:
    config = read("local")
    (head,) = [command for command in config["head_start_ray_commands"] if "ray start" in command]
    assert "RAY_enable_autoscaler_v2=0" in head
    assert config["min_workers"] == config["max_workers"] == len(config["provider"]["worker_ips"])
    addresses = [config["provider"]["head_ip"], *config["provider"]["worker_ips"]]
    for address in addresses:  # nobody's real machine is named
        with pytest.raises(ValueError, match="does not appear to be"):
            ipaddress.ip_address(address)


def test_kubernetes_gets_a_cluster_and_a_job_without_root_and_without_a_way_in() -> None:
    documents = kubernetes()
    assert set(documents) == {"PersistentVolumeClaim", "NetworkPolicy", "RayCluster", "RayJob"}
    cluster = documents["RayCluster"]["spec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == version("ray")
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    text = (CLUSTER / "kuberay.yaml").read_text()
    assert not re.search(r"NodePort|LoadBalancer|kind: Ingress|hostNetwork|hostPort|privileged", text)
    (rule,) = documents["NetworkPolicy"]["spec"]["ingress"]
    assert all("podSelector" in source for source in rule["from"])
    pods = [item for document in documents.values() for item in mappings(document) if "containers" in item]
    assert len(pods) == 3  # head, workers, the job's submitter
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["image"].endswith(f"qa-sweeps:{project()['version']}")
            assert set(container["resources"]) == {"requests", "limits"}


def test_kubernetes_scales_and_shares_what_the_other_clusters_do() -> None:
    documents = kubernetes()
    cluster = documents["RayCluster"]["spec"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["autoscalerOptions"]["idleTimeoutSeconds"] == 600
    (workers,) = cluster["workerGroupSpecs"]
    assert (workers["minReplicas"], workers["maxReplicas"]) == (0, 8)
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    claim = documents["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    volumes = [item for item in mappings(cluster) if "persistentVolumeClaim" in item]
    assert [item["persistentVolumeClaim"]["claimName"] for item in volumes] == [claim["metadata"]["name"]] * 2
    job = documents["RayJob"]["spec"]
    assert job["clusterSelector"] == {"ray.io/cluster": documents["RayCluster"]["metadata"]["name"]}
    assert "sweeps/run.py" in job["entrypoint"]


@pytest.mark.parametrize("answers", [True, False])
def test_the_job_on_kubernetes_waits_for_mlflow_and_starts_nothing_without_it(
    answers: bool, tmp_path: Path
) -> None:
    """Ray splits the entry point into words and puts them together anew, in double quotes, for a shell."""
    words = shlex.split(kubernetes()["RayJob"]["spec"]["entrypoint"])
    assert words[:2] == ["bash", "-c"]
    stand_ins = {
        "wget": f'echo "wget $*" >> log; exit {0 if answers else 4}',
        "python": 'echo "python $*" >> log',
    }
    for name, body in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    command = subprocess.list2cmdline(words)
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True)
    assert (done.returncode == 0) == answers
    asked, *started = (tmp_path / "log").read_text().splitlines()
    assert "--retry-connrefused" in asked
    assert asked.endswith("http://127.0.0.1:5000/health")
    assert len(started) == answers
    assert all("sweeps/run.py" in line and "--tracking-uri http://127.0.0.1:5000" in line for line in started)


@pytest.mark.parametrize("script", ["setup.sh", "mlflow.sh"])
def test_the_scripts_are_shell_and_refuse_unknown_options(script: str) -> None:
    path = CLUSTER / script
    assert subprocess.run(["bash", "-n", path], capture_output=True).returncode == 0
    done = subprocess.run(["bash", path, "--shard", "x"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "unknown option '--shard' (allowed: --" in done.stderr


def test_the_setup_installs_extras_that_the_package_has() -> None:
    extras = set(project()["optional-dependencies"])
    named = {"cluster", "gpu"}
    for name in CLOUDS:
        named |= set(re.findall(r"--extras (\w+)", read(name)["setup_commands"][0]))
    assert named == {"cluster", "gpu", "aws", "gcp"}
    assert named <= extras


def project() -> dict[str, Any]:
    return tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
