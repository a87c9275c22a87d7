"""Write the fixtures of `test_compatibility.py` with the installed project: `python -m tests.compatibility.make`.

    saved.tar.xz     one archive: the tokenizers repeat in each artifact, and as plain files they need 1.5 MB
      towers.json, abbeys.json    the questions to train on and to score
      models/NAME                 checkpoints that recipes start from, in the layout of transformers
      artifacts/NAME              one artifact of each kind
      run                         the folder of a sweep that was interrupted in a trial
    expected.json    what the version that wrote them answered and showed

The committed files were written by the commit that `expected.json` names. They are written again only for a new kind of
artifact or file, beside the committed ones: what an earlier version wrote must stay.

All paths in the fixtures are relative to the folder in which they were made. `neutral` replaces what names a machine:
the processor, its memory, the node, the folder, and the store of MLflow, whose database is left out. Readers allow it:
none of these decides whether trials compare under the objectives of this sweep. Ray's own state is left out too.

The committed sweep was interrupted by SIGINT, which leaves tables of the front and the outcome of the paused trial.
A new one is killed: whether SIGINT finds the trial still training is a matter of luck.
"""

import json
import os
import re
import shutil
import signal
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ARCHIVE, EXPECTED = HERE / "saved.tar.xz", HERE / "expected.json"
TRAIN, EVALUATION = "towers.json", "abbeys.json"
ASKED = 3  # questions of the evaluation file that each artifact answers
LINES = 26  # of the journal, after which the sweep is killed: the last is the first report of a trial
ATTEMPTS = 5  # a trial takes a second, and may end before the sweep is killed
DIGITS = 5  # of scores in expected.json
FOLDER = "/data/runs"  # stands for the folder in which the fixtures were made
STORE = f"sqlite:///{FOLDER}/mlflow.db"  # stands for the MLflow store of the machine
LEFT_OUT = (
    "front.html",
    "report.html",
    "front.png",
    "driver.lock",
)  # plots, which `front` draws again, are 5 MB

LSTM = {"family": "lstm", "checkpoint": "micro", "vocab_size": 120}
SMALL_LSTM = LSTM | {"options": {"embedding_size": 16, "hidden_size": 8}}
POSITIONS = LSTM | {
    "checkpoint": "model4",
    "options": {"embedding_size": 16, "hidden_size": 8, "positions": 64, "question_positions": 24},
}
BERT = {"family": "bert", "checkpoint": "models/bert"}
DISTILBERT = {"family": "distilbert", "checkpoint": "models/distilbert"}
T5 = {"family": "t5", "checkpoint": "models/t5"}
MAMBA = {"family": "mamba", "checkpoint": "models/mamba"}
LORA = {"rank": 2, "alpha": 4.0}
# Name of the artifact -> its model and methods.
ARTIFACTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "bert-full": (BERT, {}),
    "distilbert-full": (DISTILBERT, {}),
    "t5-span": (T5 | {"head": "span"}, {}),
    "t5-generate": (T5 | {"head": "generate"}, {}),
    "lstm-full": (SMALL_LSTM, {}),
    "lstm-positions": (POSITIONS, {}),
    "mamba-span": (MAMBA | {"head": "span"}, {}),
    "mamba-generate": (MAMBA | {"head": "generate"}, {}),
    "mamba-attention": (
        MAMBA | {"head": "span", "options": {"attention_layer": 0, "attention_heads": 2}},
        {},
    ),
    "lora-merged": (BERT, {"lora": LORA}),
    "lora-apart": (BERT, {"lora": LORA | {"merge": False}}),
    "lora-apart-t5": (T5 | {"head": "generate"}, {"lora": LORA | {"merge": False}}),
    "ia3-merged": (BERT, {"ia3": {}}),
    "ia3-apart": (BERT, {"ia3": {"merge": False}}),
    "qlora": (BERT, {"qlora": LORA}),
    "qlora-plain-scales": (BERT, {"qlora": LORA | {"double_quantisation": False}}),
    "lora-int8": (BERT, {"lora_int8": LORA}),
    "bfloat16": (BERT, {"quantize": {"bits": 16}}),
    "float16": (BERT, {"quantize": {"bits": 16, "scheme": "float16"}}),
    "int8-row": (BERT, {"quantize": {"bits": 8}}),
    "int8-tensor": (BERT, {"quantize": {"bits": 8, "granularity": "tensor"}}),
    "int8-group": (BERT, {"quantize": {"bits": 8, "granularity": "group", "group_size": 64}}),
    "int8-dynamic": (BERT, {"quantize": {"bits": 8, "scheme": "dynamic"}}),
    "int8-embedding": (BERT, {"quantize": {"bits": 8, "embedding_bits": 8}}),
    "int8-lstm": (SMALL_LSTM, {"quantize": {"bits": 8}}),
    "int8-mamba": (MAMBA | {"head": "span"}, {"quantize": {"bits": 8}}),
    "nf4": (BERT, {"quantize": {"bits": 4}}),
    "nf4-t5": (T5 | {"head": "generate"}, {"quantize": {"bits": 4, "embedding_bits": 16}}),
    "nf4-plain-scales": (BERT, {"quantize": {"bits": 4, "double_quantisation": False}}),
    "int4": (BERT, {"quantize": {"bits": 4, "scheme": "int4"}}),
    "pruned-dense": (BERT, {"static_prune": {"density": 0.3, "criterion": "magnitude"}}),
    "pruned-packed": (BERT, {"static_prune": {"density": 0.3, "criterion": "smp_l", "resident": "packed"}}),
    "pruned-float16": (BERT, {"static_prune": {"density": 0.3, "criterion": "magnitude", "value_bits": 16}}),
    "lora-then-int8": (BERT, {"lora": LORA, "quantize": {"bits": 8}}),
    "distilled": (BERT, {"distill": {"teacher": "artifacts/bert-full"}}),
    "few-shot": (T5 | {"head": "generate"}, {"few_shot": {"shots": 1, "max_demonstration_tokens": 60}}),
}
SWEEP: dict[str, Any] = {
    "name": "compatibility",
    "seed": 50,  # of the first proposals one fails, and finished ones are of several families and methods
    "objectives": [
        {"name": "em_percent", "goal": "max", "reference": 0},
        {"name": "memory_mb", "goal": "min", "reference": 32},
    ],
    "searcher": {"name": "random"},
    "scheduler": {"name": "pareto_asha", "options": {"grace_examples": 60, "eta": 2}},
    "budget": {"trials": 8, "examples": 480, "concurrent": 1, "keep_artifacts": "front"},
    "recipe": {
        "model": {"vocab_size": 120},
        "data": {
            "train": TRAIN,
            "evaluation": EVALUATION,
            "max_length": 64,
            "stride": 8,
            "max_question_length": 24,
        },
        "train": {"precision": "float32", "batch_size": 4},
        "evaluation": {"precision": "float32", "latency_runs": 2},
    },
    "space": [
        {"set": "model.family", "choice": ["bert", "lstm"]},
        {"set": "methods", "choice": ["full", "lora", "quantize"]},
        {"set": "model.checkpoint", "choice": ["models/bert"], "when": {"model.family": "bert"}},
        {"set": "model.checkpoint", "choice": ["micro"], "when": {"model.family": "lstm"}},
        {"set": "model.options.embedding_size", "choice": [8, 16], "when": {"model.family": "lstm"}},
        {"set": "model.options.hidden_size", "choice": [8], "when": {"model.family": "lstm"}},
        {"set": "train.learning_rate", "log_uniform": [0.001, 0.01]},
        # A trial with the second set fails.
        {"set": "methods.lora.targets", "choice": ["attention", "no_such_set"], "when": {"methods": "lora"}},
        {"set": "methods.lora.rank", "choice": [2], "when": {"methods": "lora"}},
    ],
}


def questions(noun: str) -> dict[str, Any]:
    """Return 60 questions on 12 articles as SQuAD v2.0 has them, a fifth of them without an answer."""
    colours = ["amber", "teal", "violet", "crimson", "olive", "ivory"]
    articles = []
    for index in range(12):
        paragraphs = []
        for part in range(2):
            name, colour, year = (
                f"{noun} {index}{part}",
                colours[(index + part) % 6],
                str(1800 + 7 * index + part),
            )
            context = f"The door of {name} is {colour}. It was built in {year} by the guild."
            asked = [(f"What colour is the door of {name}?", colour), (f"When was {name} built?", year)]
            if part:
                asked.append((f"Who painted {name}?", ""))
            items = []
            for number, (question, answer) in enumerate(asked):
                answers = [{"text": answer, "answer_start": context.index(answer)}] if answer else []
                identity = f"{noun}-{index}-{part}-{number}"
                items.append(
                    {"id": identity, "question": question, "answers": answers, "is_impossible": not answer}
                )
            paragraphs.append({"context": context, "qas": items})
        articles.append({"title": f"{noun} {index}", "paragraphs": paragraphs})
    return {"version": "v2.0", "data": articles}


def asked_questions() -> dict[str, Any]:
    """Return the first `ASKED` questions of the evaluation file, of which the last has no answer."""
    everything = questions("Abbey")
    paragraphs = everything["data"][0]["paragraphs"]
    paragraphs[0]["qas"] = paragraphs[0]["qas"][: ASKED - 1]
    paragraphs[1]["qas"] = paragraphs[1]["qas"][-1:]
    return {**everything, "data": everything["data"][:1]}


def write_checkpoints(cache: Path) -> None:
    """Write a small network with random weights of each family of transformers, and its tokenizer."""
    import torch
    import transformers

    from qa_core import registry
    from qa_core.config import ModelConfig
    from qa_core.data.squad import load_table
    from qa_core.data.tokenizers import trained_tokenizer

    table = load_table(TRAIN, split="train")
    of_bert = {"vocab_size": 0, "type_vocab_size": 2, "max_position_embeddings": 64}
    bert = of_bert | dict.fromkeys(("hidden_size", "intermediate_size"), 16)
    bert |= {"num_hidden_layers": 1, "num_attention_heads": 2}
    distilbert = {"dim": 16, "hidden_dim": 16, "n_layers": 1, "n_heads": 2, "max_position_embeddings": 64}
    t5 = {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    mamba = {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    networks: dict[str, tuple[str, str, dict[str, Any]]] = {
        "bert": ("BertConfig", "BertModel", bert),
        "distilbert": ("DistilBertConfig", "DistilBertModel", distilbert),
        "t5": ("T5Config", "T5ForConditionalGeneration", t5),
        "mamba": ("MambaConfig", "MambaForCausalLM", mamba),
    }
    for name, (config_class, network_class, sizes) in networks.items():
        family = registry.family_class(name)(ModelConfig(family=name, checkpoint="micro"))
        vocabulary = (
            300 if family.tokenizer_kind == "bytes" else 120
        )  # the smallest of bytes has 256 and more
        tokenizer = trained_tokenizer(family.tokenizer_kind, table, vocab_size=vocabulary, cache_dir=cache)
        special = {"pad_token_id": tokenizer.pad_token_id}
        if tokenizer.eos_token_id is not None:
            special["eos_token_id"] = tokenizer.eos_token_id
        config = getattr(transformers, config_class)(**sizes | {"vocab_size": len(tokenizer)} | special)
        torch.manual_seed(1)
        network = getattr(transformers, network_class)(config)
        network.save_pretrained(f"models/{name}")
        tokenizer.save_pretrained(f"models/{name}")


def write_artifacts(cache: Path) -> dict[str, Any]:
    """Train each recipe, keep its artifact, and return name -> what it answers."""
    from qa_core import run
    from qa_core.config import RunConfig
    from qa_core.values import from_dict

    expected = {}
    for name, (model, methods) in ARTIFACTS.items():
        is_prompted = "few_shot" in methods
        values = {
            "model": {"dropout": 0.0, **model},
            "methods": methods,
            "data": {**SWEEP["recipe"]["data"], "max_length": 128 if is_prompted else 64},
            "train": {"budget_examples": 0 if is_prompted else 1200, "learning_rate": 0.01, "batch_size": 8}
            | {"precision": "float32"},
            "evaluation": {"precision": "float32", "latency_runs": 1, "max_new_tokens": 8},
            "device": "cpu",
        }
        run.run(
            from_dict(RunConfig, values), lambda progress: None, folder=Path("trials", name), cache_dir=cache
        )
        shutil.move(Path("trials", name, "artifact"), Path("artifacts", name))
        expected[name] = answers(Path("artifacts", name))
        print(
            name, sum(item.stat().st_size for item in Path("artifacts", name).rglob("*")), expected[name][0]
        )
    return expected


def answers(artifact: Path) -> list[dict[str, Any]]:
    """Return an artifact's best answers to the asked questions, before its threshold decides, scores in nats."""
    from qa_core.data.squad import read_squad
    from sweeps.commands.predict import answer, load_artifact

    table = read_squad(asked_questions(), "asked")
    return [
        {
            "question": item.question_id,
            "text": item.text,
            "score": round(float(item.score), DIGITS),
            "null_odds": round(float(item.null_odds), DIGITS),
        }
        for item in answer(load_artifact(artifact), table, device="cpu")
    ]


def write_run(cache: Path) -> dict[str, Any]:
    """Run a sweep, kill it in a trial, and return its front: trial id -> values of the objectives."""
    from sweeps.commands.results import read_front
    from tests.sweeps.whole import Sweep

    Path("sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    for _ in range(ATTEMPTS):
        shutil.rmtree("run", ignore_errors=True)
        sweep = Sweep(Path("run"), ["--config", "sweep.yaml"], cache)
        sweep.end_by(signal.SIGKILL, after_lines=LINES, then_seconds=0.0)
        print(sweep.output())
        if list(Path("run").glob("trials/*/checkpoint")):
            break
    else:
        raise SystemExit(f"none of {ATTEMPTS} sweeps was killed within a trial")
    # Ray's own state holds pickles and is not read back
    shutil.rmtree(Path("run", "ray"), ignore_errors=True)
    for name in LEFT_OUT:
        Path("run", name).unlink(missing_ok=True)
    neutral(Path("run"))
    return {point.trial_id: dict(point.values) for point in read_front(Path("run")).front}


def neutral(folder: Path) -> None:
    """Replace what names the machine in the JSON files of a sweep's folder; hashed files of artifacts have none."""
    from sweeps.run_folder import provenance

    for path in [item for suffix in ("json", "jsonl") for item in folder.rglob(f"*.{suffix}")]:
        if path.parent.name == "artifact":
            continue
        text = path.read_text(encoding="utf-8").replace(str(Path.cwd()), FOLDER)
        text = text.replace(str(provenance.PROJECT_FOLDER), f"{FOLDER}/qa-sweeps")  # in tracebacks
        text = re.sub(r'"sqlite:///[^"]*"', json.dumps(STORE), text)
        text = re.sub(r'("cpu": )"[^"]*"', r'\1"a processor"', text)
        text = re.sub(r'("memory_bytes": )\d+', r"\g<1>8000000000", text)
        text = re.sub(r'("node": )"[^"]*"', r'\1"0123456789ab"', text)
        text = re.sub(r'("device": "cpu: )[^"]*"', r'\1a processor"', text)
        path.write_text(text, encoding="utf-8")


def commit() -> str | None:
    """Return the commit of the project that writes."""
    from sweeps.run_folder import provenance

    return provenance.git_state(provenance.PROJECT_FOLDER)["commit"]


def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave owner and time out of a member."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def main() -> None:
    """Write archive and expectations."""
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        cache = Path(scratch, "cache")
        Path(TRAIN).write_text(json.dumps(questions("Tower")))
        Path(EVALUATION).write_text(json.dumps(questions("Abbey")))
        write_checkpoints(cache)
        Path("artifacts").mkdir()
        expected: dict[str, Any] = {"written_by": commit()}
        expected["answers"] = write_artifacts(cache)
        expected["front"] = write_run(cache)
        with tarfile.open(ARCHIVE, "w:xz") as archive:
            for name in (TRAIN, EVALUATION, "models", "artifacts", "run"):
                archive.add(name, filter=plain)
    EXPECTED.write_text(json.dumps(expected, indent=1) + "\n")
    print(f"{ARCHIVE}: {ARCHIVE.stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
