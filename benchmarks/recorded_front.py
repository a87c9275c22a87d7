"""The models of a sweep as `picture.py` draws them: read from the sweep's folder once, and kept as a small file."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from qa_core import files
from qa_core.errors import ConfigError, counted
from sweeps.run_folder.model_id import ModelId

if TYPE_CHECKING:
    from sweeps.front.points import Point
    from sweeps.front.result import FrontResult
    from sweeps.report.answer_book import AnswerBook

COST = "memory_mb"
DIGITS = 6  # more than are ever printed: a figure that is rounded twice can come out wrong
AS_TRAINED = "float32"  # the form of a sweep that lists none


@dataclass(frozen=True)
class Shown:
    """One model of a sweep; exact match in percent, with its 95 % interval by article, and memory in MB.

    Attributes:
        low, high: of the models of the front; None where the sweep has no interval.
        on_front: no other model beats it.
        has_row: it is on the front, and told apart from the next smaller model that has a row.
    """

    trial: str
    form: str
    family: str
    methods: str
    checkpoint: str
    em_percent: float
    low: float | None
    high: float | None
    memory_mb: float
    on_front: bool
    has_row: bool


@dataclass(frozen=True)
class Recorded:
    """The models of a sweep, and what is said of it: its data, its trials by how they ended, what it printed."""

    sweep: str
    seed: int
    evaluation: str
    data_hash: str
    questions: int
    articles: int
    device: str
    versions: str
    trials: Mapping[str, int]
    baseline: float  # exact match in percent of answering nothing
    said: Sequence[str]
    models: tuple[Shown, ...]

    @property
    def front(self) -> list[Shown]:
        """The models that no other beats, the smallest first."""
        return sorted((model for model in self.models if model.on_front), key=lambda model: model.memory_mb)

    @property
    def rows(self) -> list[Shown]:
        """The models of the table, the smallest first."""
        return [model for model in self.front if model.has_row]

    @property
    def families(self) -> list[str]:
        """The families of the models, sorted."""
        return sorted({model.family for model in self.models})


def record(run_dir: Path) -> Recorded:
    """Return the models of a sweep's folder.

    Raises:
        ConfigError: the objectives are not exact match and memory.
        DataError: the folder cannot be read.
    """
    from sweeps.commands.results import front_of, load_records
    from sweeps.front import findings
    from sweeps.front.ties import answers_of, paired_difference
    from sweeps.report.answer_book import AnswerBook
    from sweeps.run_folder.layout import RunFolder
    from sweeps.run_folder.models import id_of, models_of

    loaded = load_records(run_dir)
    result = front_of(run_dir, loaded)
    if findings.cost_of(result) != COST or not result.front:
        raise ConfigError(
            f"{run_dir}: found a front of {', '.join(item.name for item in result.objectives)} with "
            f"{counted(len(result.front), 'point')}; allowed: em_percent and {COST}, with a point"
        )
    spec = files.read_object(RunFolder(run_dir).spec, inside=run_dir)
    book = AnswerBook(run_dir)

    def answers(point: "Point") -> Path:
        return answers_of(run_dir, point)

    def is_better(larger: "Point", smaller: "Point") -> bool:
        found = paired_difference(larger, smaller, answers)
        return found is None or found.holds_zero is not True

    chosen = rows_of(sorted(result.front, key=lambda point: point.values[COST]), is_better)
    first = next(iter(result.front))
    model = next(model for item in loaded.records for model in models_of(item) if id_of(model) == first.id)
    interval = book.interval(first)
    packages = model.provenance["packages"]
    evaluation = model.data["evaluation"]
    return Recorded(
        sweep=str(spec["name"]),
        seed=int(spec["seed"]),
        evaluation=str(evaluation["source"]),
        data_hash=str(evaluation["data_hash"]),
        questions=int(evaluation["questions"]),
        articles=0 if interval is None else interval.clusters,
        device=str(model.device),
        versions=", ".join(f"{name} {packages[name]}" for name in ("torch", "transformers", "ray")),
        trials=_trials(result),
        baseline=round(result.baselines["no answer to anything"], DIGITS),
        said=findings.sentences(result, answers, keep_percent=spec.get("target")),
        models=tuple(
            _shown(point, book, chosen) for point in sorted(result.points, key=lambda p: p.id.order)
        ),
    )


def rows_of(front: Iterable["Point"], is_better: Callable[["Point", "Point"], bool]) -> set[ModelId]:
    """Return the points of a front that have a row: the smallest, then each that is better than the last with a row.

    Args:
        front: its points, the smallest first.
        is_better: whether the questions tell the first from the second, which is smaller.
    """
    found: list[Point] = []
    for point in front:
        if not found or is_better(point, found[-1]):
            found.append(point)
    return {point.id for point in found}


def _trials(result: "FrontResult") -> dict[str, int]:
    finished = len({point.trial_id for point in result.points})
    return {"finished": finished, **result.left_out}


def _shown(point: "Point", book: "AnswerBook", chosen: set[ModelId]) -> Shown:
    interval = book.interval(point)
    low, high = (interval.low, interval.high) if interval and point.on_front else (None, None)
    return Shown(
        trial=point.trial_id,
        form=point.form or AS_TRAINED,
        family=point.family,
        methods=point.methods,
        checkpoint=point.checkpoint,
        em_percent=round(point.values["em_percent"], DIGITS),
        low=None if low is None else round(low, DIGITS),
        high=None if high is None else round(high, DIGITS),
        memory_mb=round(point.values[COST], DIGITS),
        on_front=point.on_front,
        has_row=point.id in chosen,
    )


def written(recorded: Recorded) -> str:
    """Return the points as JSON, one model in each line, whose values `columns` names."""
    *head, (_, models) = asdict(recorded).items()
    head.append(("columns", [field.name for field in fields(Shown)]))
    lines = [f" {json.dumps(name)}: {json.dumps(value)}," for name, value in head]
    rows = ",\n".join(f"  {json.dumps(list(model.values()))}" for model in models)
    return "\n".join(["{", *lines, ' "models": [', rows, " ]", "}"]) + "\n"


def read(path: Path) -> Recorded:
    """Return the points that `written` wrote."""
    found = json.loads(path.read_text(encoding="utf-8"))
    columns, models = found.pop("columns"), found.pop("models")
    return Recorded(**found, models=tuple(Shown(**dict(zip(columns, row, strict=True))) for row in models))
