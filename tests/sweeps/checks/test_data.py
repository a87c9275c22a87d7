"""What is refused and what is told about a sweep's data before anything is trained."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qa_core.errors import ConfigError, DataError
from sweeps import cli
from sweeps.checks.data import DataReport, look_at_data, reader_configs
from sweeps.space.compile import compile_space
from sweeps.spec.sections import SweepSpec
from tests.sweeps.from_scratch import FROM_SCRATCH

PARAGRAPHS = [
    "The mill of Malmö was built in 1912 by Ina Brandt, who lived in Oderland near the river.",
    "A bridge over the Rhine fell in 1804; the town of Bonn paid for another one of stone.",
    "Rye bread keeps for a week, said the baker Jonas Weiss, and wheat bread for three days.",
    "In Riga the tower stands 61 m tall and holds four bells from the foundry of Lenz.",
]
GOLDS = ["1912", "Bonn", "a week", "61 m"]


def document(paragraphs: list[str], golds: list[str], name: str = "q") -> dict[str, Any]:
    return {
        "version": "1.1",
        "data": [
            {
                "title": f"{name} {number}",
                "paragraphs": [
                    {
                        "context": context,
                        "qas": [
                            {
                                "id": f"{name}{number}",
                                "question": f"What of {name} {number}?",
                                "answers": [{"text": gold, "answer_start": context.index(gold)}],
                            }
                        ],
                    }
                ],
            }
            for number, (context, gold) in enumerate(zip(paragraphs, golds, strict=True))
        ],
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], str]:
    def write_file(name: str, values: Any) -> str:
        (tmp_path / name).write_text(json.dumps(values))
        return str(tmp_path / name)

    return write_file


Write = Callable[[str, Any], str]


def sweep(data: dict[str, Any], space: list[dict[str, Any]] | None = None, **recipe: Any) -> SweepSpec:
    model = {"family": "lstm", "checkpoint": "micro", "vocab_size": 200}
    return SweepSpec.model_validate(
        {
            "name": "checks",
            "objectives": [
                {"name": "em_percent", "goal": "max", "unit": "%", "reference": 0},
                {"name": "memory_mb", "goal": "min", "unit": "MB", "reference": 32},
            ],
            "searcher": {"name": "random"},
            "scheduler": {"name": "fifo"},
            "budget": {"trials": 1, "examples": 100},
            "recipe": {"model": model, "data": {"selection_share": 0.3, **data}, **recipe},
            "space": space or [],
        }
    )


@pytest.fixture
def look(tmp_path: Path) -> Callable[[SweepSpec], DataReport]:
    return lambda spec: look_at_data(spec, compile_space(spec), cache_dir=tmp_path / "cache")


Look = Callable[[SweepSpec], DataReport]


def test_sound_data_give_counts_and_ceilings_and_no_warning(look: Look, write: Write) -> None:
    train = write("train.json", document(PARAGRAPHS[:3], GOLDS[:3]))
    dev = write("dev.json", document(PARAGRAPHS[3:], GOLDS[3:], "dev"))
    report = look(sweep({"train": train, "evaluation": dev}))
    assert report.sources == [f"train: {train}: 3 questions", f"dev: {dev}: 1 questions"]
    assert report.ceilings == [
        f"train: {train}: word of 200 (lstm) 100.0",
        f"dev: {dev}: word of 200 (lstm) 100.0",
    ]
    assert (report.overlaps, report.warnings) == ([], [])


def test_one_file_to_train_and_to_score_is_refused_whatever_it_is_called(look: Look, write: Write) -> None:
    same = document(PARAGRAPHS, GOLDS)
    train, copied = write("train.json", same), write("copy.json", same)
    other = write("dev.json", document(PARAGRAPHS[3:], GOLDS[3:], "dev"))
    with pytest.raises(
        ConfigError, match=r"data\.evaluation: found .*train\.json', the same source, on which"
    ):
        look(sweep({"train": train, "evaluation": train}))
    with pytest.raises(ConfigError, match=r"found .*copy\.json', the same questions as .*train\.json'"):
        look(sweep({"train": train, "evaluation": copied}))
    with pytest.raises(ConfigError, match=r"data\.cross_domain: found .*copy\.json'"):
        look(sweep({"train": train, "evaluation": other, "cross_domain": [copied]}))
    choice = [{"set": "data.evaluation", "choice": [other, copied]}]
    with pytest.raises(ConfigError, match=r"copy\.json'"):
        look(sweep({"train": train}, choice))


def test_of_one_file_a_part_is_held_out_and_said(look: Look, write: Write) -> None:
    path = write("my.json", document(PARAGRAPHS, GOLDS))
    report = look(sweep({"train": path, "holdout_share": 0.25, "split_seed": 5}))
    assert report.sources == [
        f"train: {path}: 3 questions",
        f"dev: 1 of the 4 questions of {path}, held out by whole articles (data.holdout_share 0.25, "
        "data.split_seed 5): none is trained on",
    ]
    assert (report.overlaps, report.warnings) == ([], [])
    with pytest.raises(ConfigError, match=r"data\.cross_domain: found .*my\.json', the same source"):
        look(sweep({"train": path, "cross_domain": [path]}))


def test_what_was_guessed_and_looked_for_in_a_table_is_said(look: Look, tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    lines = [f'What of {gold}?,"{text}",{gold}' for text, gold in zip(PARAGRAPHS, GOLDS, strict=True)]
    path.write_text("\n".join(["question,passage,gold", *lines, "Who?,The tower.,Anna"]))
    report = look(sweep({"train": str(path), "skip_bad_examples": True}))
    said = [line.removeprefix(f"train: {path}: ") for line in report.sources]
    assert said[0].endswith("questions, 1 skipped")
    assert said[1:5] == [
        "guessed: context from the column 'passage', answer from the column 'gold' (data.columns names others)",
        "there is no column of ids: questions are numbered from 0",
        "answers without places were looked for in their contexts: 4 exact, 1 nowhere in their context",
        "left out: line 6.gold[0] (question '4'): found 'Anna'; allowed: text of the context, in any letter case and "
        "with any white space",
    ]
    assert said[5].startswith("dev: 1 of the 4 questions of")


def test_paragraphs_and_questions_that_both_have_are_counted_whatever_their_form(
    look: Look, write: Write
) -> None:
    dev = document([PARAGRAPHS[0].upper().replace(" ", "  "), PARAGRAPHS[3]], ["1912", "61 m"], "dev")
    dev["data"][1]["paragraphs"][0]["qas"][0]["question"] = " what of Q 1? "
    train = write("train.json", document(PARAGRAPHS[:3], GOLDS[:3]))
    path = write("dev.json", dev)
    report = look(sweep({"train": train, "evaluation": path}))
    (line,) = report.overlaps
    assert line.startswith(f"{path}: 1 of its 2 paragraphs and 1 of its 2 questions stand in {train} too")
    assert [text for text in report.warnings if text.startswith(line)]


def test_a_question_that_both_have_by_chance_is_told_without_a_warning(look: Look, write: Write) -> None:
    many = [f"{PARAGRAPHS[3]} It is number {number}." for number in range(150)]
    dev = document(many, ["61 m"] * 150, "dev")
    dev["data"][7]["paragraphs"][0]["qas"][0]["question"] = "What of q 1?"
    train = write("train.json", document(PARAGRAPHS[:3], GOLDS[:3]))
    report = look(sweep({"train": train, "evaluation": write("dev.json", dev)}))
    assert "0 of its 150 paragraphs and 1 of its 150 questions" in report.overlaps[0]
    assert report.warnings == []


@pytest.mark.parametrize(("gold", "answered"), [("61 m", 0), ("Bonn", 9)])
def test_questions_that_many_paragraphs_share_are_warned_of_only_with_their_answers(
    look: Look, write: Write, gold: str, answered: int
) -> None:
    many = [f"{PARAGRAPHS[3]} It is number {number}, of Bonn." for number in range(9)]
    dev = document(many, [gold] * 9, "dev")
    for article in dev["data"]:
        article["paragraphs"][0]["qas"][0]["question"] = "What of q 1?"
    train = write("train.json", document(PARAGRAPHS[:3], GOLDS[:3]))
    path = write("dev.json", dev)
    report = look(sweep({"train": train, "evaluation": path}))
    (line,) = report.overlaps
    assert line == (
        f"{path}: 0 of its 9 paragraphs and 9 of its 9 questions stand in {train} too, which is trained on; {answered} "
        "with the same answer"
    )
    assert any(text.startswith(line) for text in report.warnings) == (answered > 0)


@pytest.mark.parametrize("questions", [None, 1])
def test_data_that_cannot_be_split_are_refused(look: Look, write: Write, questions: int | None) -> None:
    count = 1 if questions is None else 3
    train = write("train.json", document(PARAGRAPHS[:count], GOLDS[:count]))
    dev = write("dev.json", document(PARAGRAPHS[3:], GOLDS[3:], "dev"))
    with pytest.raises(
        DataError, match=r"train\.json: found one paragraph.*allowed: at least two.*selection split"
    ):
        look(sweep({"train": train, "evaluation": dev, "train_questions": questions}))


def test_evaluation_data_that_cannot_confirm_are_refused(look: Look, write: Write) -> None:
    train = write("train.json", document(PARAGRAPHS[:3], GOLDS[:3]))
    dev = write("dev.json", document(PARAGRAPHS[3:], GOLDS[3:], "dev"))
    with pytest.raises(
        DataError, match=r"dev\.json: found one paragraph; allowed with evaluation\.confirm_share"
    ):
        look(sweep({"train": train, "evaluation": dev}, evaluation={"confirm_share": 0.5}))


def test_a_low_ceiling_is_told_with_the_setting_that_decides_it(look: Look, write: Write) -> None:
    golds = ["1912", "Rhine fell in 1804", "week", "ell"]  # the last inside "bells"
    train = write("train.json", document(PARAGRAPHS[:3], GOLDS[:3]))
    dev = write("dev.json", document(PARAGRAPHS, golds, "dev"))
    spec = sweep({"train": train, "evaluation": dev}, evaluation={"max_answer_tokens": 3})
    report = look(spec)
    assert report.ceilings[1] == f"dev: {dev}: word of 200 (lstm) 50.0"
    (warning,) = [text for text in report.warnings if "exact match" in text]
    assert warning.startswith(f"dev: {dev}: exact match cannot pass 50.0 with word of 200 (lstm): 25.0 % ")
    assert "model.vocab_size, or another tokenizer in model.tokenizer" in warning
    assert "25.0 % only answers longer than evaluation.max_answer_tokens = 3 tokens" in warning


def test_each_tokenizer_and_limit_of_the_space_has_its_ceiling_once(look: Look, write: Write) -> None:
    train = write("train.json", document(PARAGRAPHS[:3], GOLDS[:3]))
    dev = write("dev.json", document(PARAGRAPHS[3:], ["four bells from the foundry of Lenz"], "dev"))
    space = [
        {"set": "model.family", "choice": ["bert", "distilbert", "lstm"]},
        {"set": "methods", "choice": ["full", "lora"]},
        {"set": "train.learning_rate", "log_uniform": [1e-4, 1e-3]},
        {"set": "evaluation.max_answer_tokens", "choice": [2, 30]},
    ]
    model = {"checkpoint": "micro", "vocab_size": 200}
    spec = sweep({"train": train, "evaluation": dev}, space, model=model)
    assert len(list(reader_configs(compile_space(spec)))) == 6
    report = look(spec)
    line = report.ceilings[1]
    assert line.count("wordpiece of 200 (bert, distilbert)") == 2
    assert line.count("word of 200 (lstm)") == 2
    assert sorted(
        part.split()[-1] for part in line.partition("json: ")[2].split(", ") if part[-1] == "0"
    ) == [
        "0.0",
        "0.0",
        "100.0",
        "100.0",
    ]


def test_a_tokenizer_that_cannot_be_had_is_named_and_nothing_else_fails(
    look: Look, write: Write, tmp_path: Path
) -> None:
    train = write("train.json", document(PARAGRAPHS[:3], GOLDS[:3]))
    dev = write("dev.json", document(PARAGRAPHS[3:], GOLDS[3:], "dev"))
    spec = sweep({"train": train, "evaluation": dev})
    values = copy.deepcopy(spec.as_dict())
    values["recipe"]["model"]["tokenizer"] = str(tmp_path / "absent.json")
    report = look(SweepSpec.model_validate(values))
    assert report.ceilings == [
        f"{tmp_path / 'absent.json'}: not known: model.tokenizer: found '{tmp_path}/absent.json', "
        "and there is no such file or folder; allowed: a hub name, a folder with tokenizer files, a "
        "tokenizer.json file or a BERT vocabulary (.txt)"
    ]


def test_validate_and_plan_print_ceilings_and_warnings_and_say_valid_only_of_sound_data(
    write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(tmp_path / "cache"))
    train = write("train.json", document(PARAGRAPHS[:3], GOLDS[:3]))
    dev = write("dev.json", document(PARAGRAPHS, ["1912", "Bonn", "week", "ell"], "dev"))
    small = [
        "--config",
        str(FROM_SCRATCH),
        "--set",
        "space=[]",
        "--set",
        "recipe.model.family=lstm",
        "--set",
        "recipe.model.checkpoint=micro",
    ]
    for command in ("validate", "plan"):
        assert cli.main([command, *small, "--data", train, "--eval-data", dev]) == 0
        shown = capsys.readouterr()
        assert "highest exact match that can be reached, by tokenizer:" in shown.out
        assert "word of 1500 (lstm) 75.0" in " ".join(shown.out.split())
        assert "warning: " in shown.err
        assert "exact match cannot pass 75.0" in shown.err
        assert "3 of its 4 paragraphs" in shown.err
        assert cli.main([command, *small, "--data", train, "--eval-data", train]) == 2
        shown = capsys.readouterr()
        assert "valid" not in shown.out
        assert "the same source" in shown.err
