"""Rows in CSV, TSV, JSON lines and JSON that are refused: bytes, quotes, columns, and every field in every format."""

import gzip
import json
from typing import Any

from tests.malformed.cases import CONTEXT, OUT, Case, files

ROW: dict[str, Any] = {
    "id": "q0",
    "title": "Mills",
    "context": CONTEXT,
    "question": "Who?",
    "answer": "Mara Voss",
}
HEADER = ",".join(ROW)
LINE = f'q0,Mills,"{CONTEXT}",Who?,Mara Voss'
GOOD = f"{HEADER}\n{LINE}\n"
HUGE = "x" * (17 * 2**20)


def sweep(name: str, *more: str) -> tuple[str, ...]:
    return ("run", "--config", "tiny.yaml", "--data", name, "--eval-data", "good.json", "--out", OUT, *more)


# name, content, what the refusal says beside the file
CSV: list[tuple[str, bytes, tuple[str, ...]]] = [
    ("an empty file", b"", ("empty file", "row of column names")),
    ("a byte order mark alone", b"\xef\xbb\xbf", ("empty file",)),
    ("blank lines", b"\n\r\n  \n", ("empty file",)),
    ("a header alone", HEADER.encode(), ("found no questions",)),
    ("no header", f"{LINE}\n{LINE}\n".encode(), ("found columns q0, Mills", "missing: context, question")),
    ("UTF-16", GOOD.encode("utf-16"), ("line 1", "UTF-8")),
    ("Latin-1", GOOD.replace("Mara", "M\xe1ra").encode("latin-1"), ("line 2", "not UTF-8", "CSV UTF-8")),
    ("a NUL byte", GOOD.replace("Mara", "Ma\0ra").encode(), ("line 2", "NUL byte")),
    ("a row too short", f"{GOOD}q1,Mills,text\n".encode(), ("line 3", "found 3 cells", "allowed: 5")),
    ("a row too long", f"{GOOD}{LINE},more\n".encode(), ("line 3", "found 6 cells")),
    ("a comma without quotes", GOOD.replace('"', "").encode(), ("line 2", "found 6 cells")),
    (
        "a quote that does not end",
        f'{GOOD}q1,"Mills,a,b,c\n'.encode(),
        ("line 3", "allowed: cells with quotes"),
    ),
    ("text behind a quote", f'{GOOD}q1,"Mills"x,a,b,c\n'.encode(), ("line 3", "doubled")),
    ("old line ends", GOOD.replace("\n", "\r").encode(), ("line 1", "new-line")),
    ("a cell that is too large", f"{GOOD}q1,M,{HUGE},b,c\n".encode(), ("line 3", "field larger")),
    ("one column", b"question\nWho?\n", ("found columns question", "missing: context, answer")),
    (
        "a first row of commas",
        b",,\na,b,c\nd,e,f\n",
        ("found columns a, b, c", "missing: context, question, answer"),
    ),
    ("columns of which one has a name", b"id,,\na,b,c\n", ("found columns id; missing",)),
    ("a column twice", GOOD.replace("title", "question").encode(), ("2 columns 'question'",)),
    (
        "two columns that could be the answer",
        GOOD.replace("title", "gold").encode(),
        ("gold, answer", "--columns answer="),
    ),
    ("one id twice", f"{GOOD}{LINE}\n".encode(), ("line 3.id", "it stands at line 2 already")),
    ("an empty question", GOOD.replace("Who?", " ").encode(), ("line 2.question", "not blank")),
    ("an empty context", GOOD.replace(CONTEXT, "").encode(), ("line 2.context", "not blank")),
    ("an empty id", GOOD.replace("q0", "").encode(), ("line 2.id", "not blank")),
    (
        "an answer that is not there",
        GOOD.replace("Mara Voss\n", "Foss\n").encode(),
        ("line 2.answer[0]", "'Foss'"),
    ),
    (
        "a place that is text",
        GOOD.replace("title", "start").encode(),
        ("line 2.answer[0].answer_start", "found 'Mills'", "an integer"),
    ),
    (
        "a place that is a fraction",
        GOOD.replace("title", "start").replace("Mills", "29.5").encode(),
        ("line 2.answer[0].answer_start", "found 29.5"),
    ),
    (
        "a place off by one",
        GOOD.replace("title", "start").replace("Mills", "28").encode(),
        ("line 2.answer[0].answer_start", "found 28", "it occurs at 29"),
    ),
    (
        "several places of one answer",
        GOOD.replace("title", "start").replace("Mills", '"[29, 30]"').encode(),
        ("line 2.start", "found [29, 30]", "a list of 1"),
    ),
    (
        "is_impossible that is a word",
        GOOD.replace("title", "is_impossible").replace("Mills", "perhaps").encode(),
        ("line 2.is_impossible", "found 'perhaps'", "true or false"),
    ),
    (
        "is_impossible with an answer",
        GOOD.replace("title", "is_impossible").replace("Mills", "TRUE").encode(),
        ("line 2.answer", "is_impossible is true"),
    ),
]
GZIP: list[tuple[str, str, bytes, tuple[str, ...]]] = [
    ("an empty .csv.gz", "bad.csv.gz", b"", ("empty file",)),
    ("a .csv.gz that is not gzip", "bad.csv.gz", GOOD.encode(), ("not gzip",)),
    ("a truncated .csv.gz", "bad.csv.gz", gzip.compress(GOOD.encode())[:-12], ("truncated or damaged",)),
    ("a truncated .jsonl.gz", "bad.jsonl.gz", gzip.compress(b'{"a": 1}\n')[:-9], ("truncated or damaged",)),
    (
        "a .jsonl.gz that unpacks to much",
        "bad.jsonl.gz",
        gzip.compress(bytes(2**26)),
        ("unpack to more than",),
    ),
    (
        "a .csv.gz that unpacks to too much",
        "bad.csv.gz",
        gzip.compress((GOOD + (" " * 1023 + "\n") * 2**15).encode()),
        ("unpack to more than",),
    ),
]


def line(**changed: Any) -> bytes:
    """Return a valid row as a line of JSON with these values in place of its own; `...` takes one away."""
    return (
        json.dumps({name: value for name, value in (ROW | changed).items() if value is not ...}).encode()
        + b"\n"
    )


LINES: list[tuple[str, bytes, tuple[str, ...]]] = [
    ("an empty file", b"", ("found no questions",)),
    ("blank lines", b"\n \n", ("found no questions",)),
    ("no JSON", b"question: Who?\n", ("line 1, column 1", "one JSON object on each line")),
    ("a line that is cut", line() + line()[:-9], ("line 2, column ",)),
    ("two objects on a line", line().strip() + line(), ("line 1, column ", "Extra data")),
    ("a pretty document", json.dumps(ROW, indent=1).encode(), ("line 1, column 2",)),
    ("a list on a line", line() + b"[1]\n", ("line 2", "an object with title and paragraphs")),
    ("a number on a line", line() + b"7\n", ("line 2", "found 7")),
    ("deep nesting", line() + b"[" * 50_000 + b"]" * 50_000, ("line 2", "nested too deeply")),
    ("a number of 5000 digits", b'{"a": ' + b"9" * 5000 + b"}", ("line 1", "5000")),
    ("not UTF-8", line() + b'{"a": "\xff"}\n', ("line 2", "not UTF-8")),
    ("a NUL byte", line() + b"\0\n", ("line 2", "NUL byte")),
    ("no question anywhere", line(question=...), ("missing: question",)),
    ("no question in a line", line() + line(question=..., id="q1"), ("line 2.question", "found nothing")),
    (
        "no answer in a line",
        line() + line(answer=..., id="q1"),
        ("line 2.answer", "found nothing", "a list of texts"),
    ),
    ("a question that is NaN", line(question=float("nan")), ("line 1.question", "found nothing")),
    ("an id that is NaN", line(id=float("nan")), ("line 1.id", "found nothing")),
    ("an id that is true", line(id=True), ("line 1.id", "found True")),
    ("one id twice", line() + b"\n" + line(), ("line 3.id", "it stands at line 1 already")),
    ("a context that is a list", line(context=[CONTEXT]), ("line 1.context",)),
    ("a title that is a number", line(title=7), ("line 1.title", "found 7")),
    ("an answer that is a number", line(answer=1871), ("line 1.answer", "found 1871", "a list of texts")),
    ("an answer that is true", line(answer=True), ("line 1.answer", "found True")),
    ("an answer that is a list of numbers", line(answer=[1871]), ("line 1.answer[0]", "found 1871")),
    ("answers of which one is null", line(answer=["1871", None]), ("line 1.answer[1]", "found nothing")),
    ("an answer with a lone surrogate", line(answer="\ud800"), ("line 1.answer[0]", "surrogates")),
    ("a text object", line(answer={"text": "1871"}), ("line 1.answer", "equal length")),
    ("places of other length", line(answer=["1871"], start=[42, 43]), ("line 1.start", "a list of 1")),
    ("one place for two answers", line(answer=["1871", "1871"], start=42), ("line 1.start", "a list of 2")),
    ("a huge place", line(start=10**30), ("line 1.answer[0].answer_start", "it occurs at 29")),
]
LISTS: list[tuple[str, bytes, tuple[str, ...]]] = [
    (
        "other keys",
        b'[{"q": "Who?", "text": "Ann."}]',
        ("found columns q, text", "missing: context, question, answer"),
    ),
    ("a row that is text", b'[{"question": "a", "context": "b", "answer": ""}, "x"]', ("[1]", "found 'x'")),
    ("rows and a bad answer", json.dumps([ROW | {"answer": 5}]).encode(), ("[0].answer", "found 5")),
]
NAMES: list[tuple[str, str, tuple[str, ...]]] = [
    ("a field that is none", "quest=q", ("--columns", "'quest'", "did you mean 'question'")),
    ("no column", "question=", ("--columns", "FIELD=COLUMN")),
    ("no field", "q", ("--columns", "FIELD=COLUMN")),
    ("a field twice", "question=a,question=b", ("question twice",)),
    ("a column for two fields", "question=a,context=a", ("data.columns", "a column of its own")),
    ("a column that is not there", "question=questoin", ("bad.csv", "data.columns.question", "'questoin'")),
]
CASES = [
    *(
        Case(f"csv: {name}", sweep("bad.csv"), files(bad_csv=content), ("bad.csv", *says))
        for name, content, says in CSV
    ),
    *(
        Case(
            f"tsv: {name}", sweep("bad.tsv"), files(bad_tsv=content.replace(b",", b"\t")), ("bad.tsv", *says)
        )
        for name, content, says in CSV
        if name in ("a row too short", "one id twice", "an empty question", "a quote that does not end")
    ),
    *(
        Case(f"table: {name}", sweep(file), files(**{file.replace(".gz", "_gz"): content}), (file, *says))
        for name, file, content, says in GZIP
    ),
    *(
        Case(f"json lines: {name}", sweep("bad.jsonl"), files(bad_jsonl=content), ("bad.jsonl", *says))
        for name, content, says in LINES
    ),
    *(
        Case(f"json list: {name}", sweep("bad.json"), files(bad_json=content), ("bad.json", *says))
        for name, content, says in LISTS
    ),
    *(
        Case(f"columns: {name}", sweep("bad.csv", "--columns", given), files(bad_csv=GOOD), says)
        for name, given, says in NAMES
    ),
]
