"""Folders of sweeps that were never run, with everything that a report shows: forms, stops, pauses, failures."""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from qa_core.scoring.answer_file import SCHEMA, UNIT
from sweeps.run_folder.journal import Journal
from sweeps.run_folder.records import Record, append

BUDGET, RUNGS = 21_600, (2_400, 7_200)
SPEC: Mapping[str, Any] = {
    "name": "made up",
    "seed": 1,
    "objectives": [
        {"name": "em_percent", "goal": "max", "reference": 24.6, "unit": "%"},
        {"name": "memory_mb", "goal": "min", "reference": 64.0, "unit": "MB"},
    ],
    "searcher": {"name": "random", "options": {}},
    "scheduler": {"name": "pareto_asha", "options": {"grace_examples": 2400, "eta": 3}},
    "budget": {"trials": 24, "examples": BUDGET, "keep_artifacts": "front"},
    "recipe": {"data": {"train": "sample", "max_length": 128}},
    "space": [
        {"set": "model.family", "choice": ["bert", "lstm"], "when": {}},
        {"set": "train.learning_rate", "log_uniform": [0.001, 0.004], "when": {"methods": ["full"]}},
    ],
}
FAMILIES = {
    "bert": (78.0, 20.0),
    "distilbert": (74.0, 14.0),
    "lstm": (62.0, 4.0),
    "mamba": (66.0, 9.0),
    "t5": (80.0, 30.0),
}
METHODS = ("full", "lora", "ia3", "static_prune", "lora+quantize")
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


def made_records(count: int, *, family_names: Mapping[str, str] | None = None) -> list[Record]:
    """Return records of so many trials: a third to the end, most others stopped, a few failed."""
    draw = random.Random(7)
    return [_record(number, draw, family_names or {}) for number in range(count)]


def write_run(
    folder: Path,
    records: Sequence[Record],
    *,
    spec: Mapping[str, Any] = SPEC,
    paused: int = 0,
    answers_for: Iterable[str] = (),
) -> Path:
    """Write the folder of a sweep; some trials more are paused at the first rung."""
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(json.dumps({**SPEC, **spec}))
    journal = Journal(folder)
    for record in records:
        journal.proposed(record.trial_id, assignment=record.assignment, notes={}, recipe=record.config)
        append(folder / "records.jsonl", record)
    for number in range(paused):
        trial_id = f"t{len(records) + number:04d}"
        like = records[number]
        journal.proposed(trial_id, assignment=like.assignment, notes={}, recipe=like.config)
        journal.reported(trial_id, dict(like.curve[0]), is_stopped=False, is_paused=True)
    for trial_id in answers_for:
        em = next(item for item in records if item.trial_id == trial_id).objectives["em_percent"]  # type: ignore[index]
        write_answers(folder / "trials" / trial_id / "answers.parquet", em)
    return folder


def write_answers(path: Path, em_percent: float, *, questions: int = 200, articles: int = 10) -> None:
    """Write answers of which so many percent are right: always the first ones, spread over articles."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exact = (np.arange(questions) < round(em_percent / 100 * questions)).astype(np.float64)
    columns = {
        "question_id": [f"q{row}" for row in range(questions)],
        "answer": ["yes" if right else "" for right in exact],
        "exact_match": exact,
        "f1": exact,
        "cluster": pa.array([row % articles for row in range(questions)], pa.int32()),
    }
    parquet.write_table(pa.table(columns, schema=SCHEMA.with_metadata({UNIT: b"article"})), path)


def _record(number: int, draw: random.Random, family_names: Mapping[str, str]) -> Record:
    family = draw.choice(sorted(FAMILIES))
    methods = draw.choice(METHODS)
    rate = 10 ** draw.uniform(-4.5, -2.3)
    top, memory = FAMILIES[family]
    bits = draw.choice((8, 4)) if "quantize" in methods else None
    rank = draw.choice((4, 8, 16, 32)) if "lora" in methods else None
    memory *= draw.uniform(0.8, 1.6) * (1.0 if bits is None else bits / 16)
    em = max(1.0, top - 14 * abs(np.log10(rate) + 3.2) - (4.0 if bits == 4 else 0.0) + draw.gauss(0, 3))
    em = min(97.0, em + 4 * np.log(memory / FAMILIES[family][1] + 0.5))
    status = draw.choices(("ok", "stopped", "failed"), (35, 62, 3))[0]
    seen = BUDGET if status == "ok" else draw.choice(RUNGS)
    curve = [
        {
            "examples_seen": at,
            "budget_examples": BUDGET,
            "train_loss": 4.0 * (1 - at / BUDGET * 0.8) + draw.random() * 0.2,
            "selection_em_percent": em * (0.35 + 0.65 * (at / BUDGET) ** 0.5) + draw.gauss(0, 1),
            "selection_f1_percent": em * (0.4 + 0.6 * (at / BUDGET) ** 0.5) + 2,
            "memory_mb": memory,
            "memory_batch8_mb": 2.3 * memory,
            "inference_peak_bytes": int(memory * 1e6),
            "weights_bytes": int(memory * 6e5),
            "artifact_bytes": int(memory * 7e5),
            "train_seconds": at / 300,
        }
        for at in (*RUNGS, BUDGET)
        if at <= seen
    ]
    is_ok = status == "ok"
    named = {name: {} for name in methods.split("+") if name != "full"}
    assignment: dict[str, Any] = {"model.family": family, "methods": methods, "train.learning_rate.1": rate}
    if rank is not None:
        named["lora"] = {"rank": rank}
        assignment["methods.lora.rank"] = rank
    if bits is not None:
        named["quantize"] = {"bits": bits}
        assignment["methods.quantize.bits"] = bits
    started = BEGUN + timedelta(seconds=40 * number)
    return Record(
        trial_id=f"t{number:04d}",
        status=status,
        reason=None
        if is_ok
        else f"stopped at {seen} examples"
        if status == "stopped"
        else "ValueError: no loss",
        seed=number,
        assignment=assignment,
        config={
            "model": {"family": family_names.get(family, family), "checkpoint": "tiny", "head": None},
            "methods": named,
            "train": {"learning_rate": rate, "rungs": list(RUNGS)},
            "data": {"train": "sample"},
        },
        examples_seen=seen,
        budget_examples=BUDGET,
        curve=curve,
        device="cpu: some processor",
        started_at=started.isoformat(),
        finished_at=(started + timedelta(seconds=30)).isoformat(),
        seconds=30.0,
        objectives={"em_percent": em, "memory_mb": memory} if is_ok else None,
        quality={
            "em_percent": em,
            "f1_percent": em + 3,
            "questions": 500,
            "baseline_no_answer_em_percent": 24.6,
            "baseline_first_span_em_percent": 1.5,
            "baseline_question_blind_em_percent": 10.9,
        }
        if is_ok
        else None,
        cost={
            "inference_peak_bytes": int(memory * 1e6),
            "inference_peak_batch8_bytes": int(2.3e6 * memory),
            "artifact_bytes": int(memory * 7e5),
            "weights_bytes": int(memory * 6e5),
            "latency_p50_ms": memory / 3,
            "latency_p95_ms": memory / 2,
            "train_peak_bytes": int(memory * 4e6),
            "protocol_version": 2,
            "precision": "torch.float32",
        }
        if is_ok
        else None,
        data={"evaluation": {"data_hash": "0123456789abcdef"}},
        artifact=f"trials/t{number:04d}/artifact" if is_ok else None,
        provenance={"command": "qa-sweep run --config made.yaml", "packages": {"torch": "2.6"}},
    )
