"""The recipe: strict reading, exact round trip, messages that name the setting."""

import json
import typing
from dataclasses import fields, is_dataclass

import pytest

from qa_core.config import RunConfig, TrainConfig
from qa_core.errors import ConfigError
from qa_core.values import from_dict, to_dict

RECIPE = {
    "model": {"family": "bert", "checkpoint": "micro", "head": "span", "options": {"layers": 2}},
    "methods": {"lora": {"rank": 4, "targets": "attention"}},
    "data": {"train": "sample", "max_length": 200, "stride": 32},
    "train": {"budget_examples": 500, "rungs": [100, 300], "learning_rate": 1e-3},
    "seed": 7,
}


def test_a_recipe_survives_the_way_through_json_unchanged():
    config = from_dict(RunConfig, RECIPE)
    assert config.train.rungs == (100, 300)
    assert config.methods["lora"] == {"rank": 4, "targets": "attention"}
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_to_dict_fills_in_every_default():
    def leaves(record):
        hints = typing.get_type_hints(record)
        for item in fields(record):
            if is_dataclass(hints[item.name]):
                yield from ((item.name, *rest) for rest in leaves(hints[item.name]))
            else:
                yield (item.name,)

    written = to_dict(from_dict(RunConfig, {"model": {"family": "lstm"}}))
    paths = list(leaves(RunConfig))
    assert len(paths) >= 40  # all of them are found, not only the top level
    for path in paths:
        value = written
        for name in path:
            assert name in value, path
            value = value[name]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modell": {}}, ["modell", "'model'"]),
        ({"train": {"learning_rte": 1}}, ["train.learning_rte", "learning_rate"]),
        ({"train": {"batch_size": "many"}}, ["train.batch_size", "'many'", "a whole number"]),
        ({"train": {"batch_size": 2.5}}, ["train.batch_size", "2.5"]),
        ({"train": {"batch_size": True}}, ["train.batch_size", "True"]),
        ({"train": {"batch_size": 0}}, ["train.batch_size", "1 or more"]),
        ({"train": {"budget_examples": 5, "epochs": 1}}, ["budget_examples", "epochs"]),
        ({"train": {"rungs": [300, 100]}}, ["train.rungs", "rising"]),
        ({"train": {"rungs": [0, 100]}}, ["train.rungs", "found [0, 100]", "each 1 or more"]),
        ({"train": {"rungs": 300}}, ["train.rungs", "list"]),
        ({"train": {"precision": "float16"}}, ["train.precision", "float16", "bfloat16"]),
        ({"train": {"warmup_share": 1.0}}, ["train.warmup_share"]),
        ({"data": {"max_length": 40}}, ["data.max_length", "40"]),
        ({"data": {"stride": 500}}, ["data.stride", "500"]),
        ({"data": {"selection_share": 0}}, ["data.selection_share"]),
        ({"data": {"cross_domain": "dev.json"}}, ["data.cross_domain", "list", "'dev.json'"]),
        ({"data": {"cross_domain": ["a", "b", "a"]}}, ["data.cross_domain", "['a', 'b', 'a']", "once"]),
        ({"data": {"cross_domain": [""]}}, ["data.cross_domain", "['']"]),
        ({"data": {"train_questions": -1}}, ["data.train_questions", "-1"]),
        ({"model": {"family": "bert", "head": "pointer"}}, ["model.head", "pointer", "span"]),
        ({"model": {}}, ["model.family", "missing"]),
        ({"model": "bert"}, ["model", "mapping", "'bert'"]),
        ({"methods": {"lora": 3}}, ["methods.lora", "mapping"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"evaluation": {"latency_runs": 0}}, ["evaluation.latency_runs"]),
        ({"evaluation": {"confirm_share": 1.0}}, ["evaluation.confirm_share", "1.0", "0 <= share < 1"]),
        (
            {"evaluation": {"confirm_share": 0.5, "part": "both"}},
            ["evaluation.part", "both", "choose or confirm"],
        ),
        ({"evaluation": {"part": "confirm"}}, ["evaluation.part", "without a confirm_share"]),
    ],
)
def test_a_bad_setting_is_named_with_what_was_found(change, words):
    with pytest.raises(ConfigError) as caught:
        from_dict(RunConfig, {"model": {"family": "bert"}, **change})
    for word in words:
        assert word in str(caught.value)


def test_a_float_may_be_written_as_yaml_reads_it():
    assert from_dict(TrainConfig, {"learning_rate": "3e-4"}).learning_rate == 3e-4
    assert from_dict(TrainConfig, {"learning_rate": 1}).learning_rate == 1.0
    assert from_dict(TrainConfig, {"batch_size": 8.0}).batch_size == 8


@pytest.mark.parametrize(
    ("window", "expected"), [("384/128", (384, 128)), ("512", (512, 0)), ("256/64", (256, 64))]
)
def test_a_window_decides_length_and_stride_together(window, expected):
    config = from_dict(RunConfig, {"model": {"family": "lstm"}, "data": {"window": window, "max_length": 99}})
    assert (config.data.max_length, config.data.stride) == expected
    assert from_dict(RunConfig, to_dict(config)) == config


@pytest.mark.parametrize("window", ["wide", "384/x", "64/0", "/128"])
def test_a_window_that_is_none_is_refused(window):
    values = {"model": {"family": "lstm"}, "data": {"window": window}}
    with pytest.raises(ConfigError, match=r"data\.(window|max_length)"):
        from_dict(RunConfig, values)
