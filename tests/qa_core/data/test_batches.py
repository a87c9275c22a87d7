"""Which windows go together, and the tensors made of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_core.data.batches import (
    DISTINCT_LENGTHS,
    collate,
    plan_inference_batches,
    plan_training_batches,
    round_up,
)
from qa_core.data.layout import WindowLayout
from qa_core.data.squad import QaTable
from qa_core.data.tokenizers import trained_tokenizer
from qa_core.data.windows import WindowLengths, WindowSet, build_windows

PAD = 77
LENGTHS = st.lists(st.integers(1, 384), min_size=0, max_size=300).map(np.array)


def same(one: list, other: list) -> bool:
    flat_one, flat_other = ([micro.tolist() for step in plan for micro in step] for plan in (one, other))
    return flat_one == flat_other


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 40), st.integers(1, 2000), st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_holds_every_window_once_within_the_limits(
    lengths: np.ndarray, batch_size: int, micro_batch_tokens: int, seed: int, epoch: int
) -> None:
    plan = plan_training_batches(
        lengths, batch_size=batch_size, micro_batch_tokens=micro_batch_tokens, seed=seed, epoch=epoch
    )
    assert sorted(index for step in plan for micro in step for index in micro) == list(range(len(lengths)))
    sizes = sorted(sum(len(micro) for micro in step) for step in plan)
    assert len(plan) == -(-len(lengths) // batch_size)
    assert sizes[1:] == [batch_size] * (len(plan) - 1)
    for step in plan:
        for micro in step:
            assert len(micro) == 1 or len(micro) * lengths[micro].max() <= micro_batch_tokens


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 5000))
def test_inference_batches_hold_every_window_once_longest_first(
    lengths: np.ndarray, batch_tokens: int
) -> None:
    plan = plan_inference_batches(lengths, batch_tokens)
    order = [int(index) for batch in plan for index in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[index] for index in order] == sorted(lengths.tolist(), reverse=True)
    for batch in plan:
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= batch_tokens


def test_inference_batches_are_as_full_as_the_limit_allows() -> None:
    plan = plan_inference_batches(np.array([50, 90, 20, 40, 30]), 2 * 56)  # 50 tokens are padded to 56
    assert [batch.tolist() for batch in plan] == [[1], [0, 3], [4, 2]]


def test_similar_lengths_go_together_and_padding_stays_small() -> None:
    lengths = np.random.default_rng(0).gamma(6, 29, size=20_000).astype(int).clip(20, 384)
    plan = plan_training_batches(lengths, batch_size=16, micro_batch_tokens=16384, seed=0, epoch=0)
    rounded = round_up(lengths, 384)
    padded = sum(len(micro) * rounded[micro].max() for step in plan for micro in step)
    assert padded / lengths.sum() < 1.12
    means = [np.mean([lengths[micro].mean() for micro in step]) for step in plan[:200]]
    assert np.corrcoef(means, range(200))[0, 1] == pytest.approx(0, abs=0.2)  # lengths come in no order


def test_the_order_follows_seed_and_epoch() -> None:
    lengths = np.arange(10, 110)

    def plan(seed: int, epoch: int) -> list:
        return plan_training_batches(lengths, batch_size=8, micro_batch_tokens=999, seed=seed, epoch=epoch)

    assert same(plan(1, 0), plan(1, 0))
    assert not same(plan(1, 0), plan(1, 1))
    assert not same(plan(1, 0), plan(2, 0))


def small_windows(table: QaTable, folder: Path, layout: WindowLayout) -> WindowSet:
    tokenizer = trained_tokenizer("word", table, vocab_size=100, cache_dir=folder)
    lengths = WindowLengths(max_length=19, stride=2, max_question_length=8)
    return build_windows(table, tokenizer, layout, lengths=lengths, cache_dir=folder)


def padded(rows: list[list[int]], fill: int) -> list[list[int]]:
    longest = max(map(len, rows))
    return [row + [fill] * (longest - len(row)) for row in rows]


@pytest.mark.parametrize(
    ("longest", "lengths", "expected"),
    [
        (128, [1, 8, 9, 127, 128], [8, 8, 16, 128, 128]),
        (384, [1, 33, 352, 353], [32, 64, 352, 384]),
        (300, [1, 290, 300], [32, 300, 300]),  # never past the longest: a model may have no more positions
        (19, [3, 17], [8, 19]),
    ],
)
def test_lengths_are_rounded_up_to_few_distinct_ones(
    longest: int, lengths: list[int], expected: list[int]
) -> None:
    assert round_up(np.array(lengths), longest).tolist() == expected
    every = round_up(np.arange(1, longest + 1), longest)
    assert len(set(every.tolist())) <= DISTINCT_LENGTHS
    assert (every >= np.arange(1, longest + 1)).all()


@pytest.mark.parametrize("null_at", ["first", "last"])
@pytest.mark.parametrize("question_first", [True, False])
def test_a_batch_holds_the_windows_padded_to_the_longest_of_them(
    table: QaTable, tmp_path: Path, null_at: str, question_first: bool
) -> None:
    layout = WindowLayout((2,), (3,), (3,), null_at, question_first, null_text="none", target_end=(2,))
    windows = small_windows(table, tmp_path, layout)
    chosen = [5, 0, 6]
    batch = collate(windows, np.array(chosen), PAD)
    tokens = [slice(windows.token_starts[index], windows.token_starts[index + 1]) for index in chosen]
    targets = [windows.target_ids[windows.target_starts[i] : windows.target_starts[i + 1]] for i in chosen]
    nulls = windows.null_positions[chosen].tolist()
    is_span = [
        [start >= 0 or place == null for place, start in enumerate(windows.char_starts[span].tolist())]
        for span, null in zip(tokens, nulls, strict=True)
    ]
    assert len({len(row) for row in is_span}) > 1
    expected = {
        "input_ids": padded([windows.token_ids[span].tolist() for span in tokens], PAD),
        "attention_mask": padded([[1] * (span.stop - span.start) for span in tokens], 0),
        "token_type_ids": padded([windows.segments[span].tolist() for span in tokens], 0),
        "span_mask": padded(is_span, False),
        "null_positions": nulls,
        "start_positions": windows.start_positions[chosen].tolist(),
        "end_positions": windows.end_positions[chosen].tolist(),
        "target_ids": padded([target.tolist() for target in targets], -100),
        "window_index": chosen,
    }
    assert {name: values.tolist() for name, values in batch.items()} == expected
    assert {name: values.dtype for name, values in batch.items() if name != "span_mask"} == dict.fromkeys(
        expected.keys() - {"span_mask"}, torch.int64
    )
    assert batch["span_mask"].dtype == torch.bool


def test_batches_of_span_layouts_have_no_targets_and_are_writable_copies(
    table: QaTable, tmp_path: Path
) -> None:
    windows = small_windows(table, tmp_path, WindowLayout((2,), (3,), (3,), "first"))
    batch = collate(windows, np.array([1]), PAD)
    assert "target_ids" not in batch
    before = windows.token_ids.copy()
    for values in batch.values():
        values.zero_()
    assert np.array_equal(windows.token_ids, before)
