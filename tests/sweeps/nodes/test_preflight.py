"""What is said of nodes: reports in, findings out, word by word; and the file that admits nodes which join later."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from qa_core.errors import ConfigError, DataError
from sweeps.nodes import preflight
from sweeps.nodes.preflight import (
    Finding,
    NodeRefused,
    Preflight,
    admit,
    as_report,
    compare,
    is_mixed,
    read,
    store,
)
from sweeps.nodes.report import PROJECT_SOURCE, Gpu, NodeReport, look
from sweeps.run_folder.layout import PREFLIGHT_FILE

VERSIONS = {
    "python": "3.11.9",
    "ray": "2.60.0",
    "qa-sweeps": "0.1.0",
    PROJECT_SOURCE: "0f0f0f0f0f0f",
    "torch": "2.13.0",
    "mamba-ssm": "2.2.0",
    "mlflow": "3.17.2",
}
T4 = Gpu("Tesla T4", 15_800_000_000)
PLENTY = {"run folder": 40 * 10**9, "cache folder": 8 * 10**9}
KERNELS = {"mamba_ssm": True, "bitsandbytes": True}


def worker(node: str, **changes: Any) -> NodeReport:
    values = {
        "address": f"10.0.0.{ord(node[0]) - ord('a') + 1}",
        "versions": VERSIONS,
        "commit": "c0ffee123456",
        "device": f"cuda: {T4.name}",
        "gpus": (T4, T4),
        "kernels": KERNELS,
        "free_bytes": PLENTY,
        "paths": {"train.json": "12 bytes, aaa"},
        "working_folder": "/home/x",
    }
    return NodeReport(node, True, **{**values, **changes})


def head(node: str = "head", **changes: Any) -> NodeReport:
    return NodeReport(node, False, **{"address": "10.0.0.99", "versions": VERSIONS, **changes})


def texts(*reports: NodeReport, **arguments: Any) -> list[str]:
    return [finding.text for finding in compare(reports, **arguments)]


def test_alike_nodes_and_a_head_without_device_data_and_disk_give_no_finding() -> None:
    bare = {name: VERSIONS[name] for name in preflight.EVERYWHERE}  # it need not even have torch
    assert compare([head(versions=bare), worker("aa"), worker("bb")], wants_gpus=True) == ()


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [("torch", "2.12.1", "2.12.1"), ("mamba-ssm", None, "not installed"), ("python", "3.12.3", "3.12.3")],
)
def test_a_node_with_another_version_is_named_with_what_it_has_and_what_the_others_have(
    name: str, value: str | None, shown: str
) -> None:
    others = [worker("aa"), worker("cc")]
    odd = worker("bb", versions={**VERSIONS, name: value})
    expected = f"{name}: found {shown} on node bb (10.0.0.2); {VERSIONS[name]} on node aa (10.0.0.1), node cc"
    for order in ([odd, *others], [others[0], odd, others[1]]):
        (finding,) = compare(order)
        assert finding.text == f"{expected} (10.0.0.3)"
        assert finding.is_difference


def test_only_the_versions_that_decide_whether_a_trial_can_be_sent_are_compared_with_the_head() -> None:
    for name in VERSIONS:
        found = texts(head(versions={**VERSIONS, name: "other"}), worker("aa"), worker("bb"))
        assert len(found) == (1 if name in ("python", "ray", "qa-sweeps", PROJECT_SOURCE) else 0), name


def test_what_the_driver_alone_uses_may_differ() -> None:
    assert texts(worker("aa"), worker("bb", versions={**VERSIONS, "mlflow": None})) == []


def test_another_commit_with_the_same_sources_is_no_difference_and_other_sources_are_shown_with_theirs() -> (
    None
):
    assert texts(worker("aa"), worker("bb", commit=None)) == []
    edited = worker("bb", versions={**VERSIONS, PROJECT_SOURCE: "777777777777"}, commit=None)
    assert texts(worker("aa"), edited) == [
        "project source: found 777777777777 (commit unknown) on node bb (10.0.0.2); "
        "0f0f0f0f0f0f (commit c0ffee123) on node aa (10.0.0.1)"
    ]


def test_nodes_with_other_devices_are_named() -> None:
    big = Gpu("NVIDIA A100-SXM4-40GB", 42_000_000_000)
    odd = worker("bb", device=f"cuda: {big.name}", gpus=(big,))
    assert texts(worker("aa"), odd, worker("cc")) == [
        "device of trials: found cuda: NVIDIA A100-SXM4-40GB on node bb (10.0.0.2); cuda: Tesla T4 on "
        "node aa (10.0.0.1), node cc (10.0.0.3)"
    ]
    cpus = [worker(node, device=f"cpu: {node}", gpus=(), kernels=None) for node in ("aa", "bb")]
    assert texts(*cpus) == [
        "device of trials: found cpu: bb on node bb (10.0.0.2); cpu: aa on node aa (10.0.0.1)"
    ]
    assert texts(*cpus, by_machine=False) == []
    assert texts(worker("aa"), odd, by_machine=False) != []
    assert texts(worker("aa", gpus=(T4,)), worker("bb", gpus=(T4,) * 4)) == []  # how many does not matter
    assert texts(worker("aa", gpus=(T4, big))) == [
        f"GPU: found {big.name} on node aa (10.0.0.1); Tesla T4 on node aa (10.0.0.1)"
    ]
    assert texts(worker("aa", gpus=(T4, big)), worker("bb")) == [
        f"GPU: found {big.name} on node aa (10.0.0.1); Tesla T4 on node aa (10.0.0.1), node bb (10.0.0.2)"
    ]


@pytest.mark.parametrize(("share", "count"), [(0.96, 0), (0.94, 1)])
def test_the_same_card_with_clearly_less_memory_is_another_kind(share: float, count: int) -> None:
    small = Gpu(T4.name, int(share * T4.memory_bytes))
    found = texts(worker("aa"), worker("bb", gpus=(small,)))
    assert len(found) == count
    if found:
        assert found == [
            "memory of Tesla T4: found 14.9 GB on node bb (10.0.0.2); 15.8 GB on node aa (10.0.0.1)"
        ]


def test_kernels_that_one_node_cannot_load_are_named() -> None:
    assert texts(worker("aa"), worker("bb", kernels={**KERNELS, "mamba_ssm": False})) == [
        "kernels of mamba_ssm: found not usable on node bb (10.0.0.2); usable on node aa (10.0.0.1)"
    ]


def test_what_no_override_allows_comes_first_and_says_which_node_and_why() -> None:
    broken = NodeReport("dd", True, failure="did not answer within 120 s", address="10.0.0.4")
    found = compare(
        [
            worker("aa", versions={**VERSIONS, "torch": "2.12.1"}, free_bytes={"run folder": 999_000_000}),
            worker("bb", storage_fault="cannot write into /mnt/run: Permission denied"),
            worker("cc", paths={"train.json": None}),
            worker("ff", paths={"train.json": "13 bytes, bbb"}),
            broken,
            head(failure="could not be looked at: WorkerCrashedError"),
        ],
        paths={"train.json": "data.train"},
    )
    assert [finding.text for finding in found if not finding.is_difference] == [
        "node dd (10.0.0.4): did not answer within 120 s",
        "node head (10.0.0.99): could not be looked at: WorkerCrashedError",
        "node bb (10.0.0.2): cannot write into /mnt/run: Permission denied",
        "node aa (10.0.0.1): run folder: found 1.00 GB of free disk; allowed: 1 GB or more",
        "node cc (10.0.0.3): data.train: found no 'train.json' that can be read from its working folder /home/x; "
        "allowed: a path that every node sees",
        "data.train: content of 'train.json': found 13 bytes, bbb on node ff (10.0.0.6); 12 bytes, aaa on "
        "node aa (10.0.0.1), node bb (10.0.0.2)",
    ]
    (difference,) = [finding for finding in found if finding.is_difference]
    assert difference.text.startswith("torch: found 2.12.1 on node aa (10.0.0.1); 2.13.0 on node bb")
    assert found[-1] is difference


def test_a_file_that_differs_from_the_drivers_is_named() -> None:
    driver = NodeReport("driver", False, versions=VERSIONS, paths={"train.json": "12 bytes, zzz"})
    assert texts(driver, worker("aa"), worker("bb"), paths={"train.json": "data.train"}) == [
        "data.train: content of 'train.json': found 12 bytes, zzz on driver; 12 bytes, aaa on "
        "node aa (10.0.0.1), node bb (10.0.0.2)"
    ]


def test_a_node_whose_torch_sees_no_gpu_is_a_fault_where_trials_want_one() -> None:
    blind = worker("aa", device="cpu: x", gpus=(), kernels=None)
    assert texts(blind) == []
    (finding,) = compare([blind], wants_gpus=True)
    assert not finding.is_difference
    assert finding.text.startswith(
        "node aa (10.0.0.1): Ray offers GPUs there and torch 2.13.0 sees none; allowed"
    )


def test_of_many_nodes_the_first_few_are_listed() -> None:
    (found,) = texts(*(worker(f"a{index}") for index in range(9)), worker("bb", device="cuda: other"))
    assert found.endswith("node a3 (10.0.0.1) and 5 more")


PLAN = Preflight(allow_mixed=False, wants_gpus=True, paths={"train.json": "data.train"})
MIXED = [worker("aa"), worker("bb", versions={**VERSIONS, "torch": "2.12.1"})]


def test_a_refusal_says_how_to_override_it_where_that_would_help() -> None:
    with pytest.raises(ConfigError) as caught:
        PLAN.settle(MIXED)
    assert str(caught.value) == (
        "pre-flight: torch: found 2.12.1 on node bb (10.0.0.2); 2.13.0 on node aa (10.0.0.1); --allow-mixed runs all "
        "the same and marks the records"
    )
    with pytest.raises(ConfigError) as caught:
        PLAN.settle([*MIXED, worker("cc", storage_fault="does not see x")])
    assert str(caught.value).startswith("pre-flight: node cc (10.0.0.3): does not see x\n  torch: found")
    assert "--allow-mixed" not in str(caught.value)


def test_an_override_allows_differences_and_nothing_else() -> None:
    allowed = replace(PLAN, allow_mixed=True)
    assert allowed.settle(MIXED).mixed == (
        "torch: found 2.12.1 on node bb; 2.13.0 on node aa",  # to be stored: without addresses
    )
    assert allowed.settle(MIXED[:1]).mixed == ()
    with pytest.raises(ConfigError) as caught:
        allowed.settle([*MIXED, worker("cc", storage_fault="does not see x")])
    assert str(caught.value) == "pre-flight: node cc (10.0.0.3): does not see x"


def test_the_file_gives_back_what_was_stored(tmp_path: Path) -> None:
    kept = replace(PLAN, folders={"run folder": "/mnt/run"}).settle([worker("aa"), head()])
    store(kept, tmp_path)
    assert read(tmp_path) == kept
    assert [report.node for report in kept.nodes] == ["aa", "head"]
    (tmp_path / PREFLIGHT_FILE).write_text('{"allow_mixed": 3')
    with pytest.raises(DataError, match=r"preflight\.json: cannot be read"):
        read(tmp_path)


def test_addresses_of_machines_are_not_stored(tmp_path: Path) -> None:
    store(replace(PLAN, allow_mixed=True).settle(MIXED), tmp_path)
    assert "10.0.0." not in (tmp_path / PREFLIGHT_FILE).read_text()
    assert is_mixed(tmp_path)
    assert not is_mixed(tmp_path / "elsewhere")


def test_an_answer_of_another_version_of_the_project_is_a_failure_of_that_node() -> None:
    asked = NodeReport("aa", True, address="10.0.0.1")
    report = as_report({"versions": VERSIONS, "colour": "red"}, asked)
    assert report == replace(asked, failure=report.failure)
    assert "answers as another version of the project: colour: unknown setting" in str(report.failure)
    assert compare([report]) == (Finding(f"node aa (10.0.0.1): {report.failure}"),)


# Nodes that join later


def begun(folder: Path, data: Path, *, allow_mixed: bool = False, **changes: Any) -> None:
    """Store the pre-flight of a sweep whose only node is this machine under another name."""
    plan = Preflight(
        allow_mixed=allow_mixed,
        wants_gpus=False,
        device="cpu",
        paths={str(data): "data.train"},
        folders={"run folder": str(folder)},
    )
    first = as_report(look(asdict(plan.request(looks_at_device=True))), NodeReport("first", True))
    store(plan.settle([replace(first, **changes)]), folder)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "train.json").write_text('{"data": []}')
    return tmp_path / "train.json"


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_a_node_that_joins_later_is_looked_at_once(
    run_folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(run_folder, data)
    admit(run_folder, "second")
    assert [report.node for report in read(run_folder).nodes] == ["first", "second"]
    monkeypatch.setattr(preflight, "look", lambda values: pytest.fail("looked at again"))
    admit(run_folder, "second")
    admit(run_folder, "first")
    admit(run_folder, None)  # a trial without Ray


def test_a_node_that_joins_later_and_differs_is_refused_and_not_kept(run_folder: Path, data: Path) -> None:
    begun(run_folder, data, device="cpu: another")
    before = (run_folder / PREFLIGHT_FILE).read_text()
    with pytest.raises(
        NodeRefused, match=r"(?s)node late \(10\.0\.0\.7\) joined this sweep .*device of trials: found cpu"
    ):
        admit(run_folder, "late", address="10.0.0.7")
    assert (run_folder / PREFLIGHT_FILE).read_text() == before


def test_a_node_that_joins_later_and_may_differ_marks_the_sweep(run_folder: Path, data: Path) -> None:
    begun(run_folder, data, allow_mixed=True, device="cpu: another")
    assert not is_mixed(run_folder)
    admit(run_folder, "late")
    assert is_mixed(run_folder)
    assert read(run_folder).mixed[0].startswith("device of trials: found cpu: ")


def test_a_node_that_joins_later_must_see_the_files_of_the_recipes_as_they_were(
    run_folder: Path, data: Path
) -> None:
    begun(run_folder, data)
    data.write_text('{"data": [1]}')
    with pytest.raises(NodeRefused, match=r"data\.train: content of '.*train\.json': found 13 bytes"):
        admit(run_folder, "late")
    data.unlink()
    with pytest.raises(NodeRefused, match=r"data\.train: found no '.*train\.json' that can be read"):
        admit(run_folder, "late")


def test_a_node_that_does_not_see_the_sweeps_folder_writes_nothing(tmp_path: Path) -> None:
    elsewhere = tmp_path / "run"
    with pytest.raises(
        NodeRefused, match=r"node late does not see .*run/preflight\.json, a file of the sweep"
    ):
        admit(elsewhere, "late")
    assert not elsewhere.exists()


def test_a_node_that_held_no_trial_before_is_looked_at_when_it_takes_one(
    run_folder: Path, data: Path
) -> None:
    begun(run_folder, data)
    known = read(run_folder)
    store(
        replace(known, nodes=(*known.nodes, NodeReport("head", False, versions=known.nodes[0].versions))),
        run_folder,
    )
    admit(run_folder, "head")
    assert [report.device is not None for report in read(run_folder).nodes] == [True, True]


def test_the_stored_report_is_plain_json_that_says_what_was_found(run_folder: Path, data: Path) -> None:
    begun(run_folder, data)
    (node,) = json.loads((run_folder / PREFLIGHT_FILE).read_text())["nodes"]
    assert node["paths"][str(data)].startswith("12 bytes, ")
    assert node["versions"]["torch"]
    assert node["device"].startswith("cpu: ")
    assert node["free_bytes"]["run folder"] > 0
