"""Can each family learn 32 questions by heart under each method? Exact match on its own training examples.

    python -m benchmarks.overfit [--model FOLDER]

With a folder of a small pretrained BERT, `bert` and `distilbert` start from it; the other families, and these two
without it, start from random weights, of which adapters and masks move only a part. A recipe that does not reach 100
is shown as it is.

An answer stands where its score is above that of "no answer", the boundary that training draws. A sweep tunes a
threshold on its selection split instead; here that has 4 questions which nobody has learnt, and what is tuned on them
withholds answers that were: the score under it is printed beside the other, to be told apart from what was learnt.
"""

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from qa_core import registry
from qa_core.artifact import artifact
from qa_core.config import RunConfig
from qa_core.data.prepare import prepare
from qa_core.data.squad import QaTable, load_table, select_questions, split_selection
from qa_core.errors import IllegalCombination
from qa_core.hardware import choose_device
from qa_core.measure import Reader
from qa_core.memory.protocol import Protocol
from qa_core.run import run
from qa_core.scoring import evaluate
from qa_core.values import from_dict

TRAINED = 32  # questions
BOUNDARY = 0.0  # of the score of "no answer" minus that of the answer
SPLIT_SEED = DRAW_SEED = 13
# method set -> its options, learning rate of a pretrained base, of a random one
METHODS: dict[str, tuple[dict[str, Any], float, float]] = {
    "full": ({}, 3e-4, 2e-3),
    "lora": ({"lora": {"rank": 16, "targets": "all_linear"}}, 3e-3, 5e-3),
    "ia3": ({"ia3": {}}, 1e-2, 2e-2),
    "qlora": ({"qlora": {"rank": 16, "targets": "all_linear"}}, 3e-3, 5e-3),
    "lora_int8": ({"lora_int8": {"rank": 16, "targets": "all_linear"}}, 3e-3, 5e-3),
    "static_prune": (
        {"static_prune": {"density": 0.5, "penalty": 0.0, "score_learning_rate": 2e-2}},
        3e-4,
        2e-3,
    ),
    "distill": ({"distill": {}}, 3e-4, 2e-3),
    "quantize 8": ({"quantize": {"bits": 8}}, 3e-4, 2e-3),
    "quantize 4": ({"quantize": {"bits": 4}}, 3e-4, 2e-3),
}


def main(
    model: Annotated[str | None, typer.Option(help="folder of a small pretrained BERT")] = None,
    examples: Annotated[int, typer.Option(help="training windows of each recipe")] = 4800,
    only: Annotated[
        str | None, typer.Option("--families", help="names of families, joined by commas")
    ] = None,
    heads: Annotated[str | None, typer.Option(help="names of heads, joined by commas")] = None,
    methods: Annotated[
        str | None, typer.Option(help=f"joined by commas, of: {', '.join(METHODS)}; default: all")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="peak learning rate, in place of each method's own")
    ] = None,
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("runs/benchmarks/overfit.json"),
) -> None:
    """Run each legal pair, print the table and write the JSON file."""
    figures: dict[str, dict[str, float]] = {}
    columns = methods.split(",") if methods else list(METHODS)
    table = Table("family", *columns, title=f"EM on the {TRAINED} training questions")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        train, learnt = write_questions(folder)
        for family in only.split(",") if only else sorted(registry.FAMILIES):
            for head in registry.family_class(family).heads:
                if heads and head not in heads.split(","):
                    continue
                row = {}
                for number, method in enumerate(columns):
                    config = recipe(
                        family, head, method, model=model, examples=examples, data=(train, learnt), rate=rate
                    )
                    try:
                        registry.check_combination(
                            registry.make_family(config), registry.make_methods(config)
                        )
                    except IllegalCombination:
                        continue
                    place = folder / f"{family}-{head}-{number}"
                    result = run(config, lambda progress: None, folder=place, cache_dir=folder / "cache")
                    row[method] = learnt_em(config, place / "artifact", folder / "cache")
                    tuned = f"{result.quality.em_percent:.1f} under the tuned threshold"
                    print(f"{family}-{head} {method}: EM {row[method]:.1f} ({tuned})", flush=True)
                figures[f"{family}-{head}"] = row
                table.add_row(
                    f"{family}-{head}", *(f"{row[name]:.1f}" if name in row else "-" for name in columns)
                )
    Console(width=140).print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(figures, indent=1))


def recipe(
    family: str,
    head: str,
    method: str,
    *,
    model: str | None,
    examples: int,
    data: tuple[Path, Path],
    rate: float | None = None,
) -> RunConfig:
    """Return the recipe of one pair, evaluated on the questions that it trains on."""
    options, pretrained_rate, random_rate = METHODS[method]
    is_pretrained = model is not None and family in ("bert", "distilbert")
    settings: dict[str, Any] = {"checkpoint": model if is_pretrained else "tiny"}
    if is_pretrained and family == "distilbert":
        settings["options"] = {"from_bert": True}
    values = {
        "model": {"family": family, "head": head, "vocab_size": 800, "dropout": 0.0, **settings},
        "methods": options,
        "data": {
            "train": str(data[0]),
            "evaluation": str(data[1]),
            "selection_questions": 4,
            "split_seed": SPLIT_SEED,
            "max_length": 128,
            "stride": 16,
            "max_question_length": 32,
        },
        "train": {
            "budget_examples": examples,
            "batch_size": 8,
            "learning_rate": rate or (pretrained_rate if is_pretrained else random_rate),
            "weight_decay": 0.0,
        },
        "evaluation": {"latency_runs": 1},
    }
    return from_dict(RunConfig, values)


def learnt_em(config: RunConfig, folder: Path, cache_dir: Path) -> float:
    """Return the artifact's exact match in percent where answers stand above "no answer"."""
    family = registry.make_family(config)
    data = prepare(config, family, cache_dir=cache_dir)
    protocol = Protocol(
        family, data.tokenizer, config.data.max_length, config.evaluation, choose_device(config.device)
    )
    network = artifact.load(folder).model.to(protocol.device)
    predictions = Reader(network, protocol).predict(data.evaluation(), data.evaluation_table)
    return evaluate.quality(predictions, data.evaluation_table, BOUNDARY).em_percent


def write_questions(folder: Path) -> tuple[Path, Path]:
    """Write a training source of the built-in corpus whose train part has 32 questions, and that part alone."""
    source = load_table("sample", split="train")
    for count in range(TRAINED + 4, len(source)):
        chosen = select_questions(source, count, seed=DRAW_SEED)
        part, _ = split_selection(chosen, 0.1, seed=SPLIT_SEED)
        if len(part) == TRAINED:
            break
    paths = folder / "source.json", folder / "learnt.json"
    for path, table in zip(paths, (chosen, part), strict=True):
        path.write_text(json.dumps(_as_squad(table)))
    return paths


def _as_squad(table: QaTable) -> dict[str, Any]:
    articles = []
    for example in table.examples():
        answers = [{"text": answer.text, "answer_start": answer.start} for answer in example.answers]
        question = {
            "id": example.question_id,
            "question": example.question,
            "answers": answers,
            "is_impossible": not answers,
        }
        paragraph = {"context": example.context, "qas": [question]}
        articles.append({"title": example.title, "paragraphs": [paragraph]})
    return {"version": "v2.0", "data": articles}


if __name__ == "__main__":
    typer.run(main)
