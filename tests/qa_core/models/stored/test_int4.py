"""int4: bits for a weight, nearest of 15 steps, groups."""

import pytest
import torch

from qa_core.models.stored.int4 import Int4Matrix

pytestmark = pytest.mark.numeric


@pytest.mark.facts
@pytest.mark.parametrize(("group_size", "bits"), [(64, 4.25), (128, 4.125)])
def test_a_weight_takes_four_bits_and_its_share_of_a_half_precision_scale(group_size, bits):
    matrix = Int4Matrix.encode(torch.randn(48, 256), {"group_size": group_size})
    stored = sum(buffer.nbytes for buffer in matrix.buffers())
    assert stored * 8 / (48 * 256) == 4 + 16 / group_size == bits


@pytest.mark.facts
def test_codes_are_the_nearest_of_the_steps_from_minus_7_to_7():
    values = torch.tensor([[7.0, -7.0, 0.4, 0.6, -2.5, 3.49, -6.51, 1.0]])
    matrix = Int4Matrix.encode(values, {"group_size": 64})
    assert matrix.dense().tolist() == [[7.0, -7.0, 0.0, 1.0, -2.0, 3.0, -7.0, 1.0]]
    assert (matrix.packed >> 4).tolist() == [15, 8, 6, 1]  # code + 8, the first of each pair


def test_groups_do_not_feel_each_other():
    values = torch.cat([torch.linspace(-1, 1, 64), torch.linspace(-100, 100, 64), torch.full((3,), 0.01)])
    dense = Int4Matrix.encode(values[None], {"group_size": 64}).dense()[0]
    errors = (dense - values).abs()
    # Half a step, and what a float16 scale is off.
    assert errors[:64].max() <= 1 / 14 + 1e-3
    assert 0.1 < errors[64:128].max() <= 100 / 14 + 0.1
    assert errors[128:].max() <= 1e-5
