"""From logits to answers to scores, and answers that are written: each beside the way that people take.

    python -m benchmarks.answering DATA TOKENIZER [--rounds 3]

DATA is a SQuAD file with several golds for a question, as its dev files are; TOKENIZER a folder with a tokenizer of
BERT's kind. In one process with one thread, the two ways of a row in turn, in CPU seconds:

    spans    `best_spans` and `decode_spans`, beside the nested loop over the 20 best starts and ends of each window
    scores   `evaluate_v2`, beside the v2.0 rules applied to each pair of gold and answer, texts normalised each time
    writing  family `t5` with its two scores of each answer, beside `generate` of transformers, which gives text alone;
             random weights of the shape of `t5-small`, windows sorted by length

Answers, scores and texts of both ways are compared. The logits are random, so that spans of every kind occur.
"""

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qa_core.config import DataConfig, ModelConfig
from qa_core.data.batches import collate, plan_inference_batches
from qa_core.data.characters import bare
from qa_core.data.squad import load_table, read_articles
from qa_core.data.table import QaTable
from qa_core.data.text import normalize_answer
from qa_core.data.tokenizers import prepare_tokenizer
from qa_core.data.windows import WindowLengths, WindowSet, build_windows
from qa_core.families.bert import Bert
from qa_core.families.t5 import T5
from qa_core.scoring.decode import SpanScores, best_spans, decode_spans
from qa_core.scoring.scores import evaluate_v2

BEST = 20  # starts and ends of each window that the nested loop looks at
LONGEST = 30  # tokens of an answer
NEW_TOKENS = 8
WRITTEN_WINDOWS = 64
T5_SMALL = {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8}
normalised = normalize_answer.__wrapped__  # as the rules are written: nothing is remembered
Ways = tuple[Callable[[], Any], Callable[[], Any]]  # ours, the other


def main() -> None:
    """Measure each row in turn and print its figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("tokenizer")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = load_table(given.data, split="dev")
    with tempfile.TemporaryDirectory() as scratch:
        windows, pad_id = bert_windows(table, given.tokenizer, Path(scratch))
        answers: dict[str, str] = {}
        rows = {
            "spans": span_ways(table, windows, pad_id, answers),
            "scores": score_ways(given.data, answers),
        }
        rows["writing"] = writing_ways(table, Path(scratch))
        for name, ways in rows.items():
            print(compare(name, ways, rounds=given.rounds), flush=True)


def compare(name: str, ways: Ways, *, rounds: int) -> str:
    """Run two ways in turn; returns a line with seconds of CPU and their ratio."""
    seconds: tuple[list[float], list[float]] = ([], [])
    found = [way() for way in ways]  # unmeasured: first calls cost more
    for _ in range(rounds):
        for way, list_ in zip(ways, seconds, strict=True):
            started = time.process_time()
            way()
            list_.append(time.process_time() - started)
    ours, other = map(statistics.median, seconds)
    ratios = sorted(second / first for first, second in zip(*seconds, strict=True))
    same = sum(a == b for a, b in zip(*found, strict=True))
    return (
        f"{name}: {ours:.2f} s beside {other:.2f} s of CPU, {other / ours:.2f} times as fast "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}); equal: {same} of {len(found[0])}"
    )


def bert_windows(table: QaTable, tokenizer: str, cache_dir: Path) -> tuple[WindowSet, int]:
    """Return the windows of family `bert` with the default lengths, and the padding token."""
    family = Bert(ModelConfig(family="bert", checkpoint=tokenizer))
    prepared = prepare_tokenizer(family, table, cache_dir)
    data = DataConfig()
    lengths = WindowLengths(data.max_length, data.stride, data.max_question_length)
    layout = family.layout(prepared)
    return build_windows(table, prepared, layout, lengths=lengths, cache_dir=cache_dir), prepared.pad_token_id


def span_ways(table: QaTable, windows: WindowSet, pad_id: int, answers: dict[str, str]) -> Ways:
    """Return both ways from the same random logits to one text for each question; `answers` takes ours."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for some in plan_inference_batches(windows.lengths, 16_384):
        batch = collate(windows, some, pad_id)
        logits = [torch.randn(batch["input_ids"].shape, generator=generator) for _ in range(2)]
        batches.append((some, logits, batch["span_mask"], batch["null_positions"]))
    order = torch.from_numpy(np.argsort(np.concatenate([some for some, *_ in batches])))
    contexts = table.contexts.to_pylist()

    def ours() -> list[str]:
        parts = [best_spans(*logits, *masks, max_answer_tokens=LONGEST) for _, logits, *masks in batches]
        fields = ("score", "start", "end", "null_score")
        joined = SpanScores(*(torch.cat([getattr(part, field) for part in parts])[order] for field in fields))
        texts = [item.text for item in decode_spans(windows, table, joined)]
        answers.update(zip(table.question_ids, texts, strict=True))
        return texts

    def nested() -> list[str]:
        best: dict[int, tuple[float, str]] = {}
        for some, (starts, ends), mask, nulls in batches:
            for row, window in enumerate(some.tolist()):
                question = int(windows.question_index[window])
                context = contexts[table.context_index[question]]
                first_chars, last_chars = windows.offsets(window)
                for score, start, end in nested_spans(starts[row], ends[row], mask[row], int(nulls[row])):
                    if question not in best or score > best[question][0]:
                        text = context[int(first_chars[start]) : int(last_chars[end])]
                        best[question] = (score, bare(text))
        return [best[question][1] for question in range(len(table))]

    return ours, nested


def nested_spans(start: Tensor, end: Tensor, mask: Tensor, null: int) -> list[tuple[float, int, int]]:
    """Return (score, start, end) of the allowed pairs among the best starts and the best ends of a window."""
    starts, ends, allowed = start.double().numpy(), end.double().numpy(), mask.numpy()
    found = []
    for first in np.argsort(starts)[-1 : -BEST - 1 : -1].tolist():
        for last in np.argsort(ends)[-1 : -BEST - 1 : -1].tolist():
            if null in (first, last) or not allowed[first] or not allowed[last]:
                continue
            if last < first or last - first + 1 > LONGEST:
                continue
            found.append((float(starts[first] + ends[last]), first, last))
    return sorted(found, reverse=True)


def score_ways(data: str, answers: Mapping[str, str]) -> Ways:
    """Return both ways from answers to the figures of v2.0, each rounded to 9 digits."""
    articles = read_articles(data)

    def ours() -> list[float]:
        figures = evaluate_v2(articles, answers)
        return [round(figures[name], 9) for name in ("exact", "f1")]

    def each_pair() -> list[float]:
        exact, f1 = [], []
        for article in articles or []:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    golds = [item["text"] for item in question["answers"] if normalised(item["text"])] or [""]
                    answer = answers[question["id"]]
                    exact.append(max(normalised(gold) == normalised(answer) for gold in golds))
                    f1.append(max(token_f1(gold, answer) for gold in golds))
        return [round(100.0 * sum(scores) / len(scores), 9) for scores in (exact, f1)]

    return ours, each_pair


def token_f1(gold: str, answer: str) -> float:
    """Return the F1 of the tokens of two texts by the rules of v2.0."""
    gold_tokens, tokens = normalised(gold).split(), normalised(answer).split()
    if not gold_tokens or not tokens:
        return float(gold_tokens == tokens)
    common = sum((Counter(gold_tokens) & Counter(tokens)).values())
    if not common:
        return 0.0
    precision, recall = common / len(tokens), common / len(gold_tokens)
    return 2 * precision * recall / (precision + recall)


def writing_ways(table: QaTable, cache_dir: Path) -> Ways:
    """Return both ways from windows to written texts, with a T5 of random weights."""
    family = T5(ModelConfig(family="t5", head="generate", checkpoint="tiny"))
    some = table.take(range(0, len(table), max(1, len(table) // WRITTEN_WINDOWS)))
    tokenizer = prepare_tokenizer(family, some, cache_dir)
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    settings = {"vocab_size": len(tokenizer), "decoder_start_token_id": 0, "pad_token_id": 0}
    model = T5ForConditionalGeneration(T5Config(**T5_SMALL, **settings)).eval()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    default = DataConfig()
    lengths = WindowLengths(default.max_length, default.stride, default.max_question_length)
    windows = build_windows(some, tokenizer, family.layout(tokenizer), lengths=lengths, cache_dir=cache_dir)
    pad_id = tokenizer.pad_token_id
    batches = [collate(windows, part, pad_id) for part in plan_inference_batches(windows.lengths, 4096)]

    def ours() -> list[str]:
        with torch.inference_mode():
            return [
                item.text
                for batch in batches
                for item in family.generate(model, batch, tokenizer, max_new_tokens=NEW_TOKENS)
            ]

    def plain() -> list[str]:
        texts: list[str] = []
        for batch in batches:
            with torch.inference_mode():
                written = model.generate(
                    input_ids=batch["input_ids"],
                    attention_mask=batch["attention_mask"],
                    max_new_tokens=NEW_TOKENS,
                    do_sample=False,
                    num_beams=1,
                )
            texts += [text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]
        return texts

    return ours, plain


if __name__ == "__main__":
    main()
