"""Score and measure a model as it ships: the loaded artifact, by the one evaluator and the one protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qa_core.artifact.loaded import LoadedArtifact
from qa_core.data.batches import collate
from qa_core.data.prepare import TrialData
from qa_core.data.squad import QaTable
from qa_core.data.windows import WindowSet
from qa_core.hardware import describe_device, precision_name
from qa_core.memory import protocol as cost
from qa_core.memory.forms import FormMemory
from qa_core.memory.protocol import Protocol
from qa_core.schema import Cost, CrossDomainScore, Quality
from qa_core.scoring import evaluate
from qa_core.scoring.answer_file import write_answers
from qa_core.scoring.decode import Prediction
from qa_core.training.checkpoint import TrainState


@dataclass(frozen=True)
class Reader:
    """A network together with what is needed to let it answer."""

    model: torch.nn.Module
    protocol: Protocol

    def predict(self, windows: WindowSet, table: QaTable) -> list[Prediction]:
        """Answer every question of the table, in its order."""
        settings = self.protocol.evaluation
        return evaluate.predict(
            self.model,
            self.protocol.family,
            windows,
            table,
            tokenizer=self.protocol.tokenizer,
            settings=settings,
            device=self.protocol.device,
        )

    def index_accuracy(self, windows: WindowSet) -> tuple[float, float] | None:
        """Return `evaluate.index_accuracy` and its baseline, in percent; None where the family does not report it."""
        if not self.protocol.family.reports_index_accuracy(self.model):
            return None
        return evaluate.index_accuracy(
            self.model,
            self.protocol.family,
            windows,
            pad_id=self.protocol.tokenizer.pad_token_id,
            settings=self.protocol.evaluation,
            device=self.protocol.device,
        )


def scored_quality(
    reader: Reader, data: TrialData, *, answers_path: Path
) -> tuple[Quality, tuple[float, float]]:
    """Return the quality on the evaluation set and (EM, F1) in percent on the selection split; write the answers.

    The no-answer threshold is tuned on the selection split; the evaluation set is opened here and nowhere else.
    """
    selection = reader.predict(data.selection, data.selection_table)
    threshold = evaluate.tune_threshold(selection, data.selection_table)
    windows = data.evaluation()
    predictions = reader.predict(windows, data.evaluation_table)
    quality = evaluate.quality(predictions, data.evaluation_table, threshold)
    scores = evaluate.scores_by_question(predictions, data.evaluation_table, threshold)
    write_answers(answers_path, predictions, data.evaluation_table, scores, threshold=threshold)
    if (found := reader.index_accuracy(windows)) is not None:
        accuracy, constant_0 = found
        quality = replace(
            quality, index_accuracy_percent=accuracy, index_accuracy_constant_0_percent=constant_0
        )
    return quality, evaluate.selection_scores(selection, data.selection_table, threshold)


def cross_domain_scores(
    reader: Reader, data: TrialData, threshold: float | None
) -> dict[str, CrossDomainScore]:
    """Return the quality on each cross-domain set, by source; the threshold is applied as it is."""
    scores = {}
    for source, table in data.cross_domain_tables.items():
        predictions = reader.predict(data.cross_domain(source), table)
        scores[source] = CrossDomainScore(table.data_hash, evaluate.quality(predictions, table, threshold))
    return scores


def measured_cost(
    reader: Reader,
    loaded: LoadedArtifact,
    data: TrialData,
    *,
    memory: FormMemory,
    state: TrainState,
    training: Mapping[str, Any],
) -> Cost:
    """Measure the loaded artifact by the protocol of `qa_core/memory/protocol.py`.

    Training figures come from the trial.
    """
    runs = min(reader.protocol.evaluation.latency_runs, len(data.selection))
    pad_id = data.tokenizer.pad_token_id
    batches = [collate(data.selection, np.array([index]), pad_id) for index in range(runs)]
    times = cost.latencies_ms(reader.model, reader.protocol, batches)
    return Cost(
        artifact_bytes=loaded.artifact_bytes,
        predicted_artifact_bytes=memory.artifact_bytes,
        weights_bytes=cost.weights_bytes(reader.model),
        inference_peak_bytes=cost.inference_peak_bytes(reader.model, reader.protocol),
        inference_peak_batch8_bytes=cost.inference_peak_bytes(
            reader.model, reader.protocol, rows=cost.LARGE_MEMORY_ROWS
        ),
        predicted_inference_peak_bytes=memory.predicted_bytes,
        predicted_inference_peak_batch8_bytes=memory.predicted_batch8_bytes,
        form_inference_peak_bytes=memory.measured_bytes,
        form_inference_peak_batch8_bytes=memory.measured_batch8_bytes,
        train_peak_bytes=training["train_peak_bytes"],
        rss_peak_bytes=cost.rss_peak_bytes(),
        parameters=cost.parameter_count(reader.model),
        trainable_parameters=training["trainable_parameters"],
        train_seconds=state.train_seconds,
        train_examples_per_second=state.examples_seen / max(state.train_seconds, 1e-9),
        latency_p50_ms=cost.percentile(times, 0.5),
        latency_p95_ms=cost.percentile(times, 0.95),
        device=describe_device(reader.protocol.device),
        precision=precision_name(reader.protocol.evaluation.precision, reader.protocol.device),
        threads=torch.get_num_threads(),
        protocol_version=cost.PROTOCOL_VERSION,
        compute_path=reader.protocol.family.compute_path(reader.model),
        micro_batch_parts=state.micro_batch_parts,
        rung_seconds=state.rung_seconds,
    )
