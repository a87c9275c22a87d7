"""SQuAD files that are refused: bytes that are no JSON, and every field with what it cannot hold."""

import gzip
import json
from typing import Any

from tests.malformed.cases import CONTEXT, GOOD_SQUAD, OUT, Case, changed, files

ARTICLE = ("data", 0)
PARAGRAPH = (*ARTICLE, "paragraphs", 0)
QUESTION = (*PARAGRAPH, "qas", 0)
ANSWER = (*QUESTION, "answers", 0)
SWEEP = ("run", "--config", "tiny.yaml", "--data", "bad.json", "--eval-data", "good.json", "--out", OUT)
TEXT = json.dumps(GOOD_SQUAD, indent=1).encode()
DEEP = b'{"version": "v2.0", "data": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
HUGE = "9" * 5000


def _place(path: tuple[str | int, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


# name, content, what the refusal says beside the file
BYTES: list[tuple[str, bytes, tuple[str, ...]]] = [
    ("an empty file", b"", ("empty file", "allowed")),
    ("white space alone", b" \n\t\n", ("empty file",)),
    ("a byte order mark alone", b"\xef\xbb\xbf", ("line 1",)),
    ("UTF-16", TEXT.decode().encode("utf-16"), ("line 1", "UTF-8")),
    ("Latin-1", TEXT.replace(b"Mara", "M\xe1ra".encode("latin-1")), ("not UTF-8", "line ")),
    ("a NUL byte", TEXT.replace(b"Mara", b"Ma\0a"), ("NUL byte", "line ")),
    ("cut in the middle", TEXT[: len(TEXT) // 2], ("line ", "column ", "allowed: one JSON document")),
    ("cut by one byte", TEXT[:-1], ("line ", "column ")),
    ("two documents", TEXT + TEXT, ("Extra data", "line ")),
    ("a comment", b"// made by hand\n" + TEXT, ("line 1, column 1",)),
    ("a trailing comma", TEXT.replace(b'"v2.0",', b'"v2.0",,'), ("line 2",)),
    ("single quotes", b"{'version': 'v2.0', 'data': []}", ("line 1, column 2",)),
    ("a tab within a text", TEXT.replace(b"Mara Voss", b"Mara\tVoss"), ("Invalid control character",)),
    ("a bad escape", TEXT.replace(b"Mara", rb"M\xra"), ("Invalid \\escape",)),
    ("deep nesting", DEEP, ("allowed: one JSON document",)),
    ("a number of 5000 digits", TEXT.replace(b"29", HUGE.encode()), ("allowed: one JSON document",)),
    ("CSV", b"id,question,context\nq0,Who?,The mill.\n", ("line 1, column 1",)),
    ("a pickle", b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x04evil\x94.", ("bad.json",)),
    ("a list", b"[]", ("allowed: an object with a list `data`",)),
    ("a number", b"7", ("found 7",)),
    ("null", b"null", ("found nothing",)),
    ("NaN", b"NaN", ("found nan",)),
    ("an object without data", b'{"version": "v2.0"}', ("'version'", "`data`")),
    ("an empty object", b"{}", ("no keys",)),
    ("data that are an object", b'{"data": {"a": 1}}', ("`data`",)),
    ("no articles", b'{"data": []}', ("found no questions", "allowed: at least one")),
    ("articles without paragraphs", b'{"data": [{"title": "a", "paragraphs": []}]}', ("found no questions",)),
    ("predictions in its place", b'{"q0": "Mara Voss"}', ("'q0'", "`data`")),
]
GZIP: list[tuple[str, bytes, tuple[str, ...]]] = [
    ("an empty .gz", b"", ("empty file",)),
    ("a .gz that is not gzip", TEXT, ("not gzip",)),
    ("a truncated .gz", gzip.compress(TEXT)[:-20], ("truncated or damaged gzip",)),
    ("a .gz cut to its header", gzip.compress(TEXT)[:10], ("truncated or damaged gzip",)),
    ("a .gz with a wrong checksum", gzip.compress(TEXT)[:-8] + bytes(8), ("damaged gzip",)),
    ("a .gz with damaged data", gzip.compress(TEXT)[:30] + b"\xff" * 30, ("damaged gzip",)),
    ("a .gz of nothing", gzip.compress(b""), ("empty file",)),
    ("a .gz of bad JSON", gzip.compress(TEXT[:-9]), ("line ",)),
]
# name, path, value there, what the refusal says beside the file and the place
FIELDS: list[tuple[str, tuple[str | int, ...], Any, tuple[str, ...]]] = [
    ("an article that is text", ARTICLE, "Mills", ("found 'Mills'", "an object with title")),
    ("an article that is null", ARTICLE, None, ("found nothing",)),
    ("a title that is a number", (*ARTICLE, "title"), 7, ("found 7", "allowed: text")),
    ("a title that is a list", (*ARTICLE, "title"), ["a"], ("found ['a']",)),
    ("a blank title", (*ARTICLE, "title"), "  ", ("not blank",)),
    ("a title with a lone surrogate", (*ARTICLE, "title"), "\ud800", ("no lone surrogates",)),
    ("no paragraphs", (*ARTICLE, "paragraphs"), ..., ("found nothing", "article 'Mills'")),
    ("paragraphs that are an object", (*ARTICLE, "paragraphs"), {"a": 1}, ("a list of objects",)),
    ("paragraphs that are true", (*ARTICLE, "paragraphs"), True, ("found True",)),
    ("a paragraph that is a list", PARAGRAPH, [], ("found []", "an object with context and qas")),
    ("a paragraph that is a number", PARAGRAPH, 1.5, ("found 1.5",)),
    ("no context", (*PARAGRAPH, "context"), ..., ("found nothing", "text that is not blank")),
    ("an empty context", (*PARAGRAPH, "context"), "", ("found ''",)),
    ("a context of spaces", (*PARAGRAPH, "context"), "\n \t", ("not blank",)),
    ("a context that is a list", (*PARAGRAPH, "context"), [CONTEXT], ("text that is not blank",)),
    ("a context with a lone surrogate", (*PARAGRAPH, "context"), CONTEXT + "\udcff", ("surrogates",)),
    ("no qas", (*PARAGRAPH, "qas"), ..., ("found nothing", "a list of questions")),
    ("qas that are text", (*PARAGRAPH, "qas"), "Who?", ("found 'Who?'",)),
    ("a question that is text", QUESTION, "Who?", ("an object with id, question and answers",)),
    ("a question that is null", QUESTION, None, ("found nothing",)),
    ("no id", (*QUESTION, "id"), ..., ("found nothing",)),
    ("an id that is a fraction", (*QUESTION, "id"), 1.5, ("found 1.5",)),
    ("an id that is true", (*QUESTION, "id"), True, ("found True",)),
    ("an id that is infinite", (*QUESTION, "id"), float("inf"), ("found inf",)),
    ("an empty id", (*QUESTION, "id"), "", ("found ''",)),
    ("an id with a lone surrogate", (*QUESTION, "id"), "\udfff", ("surrogates",)),
    ("an id that stands twice", (*QUESTION, "id"), "q1", ("found 'q1'", "occur once", "already")),
    ("no text of the question", (*QUESTION, "question"), ..., ("question 'q0'", "found nothing")),
    ("a question of spaces", (*QUESTION, "question"), "   ", ("question 'q0'", "not blank")),
    ("a question that is a number", (*QUESTION, "question"), 3, ("found 3",)),
    ("a question with a lone surrogate", (*QUESTION, "question"), "Who \ud83d?", ("surrogates",)),
    ("no answers", (*QUESTION, "answers"), ..., ("a list of objects with text and answer_start",)),
    ("answers that are null", (*QUESTION, "answers"), None, ("found nothing",)),
    ("answers that are text", (*QUESTION, "answers"), "Mara Voss", ("found 'Mara Voss'",)),
    ("answers in the hub's layout", (*QUESTION, "answers"), {"text": ["Mara"]}, ("a list of objects",)),
    ("answers though impossible", (*QUESTION, "is_impossible"), True, ("is_impossible is true",)),
    ("is_impossible that is text", (*QUESTION, "is_impossible"), "false", ("true or false",)),
    ("is_impossible that is a number", (*QUESTION, "is_impossible"), 0, ("found 0", "true or false")),
    ("an answer that is text", ANSWER, "Mara Voss", ("an object with text and answer_start",)),
    ("an answer that is a list", ANSWER, ["Mara Voss", 29], ("an object with text and answer_start",)),
    ("no text of the answer", (*ANSWER, "text"), ..., ("found nothing",)),
    ("an empty answer", (*ANSWER, "text"), "", ("found ''",)),
    ("an answer that is a number", (*ANSWER, "text"), 1871, ("found 1871",)),
    ("an answer with a lone surrogate", (*ANSWER, "text"), "\ud800", ("surrogates",)),
    ("no answer_start", (*ANSWER, "answer_start"), ..., ("found nothing", "an integer")),
    ("an answer_start that is text", (*ANSWER, "answer_start"), "29", ("found '29'", "an integer")),
    ("an answer_start that is a fraction", (*ANSWER, "answer_start"), 29.0, ("found 29.0",)),
    ("an answer_start that is true", (*ANSWER, "answer_start"), True, ("found True",)),
    ("an answer_start that is NaN", (*ANSWER, "answer_start"), float("nan"), ("found nan",)),
    ("an answer_start below 0", (*ANSWER, "answer_start"), -1, ("found -1", "it occurs at 29")),
    ("an answer_start behind the end", (*ANSWER, "answer_start"), 999, ("found 999", "it occurs at 29")),
    ("an answer_start off by one", (*ANSWER, "answer_start"), 28, ("found 28", "it occurs at 29")),
    ("a huge answer_start", (*ANSWER, "answer_start"), 10**30, ("found 1000000", "occurs at 29")),
    ("an answer not in the context", (*ANSWER, "text"), "Mara Foss", ("does not occur",)),
    ("an answer in other case", (*ANSWER, "text"), "MARA VOSS", ("does not occur",)),
    ("an answer longer than the context", (*ANSWER, "text"), CONTEXT + "!", ("does not occur",)),
]
# Where two fields contradict each other, the refusal names the other one.
NAMED_INSTEAD = {
    "an id that stands twice": (*PARAGRAPH, "qas", 1, "id"),
    "answers though impossible": (*QUESTION, "answers"),
    "an answer not in the context": (*ANSWER, "answer_start"),
    "an answer in other case": (*ANSWER, "answer_start"),
    "an answer longer than the context": (*ANSWER, "answer_start"),
}


def _of_bytes() -> list[Case]:
    cases = [
        Case(f"squad: {name}", SWEEP, files(bad_json=content), ("bad.json", *says))
        for name, content, says in BYTES
    ]
    return cases + [
        Case(
            f"squad: {name}",
            tuple("bad.json.gz" if word == "bad.json" else word for word in SWEEP),
            files(**{"bad.json_gz": content}),
            ("bad.json.gz", *says),
        )
        for name, content, says in GZIP
    ]


def _of_fields() -> list[Case]:
    return [
        Case(
            f"squad: {name}",
            SWEEP,
            files(bad_json=json.dumps(changed(GOOD_SQUAD, path, value))),
            ("bad.json", _place(NAMED_INSTEAD.get(name, path)), *says),
        )
        for name, path, value, says in FIELDS
    ]


def _other() -> list[Case]:
    version_1 = changed(changed(GOOD_SQUAD, ("version",), "1.1"), (*QUESTION, "answers"), [])
    version_1 = changed(version_1, (*QUESTION, "is_impossible"), ...)
    as_dev = ("run", "--config", "tiny.yaml", "--data", "good.json", "--eval-data", "bad.json", "--out", OUT)
    extra = ("--set", "recipe.data.cross_domain=[bad.json]", "--out", OUT)
    return [
        Case(
            "squad: v1.1 without an answer",
            SWEEP,
            files(bad_json=json.dumps(version_1)),
            ("bad.json", "qas[0].answers", "version is v2.0"),
        ),
        Case("squad: bad evaluation data", as_dev, files(bad_json="{"), ("bad.json", "line 1")),
        Case(
            "squad: bad data of another domain",
            ("run", "--config", "tiny.yaml", *extra),
            files(bad_json='{"data": [3]}'),
            ("bad.json", "data[0]", "found 3"),
        ),
        Case(
            "squad: all of it skipped",
            (*SWEEP, "--set", "recipe.data.skip_bad_examples=true"),
            files(bad_json='{"data": [3, 4]}'),
            ("bad.json", "found no questions", "2 malformed"),
        ),
    ]


CASES = [*_of_bytes(), *_of_fields(), *_other()]
