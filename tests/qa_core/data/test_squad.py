"""Reading SQuAD files: what is kept, and how each malformed input is refused."""

import copy
import gzip
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_core.data.squad import is_file_source, load_questions, load_table, read_squad
from qa_core.errors import DataError
from qa_core.schema import Answer, Example

Write = Callable[..., Path]


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_table(str(source), split="train", **options)
    return str(caught.value)


def test_a_question_is_read_with_all_its_answers_and_its_context(document: dict, write: Write) -> None:
    table = load_table(str(write(document)), split="train")
    assert len(table) == 6
    assert table.example(0) == Example(
        question_id="r1",
        question="Where does the Oder rise?",
        context="The Oder rises in the Odra Hills and flows 840 km to the sea.",
        answers=(Answer("the Odra Hills", 18), Answer("Odra Hills", 22)),
        title="Rivers",
    )


def test_impossible_questions_have_no_answers_and_plausible_ones_are_ignored(
    document: dict, write: Write
) -> None:
    table = load_table(str(write(document)), split="train")
    assert table.is_unanswerable.tolist() == [False, False, False, True, False, True]
    assert table.example(3).answers == ()
    assert table.has_unanswerable


def test_a_gzip_file_reads_as_the_plain_one(document: dict, write: Write) -> None:
    plain = load_table(str(write(document)), split="train")
    packed = load_table(
        str(write(gzip.compress(json.dumps(document).encode()), "data.json.gz")), split="train"
    )
    assert packed.data_hash == plain.data_hash


def test_a_byte_order_mark_is_allowed(document: dict, write: Write) -> None:
    assert len(load_table(str(write(b"\xef\xbb\xbf" + json.dumps(document).encode())), split="train")) == 6


def test_a_paragraph_that_occurs_twice_is_stored_once(document: dict) -> None:
    again = copy.deepcopy(document["data"][0]["paragraphs"][0])
    again["qas"] = [{**again["qas"][0], "id": "r3"}]
    document["data"].append({"title": "Copies", "paragraphs": [again]})
    table = read_squad(document, "small")
    assert len(table.contexts) == 3
    assert table.context_index.tolist() == [0, 0, 1, 1, 2, 2, 0]


def test_numbers_are_allowed_as_question_ids(document: dict) -> None:
    document["data"][0]["paragraphs"][0]["qas"][0]["id"] = 262
    assert read_squad(document, "small").question_ids[0] == "262"


def test_an_empty_answer_list_means_unanswerable_in_a_file_of_version_2(document: dict) -> None:
    del document["data"][1]["paragraphs"][0]["qas"][1]["is_impossible"]
    assert read_squad(document, "small").is_unanswerable[3]


def test_an_empty_answer_list_in_a_file_of_version_1_is_refused(document: dict, write: Write) -> None:
    document["version"] = "1.1"
    del document["data"][1]["paragraphs"][0]["qas"][1]["is_impossible"]
    message = refusal(write(document))
    assert "data[1].paragraphs[0].qas[1].answers (article 'Towns', question 't2'): found []" in message
    assert '"is_impossible": true' in message


PARAGRAPH = ("data", 1, "paragraphs", 0)
QUESTION = (*PARAGRAPH, "qas", 0)
NAMED = "(article 'Towns', question 't1')"
MISSING = object()
MALFORMED = [
    (("data", 1), [], "data[1]: found []; allowed: an object with title and paragraphs"),
    (("data", 1, "title"), 7, "data[1].title: found 7; allowed: text"),
    (
        ("data", 1, "paragraphs"),
        MISSING,
        "data[1].paragraphs (article 'Towns'): found nothing; allowed: a list",
    ),
    (PARAGRAPH, "text", "data[1].paragraphs[0] (article 'Towns'): found 'text'; allowed: an object"),
    ((*PARAGRAPH, "context"), MISSING, "data[1].paragraphs[0].context (article 'Towns'): found nothing"),
    ((*PARAGRAPH, "context"), "  ", "data[1].paragraphs[0].context (article 'Towns'): found '  '"),
    ((*PARAGRAPH, "qas"), {}, "data[1].paragraphs[0].qas (article 'Towns'): found {}; allowed: a list"),
    (QUESTION, 3, "data[1].paragraphs[0].qas[0] (article 'Towns'): found 3; allowed: an object"),
    ((*QUESTION, "id"), MISSING, "data[1].paragraphs[0].qas[0].id (article 'Towns'): found nothing"),
    (
        (*QUESTION, "id"),
        "r2",
        "found 'r2'; allowed: ids that occur once; it stands at data[0].paragraphs[0].qas[1]",
    ),
    (
        (*QUESTION, "question"),
        MISSING,
        f"qas[0].question {NAMED}: found nothing; allowed: text that is not blank",
    ),
    ((*QUESTION, "question"), " ", f"qas[0].question {NAMED}: found ' '; allowed: text that is not blank"),
    (
        (*QUESTION, "question"),
        "a\ud800b",
        f"qas[0].question {NAMED}: found 'a\\ud800b'; allowed: no lone surrogates",
    ),
    ((*QUESTION, "answers"), MISSING, f"qas[0].answers {NAMED}: found nothing; allowed: a list"),
    (
        (*QUESTION, "answers"),
        {"text": "Ina"},
        f"qas[0].answers {NAMED}: found {{'text': 'Ina'}}; allowed: a list",
    ),
    ((*QUESTION, "is_impossible"), True, f"qas[0].answers {NAMED}: found [{{'text': 'Ina Brandt'"),
    ((*QUESTION, "is_impossible"), "no", f"qas[0].is_impossible {NAMED}: found 'no'; allowed: true or false"),
    ((*QUESTION, "answers", 0), "Ina", f"qas[0].answers[0] {NAMED}: found 'Ina'; allowed: an object"),
    ((*QUESTION, "answers", 0, "text"), "", f"qas[0].answers[0].text {NAMED}: found ''; allowed: text"),
    (
        (*QUESTION, "answers", 0, "answer_start"),
        "0",
        f"answers[0].answer_start {NAMED}: found '0'; allowed: an integer",
    ),
    (
        (*QUESTION, "answers", 0, "answer_start"),
        True,
        f"answers[0].answer_start {NAMED}: found True; allowed: an int",
    ),
    (
        (*QUESTION, "answers", 0, "answer_start"),
        4,
        f"answers[0].answer_start {NAMED}: found 4, where it reads 'Brandt bui'; allowed: an offset where "
        "the "
        "context reads 'Ina Brandt' (it occurs at 0)",
    ),
    ((*QUESTION, "answers", 0, "answer_start"), -1, "found -1, where it reads ''; allowed"),
    (
        (*QUESTION, "answers", 0, "text"),
        "Otto",
        "where it reads 'Ina '; allowed: an offset where the context reads 'Otto'",
    ),
]


def changed(document: dict, path: tuple, value: Any) -> dict:
    *parents, last = path
    inner: Any = document
    for key in parents:
        inner = inner[key]
    if value is MISSING:
        del inner[last]
    else:
        inner[last] = value
    return document


@pytest.mark.parametrize(("path", "value", "expected"), MALFORMED)
def test_a_malformed_example_is_refused_with_its_place(
    document: dict, write: Write, path: tuple, value: Any, expected: str
) -> None:
    file = write(changed(document, path, value))
    message = refusal(file)
    assert message.startswith(f"{file}: ")
    assert expected in message


@pytest.mark.parametrize(("path", "value", "expected"), MALFORMED)
def test_a_malformed_example_is_dropped_and_counted_on_request(
    document: dict, write: Write, path: tuple, value: Any, expected: str
) -> None:
    table = load_table(str(write(changed(document, path, value))), split="train", skip_bad_examples=True)
    assert table.skipped >= 1
    assert "t1" not in table.question_ids
    assert {"r1", "r2"} <= set(table.question_ids)


def test_a_dropped_paragraph_counts_its_questions(document: dict) -> None:
    del document["data"][1]["paragraphs"][0]["context"]
    assert read_squad(document, "small", skip_bad_examples=True).skipped == 2


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (b"", "data.json", "found an empty file"),
        (b" \n ", "data.json", "found an empty file"),
        (b"", "data.json.gz", "found an empty file"),
        (b'{"data":\n [1 2]}', "data.json", "line 2, column 5: "),
        (b'{"data": []} x', "data.json", "line 1, column 14: Extra data"),
        (b'{"version": "1.1",\n"data": [\0\0]}', "data.json", "line 2: found a NUL byte at byte 28"),
        (b'{"data": "\xff"}', "data.json", "line 1: found bytes that are not UTF-8; allowed: JSON in UTF-8"),
        (b"[" * 200_000, "data.json", "allowed: one JSON document"),
        (b'{"data": ' + b"1" * 5000 + b"}", "data.json", "allowed: one JSON document"),
        (b"[1, 2]", "data.json", "found [1, 2]; allowed: an object with a list `data`"),
        (
            b'{"questions": []}',
            "data.json",
            "found an object with 'questions'; allowed: an object with a list `data`",
        ),
        (b'{"data": {}}', "data.json", "allowed: an object with a list `data`"),
        (b'{"data": []}', "data.json", "found no questions; allowed: at least one"),
        (
            gzip.compress(b'{"data": []}' * 9, mtime=0)[:-12],
            "data.json.gz",
            "found truncated or damaged gzip data",
        ),
        (
            gzip.compress(b'{"data": []}', mtime=0)[:-1] + b"\1",
            "data.json.gz",
            "found truncated or damaged gzip data",
        ),
        (b'{"data": []}', "data.json.gz", "found a file that is not gzip"),
        (
            b"id,question",
            "data.txt",
            "found a file of another kind; allowed: `sample`, `sample:hard`, a file (.json, .jsonl, .ndj",
        ),
        (b"PAR1 and nothing more", "data.parquet", "allowed: a complete Parquet file"),
        (b"", "data.parquet", "allowed: a complete Parquet file"),
    ],
)
@pytest.mark.parametrize("skip", [False, True])
def test_a_file_that_cannot_be_read_is_refused_even_when_bad_examples_are_skipped(
    write: Write, content: bytes, name: str, expected: str, skip: bool
) -> None:
    file = write(content, name)
    message = refusal(file, skip_bad_examples=skip)
    assert message.startswith(f"{file}: ")
    assert expected in message


def test_a_file_of_nothing_but_bad_examples_is_refused_with_their_number(document: dict) -> None:
    for article in document["data"]:
        for paragraph in article["paragraphs"]:
            paragraph["context"] = "Another text."
            paragraph["qas"] = [item for item in paragraph["qas"] if item["answers"]]
    with pytest.raises(DataError, match=r"small: found no questions \(4 malformed ones were dropped\)"):
        read_squad(document, "small", skip_bad_examples=True)


def test_a_missing_file_and_a_folder_are_refused_without_asking_the_hub(tmp_path: Path) -> None:
    assert "found no such file" in refusal(tmp_path / "train.json")
    assert "found no such file" in refusal("train-v9.jsonl")
    assert "found a folder" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("sample", False),
        ("squad", False),
        ("rajpurkar/squad_v2", False),
        ("owner/name.v2", False),
        ("owner/name:xquad.de@test", False),
        ("squad@validation", False),
        ("owner/name:", True),
        ("train.json", True),
        ("data/train.json.gz", True),
        ("owner/train.parquet", True),
        ("/data/train", True),
        ("./squad", True),
        ("a/b/c", True),
        ("train.jsn", True),
        ("owner/train.csv", True),
        ("TRAIN.TSV", True),
        ("train.jsonl.gz", True),
        ("owner/train.arrow@test", False),
    ],
)
def test_a_name_with_a_file_suffix_or_a_deep_path_means_a_file(source: str, expected: bool) -> None:
    assert is_file_source(source) is expected


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(DataError, match="split: found 'test'; allowed: train, dev"):
        load_table("sample", split="test")


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 80),
    st.floats(),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["id", "text", "answer_start", "context"]), st.integers(), max_size=2),
)


def places(value: Any, path: tuple = ()) -> list[tuple]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, item in inner for place in places(item, (*path, key))]


@settings(max_examples=300, deadline=None)
@given(data=st.data(), junk=JUNK, skip=st.booleans())
def test_no_junk_anywhere_in_a_document_ends_in_another_error(
    make_document: Callable[[], dict], data: st.DataObject, junk: Any, skip: bool
) -> None:
    document = make_document()
    changed(document, data.draw(st.sampled_from(places(document))), junk)
    with suppress(DataError):
        for example in read_squad(document, "fuzzed", skip_bad_examples=skip).examples():
            for answer in example.answers:
                assert example.context[answer.start : answer.start + len(answer.text)] == answer.text


@pytest.mark.parametrize(
    ("name", "questions", "unanswerable", "contexts"),
    [
        ("squad/dev-v1.1.json.gz", 10570, 0, 2067),
        ("squad/dev-v2.0.json.gz", 11873, 5945, 1204),
        ("crossdomain/covid-qa-200423.json.gz", 1370, 0, 98),
        ("squadshifts/reddit_v1.0.json.gz", 9803, 0, 2033),
    ],
)
def test_real_files_have_their_published_counts(
    shared: Path, name: str, questions: int, unanswerable: int, contexts: int
) -> None:
    table = load_table(str(shared / "data" / name), split="dev")
    assert (len(table), int(table.is_unanswerable.sum()), len(table.contexts)) == (
        questions,
        unanswerable,
        contexts,
    )
    assert table.skipped == 0


def test_questions_are_read_without_their_answers(tmp_path):
    blind = [{"id": "a", "question": "Who?"}, {"id": "b", "question": "When?", "answers": [{"text": 3}]}]
    path = tmp_path / "blind.json"
    path.write_text(
        json.dumps({"version": "1.1", "data": [{"paragraphs": [{"context": "Ann.", "qas": blind}]}]})
    )
    table = load_questions(str(path))
    assert table.question_ids == ["a", "b"]
    assert table.is_unanswerable.tolist() == [True, True]
    with pytest.raises(DataError, match="answers"):
        load_table(str(path), split="dev")
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": "Ann.", "qas": [{"id": "a"}]}]}]}))
    with pytest.raises(DataError, match=r"qas\[0\]\.question"):
        load_questions(str(path))
