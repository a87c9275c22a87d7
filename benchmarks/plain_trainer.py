"""transformers' `Trainer` as people run it, and at its best, for a comparison of speed.

It uses nothing of this project: in a process of its own, it has torch's own settings.
"""

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PADDED, BEST = "trainer, padded to the maximum", "trainer at its best"


@dataclass(frozen=True)
class Job:
    """What one epoch is trained with.

    Attributes:
        checkpoint: folder or hub name of a checkpoint with a question-answering head.
        rows: per window `input_ids`, `attention_mask`, `token_type_ids` without padding, and `start_positions` and
            `end_positions`.
        longest: tokens of the longest window that there may be.
        pad_id: token id of padding.
        arguments: of `TrainingArguments`.
    """

    checkpoint: str
    rows: Sequence[Mapping[str, Any]]
    longest: int
    pad_id: int
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Epoch:
    """Seconds of wall clock and of CPU from the first step to the last, and the mean loss of all steps."""

    seconds: float
    cpu_seconds: float
    loss: float


def train(job: Job, way: str) -> Epoch:
    """Train one epoch from the checkpoint.

    Args:
        job: the windows and what is the same for both ways.
        way: `PADDED` pads every window to `longest`, as the example `run_qa.py` does, with the checkpoint's own
            attention dropout. `BEST` puts windows of like length together and pads to the longest of a batch, without
            attention dropout and with the fused optimiser.
    """
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(job.arguments["seed"])
    changes = {"attention_probs_dropout_prob": 0.0} if way == BEST else {}
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(
        job.checkpoint, dtype=torch.float32, trust_remote_code=False, **changes
    )

    class Clock(transformers.TrainerCallback):
        seconds = cpu_seconds = 0.0

        def on_train_begin(self, *arguments: Any, **more: Any) -> None:
            self.seconds, self.cpu_seconds = -time.perf_counter(), -time.process_time()

        def on_train_end(self, *arguments: Any, **more: Any) -> None:
            self.seconds += time.perf_counter()
            self.cpu_seconds += time.process_time()

    own: dict[str, Any] = {"optim": "adamw_torch"}
    if way == BEST:
        own = {"optim": "adamw_torch_fused", "train_sampling_strategy": "group_by_length"}

    def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows) if way == BEST else job.longest
        fill = {"input_ids": job.pad_id, "attention_mask": 0, "token_type_ids": 0}
        batch = {
            name: torch.tensor([[*row[name], *[value] * (width - len(row[name]))] for row in rows])
            for name, value in fill.items()
        }
        return batch | {
            name: torch.tensor([row[name] for row in rows]) for name in ("start_positions", "end_positions")
        }

    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        arguments = transformers.TrainingArguments(
            output_dir=scratch,
            num_train_epochs=1,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            **own,
            **job.arguments,
        )
        rows: Any = list(job.rows)
        trainer = transformers.Trainer(
            model, arguments, train_dataset=rows, data_collator=collate, callbacks=[clock]
        )
        trainer.remove_callback(transformers.PrinterCallback)
        found = trainer.train()
    assert math.isfinite(found.training_loss)
    return Epoch(clock.seconds, clock.cpu_seconds, found.training_loss)
