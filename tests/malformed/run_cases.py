"""Folders of sweeps that are refused: records, journal, settings and answers that do not say what they must."""

import io
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from sweeps.spec.load import load_spec
from tests.malformed.cases import OUT, Case, changed, write_good

FRONT = ("front", "run", "--csv", OUT)
EXPORT = ("export", "run", "--max-memory-mb", "99", "--to", OUT)
RESUME = ("run", "--resume", "run")
CONFIRM = ("confirm", "run")
TRIALS = ("t0000", "t0001")
PROGRESS = {"examples_seen": 10, "budget_examples": 40, "selection_em_percent": 5.0, "memory_mb": 2.0}
Make = Callable[[Path], None]


@cache
def recipe(folder: Path) -> dict[str, Any]:
    """Return a whole recipe of the tiny sweep."""
    from qa_core.values import to_dict
    from sweeps.space.compile import compile_space

    space = compile_space(load_spec(folder / "tiny.yaml"))
    return to_dict(space.to_run_config({"methods": "full", "train.learning_rate": 0.002}, seed=3))


@cache
def evaluation_hash(folder: Path) -> str:
    """Return the hash of the tiny sweep's evaluation questions."""
    from qa_core.data.squad import load_table

    return load_table(str(folder / "good.json"), split="dev").data_hash


def _terms() -> dict[str, Any]:
    """Return what a cost says of how it was measured: as this machine and this version would."""
    from qa_core.memory import protocol
    from sweeps.nodes.report import machine_here

    precision = machine_here("cpu")[0].precision("auto")
    return {
        "precision": precision,
        "protocol_version": protocol.PROTOCOL_VERSION,
    }


FORM: dict[str, Any] = {
    "label": "int8",
    "settings": {"methods.quantize.bits": 8},
    "status": "ok",
    "objectives": {"em_percent": 1.0, "memory_mb": 1.0},
}


def record(folder: Path, trial_id: str) -> dict[str, Any]:
    """Return a valid record as JSON values."""
    number = TRIALS.index(trial_id)
    return {
        "trial_id": trial_id,
        "status": "ok",
        "reason": None,
        "seed": 3,
        "assignment": {"methods": "full", "train.learning_rate": 0.002},
        "config": recipe(folder),
        "examples_seen": 40,
        "budget_examples": 40,
        "curve": [PROGRESS],
        "device": "cpu: x",
        "started_at": "2026-01-01T00:00:00+00:00",
        "finished_at": "2026-01-01T00:00:09+00:00",
        "seconds": 9.0,
        "objectives": {"em_percent": 30.0 + number, "memory_mb": 2.0 + number},
        "quality": {"em_percent": 30.0 + number, "baseline_no_answer_em_percent": 1.0},
        "cost": {"inference_peak_bytes": 2_000_000 + number, **_terms()},
        "data": {"evaluation": {"data_hash": evaluation_hash(folder)}},
        "artifact": f"trials/{trial_id}/artifact",
        "schema_version": 1,
    }


def journal_lines(folder: Path) -> list[dict[str, Any]]:
    """Return the valid journal of both trials; the second has not ended."""
    proposal = {"assignment": record(folder, "t0000")["assignment"], "notes": {}, "recipe": recipe(folder)}
    events: list[dict[str, Any]] = [
        {"event": "tracked", "tracking_uri": "sqlite:///mlflow.db", "parent_run_id": "a1"}
    ]
    for trial_id in TRIALS:
        events += [
            {"event": "proposed", "trial_id": trial_id, **proposal},
            {"event": "started", "trial_id": trial_id},
            {"event": "reported", "trial_id": trial_id, "progress": PROGRESS, "is_stopped": False},
        ]
    return json.loads(json.dumps(events))  # nothing shared, so that a change is one change


def write_run(folder: Path) -> None:
    """Write a valid folder of a sweep, without the artifacts."""
    write_good(folder)
    run = folder / "run"
    run.mkdir()
    (run / "spec.json").write_text(json.dumps(load_spec(folder / "tiny.yaml").as_dict()))
    _write_lines(run / "records.jsonl", [record(folder, "t0000")])
    _write_lines(run / "journal.jsonl", journal_lines(folder))


def _write_lines(path: Path, values: Sequence[Any]) -> None:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))


def put(name: str, content: str | bytes) -> Make:
    """Return what writes a valid folder with other content in one file."""

    def make(folder: Path) -> None:
        write_run(folder)
        (folder / "run" / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def missing(name: str) -> Make:
    def make(folder: Path) -> None:
        write_run(folder)
        (folder / "run" / name).unlink()

    return make


def in_record(*path: str | int, to: Any) -> Make:
    """Return what writes a folder whose one record has another value; `...` takes it away."""

    def make(folder: Path) -> None:
        write_run(folder)
        _write_lines(folder / "run" / "records.jsonl", [changed(record(folder, "t0000"), path, to)])

    return make


def in_journal(line: int, *path: str | int, to: Any) -> Make:
    """Return what writes a folder with another value in one line of its journal, counted from 0."""

    def make(folder: Path) -> None:
        write_run(folder)
        _write_lines(folder / "run" / "journal.jsonl", changed(journal_lines(folder), (line, *path), to))

    return make


def in_spec(*path: str | int, to: Any) -> Make:
    def make(folder: Path) -> None:
        write_run(folder)
        file = folder / "run" / "spec.json"
        file.write_text(json.dumps(changed(json.loads(file.read_text()), path, to)))

    return make


def _text_then(text: str) -> Make:
    """Return what writes a valid record with a line of text behind it."""

    def make(folder: Path) -> None:
        write_run(folder)
        with (folder / "run" / "records.jsonl").open("a") as file:
            file.write(text + "\n")

    return make


def _linked(name: str) -> Make:
    """Return what writes a folder in which a file or folder is a link to one beside it."""

    def make(folder: Path) -> None:
        write_run(folder)
        (folder / "run" / "trials" / "t0000" / "artifact").mkdir(parents=True)
        (folder / "run" / "trials" / "t0000" / "artifact" / "mine").write_text("x")
        (folder / "run" / name).rename(folder / "outside")
        (folder / "run" / name).symlink_to(folder / "outside")

    return make


LINKS: list[tuple[str, Make, tuple[str, ...]]] = [
    (name, _linked(name), (f"run/{name}", "found a link", "of run itself"))
    for name in ("trials", "trials/t0000", "trials/t0000/artifact", "journal.jsonl", "records.jsonl")
]
LINES: list[tuple[str, Make, tuple[str, ...]]] = [
    ("no records", missing("records.jsonl"), ("records.jsonl", "cannot be read")),
    ("a line that is cut", _text_then('{"trial_id": '), ("records.jsonl:2", "not a JSON line")),
    ("an empty line", _text_then(""), ("records.jsonl:2", "not a JSON line")),
    ("a line that is a list", _text_then("[1]"), ("records.jsonl:2", "found list")),
    ("a line of bytes", put("records.jsonl", b"\xff\xfe\n"), ("records.jsonl:1", "utf-8")),
    ("a line that is nested deeply", _text_then("[" * 50_000), ("records.jsonl:2", "not a JSON line")),
    ("a pickle", put("records.jsonl", b"\x80\x04}\n."), ("records.jsonl:1", "not a JSON line")),
    ("NaN", _text_then('{"seconds": NaN}'), ("records.jsonl:2", "found NaN", "finite")),
    ("a number beyond all floats", _text_then('{"seconds": 1e999}'), ("records.jsonl:2", "found 1e999")),
    ("a number of 400 digits", _text_then('{"seconds": ' + "9" * 400 + "}"), ("records.jsonl:2", "400")),
    ("a number of 5000 digits", _text_then('{"seconds": ' + "9" * 5000 + "}"), ("records.jsonl:2",)),
    ("a lone surrogate", in_record("device", to="\ud800"), ("records.jsonl:1", "surrogates")),
    ("no version", in_record("schema_version", to=...), ("records.jsonl:1", "schema_version", "None")),
    (
        "a version of tomorrow",
        in_record("schema_version", to=3),
        ("schema_version: found 3", "reads 1 and 2"),
    ),
    ("an unknown field", in_record("secnds", to=1), ("records.jsonl:1", "did you mean 'seconds'")),
    ("an unknown status", in_record("status", to="done"), ("unknown status 'done'", "allowed: failed")),
    ("an ok without objectives", in_record("objectives", to=None), ("'ok' needs objectives",)),
    ("an ok short of the budget", in_record("examples_seen", to=39), ("39 of 40",)),
    ("a failure without a reason", in_record("status", to="failed"), ("'failed' needs a reason",)),
    ("a name above the folder", in_record("trial_id", to="../../x"), ("trial_id: found '../../x'",)),
    ("an absolute name", in_record("trial_id", to="/tmp/x"), ("trial_id: found '/tmp/x'",)),
    ("a name of dots", in_record("trial_id", to=".."), ("trial_id: found '..'",)),
    ("a name of markup", in_record("trial_id", to="<script>"), ("trial_id: found '<script>'",)),
    (
        "a form whose name leads elsewhere",
        in_record("forms", to=[{"label": "../x", "settings": {}, "status": "failed", "reason": "why"}]),
        ("label: found '../x'",),
    ),
    (
        "a form with a difference that is text",
        in_record("forms", to=[FORM | {"against_twin": {"em_difference_percent": "much"}}]),
        ("records.jsonl", "t0000", "could not convert"),
    ),
    ("a name with a line feed", in_record("trial_id", to="t0\n"), (r"trial_id: found 't0\n'",)),
    *(
        (f"no {name}", in_record(name, to=...), ("records.jsonl:1", f"{name}: missing"))
        for name in ("trial_id", "status", "seed", "config", "curve", "seconds", "device")
    ),
    *(
        (
            f"{name} of another type",
            in_record(name, to=value),
            ("records.jsonl:1", f"{name}: found {value!r}"),
        )
        for name, value in {
            "trial_id": 7,
            "status": ["ok"],
            "reason": 5,
            "seed": "3",
            "assignment": [1],
            "config": "full",
            "examples_seen": 40.5,
            "budget_examples": True,
            "curve": {"a": 1},
            "device": 0,
            "started_at": None,
            "seconds": "9",
            "traceback": ["a"],
            "objectives": [30.0],
            "quality": 30.0,
            "cost": "2 MB",
            "cross_domain": [],
            "data": "abc",
            "prerequisites": 1,
            "artifact": 1,
            "notes": "a",
            "starts": "1",
            "provenance": [],
        }.items()
    ),
    ("a report that is a number", in_record("curve", 0, to=3), ("curve[0]: found 3", "a mapping")),
    (
        "an objective of text",
        in_record("objectives", "em_percent", to="30"),
        ("objectives.em_percent: found",),
    ),
    (
        "an objective that is true",
        in_record("objectives", "em_percent", to=True),
        ("objectives.em_percent: found",),
    ),
]
IN_FRONT: list[tuple[str, Make, tuple[str, ...]]] = [
    ("no model", in_record("config", to={}), ("records.jsonl", "trial t0000", "'model'")),
    ("a model of text", in_record("config", "model", to="bert"), ("records.jsonl", "trial t0000")),
    ("a family that is a number", in_record("config", "model", "family", to=7), ("config.model.family", "7")),
    (
        "a checkpoint that is null",
        in_record("config", "model", "checkpoint", to=None),
        ("config.model.checkpoint",),
    ),
    ("methods that are a number", in_record("config", "methods", to=7), ("records.jsonl", "trial t0000")),
    ("evaluation data of text", in_record("data", "evaluation", to="abc"), ("records.jsonl", "trial t0000")),
    ("a hash that is a list", in_record("data", "evaluation", "data_hash", to=["a"]), ("data_hash", "['a']")),
    ("no hash", in_record("data", to={}), ("records.jsonl", "trial t0000", "evaluation data")),
    ("memory of text", in_record("cost", "inference_peak_bytes", to="2"), ("records.jsonl", "trial t0000")),
    ("a baseline of text", in_record("quality", "baseline_no_answer_em_percent", to="x"), ("trial t0000",)),
]
JOURNAL: list[tuple[str, Make, tuple[str, ...]]] = [
    ("none beside records", missing("journal.jsonl"), ("run", "no journal.jsonl")),
    ("a line that is cut", put("journal.jsonl", '{"event": "sta\n'), ("journal.jsonl:1", "not a JSON line")),
    ("bytes", put("journal.jsonl", b"\xff\n"), ("journal.jsonl:1", "utf-8")),
    ("a list", put("journal.jsonl", "[]\n"), ("journal.jsonl:1", "found list")),
    ("a pickle", put("journal.jsonl", b"\x80\x04}\n.\n"), ("journal.jsonl:1",)),
    ("no event", in_journal(1, "event", to=...), ("journal.jsonl:2", "misses 'event'")),
    (
        "an unknown event",
        in_journal(1, "event", to="propose"),
        ("journal.jsonl:2", "did you mean 'proposed'"),
    ),
    (
        "an event that is a list",
        in_journal(1, "event", to=["proposed"]),
        ("journal.jsonl:2", "unknown event"),
    ),
    ("an address that is a number", in_journal(0, "tracking_uri", to=7), ("journal.jsonl:1", "tracking_uri")),
    ("no parent run", in_journal(0, "parent_run_id", to=...), ("journal.jsonl:1", "misses 'parent_run_id'")),
    (
        "a trial above the folder",
        in_journal(1, "trial_id", to="../../x"),
        ("journal.jsonl:2", "'../../x'", "'t0000'"),
    ),
    ("a trial of an absolute name", in_journal(1, "trial_id", to="/tmp/x"), ("journal.jsonl:2", "'/tmp/x'")),
    ("a trial that is a number", in_journal(1, "trial_id", to=0), ("journal.jsonl:2", "trial_id", "found 0")),
    (
        "a trial that is left out",
        in_journal(1, "trial_id", to="t0007"),
        ("journal.jsonl:2", "'t0007'", "next one"),
    ),
    ("a trial that stands twice", in_journal(4, "trial_id", to="t0000"), ("journal.jsonl:5", "twice")),
    ("a start of no trial", in_journal(2, "trial_id", to="t0009"), ("journal.jsonl:3", "misses 't0009'")),
    ("a report of no trial", in_journal(3, "trial_id", to="t0009"), ("journal.jsonl:4", "misses 't0009'")),
    ("an assignment that is a list", in_journal(1, "assignment", to=[]), ("journal.jsonl:2", "assignment")),
    ("notes that are text", in_journal(1, "notes", to="a"), ("journal.jsonl:2", "notes: found 'a'")),
    (
        "a noted form whose name leads elsewhere",
        in_journal(4, "notes", to={"forms": [{"label": "../../x", "settings": {}}]}),
        ("journal.jsonl", "t0001", "notes.forms: label: found '../../x'"),
    ),
    (
        "a noted form of another setting",
        in_journal(4, "notes", to={"forms": [{"label": "x", "settings": {"seed": 1}}]}),
        ("journal.jsonl", "t0001", "notes.forms: settings: found 'seed'"),
    ),
    ("no recipe", in_journal(1, "recipe", to=...), ("journal.jsonl:2", "misses 'recipe'")),
    (
        "a recipe that is text",
        in_journal(1, "recipe", to="full"),
        ("journal.jsonl:2", "recipe: found 'full'"),
    ),
    (
        "a recipe of an unknown setting",
        in_journal(4, "recipe", "modl", to={}),
        ("journal.jsonl", "t0001", "'model'"),
    ),
    (
        "a recipe without a model",
        in_journal(4, "recipe", "model", to=...),
        ("journal.jsonl", "t0001", "model: missing"),
    ),
    (
        "a recipe of a wrong type",
        in_journal(4, "recipe", "seed", to="x"),
        ("trial t0001", "seed", "found 'x'"),
    ),
    ("a recipe out of range", in_journal(4, "recipe", "model", "dropout", to=2), ("t0001", "model.dropout")),
    ("progress that is a list", in_journal(3, "progress", to=[]), ("journal.jsonl:4", "progress: found []")),
    ("progress without examples", in_journal(3, "progress", "examples_seen", to=...), ("journal.jsonl:4",)),
    (
        "progress of text",
        in_journal(3, "progress", "examples_seen", to="9"),
        ("journal.jsonl:4", "found '9'"),
    ),
    ("progress without memory", in_journal(6, "progress", "memory_mb", to=...), ("t0001", "memory_mb")),
    (
        "progress of a wrong score",
        in_journal(6, "progress", "selection_em_percent", to="x"),
        ("t0001", "'x'"),
    ),
    (
        "a verdict of text",
        in_journal(3, "is_stopped", to="no"),
        ("journal.jsonl:4", "is_stopped: found 'no'"),
    ),
]
SETTINGS: list[tuple[str, Make, tuple[str, ...]]] = [
    ("none", missing("spec.json"), ("spec.json", "cannot be read")),
    ("an empty file", put("spec.json", ""), ("spec.json", "cannot be read")),
    ("bytes", put("spec.json", b"\xff\xfe"), ("spec.json", "cannot be read")),
    ("deep nesting", put("spec.json", "[" * 50_000), ("spec.json", "cannot be read")),
    ("a list", put("spec.json", "[]"), ("spec.json",)),
    ("an unknown setting", in_spec("sercher", to={}), ("spec.json", "did you mean 'searcher'")),
    ("no budget", in_spec("budget", to=...), ("spec.json", "budget: missing")),
    ("trials of text", in_spec("budget", "trials", to="x"), ("spec.json", "budget.trials", "'x'")),
    ("an unknown searcher", in_spec("searcher", "name", to="tpe"), ("spec.json", "unknown searcher 'tpe'")),
    (
        "an unknown objective",
        in_spec("objectives", 0, "name", to="em"),
        ("spec.json", "unknown objective 'em'"),
    ),
    ("an unknown family", in_spec("recipe", "model", "family", to="gpt"), ("spec.json", "'gpt'")),
    ("a name that leads out", in_spec("name", to="../x"), ("spec.json", "name", "'../x'")),
    ("a space of text", in_spec("space", to="x"), ("spec.json", "space", "'x'")),
]
ANSWERS = pa.schema(
    [
        ("question_id", pa.string()),
        ("answer", pa.string()),
        ("exact_match", pa.float64()),
        ("f1", pa.float64()),
    ]
)


def _answers(rows: list[dict[str, Any]], schema: pa.Schema = ANSWERS) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
    return buffer.getvalue()


ROW = {"question_id": "q0", "answer": "a", "exact_match": 1.0, "f1": 1.0}
GOOD_ANSWERS = _answers([ROW])
OTHER_TYPE = ANSWERS.set(2, pa.field("exact_match", pa.string()))
ANSWER_FILES: list[tuple[str, bytes | None, tuple[str, ...]]] = [
    ("none", None, ("cannot be read",)),
    ("an empty file", b"", ("cannot be read",)),
    ("a pickle", b"\x80\x04}\x94.", ("cannot be read",)),
    ("a cut file", GOOD_ANSWERS[:-30], ("cannot be read",)),
    ("damaged pages", GOOD_ANSWERS[:4] + b"\xff" * 60 + GOOD_ANSWERS[64:], ("cannot be read",)),
    ("other columns", _answers([{}], pa.schema([("id", pa.string())])), ("found columns ['id: string']",)),
    (
        "scores of text",
        _answers([{**ROW, "exact_match": "1"}], OTHER_TYPE),
        ("exact_match: string", "double"),
    ),
    (
        "a score that is missing",
        _answers([ROW, {**ROW, "question_id": "q1", "f1": None}]),
        ("row 1", "0 to 1"),
    ),
    ("a score above 1", _answers([{**ROW, "exact_match": 100.0}]), ("row 0", "0 to 1")),
    ("a score of NaN", _answers([{**ROW, "f1": float("nan")}]), ("row 0", "0 to 1")),
    ("a question that stands twice", _answers([ROW, ROW]), ("each once",)),
    ("a question without an id", _answers([{**ROW, "question_id": None}]), ("each once",)),
]


def _of(kind: str, command: tuple[str, ...], table: list[tuple[str, Make, tuple[str, ...]]]) -> list[Case]:
    return [Case(f"{kind}: {name}", command, make, says) for name, make, says in table]


def write_confirmed(folder: Path, answers: bytes | None, **changes: Any) -> None:
    """Write a sweep that has been confirmed with one seed, and these answers of the confirming trial."""
    write_run(folder)
    inner = folder / "run" / "confirm"
    trial = inner / "trials" / "t0000"
    trial.mkdir(parents=True)
    repeat = {**record(folder, "t0000"), "notes": {"confirms": "t0000"}, **changes}
    _write_lines(inner / "records.jsonl", [repeat])
    if answers is not None:
        (trial / "answers.parquet").write_bytes(answers)


CASES = [
    *_of("records", FRONT, LINES),
    *_of("front", FRONT, IN_FRONT),
    *_of("journal", RESUME, JOURNAL),
    *_of("settings", RESUME, SETTINGS),
    *_of("links", RESUME, LINKS),
    *_of("links of a sweep to confirm", CONFIRM, LINKS),
    *_of(
        "links of a front",
        FRONT,
        [
            ("records", _linked("records.jsonl"), ("records.jsonl", "a link that leads elsewhere")),
            ("settings", _linked("spec.json"), ("spec.json", "a link that leads elsewhere")),
        ],
    ),
    *_of("settings of a front", FRONT, SETTINGS[:5]),
    *_of(
        "settings of a front",
        FRONT,
        [
            ("no objectives", in_spec("objectives", to=[]), ("spec.json", "objectives", "at least one")),
            (
                "an objective twice",
                in_spec("objectives", 1, "name", to="em_percent"),
                ("spec.json", "each once"),
            ),
        ],
    ),
    *_of(
        "export",
        EXPORT,
        [
            (
                "an artifact above the folder",
                in_record("artifact", to="../good.json"),
                ("'../good.json'", "t0000"),
            ),
            ("an artifact elsewhere", in_record("artifact", to="/etc"), ("records.jsonl", "'/etc'")),
            (
                "no artifact",
                in_record("artifact", to=None),
                ("records.jsonl", "t0000", "where its artifact is"),
            ),
            (
                "an artifact that is not there",
                in_record("seed", to=0),
                ("trials/t0000/artifact", "is not there"),
            ),
        ],
    ),
    *_of(
        "confirm",
        CONFIRM,
        [
            ("no front", put("records.jsonl", ""), ("no front yet",)),
            (
                "a recipe without training",
                in_record("config", "train", to="x"),
                ("trial t0000", "train", "'x'"),
            ),
            (
                "a recipe of an unknown setting",
                in_record("config", "sed", to=1),
                ("t0000", "did you mean 'seed'"),
            ),
        ],
    ),
]
# The confirming sweep itself is not run again for these.
CONFIRMED = [
    *(
        Case(f"answers: {name}", CONFIRM, lambda folder, data=data: write_confirmed(folder, data), says)
        for name, data, says in ANSWER_FILES
    ),
    *(
        Case(
            f"confirmed: {name}",
            CONFIRM,
            lambda folder, values=values: write_confirmed(folder, GOOD_ANSWERS, **values),
            says,
        )
        for name, values, says in [
            ("no point", {"notes": {}}, ("confirm/records.jsonl", "notes", "None")),
            ("a point of a list", {"notes": {"confirms": ["t0"]}}, ("notes", "['t0']")),
            ("no score", {"quality": {}}, ("quality", "None")),
            ("a score of text", {"quality": {"em_percent": "3"}}, ("quality", "'3'")),
            ("no memory", {"cost": {}}, ("cost", "None")),
        ]
    ),
]
