"""Windows: exact small cases, agreement with the transformers library on real questions, and the cache."""

import dataclasses
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from transformers import PreTrainedTokenizerFast

from qa_core.data import windows
from qa_core.data.layout import WindowLayout
from qa_core.data.squad import QaTable, load_table, read_squad
from qa_core.data.tokenizers import load_tokenizer, trained_tokenizer
from qa_core.data.windows import WindowLengths, WindowSet, build_windows
from qa_core.errors import ConfigError, StorageError

BERT = WindowLayout(prefix=(2,), middle=(3,), suffix=(3,), null_at="first")
CONTEXT_FIRST = WindowLayout(prefix=(), middle=(3,), suffix=(2,), null_at="last", question_first=False)


@pytest.fixture
def tokenizer(table: QaTable, tmp_path: Path) -> PreTrainedTokenizerFast:
    """One token for each word and mark, so that windows can be counted by hand."""
    return trained_tokenizer("word", table, vocab_size=100, cache_dir=tmp_path)


@pytest.fixture
def build(table: QaTable, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Any:
    def build_small(layout: WindowLayout = BERT, *, rows: QaTable = table, **lengths: int) -> WindowSet:
        chosen = {"max_length": 32, "stride": 2, "max_question_length": 10, **lengths}
        return build_windows(rows, tokenizer, layout, lengths=WindowLengths(**chosen), cache_dir=tmp_path)

    return build_small


def words(tokenizer: PreTrainedTokenizerFast, found: WindowSet, window: int) -> str:
    span = slice(found.token_starts[window], found.token_starts[window + 1])
    return " ".join(tokenizer.convert_ids_to_tokens(found.token_ids[span].tolist()))


def test_a_question_whose_paragraph_fits_is_one_window(
    build: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    found = build()
    assert len(found) == 6
    assert found.question_index.tolist() == [0, 1, 2, 3, 4, 5]
    assert (
        words(tokenizer, found, 4)
        == "[CLS] how long does rye bread keep ? [SEP] rye bread keeps for a week . [SEP]"
    )
    assert found.lengths[4] == 17
    assert found.segments[found.token_starts[4] : found.token_starts[5]].tolist() == [0] * 9 + [1] * 8
    starts, ends = found.offsets(4)
    assert starts.tolist() == [-1] * 9 + [0, 4, 10, 16, 20, 22, 26] + [-1]
    assert ends.tolist() == [-1] * 9 + [3, 9, 15, 19, 21, 26, 27] + [-1]


def test_labels_point_at_the_first_gold_answer_or_at_the_null_position(build: Any) -> None:
    found = build()
    assert found.null_positions.tolist() == [0] * 6
    assert found.has_answer.tolist() == [True, True, True, False, True, False]
    # r1: "the Odra Hills" is word 5 to 7 of its paragraph, behind 8 tokens; b1: "a week" is word 5 and 6.
    assert found.start_positions.tolist() == [8 + 4, 8 + 9, 7, 0, 9 + 4, 0]
    assert found.end_positions.tolist() == [8 + 6, 8 + 10, 8, 0, 9 + 5, 0]


def test_a_long_paragraph_is_cut_into_chunks_that_overlap_by_the_stride(
    build: Any, table: QaTable, tokenizer: PreTrainedTokenizerFast
) -> None:
    # 7 question tokens and 3 of the layout leave 4 of 14 for the paragraph's 7 words: chunks at 0, 2 and 4.
    found = build(rows=table.take([4]), max_length=14, max_question_length=8)
    texts = [words(tokenizer, found, window).split("[SEP]")[1].strip() for window in range(len(found))]
    assert texts == ["rye bread keeps for", "keeps for a week", "a week ."]
    assert found.has_answer.tolist() == [False, True, True]
    assert found.start_positions.tolist() == [0, 9 + 2, 9]
    assert found.end_positions.tolist() == [0, 9 + 3, 9 + 1]


@pytest.mark.parametrize(
    ("max_length", "chunks"),
    [(17, ["rye bread keeps for a week ."]), (16, ["rye bread keeps for a week", "a week ."])],
)
def test_a_paragraph_that_just_fits_is_not_cut(
    build: Any, table: QaTable, tokenizer: PreTrainedTokenizerFast, max_length: int, chunks: list[str]
) -> None:
    found = build(rows=table.take([4]), max_length=max_length, max_question_length=8)
    assert [
        words(tokenizer, found, window).split("[SEP]")[1].strip() for window in range(len(found))
    ] == chunks


def test_a_long_question_is_cut_and_its_leading_space_is_ignored(
    build: Any, table: QaTable, tokenizer: PreTrainedTokenizerFast
) -> None:
    found = build(rows=table.take([4]), max_question_length=3)
    assert words(tokenizer, found, 0).startswith("[CLS] how long does [SEP] rye")


def test_the_paragraph_can_come_first(build: Any, table: QaTable, tokenizer: PreTrainedTokenizerFast) -> None:
    found = build(CONTEXT_FIRST, rows=table.take([4]), max_length=14, max_question_length=8)
    assert words(tokenizer, found, 1) == "for a week . [SEP] how long does rye bread keep ? [CLS]"
    assert found.null_positions.tolist() == [13, 12]
    assert found.start_positions.tolist() == [13, 1]
    assert found.end_positions.tolist() == [13, 2]
    second = slice(found.token_starts[1], found.token_starts[2])
    assert found.segments[second].tolist() == [1] * 4 + [0] * 9
    assert found.char_starts[second].tolist() == [16, 20, 22, 26] + [-1] * 9


def test_a_generating_layout_has_targets_and_the_others_have_none(
    build: Any, table: QaTable, tokenizer: PreTrainedTokenizerFast
) -> None:
    layout = dataclasses.replace(BERT, null_text="not the week", target_end=(2,))
    found = build(layout, rows=table.take([4, 5]), max_length=15, max_question_length=8)
    texts = [
        " ".join(tokenizer.convert_ids_to_tokens(found.target_ids[start:end].tolist()))
        for start, end in zip(found.target_starts[:-1], found.target_starts[1:], strict=True)
    ]
    assert found.question_index.tolist() == [0, 0, 1]
    assert texts == ["[UNK] the week [CLS]", "a week [CLS]", "[UNK] the week [CLS]"]
    assert len(build().target_ids) == 0
    assert build().target_starts.tolist() == [0] * 7


def test_a_leading_space_of_the_null_text_is_put_before_answers_too(table: QaTable, tmp_path: Path) -> None:
    tokenizer = trained_tokenizer("bytes", table, vocab_size=300, cache_dir=tmp_path)
    lengths = WindowLengths(200, 10, 50)
    for space in ("", " "):
        layout = WindowLayout((), (0,), (0,), "last", null_text=f"{space}none", target_end=(0,))
        found = build_windows(table, tokenizer, layout, lengths=lengths, cache_dir=tmp_path)
        first, fourth = (
            found.target_ids[found.target_starts[i] : found.target_starts[i + 1]] for i in (0, 3)
        )
        assert tokenizer.decode(first) == f"{space}the Odra Hills<|endoftext|>"
        assert tokenizer.decode(fourth) == f"{space}none<|endoftext|>"


def test_a_paragraph_without_tokens_is_a_window_without_context(
    tokenizer: Any, build: Any, document: dict
) -> None:
    paragraph = document["data"][1]["paragraphs"][1]
    paragraph["context"], paragraph["qas"] = "\u200b", paragraph["qas"][1:]
    tokenizer.backend_tokenizer.normalizer = load_normalizer()
    found = build(rows=read_squad(document, "small").take([4]))
    assert found.lengths.tolist() == [9 - 1]
    assert (found.char_starts == -1).all()


def load_normalizer() -> Any:
    from tokenizers import normalizers

    return normalizers.BertNormalizer(lowercase=True)  # drops control and zero-width characters


def test_lengths_without_room_for_the_paragraph_are_refused(build: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"data\.max_length: found 15, which after 10 question tokens and 3 tokens"
    ):
        build(max_length=15)
    build(max_length=16)


def hf_windows(
    tokenizer: PreTrainedTokenizerFast, table: QaTable, lengths: WindowLengths
) -> Iterator[tuple[int, list[int], list[tuple[int, int]]]]:
    """Yield (question, token ids, trimmed context offsets) of each window of the transformers library."""
    for question, example in enumerate(table.examples()):
        encoded = tokenizer(
            example.question.lstrip(),
            example.context,
            truncation="only_second",
            max_length=lengths.max_length,
            stride=lengths.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_token_type_ids=True,
        )
        for window, ids in enumerate(encoded["input_ids"]):
            offsets = []
            for side, (start, end) in zip(
                encoded.sequence_ids(window), encoded["offset_mapping"][window], strict=True
            ):
                if side != 1:
                    offsets.append((-1, -1))
                    continue
                while start < end and _is_invisible(example.context[start]):
                    start += 1
                while end > start and _is_invisible(example.context[end - 1]):
                    end -= 1
                offsets.append((start, end))
            yield question, ids, offsets


def _is_invisible(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) == "Cf"


@pytest.mark.parametrize(
    ("name", "middle", "ends"),
    [
        ("bert-base-uncased-vocab.txt", "[SEP]", ("[CLS]", "[SEP]")),
        ("t5-tokenizer.json", "</s>", (None, "</s>")),
        ("gpt-neox-20b-tokenizer.json", None, (None, None)),
    ],
)
def test_windows_are_those_of_the_transformers_library_token_by_token(
    shared: Path,
    many: QaTable,
    tmp_path: Path,
    name: str,
    middle: str | None,
    ends: tuple[str | None, str | None],
) -> None:
    tokenizer = load_tokenizer(str(shared / "vocab" / name))

    def ids(token: str | None) -> tuple[int, ...]:
        return () if token is None else (tokenizer.convert_tokens_to_ids(token),)

    if name.startswith("t5"):
        from tokenizers import processors

        pair = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", ids("</s>")[0])])
        tokenizer.backend_tokenizer.post_processor = pair
    layout = WindowLayout(ids(ends[0]), ids(middle), ids(ends[1]), "first")
    lengths = WindowLengths(max_length=128, stride=40, max_question_length=60)
    found = build_windows(many, tokenizer, layout, lengths=lengths, cache_dir=tmp_path)
    expected = list(hf_windows(tokenizer, many, lengths))
    assert len(found) == len(expected) > 600
    for window, (question, token_ids, offsets) in enumerate(expected):
        span = slice(found.token_starts[window], found.token_starts[window + 1])
        assert found.question_index[window] == question
        assert found.token_ids[span].tolist() == token_ids
        assert list(zip(*(part.tolist() for part in found.offsets(window)), strict=True)) == offsets


@pytest.mark.facts
@pytest.mark.parametrize(("max_length", "stride", "expected"), [(384, 128, 10784), (256, 64, 11899)])
@pytest.mark.long
def test_squad_dev_has_the_published_number_of_windows(
    shared: Path, tmp_path: Path, max_length: int, stride: int, expected: int
) -> None:
    tokenizer = load_tokenizer(str(shared / "vocab" / "bert-base-uncased-vocab.txt"))
    table = load_table(str(shared / "data" / "squad" / "dev-v1.1.json.gz"), split="dev")
    layout = WindowLayout((101,), (102,), (102,), "first")
    lengths = WindowLengths(max_length, stride, 64)
    assert len(build_windows(table, tokenizer, layout, lengths=lengths, cache_dir=tmp_path)) == expected


def test_the_second_call_maps_the_file_and_tokenises_nothing(
    build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build()
    monkeypatch.setattr(windows, "encode_table", lambda *a, **k: pytest.fail("tokenised again"))
    before = pa.total_allocated_bytes()
    second = build()
    assert pa.total_allocated_bytes() - before < 10_000
    for name in ("token_ids", "token_starts", "char_ends", "end_positions", "has_answer"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_each_text_is_tokenised_once(build: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    seen: list[str] = []
    call = type(tokenizer).__call__

    class Counting(type(tokenizer)):
        def __call__(self, texts: list[str], **options: Any) -> Any:
            seen.extend(texts)
            return call(self, texts, **options)

    tokenizer.__class__ = Counting
    build()
    assert len(seen) == len(set(seen)) == 3 + 6


def test_whatever_changes_the_windows_gets_its_own_file(build: Any, table: QaTable, tmp_path: Path) -> None:
    build()
    build(CONTEXT_FIRST)
    build(stride=3)
    build(rows=table.take([0, 1]))
    build()
    assert len(list((tmp_path / "windows").glob("*.arrow"))) == 4


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign", "other"])
def test_a_damaged_file_is_built_again(build: Any, tmp_path: Path, damage: str) -> None:
    expected = build().token_ids.tolist()
    (file,) = (tmp_path / "windows").glob("*.arrow")
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        place = content.find(np.array(expected, np.int32).tobytes())
        content[place] ^= 1
    build(CONTEXT_FIRST)
    (other,) = set((tmp_path / "windows").glob("*.arrow")) - {file}
    replaced = {
        "empty": b"",
        "cut": content[:-100],
        "flipped": content,
        "foreign": b"ARROW1\0\0" * 50,
        "other": other.read_bytes(),
    }
    file.write_bytes(replaced[damage])
    assert build().token_ids.tolist() == expected


def test_no_space_for_the_cache_is_reported_with_its_folder(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qa_core.files.os.fsync", fsync)
    with pytest.raises(
        StorageError, match=r"cache folder .*windows: cannot be written: No space left on device"
    ):
        build()
    assert not [path for path in (tmp_path / "windows").iterdir() if path.suffix != ".lock"]
