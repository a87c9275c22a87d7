"""From a recipe to its data: which questions go where, and what the record says about it."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qa_core.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainConfig
from qa_core.data import windows
from qa_core.data.layout import WindowLayout
from qa_core.data.prepare import TrialData, prepare
from qa_core.data.squad import QaTable
from qa_core.errors import DataError
from qa_core.families.base import Found


def family(vocab_size: int = 500) -> Any:
    """Stand in for a family with a tokenizer trained on the data: what `prepare` reads of one."""
    return SimpleNamespace(
        prepare=lambda tokenizer, data, cache_dir: Found(
            facts={"fetched": [len(tokenizer), data.stride, cache_dir.name]}
        ),
        model=ModelConfig(family="any", vocab_size=vocab_size),
        is_preset=True,
        tokenizer_kind="wordpiece",
        prompting=None,
        layout=lambda tokenizer: WindowLayout((2,), (3,), (3,), "first"),
    )


def to_document(table: QaTable) -> dict[str, Any]:
    return {
        "version": "v2.0",
        "data": [
            {
                "title": example.title,
                "paragraphs": [
                    {
                        "context": example.context,
                        "qas": [
                            {
                                "id": example.question_id,
                                "question": example.question,
                                "answers": [
                                    {"text": answer.text, "answer_start": answer.start}
                                    for answer in example.answers
                                ],
                            }
                        ],
                    }
                ],
            }
            for example in table.examples()
        ],
    }


@pytest.fixture
def get(many: QaTable, write: Callable[..., Path], tmp_path: Path) -> Callable[..., TrialData]:
    """Prepare a recipe whose evaluation file shares half of its questions with the training file."""
    train = write(to_document(many.take(range(300))), "train.json")
    evaluation = write(to_document(many.take(range(250, 350))), "dev.json")
    base = DataConfig(
        train=str(train), evaluation=str(evaluation), max_length=128, stride=32, max_question_length=32
    )

    def prepare_with(*, seed: int = 0, scoring: EvaluationConfig | None = None, **changes: Any) -> TrialData:
        config = RunConfig(
            ModelConfig(family="any"),
            data=dataclasses.replace(base, **changes),
            train=TrainConfig(epochs=1.0),
            evaluation=scoring or EvaluationConfig(),
            seed=seed,
        )
        return prepare(config, family(), cache_dir=tmp_path / "cache")

    return prepare_with


def ids(table: QaTable) -> set[str]:
    return set(table.question_ids)


def test_train_and_selection_part_the_training_file_by_article(
    get: Callable[..., TrialData], many: QaTable
) -> None:
    data = get(selection_share=0.3, selection_questions=None)
    assert ids(data.train_table) | ids(data.selection_table) == set(many.question_ids[:300])
    titles = [
        set(table.rows.column("title").to_pylist()) for table in (data.train_table, data.selection_table)
    ]
    assert not titles[0] & titles[1]
    assert len(data.selection_table) == pytest.approx(90, abs=25)


def test_windows_belong_to_the_questions_of_their_tables(get: Callable[..., TrialData]) -> None:
    data = get(negatives_ratio=0.5)
    for found, table in (
        (data.train, data.train_table),
        (data.selection, data.selection_table),
        (data.evaluation(), data.evaluation_table),
    ):
        assert sorted(set(found.question_index.tolist())) == list(range(len(table)))
        assert found.lengths.max() <= 128


def test_limits_apply_to_each_part(get: Callable[..., TrialData]) -> None:
    data = get(train_questions=120, selection_questions=11, evaluation_questions=40)
    assert len(data.selection_table) == 11
    assert len(data.train_table) < 120
    assert len(data.evaluation_table) == 40


def test_negatives_join_the_train_part_alone_and_leave_tokenizer_and_split_as_they_are(
    get: Callable[..., TrialData],
) -> None:
    plain, extended = get(), get(negatives_ratio=0.5)
    count = round(0.5 * len(plain.train_table))
    assert len(extended.train_table) == len(plain.train_table) + count
    assert extended.facts["synthetic_unanswerable"] == count
    assert extended.facts["selection"] == plain.facts["selection"]
    assert extended.facts["tokenizer_hash"] == plain.facts["tokenizer_hash"]


def test_the_train_part_is_a_mixture_of_unanswerable_questions_counted_by_kind(
    get: Callable[..., TrialData],
) -> None:
    plain = get()
    mixed = get(unanswerable_share=0.5, negatives_ratio=0.4, negatives_same_article_share=0.25)
    real = plain.facts["unanswerable_by_kind"]["real"]
    assert plain.facts["unanswerable_by_kind"] == {"real": real, "random": 0, "same_article": 0}
    assert plain.facts["train"]["unanswerable"] == real > 20
    left_out = round(0.5 * real)
    count = round(0.4 * (len(plain.train_table) - left_out))
    near = round(0.25 * count)
    by_kind = {"real": real - left_out, "random": count - near, "same_article": near}
    assert mixed.facts["unanswerable_by_kind"] == by_kind
    assert mixed.facts["unanswerable_left_out"] == left_out
    assert mixed.facts["train"]["unanswerable"] == sum(by_kind.values())
    for part in ("selection", "evaluation", "tokenizer_hash"):
        assert mixed.facts[part] == plain.facts[part]


def test_the_record_states_sources_hashes_counts_and_overlap(
    get: Callable[..., TrialData], many: QaTable
) -> None:
    data = get()
    facts = data.facts
    assert facts["train"] == {
        "source": data.train_table.source,
        "data_hash": data.train_table.data_hash,
        "questions": len(data.train_table),
        "paragraphs": len(data.train_table.contexts),
        "unanswerable": int(data.train_table.is_unanswerable.sum()),
        "skipped": 0,
        "skipped_answers": 0,
        "layout": "SQuAD JSON",
        "columns": {},
        "answers_found": {},
        "windows": len(data.train),
    }
    assert facts["evaluation"]["questions"] == 100
    assert facts["evaluation"]["held_out"] is None
    train_contexts = {many.example(index).context for index in range(300)}
    shared_contexts = {many.example(index).context for index in range(250, 350)} & train_contexts
    assert facts["evaluation_contexts_in_train"] == len(shared_contexts) >= 10
    assert json.loads(json.dumps(facts)) == facts


def test_the_evaluation_set_is_windowed_only_when_asked_for(
    get: Callable[..., TrialData], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = get()
    assert data.facts["evaluation"]["windows"] is None
    with monkeypatch.context() as patch:
        patch.setattr(windows, "encode_table", lambda *a, **k: pytest.fail("tokenised"))
        get()
        with pytest.raises(pytest.fail.Exception, match="tokenised"):
            data.evaluation()
    assert len(data.evaluation()) == data.facts["evaluation"]["windows"]


def test_cross_domain_sets_are_read_at_once_and_windowed_only_when_asked_for(
    get: Callable[..., TrialData], many: QaTable, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    abroad = str(write(to_document(many.take(range(290, 340))), "abroad.json"))
    with monkeypatch.context() as patch:
        get()  # tokenises all but the cross-domain set
        patch.setattr(windows, "encode_table", lambda *a, **k: pytest.fail("tokenised"))
        data = get(cross_domain=(abroad,))
    facts = data.facts["cross_domain"][abroad]
    assert (facts["questions"], facts["windows"]) == (50, None)
    assert facts["data_hash"] == data.cross_domain_tables[abroad].data_hash
    trained = {many.example(index).context for index in range(300)}
    shared_contexts = {many.example(index).context for index in range(290, 340)} & trained
    assert facts["contexts_in_train"] == len(shared_contexts) >= 1
    assert len(data.cross_domain(abroad)) == facts["windows"] >= 50
    with pytest.raises(DataError, match="absent"):
        get(cross_domain=(abroad, "absent.json"))


def test_trials_of_different_seeds_share_data_and_cache(
    get: Callable[..., TrialData], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = get(negatives_ratio=0.2, train_questions=200, seed=0)
    monkeypatch.setattr(windows, "encode_table", lambda *a, **k: pytest.fail("tokenised again"))
    assert get(negatives_ratio=0.2, train_questions=200, seed=1).facts == first.facts


def test_another_split_seed_gives_another_split(get: Callable[..., TrialData]) -> None:
    assert get(split_seed=13).facts["selection"] != get(split_seed=14).facts["selection"]


def test_of_a_training_file_without_evaluation_data_a_part_is_held_out_and_recorded(
    get: Callable[..., TrialData],
) -> None:
    data = get(evaluation=None, holdout_share=0.3, train_questions=None)
    tables = [data.train_table, data.selection_table, data.evaluation_table]
    parts = [set(table.contexts.to_pylist()) for table in tables]
    assert all(parts)
    assert not (parts[0] | parts[1]) & parts[2]
    assert not parts[0] & parts[1]
    held = data.facts["evaluation"]["held_out"]
    assert held == {
        "share": 0.3,
        "seed": 13,
        "unit": "article",
        "questions": len(data.evaluation_table),
        "of_questions": 300,
    }
    assert 0.2 < held["questions"] / 300 < 0.4
    assert sum(map(len, tables)) == 300
    assert data.facts["evaluation_contexts_in_train"] == 0


def test_skipped_examples_are_counted_in_the_record(
    get: Callable[..., TrialData], document: dict, write: Callable[..., Path]
) -> None:
    document["data"][0]["paragraphs"][0]["qas"][0]["question"] = ""
    data = get(evaluation=str(write(document, "faulty.json")), skip_bad_examples=True)
    assert (data.facts["evaluation"]["skipped"], data.facts["evaluation"]["questions"]) == (1, 5)


def test_the_built_in_corpus_brings_its_own_dev_split(tmp_path: Path) -> None:
    config = RunConfig(
        ModelConfig(family="any"),
        data=DataConfig(train_questions=400, evaluation_questions=50),
        train=TrainConfig(epochs=1.0),
    )
    data = prepare(config, family(), cache_dir=tmp_path)
    assert data.facts["train"]["source"] == "sample:train"
    assert data.facts["evaluation"]["source"] == "sample:dev"
    assert data.facts["evaluation_contexts_in_train"] == 0
    assert data.train_table.has_unanswerable


def test_a_family_fetches_what_it_needs_before_it_is_built_and_its_facts_join_the_record(
    get: Callable[..., TrialData],
) -> None:
    data = get()
    assert data.facts["fetched"] == [len(data.tokenizer), 32, "cache"]


def test_a_share_of_the_evaluation_articles_is_kept_from_the_trials(get: Callable[..., TrialData]) -> None:
    whole = get()
    choosing = get(scoring=EvaluationConfig(confirm_share=0.4))
    confirming = get(scoring=EvaluationConfig(confirm_share=0.4, part="confirm"))
    parts = [ids(data.evaluation_table) for data in (choosing, confirming)]
    assert parts[0] | parts[1] == ids(whole.evaluation_table)
    assert not parts[0] & parts[1]
    facts = [data.facts["evaluation"] for data in (whole, choosing, confirming)]
    assert [item["part"] for item in facts] == ["choose", "choose", "confirm"]
    assert len({item["data_hash"] for item in facts}) == 3
    assert {item["whole_data_hash"] for item in facts} == {facts[0]["data_hash"]}
    for other in (choosing, confirming):
        assert other.facts["selection"] == whole.facts["selection"]
        assert other.facts["train"] == whole.facts["train"]
