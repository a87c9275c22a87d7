"""The pre-flight on a Ray cluster of this machine: a head without CPUs and two nodes, one of which works elsewhere."""

import io
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.exceptions import AuthenticationError

from qa_core.errors import ConfigError
from sweeps import cli
from sweeps.nodes import preflight, shared_folder
from sweeps.nodes import survey as nodes
from sweeps.nodes.ray_environment import RayTarget
from sweeps.progress.console import SweepConsole
from sweeps.run_folder import records
from sweeps.run_folder.layout import RECORDS_FILE
from sweeps.spec.load import load_spec
from sweeps.spec.sections import SweepSpec
from sweeps.trials.ray_driver import create_run_folder, run_sweep, survey
from sweeps.trials.ray_service import start_ray
from tests.sweeps import strange_nodes
from tests.sweeps.told import Told

ray = pytest.importorskip("ray")
NODES = {"CPU": 1.0}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster that other programs on this machine do not find, whose second node starts in another folder."""
    from ray.cluster_utils import Cluster

    patch, here = pytest.MonkeyPatch(), Path.cwd()
    patch.setattr("ray._private.utils.write_ray_address", lambda *arguments: None)
    patch.setenv("PYTHONPATH", f"{here}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.first = made.add_node(num_cpus=1)
    elsewhere = tmp_path_factory.mktemp("cluster") / strange_nodes.WORKING_FOLDER
    elsewhere.mkdir()
    patch.chdir(elsewhere)
    made.second = made.add_node(num_cpus=1)
    patch.chdir(here)
    yield made
    made.shutdown()
    patch.undo()


@pytest.fixture
def joined(cluster: Any) -> Iterator[Any]:
    start_ray(RayTarget(cluster.address), cpus=1)
    yield cluster
    ray.shutdown()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_folder, "PATIENCE_SECONDS", 0.5)


def sweep_of(tmp_path: Path, data: str) -> SweepSpec:
    values = {
        "name": "small",
        "objectives": [
            {"name": "em_percent", "goal": "max", "reference": 0},
            {"name": "memory_mb", "goal": "min", "reference": 32},
        ],
        "searcher": {"name": "random"},
        "scheduler": {"name": "fifo", "options": {"reports": 0}},
        "budget": {"trials": 2, "examples": 16},
        "recipe": {
            "model": {"family": "bert", "vocab_size": 300, "checkpoint": "micro"},
            "data": {
                "train": data,
                "evaluation": data,
                "max_length": 64,
                "stride": 8,
                "max_question_length": 24,
            },
            "train": {"precision": "float32", "batch_size": 8},
            "evaluation": {"precision": "float32", "latency_runs": 2},
        },
        "space": [{"set": "train.learning_rate", "choice": [0.002, 0.004]}],
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(values))
    return load_spec(path)


@pytest.mark.long
def test_each_node_answers_for_itself_and_leaves_no_word(joined: Any, tmp_path: Path) -> None:
    request = preflight.Preflight(False, False, "cpu", folders={"run folder": str(tmp_path)})
    with shared_folder.exchange(tmp_path) as words:
        reports = nodes.ask_nodes(request.request(looks_at_device=True), wanted=NODES, exchange=words)
        assert len(list(words.folder.iterdir())) == 3  # the driver's, and of the two that hold trials
    assert list(tmp_path.iterdir()) == []
    assert [report.failure or report.storage_fault for report in reports] == [None, None, None]
    assert len({report.node for report in reports}) == 3
    head, *workers = sorted(reports, key=lambda report: report.holds_trials)
    assert not head.holds_trials
    assert (head.device, head.free_bytes, head.versions.keys()) == (None, {}, workers[0].versions.keys())
    for report in workers:
        assert str(report.device).startswith("cpu: ")
        assert report.free_bytes["run folder"] > 0
    folders = [Path(str(report.working_folder)).name for report in workers]
    assert strange_nodes.WORKING_FOLDER in folders
    assert len(set(folders)) == 2
    assert preflight.compare(reports) == ()


@pytest.mark.long
def test_a_node_that_ray_has_given_up_meanwhile_is_left_out(
    joined: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "look", strange_nodes.each_in_its_own_way)
    found = nodes.live_nodes()
    without_the_first = [node for node in found if node["NodeID"] != joined.first.node_id]
    answers = iter([found, without_the_first])
    monkeypatch.setattr(nodes, "live_nodes", lambda: next(answers))
    request = preflight.Preflight(False, False).request(looks_at_device=False)
    reports = nodes.ask_nodes(request, wanted=NODES)
    assert {report.node for report in reports} == {node["NodeID"][:12] for node in without_the_first}


@pytest.mark.long
def test_each_fault_is_said_of_the_node_that_has_it(
    joined: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "look", strange_nodes.each_in_its_own_way)
    request = preflight.Preflight(False, False).request(looks_at_device=False)
    with shared_folder.exchange(tmp_path) as open_exchange:
        reports = nodes.ask_nodes(request, wanted=NODES, exchange=open_exchange)
    assert list(tmp_path.iterdir()) == []
    head, first, second = (
        next(report for report in reports if report.node == node.node_id[:12])
        for node in (joined.head_node, joined.first, joined.second)
    )
    broken, unmounted, version = (finding.text for finding in preflight.compare(reports))
    assert broken.startswith(f"{head.label}: could not be looked at: ImportError: libcudart.so.12")
    assert unmounted.startswith(
        f"{second.label}: does not see what the driver wrote into {tmp_path}: /not mounted"
    )
    assert version.startswith("torch: found ")
    assert f"1.0.0 on {first.label}" in version


@pytest.mark.long
def test_a_node_that_hangs_is_named_after_the_time_allowed(
    joined: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others may be as slow on a busy machine: of them nothing is asserted."""
    monkeypatch.setattr(nodes, "TIMEOUT_SECONDS", 2.0)
    raylet = joined.second.all_processes["raylet"][0].process.pid
    os.kill(raylet, signal.SIGSTOP)
    try:
        reports = nodes.ask_nodes(
            preflight.Preflight(False, False).request(looks_at_device=False), wanted=NODES
        )
    finally:
        os.kill(raylet, signal.SIGCONT)
    (silent,) = (report for report in reports if report.node == joined.second.node_id[:12])
    assert silent.failure == "did not answer within 2 s"
    assert f"{silent.label}: did not answer within 2 s" in [item.text for item in preflight.compare(reports)]


@pytest.mark.long
def test_a_sweep_whose_data_one_node_does_not_see_is_refused_and_leaves_its_folder_free(
    cluster: Any, small_squad: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path is relative: each node looks from where its Ray was started."""
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    relative = os.path.relpath(small_squad)
    folder, console = tmp_path / "run", Told()
    with pytest.raises(ConfigError) as caught:
        run_sweep(
            sweep_of(tmp_path, relative),
            folder=folder,
            target=RayTarget(cluster.address, allow_mixed=True),  # which does not make up for it
            console=console,
            tracker=Told(),
        )
    message = str(caught.value)
    assert f"node {cluster.second.node_id[:12]} (" in message
    assert f": found no {relative!r} that can be read from its working folder" in message
    assert message.count("node ") == 2  # its label, and the rule that it breaks
    assert console.named("trial_started") == []
    assert not folder.exists()
    create_run_folder(folder)


@pytest.mark.slow
def test_a_mixed_cluster_runs_where_it_is_allowed_and_every_record_says_so(
    cluster: Any, small_squad: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second node is not there at first: it takes its first trial as one that has joined later."""
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    spec, everywhere, second = sweep_of(tmp_path, str(small_squad)), nodes.live_nodes, cluster.second.node_id
    monkeypatch.setattr(nodes, "look", strange_nodes.first_with_another_torch)
    monkeypatch.setattr(
        nodes, "live_nodes", lambda: [node for node in everywhere() if node["NodeID"] != second]
    )
    output = io.StringIO()
    outcome = run_sweep(
        spec,
        folder=tmp_path / "run",
        target=RayTarget(cluster.address, allow_mixed=True),
        console=SweepConsole(output),
        tracker=Told(),
    )
    assert outcome.counts == {"ok": 2}
    assert "pre-flight: 2 nodes, 1 of them can hold a trial, in " in output.getvalue()
    found = {
        record.provenance["node"]: record for record in records.load(tmp_path / "run" / RECORDS_FILE).records
    }
    assert found.keys() == {cluster.first.node_id[:12], second[:12]}
    assert found[second[:12]].provenance["mixed_nodes"] is True
    kept = preflight.read(tmp_path / "run")
    assert [report.node for report in kept.nodes][-1] == second[:12]
    assert kept.allow_mixed
    (difference,) = kept.mixed
    assert f"1.0.0 on node {cluster.first.node_id[:12]}" in difference


@pytest.mark.slow
def test_doctor_shows_the_nodes_of_a_cluster(
    cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    assert cli.main(["doctor", "--cluster", cluster.address, "--shared", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for node in ray_nodes(cluster):
        assert node in shown
    assert shown.count("shared folder ") == 3  # the driver's and of both nodes that hold trials
    assert "warning" not in shown
    assert list(tmp_path.iterdir()) == []


def ray_nodes(cluster: Any) -> list[str]:
    return [f"node {node.node_id[:12]} (" for node in (cluster.head_node, *cluster.worker_nodes)]


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "127.0.0.1:99999"])
def test_an_address_at_which_nobody_listens_is_refused_at_once(address: str) -> None:
    with pytest.raises(ConfigError, match=f"--address: found '{address}', where no Ray cluster answers: "):
        survey(RayTarget(address), shared=None)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            AuthenticationError("InvalidAuthToken"),
            r"refuses our token \(RAY_AUTH_MODE is disabled\).*auth_token",
        ),
        (RuntimeError("Timed out\nmore"), "where no Ray cluster answers: Timed out$"),
    ],
)
def test_what_listens_and_wants_another_token_or_is_no_ray_is_named(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def ask(address: str) -> None:
        asked.append(address)
        raise error

    monkeypatch.setattr("ray._raylet.GcsClient", ask)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"--address: found '{address}', .*{message}"):
            survey(RayTarget(address), shared=None)
        assert asked == [address]
        nodes.check_reachable(f"ray://{address}")  # speaks otherwise: Ray's to judge
    assert asked == [address]


def test_ray_that_finds_no_cluster_by_itself_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ConfigError, match="--address: found 'auto', where no Ray cluster answers: Could not"):
        start_ray(RayTarget("auto"), cpus=1)
