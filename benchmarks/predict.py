"""How fast `qa-sweep predict` answers, beside the plain loop of one question at a time with transformers.

    python -m benchmarks.predict MODEL QUESTIONS --questions 1000

MODEL is an artifact that is a folder of transformers with a span head (docs/artifacts.md). Both read the same questions
with the same windows, in one process with one thread (OMP_NUM_THREADS=1), and give the same answers but for rounding.
Loading the model is not timed.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from qa_core.artifact import artifact
from qa_core.data.characters import bare
from qa_core.data.squad import load_questions
from qa_core.data.table import QaTable
from sweeps.commands.predict import rank


def plain_answers(folder: Path, table: QaTable, *, data: Any, longest: int) -> dict[str, str]:
    """Return the best span of each question: one question at a time, every window of it in one batch."""
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    model = AutoModelForQuestionAnswering.from_pretrained(folder, trust_remote_code=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    found = {}
    with torch.no_grad():
        for example in table.examples():
            windows = tokenizer(
                example.question,
                example.context,
                truncation="only_second",
                max_length=data.max_length,
                stride=data.stride,
                padding=True,
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


def main() -> None:
    """Answer the questions both ways and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--questions", type=int, default=1000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    whole = load_questions(given.data)
    count = min(given.questions, len(whole))
    table = whole.take(range(0, len(whole), max(1, len(whole) // count))).take(range(count))
    loaded = artifact.load(given.model)
    settings = loaded.config
    ways: dict[str, Callable[[], dict[str, str]]] = {
        "predict": lambda: {
            item.question_id: item.candidates[0].text for item in rank(loaded, table, device="cpu", count=1)
        },
        "plain loop": lambda: plain_answers(
            given.model, table, data=settings.data, longest=settings.evaluation.max_answer_tokens
        ),
    }
    answers = {}
    for name, work in ways.items():
        answers[name], wall, cpu = timed(work)
        print(f"{name}: {count} questions in {wall:.1f} s ({count / wall:.1f} a second), {cpu:.1f} s of CPU")
    same = sum(answers["predict"][name] == text for name, text in answers["plain loop"].items())
    print(f"equal answers: {same} of {count}")


if __name__ == "__main__":
    main()
