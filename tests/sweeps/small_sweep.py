"""The spec of a real sweep that trains small networks for seconds."""

from pathlib import Path

import yaml

from sweeps.spec.load import load_spec


def small_spec(tmp_path: Path, small_squad: Path, **changes):
    values = {
        "name": "small",
        "objectives": [
            {"name": "em_percent", "goal": "max", "reference": 0},
            {"name": "memory_mb", "goal": "min", "reference": 32},
        ],
        "searcher": {"name": "grid"},
        "scheduler": {"name": "asha", "options": {"grace_examples": 50, "eta": 2}},
        "budget": {"trials": 20, "examples": 120},
        "recipe": {
            "model": {"vocab_size": 300, "checkpoint": "micro"},
            "data": {
                "train": str(small_squad),
                "evaluation": str(small_squad),
                "cross_domain": [str(small_squad)],
                "max_length": 64,
                "stride": 8,
                "max_question_length": 24,
            },
            "train": {"precision": "float32", "batch_size": 8},
            "evaluation": {"precision": "float32", "latency_runs": 2},
        },
        "space": [
            {"set": "model.family", "choice": ["bert", "lstm"]},
            {"set": "methods", "choice": ["full", "lora"]},
            {
                "set": "methods.lora.targets",
                "choice": ["attention", "no_such_set"],
                "when": {"methods": "lora"},
            },
            {"set": "train.learning_rate", "choice": [0.002, 0.004]},
        ],
        **changes,
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(values))
    return load_spec(path)
