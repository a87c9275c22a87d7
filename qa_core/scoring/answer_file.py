"""The answers that a recipe's scores are made of, one row for each question, as Parquet beside its artifact.

With them two recipes can be compared question by question without asking their models again.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from qa_core import files
from qa_core.data.clusters import UNITS, Clusters, each_alone, question_clusters
from qa_core.data.table import QaTable
from qa_core.errors import DataError
from qa_core.form_folder import ANSWERS_FILE
from qa_core.scoring.decode import Prediction, final_text

__all__ = ["ANSWERS_FILE", "read_answers", "read_scores", "write_answers"]

SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("answer", pa.string()),  # "" for no answer
        ("exact_match", pa.float64()),  # 0 or 1
        ("f1", pa.float64()),  # from 0 to 1
        ("cluster", pa.int32()),  # the number of the article, or of the paragraph, that the question is about
    ]
)
OLDER_SCHEMA = SCHEMA.remove(SCHEMA.get_field_index("cluster"))  # as version 0.1.0 wrote it first
UNIT = b"cluster_unit"  # in the file's metadata: one of `UNITS`


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
    clusters = question_clusters(table)
    columns = {
        "question_id": table.question_ids,
        "answer": [final_text(item, threshold) for item in predictions],
        "exact_match": scores[:, 0],
        "f1": scores[:, 1],
        "cluster": clusters.of_value,
    }
    files.make_folder(path.parent)
    with files.written_file(path) as temporary:
        schema = SCHEMA.with_metadata({UNIT: clusters.unit.encode()})
        parquet.write_table(pa.table(columns, schema=schema), temporary)


def read_answers(path: Path) -> dict[str, str]:
    """Return the answers by question, "" for no answer; raises DataError as `read_scores`."""
    found = _read(path)
    ids, texts = (found.column(name).to_pylist() for name in ("question_id", "answer"))
    return dict(zip(ids, texts, strict=True))


def read_scores(path: Path) -> tuple[list[str], np.ndarray, Clusters]:
    """Return the ids of the questions, their (exact match, F1) from 0 to 1, [Q, 2], and which belong together.

    A file of an older version does not say what belongs together: each question then stands alone.

    Raises:
        DataError: the file is missing, damaged or not one of answers.
    """
    found = _read(path)
    scores = np.column_stack([found.column(name).to_numpy() for name in ("exact_match", "f1")])
    ids = found.column("question_id").to_pylist()
    is_score = (scores >= 0.0) & (scores <= 1.0)  # false for NaN, which stands for a missing one
    if not is_score.all():
        raise DataError(
            f"{path}: row {int((~is_score).any(1).argmax())}: found scores that are none; allowed: 0 to 1"
        )
    if None in ids or len(set(ids)) != len(ids):
        raise DataError(f"{path}: found question ids that are missing or stand twice; allowed: each once")
    return ids, scores, _clusters(found, path)


def _read(path: Path) -> pa.Table:
    try:
        with files.opened(path, most_bytes=files.DATA_BYTES) as file:
            found = parquet.read_table(file)
    except (DataError, pa.ArrowException) as error:
        raise DataError(f"{path}: answers cannot be read: {error}") from error
    if not any(found.schema.equals(schema) for schema in (SCHEMA, OLDER_SCHEMA)):
        columns = [f"{item.name}: {item.type}" for item in found.schema]
        allowed = [f"{item.name}: {item.type}" for item in SCHEMA]
        raise DataError(f"{path}: found columns {columns}; allowed: {allowed}")
    return found


def _clusters(found: pa.Table, path: Path) -> Clusters:
    if "cluster" not in found.column_names:
        return each_alone(len(found), "question")
    numbers = found.column("cluster").to_numpy()
    if not (np.issubdtype(numbers.dtype, np.integer) and len(numbers) and numbers.min() >= 0):
        raise DataError(f"{path}: cluster: found missing or negative numbers; allowed: 0 or more in each row")
    unit = (found.schema.metadata or {}).get(UNIT, b"").decode(errors="replace")
    return Clusters(unit if unit in UNITS else "cluster", np.unique(numbers, return_inverse=True)[1])
