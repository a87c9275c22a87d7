"""Masked layers: the exact gradients, masks of exact size with ties, readers of `.weight`, the mean score."""

import pytest
import torch
from torch.nn import functional as F

from qa_core.models.masked import (
    MaskedLinear,
    kept_count,
    masked_layers,
    masks_within_all,
    masks_within_each,
    mean_score,
    score_levels,
)
from qa_core.models.stored.positions import top_mask

pytestmark = pytest.mark.numeric


def _layer(rows: int = 4, columns: int = 6, *, scored: bool = True, seed: int = 0) -> MaskedLinear:
    torch.manual_seed(seed)
    return MaskedLinear(torch.nn.Linear(columns, rows), scored=scored)


def test_scores_get_the_gradient_of_the_masked_weight_times_the_weight_for_pruned_entries_too():
    layer = _layer()
    layer.mask.copy_(torch.rand(4, 6) > 0.5)
    inputs = torch.randn(5, 6)
    layer.base_layer.weight.requires_grad = False
    plain = (layer.mask * layer.base_layer.weight).detach().requires_grad_()
    torch.cos(F.linear(inputs, plain, layer.base_layer.bias)).sum().backward()
    torch.cos(layer(inputs)).sum().backward()
    assert 0 < layer.mask.sum() < 24
    torch.testing.assert_close(layer.scores.grad, plain.grad * layer.base_layer.weight)
    assert layer.scores.grad[~layer.mask].abs().min() > 0
    assert layer.base_layer.weight.grad is None


def test_a_trained_weight_gets_its_gradient_where_it_is_kept_and_zero_elsewhere():
    layer = _layer()
    layer.mask.copy_(torch.rand(4, 6) > 0.5)
    inputs = torch.randn(5, 6)
    plain = layer.base_layer.weight.detach().clone().requires_grad_()
    torch.cos(F.linear(inputs, plain * layer.mask, layer.base_layer.bias)).sum().backward()
    torch.cos(layer(inputs)).sum().backward()
    torch.testing.assert_close(layer.base_layer.weight.grad, plain.grad)
    assert not layer.base_layer.weight.grad[~layer.mask].any()


def test_a_bias_is_not_masked_and_a_layer_without_one_works():
    layer = _layer()
    layer.mask.fill_(False)
    assert torch.equal(layer(torch.randn(3, 6)), layer.base_layer.bias.expand(3, 4))
    bare = MaskedLinear(torch.nn.Linear(6, 4, bias=False), scored=False)
    bare.mask.fill_(False)
    assert not bare(torch.randn(3, 6)).any()


@pytest.mark.parametrize("kept", [0, 1, 5, 12, 23, 24])
def test_exactly_so_many_are_kept_among_ties_and_the_first_of_equals(kept):
    values = torch.tensor([3.0, 1, 2, 2, 0, 2] * 4).view(4, 6)
    order = sorted(range(24), key=lambda place: (-values.flatten()[place], place))
    expected = torch.zeros(24, dtype=torch.bool)
    expected[order[:kept]] = True
    assert torch.equal(top_mask(values, kept), expected.view(4, 6))


def test_all_equal_scores_keep_the_first_ones_exactly():
    mask = top_mask(torch.zeros(7, 11), 20)
    assert mask.sum() == 20
    assert mask.flatten()[:20].all()


def test_random_values_keep_what_sorting_keeps():
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(40, 30, generator=generator)
    for kept in (1, 120, 600, 1199):
        chosen = values.flatten().topk(kept).indices
        expected = torch.zeros(1200, dtype=torch.bool).index_fill(0, chosen, True).view(40, 30)
        assert torch.equal(top_mask(values, kept), expected)


@pytest.mark.parametrize(
    ("share", "size", "expected"),
    [(0.1, 589_824, 58_982), (0.29, 100, 29), (0.07, 100, 7), (0.999, 10, 9), (1.0, 7, 7), (0.0, 7, 0)],
)
def test_a_share_is_counted_as_the_floor_of_the_decimal_product(share, size, expected):
    assert kept_count(share, size) == expected


def _set(layers, masks):
    for layer, mask in zip(layers, masks, strict=True):
        layer.mask.copy_(mask)


def test_each_layer_keeps_its_own_share_and_a_global_one_is_kept_of_all_together():
    layers = [_layer(4, 6), _layer(8, 5, seed=1)]
    with torch.no_grad():
        for shift, layer in enumerate(layers):
            layer.scores.normal_().add_(2.0 * shift)
    _set(layers, masks_within_each(layers, [0.5, 0.25]))
    assert [int(layer.mask.sum()) for layer in layers] == [12, 10]
    _set(layers, masks_within_all(layers, 0.4))
    counts = [int(layer.mask.sum()) for layer in layers]
    assert sum(counts) == 25
    assert counts[0] / 24 < counts[1] / 40, "higher scores keep more"
    dropped = torch.cat([layer.scores[~layer.mask] for layer in layers])
    kept = torch.cat([layer.scores[layer.mask] for layer in layers])
    assert dropped.max() < kept.min()


def test_without_scores_the_magnitude_decides():
    layer = _layer(scored=False)
    _set([layer], masks_within_each([layer], [0.5]))
    weight = layer.base_layer.weight.detach().abs()
    assert layer.mask.sum() == 12
    assert weight[~layer.mask].max() < weight[layer.mask].min()


def test_the_mean_score_and_its_gradient_are_those_of_autograd():
    layers = [_layer(4, 6), _layer(8, 5, seed=1)]
    with torch.no_grad():
        for layer in layers:
            layer.scores.normal_()
    copies = [layer.scores.detach().clone().requires_grad_() for layer in layers]
    expected = (torch.sigmoid(copies[0] / 4).mean() + torch.sigmoid(copies[1] / 4).mean()) / 2
    (3 * expected).backward()
    found = mean_score(layers, 4.0)
    (3 * found).backward()
    torch.testing.assert_close(found, expected)
    for layer, copy in zip(layers, copies, strict=True):
        torch.testing.assert_close(layer.scores.grad, copy.grad)
    assert score_levels(layers, 4.0) == pytest.approx(
        [torch.sigmoid(item / 4).mean().item() for item in copies]
    )


def test_mambas_mixers_compute_with_masks_on_every_matrix_though_they_read_the_weight_of_dt_proj():
    """All four, not only those of `all_linear`: a mask on dt_proj and out_proj works too."""
    from transformers import MambaConfig, MambaModel

    from qa_core.models.mamba import use_project_scan
    from qa_core.models.stored.base import set_module

    torch.manual_seed(0)
    config = MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4)
    model = use_project_scan(MambaModel(config))
    names = [f"layers.0.mixer.{name}" for name in ("in_proj", "x_proj", "dt_proj", "out_proj")]
    for name in names:
        set_module(model, name, MaskedLinear(model.get_submodule(name), scored=True))
    layers = masked_layers(model)
    assert list(layers) == names
    ids = torch.arange(20).view(2, 10)
    model(ids, use_cache=False).last_hidden_state.square().sum().backward()
    assert all(layer.scores.grad.abs().sum() > 0 for layer in layers.values())
    for layer in layers.values():
        layer.mask.copy_(torch.rand_like(layer.scores) > 0.5)
    with torch.no_grad():
        masked = [model(ids, use_cache=cache).last_hidden_state for cache in (False, True)]
        for layer in layers.values():
            layer.base_layer.weight.mul_(layer.mask)
            layer.mask.fill_(True)
        zeroed = model(ids, use_cache=False).last_hidden_state
    torch.testing.assert_close(masked[0], zeroed)
    torch.testing.assert_close(masked[1], zeroed, rtol=1e-4, atol=1e-5)  # transformers' own loop


def test_a_value_that_is_no_number_is_refused_even_where_ties_would_hide_it():
    values = torch.tensor([1.0, 2.0, float("nan"), 2.0, 2.0])
    for kept in (1, 2, 3, 4):
        with pytest.raises(FloatingPointError, match="NaN"):
            top_mask(values, kept)
    assert top_mask(torch.tensor([1.0, float("inf"), -float("inf"), 2.0]), 2).tolist() == [
        False,
        True,
        False,
        True,
    ]
