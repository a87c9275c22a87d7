"""The attention block among Mamba blocks: causal, blind to padding, the same with a cache and without."""

import copy
from typing import Any

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM, MambaModel

from qa_core.errors import ConfigError
from qa_core.models.mamba import use_project_scan
from qa_core.models.mamba_attention import AttentionMambaBlock, add_attention
from tests.contracts.rounding import assert_same_to_rounding

pytestmark = pytest.mark.numeric

SIZES: dict[str, Any] = {"vocab_size": 90, "hidden_size": 24, "state_size": 5, "num_hidden_layers": 3}


def _config(**changes: Any) -> MambaConfig:
    return MambaConfig(**{**SIZES, "attention_layer": 1, "attention_heads": 4, "eos_token_id": 89, **changes})


def _model(**changes: Any) -> Any:
    torch.manual_seed(0)
    model = MambaForCausalLM(_config(**changes))
    add_attention(model.backbone, dropout=0.0, starts_silent=False)
    return use_project_scan(model).eval()


def _ids(rows: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(1, 80, (rows, length), generator=torch.Generator().manual_seed(seed))


def test_it_is_softmax_attention_over_earlier_tokens_read_head_by_head() -> None:
    block = _model().backbone.layers[1].self_attention
    states = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(2))
    mask = torch.tensor([[1] * 7, [0, 0, 1, 1, 1, 1, 1]])
    with torch.no_grad():
        found = block(states, mask, None)
        query, key, value = block.qkv_proj(block.norm(states)).split(24, dim=-1)
        expected = torch.zeros_like(states)
        for row in range(2):
            for place in range(7):
                seen = [at for at in range(place + 1) if mask[row, at]] or [place]
                for head in range(4):
                    part = slice(6 * head, 6 * head + 6)
                    scores = key[row, seen, part] @ query[row, place, part] / 6**0.5
                    expected[row, place, part] = scores.softmax(0) @ value[row, seen, part]
        expected = block.o_proj(expected)
    is_token = mask.bool()
    torch.testing.assert_close(found[is_token], expected[is_token], atol=1e-5, rtol=1e-5)
    assert torch.isfinite(found).all()


def test_the_block_changes_what_follows_and_nothing_before() -> None:
    model = _model()
    ids = _ids(2, 11)
    changed = ids.clone()
    changed[:, 6] += 3
    with torch.no_grad():
        before, after = (model(input_ids=item, use_cache=False).logits for item in (ids, changed))
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_left_padding_and_what_stands_on_it_change_no_logit() -> None:
    model = _model()
    ids = _ids(2, 9)
    wide = torch.cat([_ids(2, 4, seed=5), ids], dim=1)
    mask = torch.ones_like(wide)
    mask[:, :4] = 0
    with torch.no_grad():
        plain = model(input_ids=ids, use_cache=False).logits
        for use_cache in (False, True):
            found = model(input_ids=wide, attention_mask=mask, use_cache=use_cache).logits[:, 4:]
            torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", [0, 2])
def test_generation_with_a_cache_equals_generation_without_whatever_the_padding(layer: int) -> None:
    model = _model(attention_layer=layer, tie_word_embeddings=False)  # tied, it only echoes
    ids = _ids(3, 8)
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    options: dict[str, Any] = {"max_new_tokens": 9, "do_sample": False, "pad_token_id": 0}
    cached, plain = (
        model.generate(ids, attention_mask=mask, use_cache=use_cache, **options)
        for use_cache in (True, False)
    )
    assert torch.equal(cached, plain)
    assert cached[:, 8:].unique().numel() > 6
    alone = model.generate(ids[1:2, 5:], attention_mask=mask[1:2, 5:], **options)
    assert torch.equal(
        alone[0, 3:], cached[1, 8 : 5 + alone.shape[1]]
    )  # alone, it ends with its own end token


def test_a_cached_step_equals_the_whole_pass_to_rounding() -> None:
    model = _model()
    ids = _ids(2, 8)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    with torch.no_grad():
        first = model(input_ids=ids[:, :6], attention_mask=mask[:, :6], use_cache=True)
        steps = []
        for place in (6, 7):  # transformers gives no mask with single tokens
            one = model(input_ids=ids[:, place : place + 1], cache_params=first.cache_params, use_cache=True)
            steps.append(one.logits)
        whole = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    torch.testing.assert_close(torch.cat(steps, dim=1), whole[:, 6:], atol=1e-5, rtol=1e-5)


def test_a_silent_block_changes_nothing_until_it_is_trained() -> None:
    torch.manual_seed(0)
    plain = MambaModel(MambaConfig(**SIZES)).eval()
    hybrid = copy.deepcopy(plain)
    hybrid.config = _config()
    add_attention(hybrid, dropout=0.0, starts_silent=True)
    ids = _ids(2, 9)
    with torch.no_grad():
        assert_same_to_rounding(hybrid(ids).last_hidden_state, plain(ids).last_hidden_state)
    names = set(hybrid.state_dict()) - set(plain.state_dict())
    assert names == {f"layers.1.self_attention.{name}.weight" for name in ("norm", "qkv_proj", "o_proj")}
    hybrid.train()(ids).last_hidden_state.square().sum().backward()
    assert hybrid.layers[1].self_attention.o_proj.weight.grad.any()


def test_no_block_is_added_where_none_is_asked_for() -> None:
    body = MambaModel(MambaConfig(**SIZES))
    add_attention(body, dropout=0.0, starts_silent=False)
    assert not any(isinstance(item, AttentionMambaBlock) for item in body.modules())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_layer": 3}, r"attention_layer: found 3; allowed: 0 to 2"),
        ({"attention_layer": -1}, r"attention_layer: found -1"),
        ({"attention_heads": 5}, r"attention_heads: found 5; allowed: a divisor of the width 24"),
        ({"attention_heads": 0}, r"attention_heads: found 0"),
    ],
)
def test_a_block_that_fits_nowhere_is_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        add_attention(MambaModel(_config(**changes)), dropout=0.0, starts_silent=False)
