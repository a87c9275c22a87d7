"""The card of a model: what stands on it follows from the record and the folder, and nothing breaks its Markdown."""

from dataclasses import replace
from typing import Any

import pytest

from qa_core import registry
from qa_core.errors import DataError
from qa_core.scoring.intervals import Interval
from sweeps.front import card_words
from sweeps.front.card import Example, Shipped, model_card
from sweeps.run_folder.models import as_model
from sweeps.run_folder.records import StoredForm
from tests.sweeps.front.test_front import record

SHIPPED = Shipped("model", ("manifest.json",), None, False, None, 7)
PLAIN = replace(SHIPPED, files=("config.json",), plain_class="T5ForConditionalGeneration")


def card(shipped: Shipped = SHIPPED, intervals: Any = None, examples: Any = (), **changes: Any) -> str:
    quality = {"em_percent": 50.0, "f1_percent": 61.25, "questions": 8}
    return model_card(
        record("t0", **{"quality": quality, **changes}), shipped, intervals=intervals, examples=examples
    )


def test_what_opens_the_folder_is_what_the_folder_holds() -> None:
    assert "transformers cannot open this folder" in card()
    assert "library_name" not in card()
    plain = card(PLAIN)
    assert "from transformers import AutoTokenizer, T5ForConditionalGeneration\nmodel = " in plain
    assert "library_name: transformers\n" in plain
    assert "PeftModel" not in plain
    apart = card(replace(PLAIN, files=("config.json", "adapter/adapter_config.json")))
    assert 'model = PeftModel.from_pretrained(model, "adapter").eval()' in apart
    assert "library_name: peft\n" in apart
    assert "demonstrations" in card(replace(PLAIN, has_prompt=True))


def test_numbers_have_their_intervals_or_the_reason_why_there_is_none() -> None:
    def interval(low: float | None, high: float | None) -> dict[str, Interval]:
        return dict.fromkeys(("em_percent", "f1_percent"), Interval(50.0, low, high, 0.95, "article", 9))

    assert "95 % intervals over 9 articles: EM 41.00 to 59.50 %, F1 41.00 to 59.50 %." in card(
        intervals=interval(41.0, 59.5)
    )
    assert "No intervals: 9 articles are too few for one." in card(intervals=interval(None, None))
    assert "No intervals: the answers" in card()
    assert "| all | 8 | 50.00 | 61.25 |" in card()
    assert "Every question is answered." in card()
    assert "minus that of the best answer is more than 0.5000." in card(replace(SHIPPED, threshold=0.5))


def test_a_stored_form_is_named_with_its_settings() -> None:
    form = StoredForm("int8", {"methods.quantize.bits": 8}, "ok", objectives={"em_percent": 40.0})
    shown = model_card(as_model(record("t0"), form), SHIPPED, intervals=None)
    assert "stored as `int8`" in shown
    assert '"methods.quantize.bits": 8' in shown


def test_what_it_is_needs_no_knowledge_of_sweeps() -> None:
    form = StoredForm(
        "nf4+e8", {"methods.quantize.bits": 4, "methods.quantize.embedding_bits": 8}, "ok", objectives={}
    )
    shown = model_card(as_model(record("t0"), form), SHIPPED, intervals=None)
    assert "stored as `nf4+e8`: weight matrices in 4 bits, embeddings in 8 bits." in shown
    assert (
        "with a passage of that text. A network of the family `bert` (a transformer that reads both" in card()
    )
    assert "ways) that began as `tiny`. All" in card()
    assert 'of that text, or with "no answer". A' in card(replace(SHIPPED, threshold=0.0))
    assert "in words that it writes itself" in card(replace(SHIPPED, head="generate"))
    assert "of the size `tiny`, trained from random weights. All" in card(replace(SHIPPED, is_preset=True))
    assert "a small network that qa-sweeps brings along" in card(replace(SHIPPED, is_shipped=True))
    tuned = {"model": {"family": "bert", "checkpoint": "tiny"}, "methods": {"lora": {"rank": 8}, "pack": {}}}
    assert "Trained with `lora`, `pack`." in card(config=tuned)
    assert '"methods": {\n  "lora": {\n   "rank": 8' in card(config=tuned)
    assert "EM (exact match): answers that are one of the expected ones" in card()


def test_how_to_use_it_is_said_for_both_faces_and_each_family_is_explained() -> None:
    made = card(provenance={"packages": {"qa-sweeps": "9.8.7"}})
    assert "With the Python package qa-sweeps (9.8.7 made it), in this folder" in made
    assert "qa-sweep predict . --question 'Who ...?' --context '...'" in made
    assert 'reader = qa_sweeps.load(".")' in made
    assert card_words.FAMILIES.keys() == registry.FAMILIES.keys()
    sampled = card(
        config={"model": {"family": "lstm", "checkpoint": "tiny"}, "data": {"train": "sample:hard"}}
    )
    assert "- the training data come with qa-sweeps: short English passages" in sampled


def test_its_limits_are_those_of_its_data_and_lengths() -> None:
    def limited(train: str, head: str) -> str:
        config = {
            "model": {"family": "t5", "checkpoint": "tiny", "head": None},
            "data": {"train": train, "max_length": 96, "stride": 16},
            "evaluation": {"max_answer_tokens": 30},
        }
        return card(replace(SHIPPED, head=head), config=config).split("## Limits")[1]

    assert "chosen from 7 models" in limited("mine.csv", "span")
    assert "reads at most 96 tokens at once" in limited("mine.csv", "span")
    assert "No answer is longer than 30 tokens." in limited("mine.csv", "span")
    assert "No answer is longer" not in limited("mine.csv", "generate")
    assert "Real texts are beyond it" not in limited("samples.csv", "span")
    for name in ("sample", "sample:hard", "sample:hard:train"):
        assert "Real texts are beyond it" in limited(name, "span")


def test_texts_of_others_stay_text() -> None:
    examples = [Example("a|b\n<script>`x`", ("*c*",), "\x1b[2J"), Example("d", (), "")]
    shown = card(examples=examples)
    assert "| a\\|b \\<script\\>\\`x\\` | \\*c\\* | \\\\x1b\\[2J |\n| d | no answer | no answer |" in shown
    assert "## Examples" not in card()


def test_a_record_that_cannot_be_read_names_its_trial() -> None:
    with pytest.raises(DataError, match="trial t0: its record cannot be read"):
        card(config={"methods": {}})
