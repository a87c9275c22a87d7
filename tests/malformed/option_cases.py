"""Command lines and files of predictions that are refused."""

import json
from typing import Any

from tests.malformed.cases import GOOD_PREDICTIONS, GOOD_SQUAD, OUT, Case, changed, files

RUN = ("run", "--config", "tiny.yaml", "--out", OUT)
SCORE = ("score", "good.json", "bad.json")
NA_PROB = ("score", "good.json", "predictions.json", "--na-prob", "bad.json")
DEEP_YAML = "[" * 4000
# name, the whole command line, what the refusal says
LINES: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
    ("an unknown command", ("swep",), ("No such command 'swep'",)),
    ("an unknown option", (*RUN, "--trails", "3"), ("--trails",)),
    ("an option without its value", (*RUN, "--seed"), ("--seed",)),
    ("a word too many", (*RUN, "extra"), ("extra",)),
    ("an empty argument", (*RUN, ""), ("error: ",)),
    (
        "an unknown configuration",
        ("run", "--config", "tny", "--out", OUT),
        ("--config", "'tny'", "quickstart"),
    ),
    ("a configuration that is not there", ("run", "--config", "gone.yaml", "--out", OUT), ("gone.yaml",)),
    (
        "a configuration that leads elsewhere",
        ("run", "--config", "../x", "--out", OUT),
        ("--config", "'../x'"),
    ),
    ("a configuration that is a folder", ("run", "--config", ".", "--out", OUT), ("--config", "'.'")),
    ("a configuration that is data", ("run", "--config", "good.json", "--out", OUT), ("good.json",)),
    (
        "a setting 5,000 levels deep",
        (*RUN, "--set", "a." * 5000 + "b=1"),
        ("--set a.a.", "found 5001 levels"),
    ),
    (
        "a value 200 levels deep",
        (*RUN, "--set", f"name={'[' * 200}{']' * 200}"),
        ("--set name", "too deeply"),
    ),
    (
        "a folder whose name is too long",
        ("run", "--config", "tiny.yaml", "--out", "n" * 300),
        ("n" * 300, "File name too long"),
    ),
    (
        "a configuration whose name is too long",
        ("run", "--config", "n" * 300, "--out", OUT),
        ("n" * 300, "File name too long"),
    ),
    ("no trials", (*RUN, "--trials", "0"), ("--set budget.trials=0", "found 0")),
    ("trials below 0", (*RUN, "--trials", "-3"), ("--trials", "'-3'")),
    ("trials in words", (*RUN, "--trials", "ten"), ("--trials", "'ten'", "a whole number")),
    ("trials in foreign digits", (*RUN, "--trials", "١"), ("--trials", "a whole number")),
    ("more trials of a new sweep", (*RUN, "--trials", "+3"), ("--trials", "--resume")),
    ("trials of thousands of digits", (*RUN, "--trials", "9" * 5000), ("--trials",)),
    ("a seed in words", (*RUN, "--seed", "one"), ("--seed", "a valid integer")),
    ("a seed below 0", (*RUN, "--seed", "-1"), ("seed", "found -1")),
    ("memory in words", (*RUN, "--max-memory-mb", "much"), ("--max-memory-mb", "a valid number")),
    ("memory that is NaN", (*RUN, "--max-memory-mb", "nan"), ("budget.max_memory_mb",)),
    ("memory that is infinite", (*RUN, "--max-memory-mb", "inf"), ("budget.max_memory_mb",)),
    ("memory below 0", (*RUN, "--max-memory-mb", "-1"), ("budget.max_memory_mb", "found -1")),
    ("no concurrent trials", (*RUN, "--concurrent", "0"), ("budget.concurrent", "found 0")),
    ("data that are not there", (*RUN, "--data", "gone.json"), ("gone.json", "no such file", "sample")),
    ("data with a NUL byte in their name", (*RUN, "--data", "a\0b.json"), ("no such file",)),
    ("data that lead elsewhere", (*RUN, "--data", "../../nowhere.json"), ("../../nowhere.json",)),
    ("data of an empty name", (*RUN, "--data", ""), ("found", "allowed: `sample`")),
    ("data with a name too long", (*RUN, "--data", "x" * 5000 + ".json"), ("allowed: `sample`",)),
    ("evaluation data that are no file", (*RUN, "--eval-data", "tiny.yaml"), ("tiny.yaml", "another kind")),
    ("an unknown scale", (*RUN, "--scale", "hour"), ("--scale", "'hour'", "minute")),
    ("a setting without a value", (*RUN, "--set", "seed"), ("--set seed", "KEY=VALUE")),
    ("a setting without a key", (*RUN, "--set", "=3"), ("--set =3", "KEY=VALUE")),
    ("a setting of an empty part", (*RUN, "--set", "budget..trials=3"), ("dotted key",)),
    ("an unknown setting", (*RUN, "--set", "budget.trails=3"), ("--set budget.trails=3", "'trials'")),
    ("an unknown section", (*RUN, "--set", "bugdet.trials=3"), ("'bugdet'", "'budget'")),
    ("a setting within a number", (*RUN, "--set", "seed.x=3"), ("--set seed.x=3", "not a mapping")),
    ("a setting within a list", (*RUN, "--set", "space.0=3"), ("--set space.0=3",)),
    ("an unknown entry", (*RUN, "--set", "space.x.choice=[1]"), ("unknown space entry 'x'",)),
    ("an unknown objective", (*RUN, "--set", "objectives.em.goal=max"), ("unknown objective 'em'",)),
    ("a value that is no YAML", (*RUN, "--set", "seed=[1"), ("--set seed=[1", "not valid YAML")),
    ("a value with a tag", (*RUN, "--set", "name=!!python/object/apply:os.mkdir [x]"), ("the tag",)),
    ("a value with an alias", (*RUN, "--set", "name=*x"), ("--set name=*x", "not valid YAML")),
    ("a value of an impossible date", (*RUN, "--set", "seed=2026-99-99"), ("--set seed=2026-99-99",)),
    (
        "a value that is nested deeply",
        (*RUN, "--set", f"seed={DEEP_YAML}"),
        ("--set seed", "nested too deeply"),
    ),
    ("a value of another type", (*RUN, "--set", "recipe.train.batch_size=big"), ("batch_size", "'big'")),
    ("a device that is none", (*RUN, "--set", "recipe.device=tpu"), ("device", "'tpu'")),
    ("a name that leads out", (*RUN, "--set", "name=../x"), ("--set name=../x", "name")),
    ("to resume nothing", ("run", "--resume", "gone"), ("gone", "spec.json")),
    ("to resume a file", ("run", "--resume", "good.json"), ("good.json", "cannot be read")),
    ("to resume into another folder", ("run", "--resume", "gone", "--out", OUT), ("gone",)),
    ("to resume with other data", ("run", "--resume", "gone", "--data", "good.json"), ("--data", "--resume")),
    (
        "a folder that is a file",
        ("run", "--config", "tiny.yaml", "--out", "good.json"),
        ("good.json", "exists"),
    ),
    ("a front of nothing", ("front", "gone", "--csv", OUT), ("gone", "records.jsonl")),
    ("a front of a file", ("front", "good.json", "--csv", OUT), ("good.json", "records.jsonl")),
    ("an export without a limit", ("export", ".", "--to", OUT), ("--max-memory-mb", "--trial")),
    ("an export of nothing", ("export", "gone", "--max-memory-mb", "1", "--to", OUT), ("gone",)),
    ("a confirmation of nothing", ("confirm", "gone"), ("gone", "spec.json")),
    ("a confirmation without seeds", ("confirm", "gone", "--seeds", "0"), ("--seeds", "found 0")),
    ("a prediction without a question", ("predict", "gone"), ("--question",)),
    ("a prediction by nothing", ("predict", "gone", "--input", "good.json"), ("gone", "manifest.json")),
    ("a prediction for nothing", ("predict", "gone", "--input", "gone.jsonl"), ("gone.jsonl",)),
    ("no best answer", ("predict", "gone", "--input", "good.json", "--n-best", "0"), ("--n-best", "found 0")),
    (
        "an unknown format",
        ("predict", "gone", "--input", "good.json", "--format", "xml"),
        ("--format", "'xml'", "jsonl"),
    ),
    (
        "an export of an exact match above all",
        ("export", "gone", "--min-em", "101", "--to", OUT),
        ("--min-em", "'101'", "0 to 100"),
    ),
    (
        "a prediction over a file",
        ("predict", "x", "--input", "good.json", "--output", "good.json"),
        ("exists",),
    ),
    (
        "a prediction of a question and a file",
        ("predict", "x", "--input", "y", "--question", "z"),
        ("--input",),
    ),
    (
        "a blank question",
        ("predict", "gone", "--question", " ", "--context", "a"),
        ("--question", "not blank"),
    ),
    ("a blank context", ("predict", "gone", "--question", "a", "--context", ""), ("--context", "not blank")),
    (
        "a question of a lone surrogate",
        ("predict", "x", "--question", "\udcff", "--context", "a"),
        ("surrogates",),
    ),
    (
        "an evaluation of nothing",
        ("evaluate", "gone", "good.json", "--output", OUT),
        ("gone", "manifest.json"),
    ),
    ("an evaluation without data", ("evaluate", "gone", "--output", OUT), ("DATA",)),
    ("an official version that is none", ("score", "a", "b", "--official", "v3"), ("--official", "'v3'")),
    ("a threshold in words", (*NA_PROB, "--na-prob-thresh", "high"), ("--na-prob-thresh", "a valid number")),
]
PREDICTIONS: list[tuple[str, str | bytes, tuple[str, ...]]] = [
    ("an empty file", "", ("empty file",)),
    ("bad JSON", '{"q0": "Mara"', ("line 1",)),
    ("bytes that are not UTF-8", b'{"q0": "\xff"}', ("not UTF-8",)),
    ("a pickle", b"\x80\x04}\x94.", ("bad.json",)),
    ("a list", '["Mara"]', ("found list", "question id -> answer text")),
    ("text", '"Mara"', ("found str",)),
    ("null", "null", ("found NoneType",)),
    ("deep nesting", '{"q0": ' + "[" * 50_000, ("bad.json",)),
    ("an answer that is null", changed(GOOD_PREDICTIONS, ("q0",), None), ("question 'q0'", "found None")),
    ("an answer that is a number", changed(GOOD_PREDICTIONS, ("q0",), 7), ("question 'q0'", "found 7")),
    ("an answer that is a list", changed(GOOD_PREDICTIONS, ("q1",), ["1871"]), ("question 'q1'", "['1871']")),
    ("an answer that is an object", changed(GOOD_PREDICTIONS, ("q1",), {"text": "a"}), ("question 'q1'",)),
    (
        "an answer that is NaN",
        changed(GOOD_PREDICTIONS, ("q2",), float("nan")),
        ("question 'q2'", "found nan"),
    ),
]
NO_ANSWER: list[tuple[str, Any, tuple[str, ...]]] = [
    ("an empty file", "", ("empty file",)),
    ("a list", [0.5], ("found list", "question id -> number")),
    ("text", {"q0": "0.5", "q1": 0, "q2": 1}, ("question 'q0'", "found '0.5'", "a number")),
    ("null", {"q0": 0.5, "q1": None, "q2": 1}, ("question 'q1'", "found None")),
    ("true", {"q0": 0.5, "q1": True, "q2": 1}, ("question 'q1'", "found True")),
    ("NaN", {"q0": 0.5, "q1": float("nan"), "q2": 1}, ("question 'q1'", "found nan")),
    ("one too few", {"q0": 0.5, "q1": 0.5}, ("question 'q2'", "found nothing")),
]
GOLDS: list[tuple[str, Any, tuple[str, ...]]] = [
    ("no data", {"version": "v2.0"}, ("found an object with 'version'", "a list `data`")),
    (
        "an article that is text",
        changed(GOOD_SQUAD, ("data", 0), "x"),
        ("data[0]", "found 'x'", "title and paragraphs"),
    ),
    ("no paragraphs", changed(GOOD_SQUAD, ("data", 0, "paragraphs"), ...), ("data[0].paragraphs",)),
    (
        "a question that is null",
        changed(GOOD_SQUAD, ("data", 0, "paragraphs", 0, "qas", 0), None),
        ("qas[0]",),
    ),
    ("no id", changed(GOOD_SQUAD, ("data", 0, "paragraphs", 0, "qas", 0, "id"), ...), ("qas[0].id",)),
    (
        "one id twice",
        changed(GOOD_SQUAD, ("data", 0, "paragraphs", 0, "qas", 0, "id"), "q1"),
        ("qas[1].id", "found 'q1'", "ids that occur once"),
    ),
    (
        "answers of text",
        changed(GOOD_SQUAD, ("data", 0, "paragraphs", 0, "qas", 0, "answers"), ["a"]),
        ("answers",),
    ),
    ("no questions", {"data": []}, ("found no questions",)),
]


def _json(value: Any) -> str | bytes:
    return value if isinstance(value, str | bytes) else json.dumps(value)


CASES = [
    *(Case(f"options: {name}", line, files(), says) for name, line, says in LINES),
    *(
        Case(f"predictions: {name}", SCORE, files(bad_json=_json(content)), ("bad.json", *says))
        for name, content, says in PREDICTIONS
    ),
    *(
        Case(f"no-answer odds: {name}", NA_PROB, files(bad_json=_json(content)), ("bad.json", *says))
        for name, content, says in NO_ANSWER
    ),
    *(
        Case(
            f"golds: {name}",
            ("score", "bad.json", "predictions.json"),
            files(bad_json=_json(content)),
            ("bad.json", *says),
        )
        for name, content, says in GOLDS
    ),
    Case(
        "no-answer odds: with v1.1",
        (*NA_PROB, "--official", "v1.1"),
        files(bad_json="{}"),
        ("official", "v1.1", "allowed: v2.0"),
    ),
    Case(
        "predictions: one too few for the rules of v2.0",
        (*SCORE, "--official", "v2.0"),
        files(bad_json=json.dumps({"q0": "a", "q1": "b"})),
        ("bad.json", "'q2'", "no prediction"),
    ),
    Case(
        "predictions: one too few where that is not allowed",
        (*SCORE, "--strict"),
        files(bad_json=json.dumps({"q0": "a"})),
        ("bad.json", "2 ('q1', 'q2') of 3"),
    ),
    Case(
        "golds: an unanswerable question under the rules of v1.1",
        ("score", "good.json", "predictions.json", "--official", "v1.1"),
        files(),
        ("good.json", "question 'q2'", "no gold answer"),
    ),
]
