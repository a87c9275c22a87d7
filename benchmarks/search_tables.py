"""The tables that `benchmarks/search.py` replays: recorded and synthetic ones, with references and the floor."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import typer

from benchmarks.synthetic import SCALES, SyntheticOptions, synthetic_table
from qa_core.config import DataConfig
from qa_core.data.selection import select_questions, split_selection
from qa_core.data.sources import BUILT_IN
from qa_core.errors import DataError
from sweeps.replay.curve_files import read_table
from sweeps.replay.curves import Curve, CurveTable
from sweeps.schedulers.pareto_asha import GAIN, GAIN_ERROR
from sweeps.spec.sections import SweepSpec

MARGIN = 1.1  # of the largest memory: the reference
NONE = "none"  # of tables
TABLES_FOLDER = Path(__file__).parent / "tables"
SYNTHETIC: Mapping[str, SyntheticOptions] = {
    "curves seldom cross": replace(SCALES["hundreds"], crossing=0.03),
    "curves cross early": replace(SCALES["hundreds"], crossing=0.1),
    "curves cross late": replace(SCALES["hundreds"], crossing=0.3),
    "more recipes": replace(SCALES["thousand"], crossing=0.1),
    "forms, curves cross early": replace(SCALES["hundreds"], crossing=0.1, forms=True),
    "forms, curves cross late": replace(SCALES["hundreds"], crossing=0.3, forms=True),
}


def chosen_tables(files: Sequence[Path] | None, synthetic: Sequence[str] | None) -> dict[str, CurveTable]:
    """Return the tables to replay by name, with references for the volume: recorded ones first."""
    found = sorted(TABLES_FOLDER.glob("*.parquet")) if files is None else files
    tables = {path.stem: read_table(path) for path in found if str(path) != NONE}
    for name in list(SYNTHETIC) if synthetic is None else synthetic:
        if name not in SYNTHETIC:
            if name != NONE:
                raise typer.BadParameter(
                    f"--synthetic: found {name!r}; allowed: {', '.join(SYNTHETIC)}, none"
                )
            continue
        tables[name] = synthetic_table(SYNTHETIC[name])
    return {name: with_floor(with_references(table)) for name, table in tables.items()}


def with_floor(table: CurveTable) -> CurveTable:
    """Return the table with each report's difference to the best trivial baseline of the built-in selection questions.

    The standard error of the paired difference is not recorded. Its least value is that of a network that answers as
    the baseline does but for the questions that it gains: 100 sqrt(p / n) points for a gain of p of n questions. Two of
    them are the whole difference at p = 4 / n: 2 points of 200 questions.
    """
    data = table.spec.as_dict()["recipe"].get("data", {})
    if data.get("train") not in BUILT_IN or any(curve.extras for curve in table.curves):
        return table
    questions, baseline = _selection_baseline(DataConfig(**data))

    def extras(curve: Curve) -> dict[str, tuple[float | None, ...]]:
        gains = [value - baseline for value in curve.rung_values["em_percent"]]
        errors = [100.0 * math.sqrt(max(gain, 0.0) / 100.0 / questions) for gain in gains]
        return {GAIN: tuple(gains), GAIN_ERROR: tuple(errors)}

    return replace(table, curves=tuple(replace(curve, extras=extras(curve)) for curve in table.curves))


def _selection_baseline(data: DataConfig) -> tuple[int, float]:
    """Return how many selection questions there are, and the best trivial EM on them in percent."""
    from qa_core.data.squad import load_table
    from qa_core.scoring.evaluate import Floor

    questions = load_table(data.train, split="train")
    chosen = select_questions(questions, data.train_questions, seed=data.split_seed)
    _, selection = split_selection(
        chosen, data.selection_share, seed=data.split_seed, max_questions=data.selection_questions
    )
    return len(selection), 100.0 * float(Floor.of(selection).exact.mean())


def with_references(table: CurveTable) -> CurveTable:
    """Return the table with the references that `auto` gives a sweep of its recipes.

    A table of other questions than the built-in ones keeps its own for EM, which is 0: in SQuAD v1.1 every question has
    an answer, so that answering nothing scores 0, and a synthetic curve starts at 0.

    Raises:
        DataError: the built-in questions are not those that the table was recorded on.
    """
    values = table.spec.as_dict()
    data = values["recipe"].get("data", {})
    source = data.get("evaluation", data.get("train"))
    for objective in values["objectives"]:
        if objective["goal"] == "min":
            name = objective["name"]
            objective["reference"] = MARGIN * max(
                values[name] for curve in table.curves for values in (curve.final, *curve.finals)
            )
        elif source in BUILT_IN:
            data_hash = table.provenance["evaluation_hash"]
            objective["reference"] = _best_baseline(objective["name"], source, data_hash)
    return replace(table, spec=SweepSpec.model_validate(values))


def _best_baseline(name: str, source: str, data_hash: str) -> float:
    from qa_core.data.squad import load_table
    from qa_core.scoring.evaluate import baseline_scores

    questions = load_table(source, split="dev")
    if questions.data_hash != data_hash:
        raise DataError(f"{source}: found data {questions.data_hash}; the table was recorded on {data_hash}")
    scores = baseline_scores(questions)
    return max(value for field, value in scores.items() if field.endswith(name))
