"""How fast `qa-sweep predict` answers, beside plain loops over one question at a time with transformers.

    python -m benchmarks.predict MODEL QUESTIONS --questions 1000
    python -m benchmarks.predict CHECKPOINT QUESTIONS --questions 1000 --new-head

MODEL is an artifact that is a folder of transformers with a span head (docs/artifacts.md), CHECKPOINT a network of BERT
whose new head answers nonsense as fast. All read the same questions with the same windows, in one process with one
thread (OMP_NUM_THREADS=1), and give the same answers but for rounding. One loop pads a question's windows to the
longest of them, the other to the full length, as `run_qa.py` of transformers' examples does unless it is told not to.
Loading the model is not timed, nor are the first questions.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from qa_core import registry
from qa_core.artifact import artifact
from qa_core.config import RunConfig
from qa_core.data.characters import bare
from qa_core.data.squad import load_questions
from qa_core.data.table import QaTable
from qa_core.data.tokenizers import ready_tokenizer
from qa_core.values import from_dict
from sweeps.commands.predict import rank

LENGTHS = {"max_length": 384, "stride": 128}
WARM_UP = 16  # questions


def with_new_head(checkpoint: Path, folder: Path) -> Path:
    """Write the artifact of a network of BERT with a new head, windows of 384 tokens, and return its folder."""
    config = from_dict(
        RunConfig, {"model": {"family": "bert", "checkpoint": str(checkpoint)}, "data": LENGTHS}
    )
    family = registry.make_family(config)
    tokenizer = ready_tokenizer(family)
    torch.manual_seed(0)
    artifact.write(folder, family.build(tokenizer), config=config, tokenizer=tokenizer, forms={})
    return folder


def plain_answers(
    model: Any, tokenizer: Any, table: QaTable, *, data: Any, longest: int, padding: bool | str
) -> dict[str, str]:
    """Return the best span of each question: one question at a time, every window of it in one batch."""
    found = {}
    with torch.no_grad():
        for example in table.examples():
            windows = tokenizer(
                example.question,
                example.context,
                truncation="only_second",
                max_length=data.max_length,
                stride=data.stride,
                padding=padding,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
                return_tensors="pt",
            )
            offsets = windows.pop("offset_mapping").tolist()
            windows.pop("overflow_to_sample_mapping")
            output = model(**windows)
            best, text = -math.inf, ""
            for window, places in enumerate(offsets):
                is_context = torch.tensor([side == 1 for side in windows.sequence_ids(window)])
                start = output.start_logits[window].masked_fill(~is_context, -math.inf)
                end = output.end_logits[window].masked_fill(~is_context, -math.inf)
                sums = start[:, None] + end[None, :]  # [L, L]
                allowed = torch.ones_like(sums, dtype=torch.bool).triu().tril(longest - 1)
                sums = sums.masked_fill(~allowed, -math.inf)
                score, place = sums.flatten().max(dim=0)
                if score.item() > best:
                    first, last = divmod(int(place), len(places))
                    best, text = score.item(), example.context[places[first][0] : places[last][1]]
            found[example.question_id] = bare(text)
    return found


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what some work gives, its seconds, and the process's seconds of CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - wall, time.process_time() - cpu


def ways(folder: Path, table: QaTable) -> dict[str, Callable[[], dict[str, str]]]:
    """Return each way to answer a table, by name, its model loaded."""
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    loaded = artifact.load(folder)
    model = AutoModelForQuestionAnswering.from_pretrained(folder, trust_remote_code=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    options = {"data": loaded.config.data, "longest": loaded.config.evaluation.max_answer_tokens}

    def predict() -> dict[str, str]:
        ranked = rank(loaded, table, device="cpu", count=1)
        return {item.question_id: item.candidates[0].text for item in ranked}

    return {
        "predict": predict,
        "plain loop": partial(plain_answers, model, tokenizer, table, **options, padding=True),
        "plain loop, full length": partial(
            plain_answers, model, tokenizer, table, **options, padding="max_length"
        ),
    }


def main() -> None:
    """Answer the questions in every way and print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--new-head", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    whole = load_questions(given.data)
    count = min(given.questions, len(whole))
    table = whole.take(range(0, len(whole), max(1, len(whole) // count))).take(range(count))
    with tempfile.TemporaryDirectory() as scratch:
        folder = with_new_head(given.model, Path(scratch) / "model") if given.new_head else given.model
        for work in ways(folder, table.take(range(min(count, WARM_UP)))).values():
            work()
        answers: dict[str, dict[str, str]] = {}
        for name, work in ways(folder, table).items():
            answers[name], wall, cpu = timed(work)
            same = sum(answers["predict"][question] == text for question, text in answers[name].items())
            print(
                f"{name}: {count} questions in {wall:.1f} s ({count / wall:.1f} a second), {cpu:.1f} s of CPU, "
                f"{1000 * cpu / count:.1f} ms a question; answers as of predict: {same}",
                flush=True,
            )


if __name__ == "__main__":
    main()
