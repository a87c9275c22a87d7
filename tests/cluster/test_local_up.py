"""`ray up` of local.yaml for real: two hosts over ssh, a sweep on both, one host lost in mid-sweep."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps.run_folder import json_lines, records
from sweeps.run_folder.layout import JOURNAL_FILE, RECORDS_FILE
from tests.cluster.namespaces import PROJECT, SHARED, Host, Lab, address, lab, missing

REASON = missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]
HEAD, WORKER = 2, 3  # the last part of their addresses
FILE = "/mnt/lab/local.yaml"
NO_V2 = {"RAY_UP_enable_autoscaler_v2": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
TRIALS = 8


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path / "lab") as made:
        made.add_host("head", HEAD)
        made.add_host("worker", WORKER)
        yield made


def filled_in(folder: Path) -> None:
    """Write local.yaml with this lab's addresses and user; each node takes one trial at a time."""
    values = yaml.safe_load((PROJECT / "cluster" / "local.yaml").read_text())
    values["provider"] |= {"head_ip": address(HEAD), "worker_ips": [address(WORKER)]}
    values |= {"min_workers": 1, "max_workers": 1}
    values["auth"] = {"ssh_user": "root", "ssh_private_key": "/mnt/lab/key"}
    values["setup_commands"] = [f"{command} --installed" for command in values["setup_commands"]]
    values["rsync_exclude"] += [".git"]
    for place in ("head_start_ray_commands", "worker_start_ray_commands"):
        values[place] = [
            command.replace("ray start", "ray start --num-cpus=1 --object-store-memory=100000000")
            for command in values[place]
        ]
    (folder / "local.yaml").write_text(yaml.safe_dump(values))


def small_sweep(folder: Path, squad: Path) -> None:
    (folder / "squad.json").write_bytes(squad.read_bytes())
    values: dict[str, Any] = {
        "name": "small",
        "seed": 5,
        "objectives": [
            {"name": "em_percent", "goal": "max", "reference": 0},
            {"name": "memory_mb", "goal": "min", "reference": 32},
        ],
        "searcher": {"name": "random"},
        "scheduler": {"name": "fifo", "options": {"reports": 5}},
        "budget": {"trials": TRIALS, "examples": 2400},
        "recipe": {
            "model": {"family": "bert", "vocab_size": 300, "checkpoint": "micro"},
            "data": {
                "train": f"{SHARED}/squad.json",
                "evaluation": f"{SHARED}/squad.json",
                "max_length": 64,
                "stride": 8,
                "max_question_length": 24,
            },
            "train": {"precision": "float32", "batch_size": 4},
            "evaluation": {"precision": "float32", "latency_runs": 2},
        },
        "space": [{"set": "train.learning_rate", "log_uniform": [0.001, 0.01]}],
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(values))


def checked(host: Host, command: str, **environment: str) -> str:
    done = host.run(command, **environment)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-6000:]}"
    return done.stdout


def wait_for(condition: Any, what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(1.0)


def places(caller: Host) -> str:
    """Return what `ray status` says of the cluster: one place for a trial on each node."""
    return checked(caller, f"ray exec --no-config-cache {FILE} 'ray status'", **NO_V2)


def is_in_the_middle(folder: Path) -> bool:
    """Tell whether trials have ended on two nodes and two others have reported."""
    if not (folder / RECORDS_FILE).exists():
        return False
    done = records.load(folder / RECORDS_FILE).records
    events = [event for _, event in json_lines.read(folder / JOURNAL_FILE)[0]]
    reported = {event["trial_id"] for event in events if event["event"] == "reported"}
    is_on_both = len({record.provenance["node"] for record in done}) == 2
    return is_on_both and len(reported - {record.trial_id for record in done}) == 2


def test_a_sweep_on_two_hosts_outlives_the_loss_of_one(machines: Lab, small_squad: Path) -> None:
    shared = machines.folder / "shared"
    filled_in(machines.folder)
    small_sweep(shared, small_squad)
    caller = machines.caller
    assert "unreachable" in caller.run("ip route get 192.0.2.1").stdout  # no packet finds a way out
    checked(caller, "ray get-auth-token --generate > /dev/null")

    output = checked(caller, f"ray up -y --no-config-cache {FILE}", **NO_V2)
    assert "setup.sh: ready; shared folder /mnt/qa-sweeps" in output
    assert "mlflow.sh: http://127.0.0.1:5000" in output
    wait_for(lambda: "raylet" in " ".join(machines.hosts["worker"].processes()), "the worker's Ray", 300)
    wait_for(lambda: "/2.0 CPU" in places(caller), "two nodes", 120)
    for refused, why in ((f"{address(HEAD)}:5000", "MLflow"), (f"{address(HEAD)}:8265", "the dashboard")):
        probe = f"exec 3<>/dev/tcp/{refused.replace(':', '/')}"
        assert caller.run(probe).returncode != 0, f"{why} can be reached from another machine"
    told = caller.run(
        f"python -c 'import ray; ray.init(\"{address(HEAD)}:6379\")'", timeout=120, RAY_AUTH_MODE="disabled"
    )
    assert told.returncode != 0, "a client without the token was let in"

    # ray submit ends with the sweep; the test watches the shared folder meanwhile.
    options = (
        f"--config {SHARED}/small.yaml --address auto --out {SHARED}/run --tracking-uri http://127.0.0.1:5000"
    )
    submit = f"ray submit --no-config-cache {FILE} sweeps/run.py -- {options}"
    begun = checked(caller, f"({submit}; echo rc=$?) > /mnt/lab/sweep.log 2>&1 & echo $!", **NO_V2)
    assert begun.strip().isdigit()
    log = machines.folder / "sweep.log"
    wait_for(
        lambda: is_in_the_middle(shared / "run") or "rc=" in log.read_text(),
        "trials ended on both hosts and others in the middle",
        900,
    )
    assert "rc=" not in log.read_text(), log.read_text()
    machines.cut_off("worker", WORKER)
    wait_for(lambda: "rc=" in log.read_text(), "the end of the sweep", 1200)
    assert "rc=0" in log.read_text(), log.read_text()

    found = records.load(shared / "run" / RECORDS_FILE).records
    assert sorted(record.trial_id for record in found) == [f"t{index:04d}" for index in range(TRIALS)]
    assert {record.status for record in found} == {"ok"}
    on = {record.trial_id: record.provenance["node"] for record in found}
    again = [record for record in found if record.starts > 1]
    assert len(again) == 1
    assert f"{again[0].trial_id}: its node was lost; it resumes" in log.read_text()
    assert len(set(on.values())) == 2
    print("trials by node:", {node: sum(value == node for value in on.values()) for node in set(on.values())})
    for record in found:
        points = [point["examples_seen"] for point in record.curve]
        assert points == sorted(set(points))
        assert points[-1] == 2400
    events = [event["event"] for _, event in json_lines.read(shared / "run" / JOURNAL_FILE)[0]]
    assert events.count("started") == TRIALS + 1
    assert (shared / "mlflow/mlflow.db").stat().st_size > 0

    checked(caller, f"ray exec --no-config-cache {FILE} 'bash ~/qa-sweeps/cluster/mlflow.sh --stop'", **NO_V2)
    checked(caller, f"ray down -y {FILE}", **NO_V2)
    left = "\n".join(machines.hosts["head"].processes())
    assert "sshd" in left
    assert not [name for name in ("gcs_server", "raylet", "mlflow") if name in left], left
