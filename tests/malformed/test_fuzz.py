"""Valid inputs, damaged at random with a seed: each is taken as valid or refused by name, and nothing else happens.

The command line is called as a user would; an exception that it lets through fails the test and names the seed. What it
would write is there whole when the input was taken, and absent when it was refused.
"""

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from qa_core.errors import CheckpointError
from qa_core.training import checkpoint
from qa_core.training.checkpoint import TrainState
from sweeps import cli
from tests.malformed.artifact_cases import MARKER, PREDICT, rehash
from tests.malformed.cases import (
    GOOD_PREDICTIONS,
    GOOD_SQUAD,
    OUT,
    REFUSED,
    TINY_SWEEP,
    TRAIN_SQUAD,
    tree,
    write_good,
)
from tests.malformed.checkpoint_cases import FILES, network
from tests.malformed.mutation import as_json, damaged_bytes, damaged_json
from tests.malformed.parquet_cases import ROW, table_bytes
from tests.malformed.run_cases import journal_lines, record, write_run

Make = Callable[[Path, random.Random], None]
QUICK, THOROUGH = 25, 1000  # inputs of each kind: by default, and under the marker `slow`
# Of another paragraph and article: data of one paragraph cannot be split.
SECOND_ROW = {
    "id": "q9",
    "title": "Towns",
    "context": ROW["context"].replace("mill", "town"),
    "question": "Who?",
}
PLAN = ("plan", "--config", "bad.yaml")
VALIDATE = ("validate", "--config", "tiny.yaml", "--eval-data", "good.json", "--data")


def squad_bytes(folder: Path, rng: random.Random) -> None:
    (folder / "bad.json").write_bytes(damaged_bytes(as_json(TRAIN_SQUAD), rng))


def squad_json(folder: Path, rng: random.Random) -> None:
    (folder / "bad.json").write_bytes(as_json(damaged_json(TRAIN_SQUAD, rng)))


def scored_json(folder: Path, rng: random.Random) -> None:
    (folder / "bad.json").write_bytes(as_json(damaged_json(GOOD_SQUAD, rng)))


def parquet(folder: Path, rng: random.Random) -> None:
    rows = table_bytes(**{name: [value, SECOND_ROW.get(name, value)] for name, value in ROW.items()})
    (folder / "bad.parquet").write_bytes(damaged_bytes(rows, rng))


def csv_bytes(folder: Path, rng: random.Random) -> None:
    (folder / "bad.csv").write_bytes(damaged_bytes(as_csv(), rng))


def json_lines(folder: Path, rng: random.Random) -> None:
    rows = damaged_json(as_rows(), rng)
    lines = b"".join(as_json(row) + b"\n" for row in rows) if isinstance(rows, list) else as_json(rows)
    (folder / "bad.jsonl").write_bytes(lines)


def as_rows() -> list[dict[str, object]]:
    """Return the questions of `TRAIN_SQUAD` with their answers as text alone."""
    return [
        {
            "id": item["id"],
            "context": paragraph["context"],
            "question": item["question"],
            "answer": item["answers"][0]["text"] if item["answers"] else "",
        }
        for article in TRAIN_SQUAD["data"]
        for paragraph in article["paragraphs"]
        for item in paragraph["qas"]
    ]


def as_csv() -> bytes:
    lines = [",".join(as_rows()[0]), *(",".join(f'"{cell}"' for cell in row.values()) for row in as_rows())]
    return "\r\n".join(lines).encode()


def predictions(folder: Path, rng: random.Random) -> None:
    (folder / "bad.json").write_bytes(as_json(damaged_json(GOOD_PREDICTIONS, rng)))


def sweep_bytes(folder: Path, rng: random.Random) -> None:
    (folder / "bad.yaml").write_bytes(damaged_bytes(TINY_SWEEP.encode(), rng))


def sweep_values(folder: Path, rng: random.Random) -> None:
    # JSON is YAML.
    (folder / "bad.yaml").write_bytes(as_json(damaged_json(yaml.safe_load(TINY_SWEEP), rng)))


def record_values(folder: Path, rng: random.Random) -> None:
    write_run(folder)
    records = [damaged_json(record(folder, "t0000"), rng), record(folder, "t0001")]
    (folder / "run" / "records.jsonl").write_bytes(b"".join(as_json(item) + b"\n" for item in records))


def record_bytes(folder: Path, rng: random.Random) -> None:
    write_run(folder)
    path = folder / "run" / "records.jsonl"
    path.write_bytes(damaged_bytes(path.read_bytes(), rng))


def settings(folder: Path, rng: random.Random) -> None:
    write_run(folder)
    path = folder / "run" / "spec.json"
    path.write_bytes(as_json(damaged_json(json.loads(path.read_text()), rng)))


KINDS: list[tuple[Make, tuple[str, ...], str | None]] = [
    (squad_bytes, (*VALIDATE, "bad.json"), None),
    (squad_json, (*VALIDATE, "bad.json"), None),
    (scored_json, ("score", "bad.json", "predictions.json"), None),
    (parquet, (*VALIDATE, "bad.parquet"), None),
    (csv_bytes, (*VALIDATE, "bad.csv"), None),
    (json_lines, (*VALIDATE, "bad.jsonl"), None),
    (predictions, ("score", "good.json", "bad.json"), None),
    (predictions, ("score", "good.json", "predictions.json", "--na-prob", "bad.json"), None),
    (sweep_bytes, PLAN, None),
    (sweep_values, PLAN, None),
    (record_values, ("front", "run", "--csv", OUT), OUT),
    (record_bytes, ("front", "run", "--csv", OUT), OUT),
    (settings, ("front", "run", "--csv", OUT), OUT),
]


def seeds(count: int) -> list[object]:
    """Return the numbers of the first seeds that the two sizes of this test walk through."""
    return [pytest.param(0, QUICK), pytest.param(QUICK, count, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("first", "count"), seeds(THOROUGH))
@pytest.mark.parametrize(
    ("make", "command", "output"), KINDS, ids=[f"{make.__name__}-{line[0]}" for make, line, _ in KINDS]
)
def test_damaged_input_is_taken_or_refused_and_nothing_else(
    make: Make,
    command: tuple[str, ...],
    output: str | None,
    first: int,
    count: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ends: Counter[int] = Counter()
    for seed in range(first, first + count):
        folder = tmp_path / str(seed)
        folder.mkdir()
        monkeypatch.chdir(folder)
        write_good(folder)
        make(folder, random.Random(f"{make.__name__} {seed}"))
        ends[_end(command, folder, output, capsys, seed)] += 1
        shutil.rmtree(folder)
    assert set(ends) <= {0, REFUSED}
    assert ends[REFUSED] >= count // 5, ends  # most damage is seen


def _end(
    command: tuple[str, ...],
    folder: Path,
    output: str | None,
    capsys: pytest.CaptureFixture[str],
    seed: int,
) -> int:
    before = tree(folder)
    capsys.readouterr()
    try:
        code = cli.main(list(command))
    except BaseException as error:
        raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
    err = capsys.readouterr().err
    after = tree(folder)
    if code == REFUSED:
        assert err.startswith("error: "), (seed, err)
        assert "Traceback" not in err, (seed, err)
        assert after == before, seed
    elif output is not None:
        assert after.keys() - before.keys() == {output}, seed
    return code


@pytest.mark.parametrize(("first", "count"), seeds(THOROUGH // 4))
def test_a_damaged_journal_is_taken_whole_or_refused_by_line(
    first: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qa_core.errors import ConfigError, DataError
    from sweeps.commands.run import _check_past
    from sweeps.run_folder import journal
    from sweeps.spec.load import stored_spec

    messages = []
    write_run(tmp_path)
    run, spec = tmp_path / "run", stored_spec(tmp_path / "run")
    for seed in range(first, first + count):
        rng = random.Random(f"journal {seed}")
        lines = journal_lines(tmp_path)
        number = rng.randrange(len(lines))
        lines[number] = damaged_json(lines[number], rng)
        (run / "journal.jsonl").write_bytes(b"".join(as_json(line) + b"\n" for line in lines))
        try:
            _check_past(spec, journal.read(run), run)
        except (ConfigError, DataError) as error:
            messages.append(str(error))
    assert len(messages) >= count // 5
    assert [message for message in messages if not message.startswith(str(run))] == []


@pytest.mark.parametrize(("first", "count"), seeds(THOROUGH // 4))
def test_a_damaged_artifact_answers_or_is_refused(
    first: int,
    count: int,
    whole_artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ends: Counter[int] = Counter()
    for seed in range(first, first + count):
        rng = random.Random(f"artifact {seed}")
        folder = tmp_path / str(seed)
        folder.mkdir()
        monkeypatch.chdir(folder)
        write_good(folder)
        shutil.copytree(whole_artifact, folder / "bad")
        path = rng.choice(sorted((folder / "bad").iterdir()))
        if path.suffix == ".json":
            path.write_bytes(as_json(damaged_json(json.loads(path.read_text()), rng)))
        else:  # of the weights the header: what stands behind it are numbers, each as good as any other
            data = path.read_bytes()
            path.write_bytes(damaged_bytes(data[:2000], rng) + data[2000:])
        if path.name != "manifest.json":
            rehash(folder / "bad")
        ends[_end(PREDICT, folder, OUT, capsys, seed)] += 1
        assert not (folder / MARKER).exists()
        shutil.rmtree(folder)
    assert set(ends) <= {0, REFUSED}
    assert ends[REFUSED] >= count // 5, ends


@pytest.mark.parametrize(("first", "count"), seeds(THOROUGH))
def test_a_damaged_checkpoint_is_restored_or_refused(first: int, count: int, tmp_path: Path) -> None:
    messages = []
    whole = tmp_path / "whole"
    checkpoint.save(whole, *network(), TrainState(examples_seen=8))
    for seed in range(first, first + count):
        rng = random.Random(f"checkpoint {seed}")
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        path = folder / rng.choice(FILES)
        if path.suffix == ".json" and rng.random() < 0.8:
            path.write_bytes(as_json(damaged_json(json.loads(path.read_text()), rng)))
        else:
            path.write_bytes(damaged_bytes(path.read_bytes(), rng))
        try:
            checkpoint.restore(folder, *network())
        except CheckpointError as error:
            messages.append(str(error))
    assert len(messages) >= count // 5
    assert [message for message in messages if not message.startswith(f"{tmp_path / 'damaged'}: ")] == []
