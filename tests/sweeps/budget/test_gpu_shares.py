"""Shares of a GPU from predicted bytes: exact arithmetic."""

from itertools import pairwise

import pytest

from qa_core.config import ModelConfig, RunConfig
from sweeps.budget.gpu_shares import HEADROOM, PROCESS_BYTES, GpuShare, GpuShares, memory_fraction, share_of
from sweeps.spec.sections import SHARES

DEVICE_BYTES = 80_000_000_000


@pytest.mark.parametrize(
    ("share_bytes", "share"),
    [
        (10e9, 0.125),
        (10e9 + 2, 0.25),
        (20e9, 0.25),
        (20e9 + 2, 0.5),
        (40e9, 0.5),
        (40e9 + 2, 1.0),
        (80e9, 1.0),
    ],
)
def test_a_share_holds_the_prediction_its_headroom_and_the_process(share_bytes, share):
    assert share_of(int((share_bytes - PROCESS_BYTES) / HEADROOM), DEVICE_BYTES) == share


def test_what_does_not_fit_or_is_not_known_has_the_device_alone():
    assert share_of(2 * DEVICE_BYTES, DEVICE_BYTES) == 1.0
    assert share_of(None, DEVICE_BYTES) == 1.0


def test_on_a_small_device_no_share_is_smaller_than_a_process():
    assert share_of(0, 4_000_000_000) == 0.25


def test_freed_shares_add_up_to_larger_ones():
    assert all(larger == 2 * smaller for smaller, larger in pairwise(SHARES))
    assert SHARES[-1] == 1.0


def test_a_recipe_for_the_cpu_takes_no_gpu_and_is_not_predicted():
    asked = []
    placement = GpuShares(DEVICE_BYTES, lambda recipe: asked.append(recipe) or 10**9)
    model = ModelConfig("bert")
    assert placement(RunConfig(model)) == GpuShare(0.125, 10**9)
    assert placement(RunConfig(model, device="cpu")) == GpuShare(0.0, None)
    assert len(asked) == 1


def test_the_cap_leaves_room_for_the_process_itself_but_not_all_of_a_small_share():
    assert memory_fraction(0.25, DEVICE_BYTES) == 0.25 - PROCESS_BYTES / DEVICE_BYTES
    assert memory_fraction(0.125, 6 * PROCESS_BYTES) == 0.0625
