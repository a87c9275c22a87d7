"""The card of a model: what stands on it follows from the record and the folder, and nothing breaks its Markdown."""

from dataclasses import replace
from typing import Any

import pytest

from qa_core.errors import DataError
from qa_core.scoring.intervals import Interval
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
    assert "more than 0.5000 above" in card(replace(SHIPPED, threshold=0.5))


def test_a_stored_form_is_named_with_its_settings() -> None:
    form = StoredForm("int8", {"methods.quantize.bits": 8}, "ok", objectives={"em_percent": 40.0})
    shown = model_card(as_model(record("t0"), form), SHIPPED, intervals=None)
    assert "stored as `int8`" in shown
    assert '"methods.quantize.bits": 8' in shown


def test_texts_of_others_stay_text() -> None:
    examples = [Example("a|b\n<script>`x`", ("*c*",), "\x1b[2J"), Example("d", (), "")]
    shown = card(examples=examples)
    assert "| a\\|b \\<script\\>\\`x\\` | \\*c\\* | \\\\x1b\\[2J |\n| d | no answer | no answer |" in shown
    assert "## Examples" not in card()


def test_a_record_that_cannot_be_read_names_its_trial() -> None:
    with pytest.raises(DataError, match="trial t0: its record cannot be read"):
        card(config={"methods": {}})
