"""What is compared before a trial starts: reports of all nodes in, findings out; and the file that keeps them.

    FOLDER/preflight.json      what is asked of nodes, what they answered, which differences were allowed
           preflight.lock      held by the worker that adds its node

The nodes that are there when a sweep starts are asked by `survey.py`. A node that joins later is looked at by the first
trial that it takes, through `admit`, before that trial writes anything. Knows nothing of Ray.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from qa_core import files
from qa_core.errors import ConfigError, DataError, QaError
from qa_core.schema import as_json
from qa_core.values import from_dict
from sweeps.front.comparability import kind_of
from sweeps.nodes.gpu_use import BUSY_SHARE
from sweeps.nodes.report import DRIVER_ONLY, PROJECT_SOURCE, NodeReport, Request, look
from sweeps.run_folder.layout import RunFolder

EVERYWHERE = (
    "python",
    "ray",
    "qa-sweeps",
    PROJECT_SOURCE,
)  # compared on nodes without trials and the driver too
LEAST_FREE_BYTES = 10**9
SAME_MEMORY_WITHIN = 0.05  # of the larger one: drivers reserve different amounts of the same card
LABELS_SHOWN = 4
OVERRIDE = "--allow-mixed runs all the same and marks the records"


class NodeRefused(QaError):
    """A node that joined a running sweep cannot run its trials; the trial that it took has not begun there."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with the nodes; a difference between sound nodes `is_difference`."""

    text: str
    is_difference: bool = False


@dataclass(frozen=True)
class Preflight:
    """What a sweep needs of its nodes, and what they answered."""

    allow_mixed: bool
    wants_gpus: bool  # a trial occupies one, or a part of one
    device: str = "auto"  # the recipes' own setting
    by_machine: bool = True  # an objective depends on the model of the CPU, not on its kind alone
    paths: Mapping[str, str] = field(default_factory=dict)  # that recipes name -> the setting that does
    folders: Mapping[str, str] = field(default_factory=dict)  # what is written -> where
    mixed: tuple[str, ...] = ()  # differences that were found and allowed
    nodes: tuple[NodeReport, ...] = ()

    def request(self, *, looks_at_device: bool) -> Request:
        """Return what a node is asked that may run trials."""
        device = self.device if looks_at_device else None
        return Request(
            device=device, paths=tuple(self.paths), folders=self.folders, wants_gpus=self.wants_gpus
        )

    def settle(self, reports: Sequence[NodeReport]) -> "Preflight":
        """Return this with the reports of all nodes, without the addresses of machines: it is to be stored.

        Raises:
            ConfigError: names each node that cannot run trials, or that differs where that is not allowed.
        """
        found = self.findings(reports)
        faults = [item.text for item in found if not (item.is_difference and self.allow_mixed)]
        if faults:
            hint = (
                "" if self.allow_mixed or not all(item.is_difference for item in found) else f"; {OVERRIDE}"
            )
            raise ConfigError("pre-flight: " + "\n  ".join(faults) + hint)
        unnamed = tuple(replace(report, address=None) for report in reports)
        return replace(self, nodes=unnamed, mixed=tuple(item.text for item in self.findings(unnamed)))

    def findings(self, reports: Sequence[NodeReport]) -> tuple[Finding, ...]:
        """Return what is wrong with nodes that are to run this sweep."""
        return compare(reports, wants_gpus=self.wants_gpus, paths=self.paths, by_machine=self.by_machine)


def compare(
    reports: Sequence[NodeReport],
    *,
    wants_gpus: bool = False,
    paths: Mapping[str, str] | None = None,
    by_machine: bool = True,
) -> tuple[Finding, ...]:
    """Return what is wrong, faults of single nodes first.

    Nodes that hold no trial, and the driver, are compared in Python, Ray and the project alone.

    Args:
        reports: of every node, and of the driver where it may be elsewhere.
        wants_gpus: whether trials occupy GPUs.
        paths: path -> the setting that names it, for messages.
        by_machine: whether CPUs of several models differ.
    """
    answered = [report for report in reports if report.failure is None]
    workers = [report for report in answered if report.holds_trials]
    differences = [
        *_differing_versions(answered, EVERYWHERE),
        *_differing_versions(workers, _computed_with(workers)),
        *_differing_devices(workers, by_machine=by_machine),
        *_differing_kernels(workers),
        *_busy_gpus(workers if wants_gpus else ()),
    ]
    faults = [
        *(f"{report.label}: {report.failure}" for report in reports if report.failure is not None),
        *(f"{report.label}: {report.storage_fault}" for report in answered if report.storage_fault),
        *_little_space(answered),
        *_unseen_paths(workers, paths or {}),
        *_differing_paths(answered, paths or {}),
        *_missing_gpus(workers if wants_gpus else ()),
    ]
    return (*map(Finding, faults), *(Finding(text, is_difference=True) for text in differences))


def as_report(values: Mapping[str, Any], asked: NodeReport) -> NodeReport:
    """Return an answer of `look` as the report of the node that was asked; one of another form is a failure."""
    try:
        own = {"node": asked.node, "holds_trials": asked.holds_trials, "address": asked.address}
        return from_dict(NodeReport, {**values, **own})
    except ConfigError as error:
        return replace(asked, failure=f"answers as another version of the project: {error}")


def store(preflight: Preflight, folder: Path) -> None:
    """Write the file, whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    files.write_json(RunFolder(folder).preflight, as_json(preflight), indent=2)


def read(folder: Path) -> Preflight:
    """Read the file back.

    Raises:
        DataError: it is missing or damaged.
    """
    path = RunFolder(folder).preflight
    try:
        return from_dict(Preflight, files.read_json(path, inside=folder))
    except (ValueError, ConfigError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def is_mixed(folder: Path) -> bool:
    """Tell whether nodes of the sweep were found to differ, which its user allowed."""
    return files.is_there(RunFolder(folder).preflight) and bool(read(folder).mixed)


def least_gpu_bytes(folder: Path) -> int | None:
    """Return the memory of the smallest GPU that the nodes of a sweep reported; None where none was looked at."""
    reports = read(folder).nodes if files.is_there(RunFolder(folder).preflight) else ()
    sizes = [gpu.memory_bytes for report in reports if report.holds_trials for gpu in report.gpus or ()]
    return min(sizes, default=None)


def admit(folder: Path, node: str | None, *, address: str | None = None) -> None:
    """Let a node run trials of a sweep: at once where it is known, else after it was looked at and compared.

    Args:
        folder: of the sweep; called on the node.
        node: its name.

    Raises:
        NodeRefused: it does not see the folder, or it cannot run trials; says what was found.
    """
    if node is None:  # a trial without Ray: there is no other node
        return
    me = NodeReport(node, True, address=address)
    if not files.is_there(RunFolder(folder).preflight):
        raise NodeRefused(
            f"{me.label} does not see {RunFolder(folder).preflight}, a file of the sweep; allowed: a folder on a file "
            "system that every node mounts at the same path"
        )
    try:
        if any(report.node == node and report.holds_trials for report in read(folder).nodes):
            return
        request = read(folder).request(looks_at_device=True)
        report = as_report(look(asdict(request)), me)
        with FileLock(RunFolder(folder).preflight_lock):
            known = read(folder)
            others = [item for item in known.nodes if item.node != node]
            store(known.settle([*others, report]), folder)
    except (QaError, OSError) as error:
        raise NodeRefused(f"{me.label} joined this sweep and cannot run its trials: {error}") from error


def _computed_with(workers: Sequence[NodeReport]) -> list[str]:
    names = {name for report in workers for name in report.versions}
    return sorted(names - {*EVERYWHERE, *DRIVER_ONLY})


def _differing_versions(reports: Sequence[NodeReport], names: Iterable[str]) -> Iterator[str]:
    for name in names:
        shown = [(report, report.versions.get(name) or "not installed") for report in reports]
        if name == PROJECT_SOURCE:
            shown = [(report, f"{value} (commit {_commit(report)})") for report, value in shown]
            if len({report.versions.get(name) for report in reports}) == 1:
                continue  # the same files, whatever git says of them
        yield from _differing(name, shown)


def _commit(report: NodeReport) -> str:
    return (report.commit or "unknown")[:9]


def _differing_devices(workers: Sequence[NodeReport], *, by_machine: bool) -> Iterator[str]:
    looked = [report for report in workers if report.device is not None]
    named = str if by_machine else kind_of
    yield from _differing("device of trials", [(report, named(str(report.device))) for report in looked])
    gpus = [(report, gpu) for report in looked for gpu in report.gpus or ()]
    on_gpus = all(str(report.device).startswith("cuda") for report in looked)
    if len({report.device for report in looked}) == 1 and on_gpus:
        # Two kinds of cards in one machine, of which `device` names the first.
        yield from _differing("GPU", [(report, gpu.name) for report, gpu in gpus])
    for name in sorted({gpu.name for _, gpu in gpus}):
        same = [(report, gpu.memory_bytes) for report, gpu in gpus if gpu.name == name]
        least, most = (pick(same, key=lambda item: item[1]) for pick in (min, max))
        if least[1] < (1 - SAME_MEMORY_WITHIN) * most[1]:
            yield (
                f"memory of {name}: found {least[1] / 1e9:.1f} GB on {least[0].label}; "
                f"{most[1] / 1e9:.1f} GB on {most[0].label}"
            )


def _differing_kernels(workers: Sequence[NodeReport]) -> Iterator[str]:
    looked = [report for report in workers if report.kernels is not None]
    for name in sorted({name for report in looked for name in report.kernels or {}}):
        words = [
            (report, "usable" if (report.kernels or {}).get(name) else "not usable") for report in looked
        ]
        yield from _differing(f"kernels of {name}", words)


def _little_space(reports: Sequence[NodeReport]) -> Iterator[str]:
    for report in reports:
        for what, free in report.free_bytes.items():
            if free < LEAST_FREE_BYTES:
                yield (
                    f"{report.label}: {what}: found {free / 1e9:.2f} GB of free disk; allowed: "
                    f"{LEAST_FREE_BYTES / 1e9:g} GB or more"
                )


def _unseen_paths(workers: Sequence[NodeReport], settings: Mapping[str, str]) -> Iterator[str]:
    for report in workers:
        for path in (path for path, seen in report.paths.items() if seen is None):
            yield (
                f"{report.label}: {settings.get(path, 'recipe')}: found no {path!r} that can be read from its working "
                f"folder {report.working_folder}; allowed: a path that every node sees"
            )


def _differing_paths(reports: Sequence[NodeReport], settings: Mapping[str, str]) -> Iterator[str]:
    for path in dict.fromkeys(path for report in reports for path in report.paths):
        seen = [(report, str(report.paths[path])) for report in reports if report.paths.get(path)]
        yield from _differing(f"{settings.get(path, 'recipe')}: content of {path!r}", seen)


def _missing_gpus(workers: Iterable[NodeReport]) -> Iterator[str]:
    for report in workers:
        if report.gpus == ():
            yield (
                f"{report.label}: Ray offers GPUs there and torch {report.versions.get('torch')} sees none; allowed: "
                "a build of torch for CUDA that fits the driver"
            )


def _busy_gpus(workers: Iterable[NodeReport]) -> Iterator[str]:
    for report in workers:
        for gpu in report.gpu_use:
            if gpu.is_busy:
                yield (
                    f"{report.label}: GPU {gpu.index}: found {gpu.used_bytes / 1e9:.1f} of "
                    f"{gpu.total_bytes / 1e9:.1f} GB in use before the first trial; allowed: {BUSY_SHARE:.0%} or less, "
                    "so that nobody else's process changes what trials measure"
                )


def _differing(what: str, found: Sequence[tuple[NodeReport, str]]) -> Iterator[str]:
    """Yield a line for each value that is not the most common one, the first of equals: what was found, and where."""
    labels: dict[str, list[str]] = {}
    for report, value in found:
        if report.label not in labels.setdefault(value, []):
            labels[value].append(report.label)
    if len(labels) < 2:
        return
    common = max(labels, key=lambda value: len(labels[value]))
    for value, where in labels.items():
        if value != common:
            yield f"{what}: found {value} on {_listed(where)}; {common} on {_listed(labels[common])}"


def _listed(labels: Sequence[str]) -> str:
    more = len(labels) - LABELS_SHOWN
    return ", ".join(labels[:LABELS_SHOWN]) + (f" and {more} more" if more > 0 else "")
