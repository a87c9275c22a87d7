"""Demonstrations: which are drawn, and that each reads as a window followed by its answer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qa_core.config import DataConfig, ModelConfig, RunConfig
from qa_core.data.demonstrations import draw_demonstrations, with_demonstrations
from qa_core.data.layout import Prompting, WindowLayout
from qa_core.data.prepare import TrialData, prepare
from qa_core.data.table import QaTable
from qa_core.data.tokenizers import trained_tokenizer
from qa_core.data.windows import WindowLengths, build_windows
from qa_core.errors import ConfigError, DataError
from qa_core.families.mamba import Mamba
from qa_core.families.t5 import T5
from qa_core.schema import Example

Draw = Callable[..., tuple[Example, ...]]


def _prompted(kind: type, **prompting: Any) -> Any:
    settings = ModelConfig(kind.name, "micro", head="generate")  # type: ignore[attr-defined]
    return kind(settings, Prompting(**{"shots": 2, "max_tokens": 400, **prompting}))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tokenizer(table: QaTable, cache: Path) -> Any:
    return trained_tokenizer("bytes", table, vocab_size=300, cache_dir=cache)


@pytest.fixture
def draw(table: QaTable, tokenizer: Any) -> Draw:
    def drawn(*, seed: int = 0, table: QaTable = table, **prompting: Any) -> tuple[Example, ...]:
        family = _prompted(Mamba, **prompting)
        layout = family.layout(tokenizer)
        return draw_demonstrations(table, tokenizer, layout, prompting=family.prompting, seed=seed)

    return drawn


def test_each_stands_on_a_paragraph_of_its_own_and_one_is_unanswerable(draw: Draw) -> None:
    places = set()
    for seed in range(12):
        found = draw(shots=3, seed=seed)
        assert len({example.context for example in found}) == 3
        unanswerable = [example.is_impossible for example in found]
        assert unanswerable.count(True) == 1
        places.add(unanswerable.index(True))
    assert places == {0, 1, 2}


def test_a_single_one_has_an_answer_and_none_is_none(draw: Draw) -> None:
    assert not any(draw(shots=1, seed=seed)[0].is_impossible for seed in range(12))
    assert draw(shots=0) == ()


def test_data_without_unanswerable_questions_gives_none(draw: Draw, table: QaTable) -> None:
    answerable = table.take(np.flatnonzero(~table.is_unanswerable))
    assert not any(example.is_impossible for example in draw(shots=3, table=answerable))


def test_the_seed_decides(draw: Draw) -> None:
    drawn = [draw(shots=2, seed=seed) for seed in (*range(8), 0)]
    assert drawn[0] == drawn[-1]
    assert len(set(drawn)) > 3


def test_long_ones_are_passed_over_and_too_few_are_refused(
    draw: Draw, table: QaTable, tokenizer: Any
) -> None:
    layout = _prompted(Mamba).layout(tokenizer)
    lengths = {
        example: len(with_demonstrations(layout, [example], tokenizer).prefix) for example in table.examples()
    }
    answerable = sorted(length for example, length in lengths.items() if not example.is_impossible)
    limit = answerable[1]
    found = {draw(shots=1, max_tokens=limit, seed=seed)[0] for seed in range(20)}
    assert {lengths[example] for example in found} == set(answerable[:2])
    with pytest.raises(DataError, match=r"found 0 demonstrations of at most 9 tokens.*allowed: 1, 0 of them"):
        draw(shots=1, max_tokens=9)
    with pytest.raises(DataError, match=r"found 3 demonstrations.*allowed: 4, 1 of them unanswerable"):
        draw(shots=4)


def test_mamba_reads_context_question_answer_and_a_line_break(table: QaTable, tokenizer: Any) -> None:
    family = _prompted(Mamba, demonstrations=(table.example(0), table.example(3)))
    first, second = family.prompting.demonstrations
    prefix = family.layout(tokenizer).prefix
    assert tokenizer.decode(prefix) == (
        f"{first.context}\n\nQ: {first.question}\nA: {first.answers[0].text}\n"
        f"{second.context}\n\nQ: {second.question}\nA: I don't know.\n"
    )


def test_t5_reads_question_context_and_answer_each_with_its_end(table: QaTable, cache: Path) -> None:
    tokenizer = trained_tokenizer("unigram", table, vocab_size=300, cache_dir=cache)
    family = _prompted(T5, demonstrations=(table.example(3), table.example(0)))
    first, second = family.prompting.demonstrations
    assert tokenizer.decode(family.layout(tokenizer).prefix) == (
        f"{first.question}</s> {first.context}</s> unanswerable</s> "
        f"{second.question}</s> {second.context}</s> {second.answers[0].text}</s>"
    )


def test_every_window_of_a_question_begins_with_them_and_leaves_the_rest_as_it_was(
    table: QaTable, tokenizer: Any, tmp_path: Path
) -> None:
    plain, prompted = _prompted(Mamba), _prompted(Mamba, demonstrations=(table.example(4),))
    layouts = [family.layout(tokenizer) for family in (plain, prompted)]
    prefix = layouts[1].prefix
    assert len(prefix) > 20
    sets = [
        build_windows(
            table,
            tokenizer,
            layout,
            lengths=WindowLengths(34 + len(layout.prefix), 2, 12),
            cache_dir=tmp_path,  # the same cache: the key must tell the layouts apart
        )
        for layout in layouts
    ]
    assert len(sets[0]) == len(sets[1]) > len(table)
    for window in range(len(sets[0])):
        bare, whole = (
            found.token_ids[found.token_starts[window] : found.token_starts[window + 1]].tolist()
            for found in sets
        )
        assert whole == [*prefix, *bare]
    for name in ("start_positions", "end_positions", "null_positions"):
        assert (getattr(sets[1], name) - getattr(sets[0], name) == len(prefix)).all()


@pytest.fixture
def get(
    make_document: Callable[[], dict[str, Any]], write: Callable[..., Path], tmp_path: Path
) -> Callable[..., tuple[Any, TrialData]]:
    document = make_document()
    document["data"] += [
        {**article, "title": f"{article['title']} again", "paragraphs": _renamed(article["paragraphs"])}
        for article in document["data"]
    ]
    path = str(write(document, "train.json"))

    def get(*, seed: int = 0, shots: int = 2, **changes: Any) -> tuple[Any, TrialData]:
        data = DataConfig(**{"train": path, "evaluation": path, "max_length": 400, "stride": 8, **changes})
        family = _prompted(Mamba, shots=shots)
        config = RunConfig(
            ModelConfig("mamba", "micro", head="generate", vocab_size=300), data=data, seed=seed
        )
        prepared = prepare(config, family, cache_dir=tmp_path / "cache")
        return prepared.family, prepared

    return get


def _renamed(paragraphs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "context": f"{paragraph['context']} So it is.",
            "qas": [{**item, "id": f"{item['id']}-again"} for item in paragraph["qas"]],
        }
        for paragraph in paragraphs
    ]


def test_they_come_from_the_train_part_by_the_trials_seed_and_stand_in_the_facts(
    get: Callable[..., tuple[Any, TrialData]],
) -> None:
    drawn = set()
    for seed in range(6):
        family, data = get(seed=seed)
        shown = family.prompting.demonstrations
        ids = [example.question_id for example in shown]
        assert set(ids) <= set(data.train_table.question_ids)
        assert not set(ids) & set(data.selection_table.question_ids)
        assert data.facts["demonstrations"] == {"question_ids": ids, "tokens": len(data.layout.prefix)}
        assert data.layout == family.layout(data.tokenizer)
        drawn.add(shown)
    assert len(drawn) > 2
    again, _ = get(seed=5)
    assert again.prompting == family.prompting


def test_nothing_is_laid_out_for_a_training_that_does_not_come(
    get: Callable[..., tuple[Any, TrialData]],
) -> None:
    _, data = get()
    assert len(data.train) == data.facts["train"]["windows"] == data.train.longest == 0
    assert data.facts["train"]["questions"] > 0
    assert len(data.selection) > 0


def test_windows_that_cannot_hold_them_are_refused_with_both_lengths(
    get: Callable[..., tuple[Any, TrialData]],
) -> None:
    with pytest.raises(ConfigError, match=r"data\.max_length: found 100, .* tokens of the layout leaves 0"):
        get(max_length=100)


def test_a_layout_without_demonstrations_stays_itself(tokenizer: Any) -> None:
    layout = WindowLayout((2,), (3,), (3,), "first")
    assert with_demonstrations(layout, (), tokenizer) is layout
