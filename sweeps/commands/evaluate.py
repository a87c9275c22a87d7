"""`evaluate`: an artifact scored by the one evaluator, with intervals, baselines and what else is asked for.

Prints tables (`evaluation_tables.py`) or one JSON object. What answers the questions is in `predict.py`; the probes are
`qa_core/scoring/probes.py`, the semantic score is `qa_core/scoring/semantic.py`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_core import files
from qa_core.errors import ConfigError, StorageError
from qa_core.schema import as_json
from sweeps.commands.evaluation_tables import tables
from sweeps.commands.predict import answer, load_artifact, tell, write_json

if TYPE_CHECKING:
    import numpy as np

    from qa_core.artifact.loaded import LoadedArtifact
    from qa_core.data.table import QaTable
    from qa_core.scoring.decode import Prediction
    from qa_core.scoring.intervals import Interval


@dataclass(frozen=True)
class Extras:
    """What `evaluate` is asked for beside the quality on the data.

    Args:
        against: another artifact, compared on the same questions.
        semantic: a sentence encoder, a folder or a hub name.
        probes: answer the packaged probes too.
        output: where the JSON object is written, together with every answer to the probes.
        force: overwrite `output`.
        skip_bad_examples: leave out malformed questions of the data and malformed answers, and count them.
        as_json: print the JSON object in place of the table.
        columns: field -> column of the data, of those that have an unusual name; None: none has.
    """

    against: Path | None = None
    semantic: str | None = None
    probes: bool = False
    output: Path | None = None
    force: bool = False
    skip_bad_examples: bool = False
    as_json: bool = False
    columns: Mapping[str, str] | None = None


def evaluate(artifact: Path, data: str | None, *, device: str, extras: Extras) -> int:
    """Print the quality of an artifact, with the data's hash.

    Args:
        artifact: the model; its own no-answer threshold is applied as it is.
        data: what it is scored on; None for the probes alone.
        device: auto, cpu or cuda.
        extras: what else is wanted.

    Raises:
        ConfigError: there is nothing to score on, a setting is refused, or an extra needs the data.
        ArtifactError, DataError: artifact or data are refused.
        StorageError: the output exists and `force` is not given, or it cannot be written.
    """
    _check(data, extras)
    from qa_core.data.squad import load_table

    result: dict[str, Any] = {}
    # It is read before the model, so that a wrong name costs seconds.
    table = None
    if data is not None:
        table = load_table(
            data, split="dev", skip_bad_examples=extras.skip_bad_examples, columns=extras.columns
        )
        tell(table.reading)
    loaded = load_artifact(artifact)
    if table is not None:
        result |= {**_on_table(loaded, table, device=device, extras=extras), "data": data}
    result |= {"artifact": str(artifact), "device": _device_name(device)}
    printed = dict(result)
    if extras.probes:
        probes = _on_probes(loaded, device=device)
        result["probes"] = probes
        printed["probes"] = {name: value for name, value in probes.items() if name != "answers"}
    if extras.output is not None:
        write_json(extras.output, result)
    if extras.as_json:
        print(json.dumps(printed, indent=2, allow_nan=False))
    else:
        from rich.console import Console

        for shown in tables(printed):
            Console().print(shown)
    return 0


def _check(data: str | None, extras: Extras) -> None:
    """Refuse what cannot be done before anything slow is done."""
    if data is None and not extras.probes:
        raise ConfigError("evaluate: expected DATA, or --probes, or both")
    for name, value in (("--against", extras.against), ("--semantic", extras.semantic)):
        if value is not None and data is None:
            raise ConfigError(f"{name}: found {str(value)!r} without DATA; allowed: together with DATA")
    if extras.output is not None and files.is_there(extras.output) and not extras.force:
        raise StorageError(f"{extras.output}: exists already; choose another file or give --force")


def _on_table(loaded: "LoadedArtifact", table: "QaTable", *, device: str, extras: Extras) -> dict[str, Any]:
    """Return quality, intervals and the extras that need data, under their names."""
    from qa_core.data.clusters import question_clusters
    from qa_core.hardware import choose_device
    from qa_core.scoring import evaluate as evaluator
    from qa_core.scoring.semantic import load_encoder

    place = choose_device(device)
    # Both are read before questions are answered, so that a wrong name costs seconds.
    other = None if extras.against is None else load_artifact(extras.against)
    encoder = extras.semantic and load_encoder(extras.semantic, setting="--semantic", device=place)
    predictions = answer(loaded, table, device=device)
    threshold = loaded.null_threshold
    scores = evaluator.scores_by_question(predictions, table, threshold)
    result: dict[str, Any] = {
        **asdict(evaluator.quality(predictions, table, threshold)),
        "data_hash": table.data_hash,
        "skipped": table.skipped,
        "skipped_answers": table.skipped_answers,
        "intervals": _as_values(evaluator.score_intervals(scores, question_clusters(table))),
    }
    if other is not None:
        assert extras.against is not None, "the other artifact was loaded from there"
        compared = _against(other, table, scores, device=device)
        result["against"] = {"artifact": str(extras.against), **compared}
    if encoder:
        semantic = _semantic(predictions, table, threshold, encoder)
        result["semantic"] = {"encoder": encoder.source, **semantic}
    return result


def _against(
    other: "LoadedArtifact", table: "QaTable", scores: "np.ndarray", *, device: str
) -> dict[str, Any]:
    """Return the other's quality, and this one's scores minus the other's with what is a tie."""
    from qa_core.data.clusters import question_clusters
    from qa_core.scoring import evaluate as evaluator

    predictions = answer(other, table, device=device)
    other_scores = evaluator.scores_by_question(predictions, table, other.null_threshold)
    differences = evaluator.score_differences(scores, other_scores, question_clusters(table))
    values = {name: {**as_json(item), "is_tied": item.holds_zero} for name, item in differences.items()}
    quality = evaluator.quality(predictions, table, other.null_threshold)
    return {"quality": as_json(quality), "difference": values}


def _semantic(
    predictions: "list[Prediction]", table: "QaTable", threshold: float | None, encoder: Any
) -> dict[str, Any]:
    """Return the mean cosine over all questions and over those that have an answer, with intervals."""
    import numpy as np

    from qa_core.data.clusters import question_clusters
    from qa_core.scoring.decode import final_text
    from qa_core.scoring.intervals import clustered_mean
    from qa_core.scoring.semantic import semantic_scores

    golds = table.rows.column("answer_texts").to_pylist()
    scores = semantic_scores([final_text(item, threshold) for item in predictions], golds, encoder)
    clusters = question_clusters(table)
    chosen = {
        "cosine": np.arange(len(table)),
        "has_ans_cosine": np.flatnonzero(~table.is_unanswerable),
    }
    return {
        name: as_json(clustered_mean(scores[rows], clusters.take(rows))) if len(rows) else None
        for name, rows in chosen.items()
    }


def _on_probes(loaded: "LoadedArtifact", *, device: str) -> dict[str, Any]:
    from qa_core.scoring import probes

    asked = probes.probe_set(probes.load_items())
    predictions = answer(loaded, asked.table, device=device)
    return as_json(probes.report(asked, predictions, loaded.null_threshold))


def _as_values(intervals: "dict[str, Interval]") -> dict[str, Any]:
    return {name: as_json(interval) for name, interval in intervals.items()}


def _device_name(device: str) -> str:
    from qa_core.hardware import choose_device, describe_device

    return describe_device(choose_device(device))
