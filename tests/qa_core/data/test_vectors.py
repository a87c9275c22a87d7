"""Files of word vectors: both formats, what is refused and where, and the table that all trials share."""

import gzip
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qa_core.data import vectors
from qa_core.data.vectors import open_vectors
from qa_core.errors import DataError

GLOVE = "the 0.5 -1 2e-3\n, 4 5 6\n. . . 7 8 9\n 10 11 12\ncafé 13 14 15\nthe 0 0 0\n"
WORDS = ["café", "absent", "the", "", ". . .", ","]
FOUND = {0: [13, 14, 15], 2: [0.5, -1, 0.002], 3: [10, 11, 12], 4: [7, 8, 9], 5: [4, 5, 6]}


def _file(folder: Path, content: str | bytes, name: str = "v.txt") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _check_found(path: Path, cache_dir: Path) -> None:
    found = open_vectors(path, cache_dir=cache_dir).find(WORDS)
    assert found.places.tolist() == list(FOUND)
    assert found.vectors.dtype == np.float32
    np.testing.assert_allclose(found.vectors, np.array(list(FOUND.values())), rtol=1e-6)


def test_glove_lines_are_read_with_words_that_hold_spaces_or_nothing_and_repeats_are_ignored(
    tmp_path: Path,
) -> None:
    _check_found(_file(tmp_path, GLOVE), tmp_path)
    table = open_vectors(_file(tmp_path, GLOVE), cache_dir=tmp_path)
    assert len(table) == 6
    assert table.size == 3


def test_fasttext_files_begin_with_their_counts_and_end_their_lines_with_a_space(tmp_path: Path) -> None:
    lines = GLOVE.splitlines()
    text = "".join(f"{line} \r\n" for line in ["6 3", *lines])
    _check_found(_file(tmp_path, text), tmp_path)


def test_a_gzipped_file_is_the_same(tmp_path: Path) -> None:
    _check_found(_file(tmp_path, gzip.compress(GLOVE.encode()), "v.txt.gz"), tmp_path)


def test_tables_of_many_batches_are_searched_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "LINES_AT_ONCE", 2)
    _check_found(_file(tmp_path, GLOVE), tmp_path)
    table = open_vectors(_file(tmp_path, GLOVE), cache_dir=tmp_path)
    assert [batch.num_rows for batch in table.batches] == [2, 2, 2]


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    words = ["a\u2028b", "c\u00a0d", "e\u0085f", "g\x0bh"]
    path = _file(tmp_path, "".join(f"{word} {index} 1\n" for index, word in enumerate(words)))
    found = open_vectors(path, cache_dir=tmp_path).find(words)
    assert found.vectors[:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "the 1 2 3\nof 1 2\n",
            r"v\.txt:2: found 2 numbers after the word; allowed: a word and 3 finite numbers",
        ),
        ("the 1 2 3\nof 1 2 3 4\n", r"v\.txt:2: found more than 3 numbers; allowed: a word and 3"),
        ("the 1 2 3\n\nof 1 2 3\n", r"v\.txt:2: found 0 numbers after the word"),
        ("the 1 2 3\nof 1 x 3\n", r"v\.txt:2: found 'x'; allowed: a word and 3 finite numbers"),
        ("the 1 2 3\nof 1 nan 3\n", r"v\.txt:2: found 'nan'"),
        ("the 1 2 3\nof 1 1e39 3\n", r"v\.txt:2: found '1e39'"),
        ("the 1  3\n", r"v\.txt:1: found ''"),
        ("<html>\n", r"v\.txt:1: found 0 numbers after the word; allowed: a word and some finite numbers"),
        ("", r"v\.txt: found an empty file"),
        ("3 2\nthe 1 2\nof 3 4\n", r"v\.txt: found 2 words; allowed: 3, as its first line says"),
        ("2 3\nthe 1 2\nof 3 4\n", r"v\.txt:2: found 2 numbers.*a word and 3"),
    ],
)
def test_a_malformed_file_is_refused_with_line_finding_and_rule_and_leaves_no_table(
    tmp_path: Path, content: str, message: str
) -> None:
    path = _file(tmp_path, content)
    with pytest.raises(DataError, match=message):
        open_vectors(path, cache_dir=tmp_path / "cache")
    assert [item.suffix for item in (tmp_path / "cache" / "vectors").iterdir()] == [".lock"]


def test_a_fault_far_down_is_found_at_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "LINES_AT_ONCE", 4)
    path = _file(tmp_path, "".join(f"w{index} {index} 1\n" for index in range(10)) + "last 1\n")
    with pytest.raises(DataError, match=r"v\.txt:11: found 1 numbers"):
        open_vectors(path, cache_dir=tmp_path)


def test_a_damaged_archive_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    packed = gzip.compress(GLOVE.encode())
    for name, content in (("cut.gz", packed[:-12]), ("text.gz", b"no archive")):
        with pytest.raises(DataError, match=rf"{name}: cannot be read"):
            open_vectors(_file(tmp_path, content, name), cache_dir=tmp_path)
    with pytest.raises(DataError, match=r"gone\.txt: cannot be read: No such file"):
        open_vectors(tmp_path / "gone.txt", cache_dir=tmp_path)


def test_the_table_is_made_once_for_each_content_and_again_when_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first = open_vectors(_file(tmp_path, GLOVE), cache_dir=cache)
    made = sorted((cache / "vectors").glob("*.arrow"))
    parse = vectors._parse
    monkeypatch.setattr(vectors, "_parse", lambda path: pytest.fail("parsed a second time"))
    again = open_vectors(_file(tmp_path, GLOVE, "copy.txt"), cache_dir=cache)
    assert again.sha256 == first.sha256
    monkeypatch.setattr(vectors, "_parse", parse)
    made[0].write_bytes(made[0].read_bytes()[:-9])
    _check_found(_file(tmp_path, GLOVE), cache)
    open_vectors(_file(tmp_path, GLOVE + "new 1 2 3\n"), cache_dir=cache)
    assert len(sorted((cache / "vectors").glob("*.arrow"))) == len(made) + 1 == 2


def _open(path: Path, cache: Path, queue: Any) -> None:
    queue.put(open_vectors(path, cache_dir=cache).find(["the"]).vectors.tolist())


def test_processes_that_come_at_once_share_one_table(tmp_path: Path) -> None:
    path = _file(tmp_path, GLOVE)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_open, args=(path, tmp_path, queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    answers = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert answers == [[[0.5, -1.0, pytest.approx(0.002)]]] * 3
    assert len(list((tmp_path / "vectors").glob("*.arrow"))) == 1


def test_the_vectors_are_mapped_not_copied(tmp_path: Path) -> None:
    table = open_vectors(_file(tmp_path, GLOVE), cache_dir=tmp_path)
    values = table.batches[0].column("vector").values.to_numpy()
    assert not values.flags.owndata
    assert not values.flags.writeable


def test_the_real_file_is_read_whole(shared: Path, tmp_path: Path) -> None:
    table = open_vectors(shared / "data" / "vectors" / "glove-300d-600-words.txt.gz", cache_dir=tmp_path)
    assert (len(table), table.size) == (600, 300)
    found = table.find(["the", "qzx", "of"])
    assert found.places.tolist() == [0, 2]
    assert np.isfinite(found.vectors).all()
    assert table.sha256 == "871f773cb3600f58c5dcdfe8332083e1cf8d64e54440273721ca4b2941a0153b"
