"""int8: the studies' example, three granularities, products of integers that are exact."""

import os
import subprocess
import sys

import pytest
import torch

from qa_core.memory.protocol import StorageTracker, tracked_step_peak_bytes
from qa_core.models.stored import int8
from qa_core.models.stored.int8 import Int8Matrix, quantised_tokens

pytestmark = pytest.mark.numeric

EXAMPLE = [1.2, -0.5, -4.3, 1.2, -3.1, 0.8, 2.4, 5.4]


def _settings(granularity="row", *, group_size=None, dynamic=False):
    return {"granularity": granularity, "group_size": group_size, "dynamic": dynamic}


def _matrix(rows, columns, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.2, 3, rows)[:, None]  # rows differ in scale, so that granularities differ
    return torch.randn(rows, columns, generator=generator) * spread


@pytest.mark.facts
def test_the_absmax_example_of_the_studies():
    matrix = Int8Matrix.encode(torch.tensor(EXAMPLE).view(2, 4), _settings("tensor"))
    assert matrix.codes.flatten().tolist() == [28, -12, -101, 28, -73, 19, 56, 127]
    assert 127 / matrix.absmax.item() == pytest.approx(23.51852, abs=5e-6)


def test_each_granularity_takes_the_absmax_of_what_shares_it():
    values = torch.tensor([[1.0, -8.0, 2.0], [0.5, 4.0, -3.0]])
    tensor = Int8Matrix.encode(values, _settings("tensor"))
    row = Int8Matrix.encode(values, _settings("row"))
    group = Int8Matrix.encode(values, _settings("group", group_size=4))
    assert tensor.absmax.tolist() == [[8.0]]
    assert row.absmax.tolist() == [[8.0], [4.0]]
    assert group.absmax.tolist() == [8.0, 4.0]
    assert group.absmax.dtype == torch.float16
    assert row.codes.tolist() == [[16, -127, 32], [16, 127, -95]]
    assert group.codes.tolist() == [[16, -127, 32], [8, 127, -95]]  # 0.5 stands in the group of the 8


@pytest.mark.parametrize(
    "settings", [_settings("tensor"), _settings("row"), _settings("group", group_size=64)]
)
def test_the_error_is_at_most_half_a_step(settings):
    values = _matrix(19, 37)
    matrix = Int8Matrix.encode(values, settings)
    step = {"tensor": matrix.absmax, "row": matrix.absmax}.get(settings["granularity"])
    if step is None:
        step = matrix.absmax.float().repeat_interleave(64)[: values.numel()].view_as(values)
    # A float16 absmax may lie half of 2 ** -10 below the number it stands for, which is then cut by that much.
    assert ((matrix.dense() - values).abs() <= step * (0.5 / 127 + 2**-11)).all()
    assert not torch.equal(matrix.dense(), values)


def test_a_row_of_zeros_and_a_huge_number_stay_finite():
    values = torch.tensor([[0.0, 0.0], [3.0, -1e6]])
    for settings in (_settings("row"), _settings("group", group_size=2)):
        dense = Int8Matrix.encode(values, settings).dense()
        assert dense[0].tolist() == [0.0, 0.0]
        assert torch.isfinite(dense).all()


def test_looked_up_rows_are_the_dense_ones():
    index = torch.tensor([[4, 0], [6, 4]])
    for settings in (_settings("tensor"), _settings("row"), _settings("group", group_size=64)):
        matrix = Int8Matrix.encode(_matrix(7, 30), settings)
        assert torch.equal(matrix.rows(index), matrix.dense()[index])


def test_the_codes_of_a_whole_matrix_are_those_of_torchs_dynamic_quantisation_within_its_rounding():
    """torch divides by 127.5, so that its codes reach from -127 to 127 too but may differ by one."""
    torch.manual_seed(3)
    layer = torch.nn.Sequential(torch.nn.Linear(33, 20))
    theirs = torch.ao.quantization.quantize_dynamic(layer, {torch.nn.Linear}, torch.qint8)[0].weight()
    ours = Int8Matrix.encode(layer[0].weight, _settings("tensor"))
    assert theirs.q_zero_point() == 0
    assert theirs.q_scale() * 127.5 == pytest.approx(ours.absmax.item(), rel=1e-6)
    difference = theirs.int_repr().int() - ours.codes.int()
    assert difference.abs().max() <= 1
    assert difference.ne(0).float().mean() < 0.3


def test_the_codes_of_rows_are_those_of_bitsandbytes():
    from bitsandbytes.functional import int8_vectorwise_quant

    values = _matrix(40, 96)
    codes, absmax, _ = int8_vectorwise_quant(values.clone())
    matrix = Int8Matrix.encode(values, _settings("row"))
    assert torch.equal(matrix.absmax[:, 0], absmax)  # a maximum is not rounded
    difference = (matrix.codes.int() - codes.int()).abs()
    assert difference.max() <= 1  # a number halfway between two codes may be rounded to either
    assert difference.float().mean() < 1e-3


@pytest.mark.parametrize("tokens", [(3, 50), (7,)])
def test_a_dynamic_product_is_the_explicit_integer_arithmetic(tokens, monkeypatch):
    monkeypatch.setattr(int8, "TOKENS_AT_ONCE", 16)
    inputs = _matrix(1, 24 * torch.Size(tokens).numel(), seed=5).view(*tokens, 24)
    inputs.view(-1, 24)[2] = 0  # padding
    matrix = Int8Matrix.encode(_matrix(10, 24), _settings(dynamic=True))
    flat = inputs.reshape(-1, 24)
    expected = torch.empty(len(flat), 10)
    for row, token in enumerate(flat):
        absmax = token.abs().max()
        step = absmax / 127
        codes = [0] * 24 if absmax == 0 else [round(number) for number in (token / step).tolist()]
        for column in range(10):
            total = sum(
                left * right for left, right in zip(codes, matrix.codes[column].tolist(), strict=True)
            )
            expected[row, column] = total * step * (matrix.absmax[column, 0] / 127)
    found = matrix.product(inputs)
    assert found.shape == (*tokens, 10)
    torch.testing.assert_close(found.view(-1, 10), expected, rtol=1e-6, atol=0)
    exact = torch.nn.functional.linear(inputs, matrix.dense())
    assert 0 < (found - exact).norm() / exact.norm() < 0.02


@pytest.mark.parametrize("has_int_mm", [True, False])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 33, 7), (20, 2500, 24)])
def test_integer_products_are_exact_on_both_paths_at_the_largest_sums(sizes, has_int_mm, monkeypatch):
    if has_int_mm and not int8.cpu_sums_exactly():
        pytest.skip("torch's own product of int8 matrices is wrong on this CPU, and is not taken")
    monkeypatch.setattr(int8, "takes_integers", lambda left, right: has_int_mm)
    tokens, columns, rows = sizes
    generator = torch.Generator().manual_seed(1)
    left = torch.randint(-127, 128, (tokens, columns), generator=generator, dtype=torch.int8)
    right = torch.randint(-127, 128, (rows, columns), generator=generator, dtype=torch.int8)
    left[0], right[0] = 127, -127
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = int8.integer_product(left, right)
    assert found.dtype == torch.int32
    assert torch.equal(found.long(), left.long() @ right.long().T)
    assert found[0, 0].item() == -127 * 127 * columns


@pytest.mark.parametrize("instructions", ["AVX512_CORE", "AVX2"])
def test_integer_products_are_exact_where_a_cpu_has_no_instruction_for_them(instructions):
    script = (
        "import torch; from qa_core.models.stored.int8 import LEVELS, integer_product; "
        "ones = torch.ones(40, 96, dtype=torch.int8); "
        "found = integer_product(LEVELS * ones, -LEVELS * ones); "
        "assert (found == -96 * LEVELS**2).all(), found"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


def test_the_look_at_a_cpus_sums_is_not_counted_as_memory():
    int8.cpu_sums_exactly.cache_clear()
    tracker = StorageTracker()
    with tracker:
        int8.cpu_sums_exactly()
    assert tracker.peak_bytes == 0


def test_wrong_sums_are_noticed(monkeypatch):
    monkeypatch.setattr(int8, "cpu_sums_exactly", int8.cpu_sums_exactly.__wrapped__)
    monkeypatch.setattr(torch, "_int_mm", lambda left, right: (left.int() @ right.int()).clamp(max=2**15))
    assert not int8.cpu_sums_exactly()


def test_a_dynamic_product_under_autocast_comes_out_in_its_dtype():
    matrix = Int8Matrix.encode(_matrix(10, 24), _settings(dynamic=True))
    inputs = _matrix(4, 24, seed=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = matrix.product(inputs)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(
        found.float(), matrix.product(inputs), rtol=2**-7, atol=0
    )  # 8 bits of precision


def _allocated_peak_bytes(step):
    """Return the peak of what torch's CPU allocator hands out, what an operator holds for itself included."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as found:
        step()
    events = [item for item in found.profiler.kineto_results.events() if item.name() == "[memory]"]
    current = peak = 0
    for event in sorted(events, key=lambda item: item.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    return peak


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_all_memory_of_a_dynamic_product_is_seen_by_the_tracker(dtype):
    """One window of 384 tokens: where an operator mixes dtypes it copies an operand, which no tracker sees."""
    matrix = Int8Matrix.encode(_matrix(1536, 384), _settings(dynamic=True))
    inputs = _matrix(384, 384, seed=1).to(dtype)

    def step():
        with torch.inference_mode():
            matrix.product(inputs)

    step()
    allocated = _allocated_peak_bytes(step)
    assert allocated > 256 * 1536 * 4
    assert tracked_step_peak_bytes(step, []) >= allocated


def test_the_steps_of_tokens_are_those_of_their_extremes_bit_for_bit() -> None:
    tokens = torch.randn(7, 33, generator=torch.Generator().manual_seed(0))
    tokens[1], tokens[2] = tokens[1].abs(), -tokens[2].abs()  # one of the extremes decides
    tokens[3] = 0.0
    tokens[4, 5] = float("nan")
    for dtype in (torch.float32, torch.bfloat16):
        rows = tokens.to(dtype)
        lowest, highest = rows.aminmax(dim=1, keepdim=True)
        expected = torch.maximum(-lowest, highest).float() / 127
        codes, steps = quantised_tokens(rows)
        torch.testing.assert_close(steps, expected, rtol=0, atol=0, equal_nan=True)
        assert codes[[0, 1, 2, 5, 6]].abs().amax(dim=1).tolist() == [127] * 5
        assert not codes[3].any()
