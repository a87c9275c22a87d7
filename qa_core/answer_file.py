"""The answers that a recipe's scores are made of, one row for each question, as Parquet beside its artifact.

With them two recipes can be compared question by question without asking their models again.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from qa_core.data.table import QaTable
from qa_core.decode import Prediction, final_text
from qa_core.errors import DataError, StorageError

ANSWERS_FILE = "answers.parquet"  # in the trial's folder
SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("answer", pa.string()),  # "" for no answer
        ("exact_match", pa.float64()),  # 0 or 1
        ("f1", pa.float64()),  # from 0 to 1
    ]
)


def write_answers(
    path: Path,
    predictions: Sequence[Prediction],
    table: QaTable,
    scores: np.ndarray,
    *,
    threshold: float | None,
) -> None:
    """Write the answers under the threshold; the file appears whole or not at all.

    Args:
        predictions: one for each question of the table, in its order.
        scores: (exact match, F1) from 0 to 1, [Q, 2].
        threshold: of no answer; None when every answer stands.

    Raises:
        StorageError: the file cannot be written.
    """
    columns = {
        "question_id": table.question_ids,
        "answer": [final_text(item, threshold) for item in predictions],
        "exact_match": scores[:, 0],
        "f1": scores[:, 1],
    }
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.table(columns, schema=SCHEMA), temporary)
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error}") from error


def read_scores(path: Path) -> tuple[list[str], np.ndarray]:
    """Return the ids of the questions and their (exact match, F1) from 0 to 1, [Q, 2].

    Raises:
        DataError: the file is missing, damaged or not one of answers.
    """
    try:
        found = parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: answers cannot be read: {error}") from error
    if not found.schema.equals(SCHEMA):
        columns = [f"{item.name}: {item.type}" for item in found.schema]
        allowed = [f"{item.name}: {item.type}" for item in SCHEMA]
        raise DataError(f"{path}: found columns {columns}; allowed: {allowed}")
    scores = np.column_stack([found.column(name).to_numpy() for name in ("exact_match", "f1")])
    ids = found.column("question_id").to_pylist()
    is_score = (scores >= 0.0) & (scores <= 1.0)  # false for NaN, which stands for a missing one
    if not is_score.all():
        raise DataError(
            f"{path}: row {int((~is_score).any(1).argmax())}: found scores that are none; allowed: 0 to 1"
        )
    if None in ids or len(set(ids)) != len(ids):
        raise DataError(f"{path}: found question ids that are missing or stand twice; allowed: each once")
    return ids, scores
