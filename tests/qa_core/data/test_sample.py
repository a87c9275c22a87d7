"""The built-in corpus: layout, offsets, shares, disjoint splits, and what reads nothing scores little."""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from qa_core.data.sample import HARD, PLAIN, sample_squad
from qa_core.data.sample_grammar import POOLS, RELATIONS, THEMES
from qa_core.data.squad import load_table, split_selection
from qa_core.errors import DataError
from qa_core.scoring.scores import question_scores

# Recorded tables and figures were made on these bytes.
PLAIN_BYTES = "4b7fda64a8ee34d0d704200aa34097a4038e000a5de571a472d7da7366bd0370"
DIFFICULTIES = {"plain": PLAIN, "hard": HARD}
OF_WORD = RELATIONS | {relation.synonym: relation for relation in RELATIONS.values() if relation.synonym}


@pytest.fixture(scope="module", params=DIFFICULTIES)
def difficulty(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def corpus(difficulty: str) -> dict[str, list[dict[str, Any]]]:
    """Both splits as lists of questions, each with its context and title."""
    return {
        split: flat(sample_squad(split, difficulty=DIFFICULTIES[difficulty])) for split in ("train", "dev")
    }


def flat(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {**qa, "context": paragraph["context"], "title": article["title"]}
        for article in document["data"]
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]


def mean_exact(questions: list[dict[str, Any]], answer: Any) -> float:
    golds = [[gold["text"] for gold in question["answers"]] for question in questions]
    pairs = zip(golds, questions, strict=True)
    return (
        100.0 * sum(question_scores(texts, answer(question))[0] for texts, question in pairs) / len(questions)
    )


def test_the_splits_have_the_promised_sizes(corpus, difficulty):
    sizes = {split: len(questions) for split, questions in corpus.items()}
    assert 4000 <= sizes["train"] <= 6000
    assert sizes["dev"] == {"plain": 630, "hard": 1260}[difficulty]
    assert len({question["title"] for question in corpus["train"]}) >= 40


@pytest.mark.parametrize("split", ["train", "dev"])
def test_every_answer_stands_at_its_offset_and_once(corpus, split):
    for question in corpus[split]:
        assert question["is_impossible"] == (not question["answers"])
        for answer in question["answers"]:
            text, start = answer["text"], answer["answer_start"]
            assert question["context"][start : start + len(text)] == text
            assert len(re.findall(rf"\b{re.escape(text)}\b", question["context"])) == 1


@pytest.mark.parametrize("split", ["train", "dev"])
def test_about_a_quarter_is_unanswerable(corpus, split):
    share = sum(question["is_impossible"] for question in corpus[split]) / len(corpus[split])
    assert 0.2 <= share <= 0.3


def test_ids_are_unique_over_both_splits_and_no_question_is_asked_twice_of_one_passage(corpus):
    questions = [question for split in corpus.values() for question in split]
    assert len({question["id"] for question in questions}) == len(questions)
    asked = Counter((question["context"], question["question"]) for question in questions)
    assert max(asked.values()) == 1


def test_the_splits_share_no_passage_title_or_entity(corpus):
    for key in ("context", "title"):
        parts = [{question[key] for question in questions} for questions in corpus.values()]
        assert not parts[0] & parts[1]
    nouns = "|".join(noun for theme in THEMES for noun in theme.nouns)
    names = [
        {name for question in questions for name in re.findall(rf"\w+ (?:{nouns})\b", question["question"])}
        for questions in corpus.values()
    ]
    assert min(map(len, names)) > 100
    assert not names[0] & names[1]


def test_every_word_of_dev_but_a_few_occurs_in_train(corpus):
    words = {
        split: {
            word
            for item in questions
            for word in re.findall(r"\w+", f"{item['context']} {item['question']}".lower())
        }
        for split, questions in corpus.items()
    }
    assert len(words["dev"] - words["train"]) <= 3
    assert 400 <= len(words["train"]) <= 1500


def test_passages_are_short(corpus):
    lengths = [len(question["context"].split()) for questions in corpus.values() for question in questions]
    assert min(lengths) >= 25
    assert max(lengths) <= 60
    assert 30 <= sum(lengths) / len(lengths) <= 50


@pytest.mark.parametrize("split", ["train", "dev"])
@pytest.mark.long
def test_baselines_that_do_not_read_stay_far_below_those_that_read_a_little(corpus, difficulty, split):
    questions = corpus[split]
    common = Counter(answer["text"] for question in questions for answer in question["answers"]).most_common(
        1
    )
    rng = random.Random(0)
    baselines = {
        "no answer": lambda question: "",
        "first span": lambda question: " ".join(question["context"].split()[:3]),
        "majority answer": lambda question: common[0][0],
        "first value of the asked type": lambda question: first_of_type(question),
        "any value of the asked type": lambda question: rng.choice(values_of_type(question) or [""]),
    }
    found = {name: mean_exact(questions, answer) for name, answer in baselines.items()}
    assert max(found[name] for name in ("no answer", "first span", "majority answer")) < 30, found
    assert found["first span"] < 2
    # Reading which type is asked gets more than half of the plain corpus; the rest needs the relation and the entity.
    least, most = {"plain": (50, 60), "hard": (45, 55)}[difficulty]
    by_type = [value for name, value in found.items() if name.endswith("asked type")]
    assert least < min(by_type) <= max(by_type) < most, found


def values_of_type(question: dict[str, Any]) -> list[str]:
    """List the passage's values of the type that the question asks for, in order."""
    words = re.findall(r"\w+", question["question"].lower())
    pool = next(OF_WORD[word].pool for word in words if word in OF_WORD)
    pattern = "|".join(map(re.escape, POOLS[pool]))
    asked_about = question["question"]
    return [
        value for value in re.findall(rf"\b(?:{pattern})\b", question["context"]) if value not in asked_about
    ]


def first_of_type(question: dict[str, Any]) -> str:
    return next(iter(values_of_type(question)), "")


def test_some_unanswerable_questions_ask_what_the_passage_tells_of_another(corpus):
    told = []
    for question in corpus["train"]:
        if question["is_impossible"]:
            asked = set(re.findall(r"\w+", question["question"])) & set(OF_WORD)
            words = {OF_WORD[word].word for word in asked}
            told.append(any(re.search(rf"\b{word}\b", question["context"]) for word in words))
    assert 0.1 <= sum(told) / len(told) <= 0.4


def test_every_relation_is_asked_in_several_wordings(corpus, difficulty):
    wordings: dict[str, set[str]] = {}
    for question in corpus["train"]:
        words = re.findall(r"\w+", question["question"])
        relation = next(word for word in words if word in OF_WORD)
        wordings.setdefault(relation, set()).add(" ".join(words[: words.index(relation)][:2]).lower())
    assert set(wordings) == set(OF_WORD if difficulty == "hard" else RELATIONS)
    assert min(len(items) for items in wordings.values()) >= 2


def test_a_seed_gives_the_same_bytes_and_another_seed_other_passages():
    documents = [json.dumps(sample_squad("dev", seed)) for seed in (0, 0, 1)]
    assert documents[0] == documents[1]
    contexts = [{question["context"] for question in flat(json.loads(text))} for text in documents[1:]]
    assert not contexts[0] & contexts[1]


def test_the_corpus_does_not_depend_on_what_may_change_between_python_versions(monkeypatch):
    """Only `Random.random` is promised to stay; everything else of the generator would raise here."""
    for name in (
        "choice",
        "choices",
        "sample",
        "shuffle",
        "randint",
        "randrange",
        "getrandbits",
        "randbytes",
    ):
        monkeypatch.setattr(random.Random, name, None)
    assert sample_squad("dev")["version"] == "v2.0"


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="'test'; allowed: train, dev"):
        sample_squad("test")


def test_it_loads_as_a_table_and_splits_by_article():
    table = load_table("sample", split="train")
    assert len(table) == len(flat(sample_squad("train")))
    train, selection = split_selection(table, 0.1, seed=13)
    assert 300 <= len(selection) <= 700
    assert len(train) + len(selection) == len(table)


def test_another_process_with_another_hash_seed_gives_the_same_bytes():
    code = "import json; from qa_core.data.sample import sample_squad; print(json.dumps(sample_squad('dev')))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert found.stdout.strip() == json.dumps(sample_squad("dev"))


def test_another_word_for_a_relation_stands_in_questions_of_the_hard_corpus_alone():
    synonyms = set(OF_WORD) - set(RELATIONS)
    assert len(synonyms) == len({relation.synonym for relation in RELATIONS.values()} - {""}) > 40
    for name, shares in {"plain": (0.0, 0.0), "hard": (0.15, 0.25)}.items():
        questions = flat(sample_squad("train", difficulty=DIFFICULTIES[name]))
        asked = [bool(synonyms & set(re.findall(r"\w+", question["question"]))) for question in questions]
        assert shares[0] <= sum(asked) / len(asked) <= shares[1]
        assert not any(synonyms & set(re.findall(r"\w+", question["context"])) for question in questions)


def test_a_pronoun_means_the_entity_of_the_sentence_before():
    subjects = re.compile(r"(The \w+ \w+|\w+ \w+|It|This person) (?:was|is|has) ")
    pronouns = 0
    for question in flat(sample_squad("dev", difficulty=HARD)):
        sentences = re.split(r"(?<=\.) ", question["context"])
        found = [subjects.match(sentence) for sentence in sentences]
        assert all(found), question["context"]
        assert found[0][1] not in ("It", "This person")
        pronouns += sum(item[1] in ("It", "This person") for item in found)
    assert pronouns > 100


def test_the_hard_corpus_is_loaded_by_its_name():
    table = load_table("sample:hard", split="dev")
    assert table.rows.column("question").to_pylist() == [
        question["question"] for question in flat(sample_squad("dev", difficulty=HARD))
    ]
    with pytest.raises(DataError, match="sample:easy"):
        load_table("sample:easy", split="dev")


def test_the_plain_corpus_has_the_bytes_of_before_there_was_a_hard_one():
    text = json.dumps([sample_squad(split) for split in ("train", "dev")])
    assert hashlib.sha256(text.encode()).hexdigest() == PLAIN_BYTES
