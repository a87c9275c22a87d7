"""One small table and the files of all formats that hold it."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

CONTEXTS = (
    "The Oder rises in the Odra Hills,\nflows 840 km and ends in the sea.",
    'Ina Brandt built the "Tower" of Brzeg in 1912; it is 61 m tall, and\ttabs are kept.',
    "Żubrówka bread keeps for a week. 😀 Rye bread keeps for a week too.",
)
ROWS: list[dict[str, Any]] = [
    {
        "id": "r1",
        "title": "Rivers",
        "context": CONTEXTS[0],
        "question": "Where does the Oder rise?",
        "answers": {"text": ["the Odra Hills", "Odra Hills"], "answer_start": [18, 22]},
    },
    {
        "id": "r2",
        "title": "Rivers",
        "context": CONTEXTS[0],
        "question": "Who dug the Oder?",
        "answers": {"text": [], "answer_start": []},
    },
    {
        "id": "t1",
        "title": "Towns",
        "context": CONTEXTS[1],
        "question": 'Who built the "Tower", and why?',
        "answers": {"text": ["Ina Brandt"], "answer_start": [0]},
    },
    {
        "id": "b1",
        "title": "",
        "context": CONTEXTS[2],
        "question": "How long does rye bread keep?",
        "answers": {"text": ["a week"], "answer_start": [55]},
    },
]
NAMES = tuple(ROWS[0])


def nested() -> dict[str, Any]:
    """The table as SQuAD writes it, an article for each title."""
    articles: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in ROWS:
        answers = row["answers"]
        golds = [
            {"text": text, "answer_start": start}
            for text, start in zip(answers["text"], answers["answer_start"], strict=True)
        ]
        qas = articles.setdefault(row["title"], {}).setdefault(row["context"], [])
        qas.append({"id": row["id"], "question": row["question"], "answers": golds})
    return {
        "version": "v2.0",
        "data": [
            {
                "title": title,
                "paragraphs": [{"context": context, "qas": qas} for context, qas in paragraphs.items()],
            }
            for title, paragraphs in articles.items()
        ],
    }


def delimited(separator: str, rows: list[dict[str, Any]] | None = None) -> bytes:
    """The table as CSV, its answers as JSON in a cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, NAMES, delimiter=separator)
    writer.writeheader()
    for row in ROWS if rows is None else rows:
        writer.writerow({**row, "answers": json.dumps(row["answers"])})
    return text.getvalue().encode()


def json_lines() -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in ROWS)


def write_parquet(path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist(ROWS), path)


def write_arrow(path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def write_saved(path: Path) -> None:
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(path, num_shards=2)


def write_splits(path: Path) -> None:
    import datasets

    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(path)


def _bytes(content: Callable[[], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content()) and None


# file -> what writes it
WRITERS: dict[str, Callable[[Path], None]] = {
    "squad.json": _bytes(lambda: json.dumps(nested()).encode()),
    "flat.json": _bytes(lambda: json.dumps({"data": ROWS}).encode()),
    "list.json": _bytes(lambda: json.dumps(ROWS).encode()),
    "lines.jsonl": _bytes(json_lines),
    "commas.csv": _bytes(lambda: delimited(",")),
    "tabs.tsv": _bytes(lambda: delimited("\t")),
    "columns.parquet": write_parquet,
    "columns.arrow": write_arrow,
    "saved": write_saved,
    "splits": write_splits,
    # the same in other clothes
    "lines.json": _bytes(json_lines),
    "packed.jsonl.gz": _bytes(lambda: gzip.compress(json_lines())),
    "packed.csv.gz": _bytes(lambda: gzip.compress(delimited(","))),
    "EXCEL.CSV": _bytes(lambda: b"\xef\xbb\xbf" + delimited(";")),
}
TEN = tuple(WRITERS)[:10]
