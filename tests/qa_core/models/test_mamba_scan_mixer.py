"""transformers' Mamba on the project's scan: the same outputs and gradients; and the span head."""

import copy
import pickle
from typing import Any

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM, MambaModel
from transformers.models.mamba import modeling_mamba

from qa_core.models.mamba import CausalSpanHead, ScanMixer, scan_path, use_project_scan

pytestmark = pytest.mark.numeric


def _models(**settings: Any) -> tuple[MambaModel, Any]:
    torch.manual_seed(0)
    sizes = {"vocab_size": 90, "hidden_size": 24, "state_size": 5, "num_hidden_layers": 2}
    theirs = MambaModel(MambaConfig(**{**sizes, **settings}))
    return theirs, use_project_scan(copy.deepcopy(theirs))


@pytest.mark.parametrize("settings", [{}, {"use_bias": True, "use_conv_bias": False, "conv_kernel": 3}])
def test_outputs_and_gradients_equal_those_of_transformers(settings: dict[str, Any]) -> None:
    theirs, ours = _models(**settings)
    ids = torch.randint(1, 90, (3, 19), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    mask[2, :4] = 0
    weights = torch.randn(3, 19, 24, generator=torch.Generator().manual_seed(2))
    outputs = [
        model.train()(ids, attention_mask=mask, use_cache=False).last_hidden_state for model in (theirs, ours)
    ]
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-5, rtol=1e-5)
    for output in outputs:
        (output * weights).sum().backward()
    for (name, one), (_, two) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        scale = one.grad.abs().max()
        torch.testing.assert_close(two.grad / scale, one.grad / scale, atol=1e-5, rtol=0, msg=name)


def test_a_mixer_equals_the_plain_loop_over_a_whole_window_in_outputs_and_every_gradient() -> None:
    """384 tokens: what rounding adds up to there stays below 1e-5 of each tensor's largest value, in float32."""
    theirs, ours = (model.layers[0].mixer for model in _models())
    generator = torch.Generator().manual_seed(4)
    states = torch.randn(2, 384, 24, generator=generator)
    weights = torch.randn(2, 384, 24, generator=generator)
    found = []
    for mixer in (theirs.train(), ours.train()):
        inputs = states.clone().requires_grad_()
        outputs = mixer(inputs)
        (outputs * weights).sum().backward()
        gradients = {name: item.grad for name, item in mixer.named_parameters()}
        found.append({"outputs": outputs.detach(), "inputs": inputs.grad, **gradients})
    assert len(found[0]) == 2 + 9
    for name, expected in found[0].items():
        difference = (found[1][name] - expected).abs().max() / expected.abs().max()
        assert float(difference) < 1e-5, name


def test_a_prompt_fills_the_cache_as_in_transformers_and_the_next_token_follows_from_it() -> None:
    theirs, ours = _models()
    ids = torch.randint(1, 90, (3, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    following = torch.tensor([[7], [8], [9]])
    found = []
    for model in (theirs.eval(), ours.eval()):
        with torch.no_grad():
            first = model(ids, attention_mask=mask, use_cache=True)
            cache = first.cache_params
            states = [
                state.clone()
                for layer in range(2)
                for state in (cache.get_conv_state(layer), cache.get_recurrent_state(layer))
            ]
            second = model(following, cache_params=cache, use_cache=True)
        found.append([first.last_hidden_state, *states, second.last_hidden_state])
    assert len(found[0]) == 6
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-5)


def test_the_default_loop_of_transformers_runs_for_no_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds [B, L, E, N] three times over in memory, the project's scan a chunk of it."""
    monkeypatch.setattr(modeling_mamba, "mamba_selective_scan", lambda *a, **k: pytest.fail("it ran"))
    _, ours = _models()
    ids = torch.randint(1, 90, (2, 6), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for use_cache in (True, False):
            ours.eval()(ids, use_cache=use_cache)


def test_weights_and_their_names_stay_as_they_were() -> None:
    theirs, ours = _models()
    assert list(theirs.state_dict()) == list(ours.state_dict())
    assert all(torch.equal(ours.state_dict()[name], item) for name, item in theirs.state_dict().items())


def test_the_path_is_named_and_survives_copies_and_pickles() -> None:
    theirs, ours = _models()
    assert scan_path(theirs) == "transformers"
    for model in (ours, copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert scan_path(model) == "project-scan"
        assert sum(isinstance(item, ScanMixer) for item in model.modules()) == 2
    assert scan_path(torch.nn.Linear(2, 2)) == "transformers"


def test_generation_with_a_cache_equals_generation_without() -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 90, "hidden_size": 24, "state_size": 5, "num_hidden_layers": 2}
    model = use_project_scan(MambaForCausalLM(MambaConfig(**sizes, eos_token_id=89))).eval()
    ids = torch.randint(1, 80, (2, 7), generator=torch.Generator().manual_seed(3))
    options: dict[str, Any] = {"max_new_tokens": 9, "do_sample": False, "pad_token_id": 0}
    cached = model.generate(ids, attention_mask=torch.ones_like(ids), use_cache=True, **options)
    plain = model.generate(ids, attention_mask=torch.ones_like(ids), use_cache=False, **options)
    assert torch.equal(cached, plain)
    assert cached.unique().numel() > 6


def test_the_span_head_reads_each_token_beside_the_last_real_one() -> None:
    torch.manual_seed(0)
    head = CausalSpanHead(4, dropout=0.0)
    states = torch.randn(2, 5, 4)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    logits = head(states, mask)
    assert logits.shape == (2, 5, 2)
    states[0, 2] += 1.0  # the last token of row 0
    changed = (head(states, mask) - logits).abs().amax(dim=-1) > 1e-6
    assert changed.tolist() == [[True] * 5, [False] * 5]
    states[1, 1] += 1.0  # a token in the middle of row 1
    again = (head(states, mask)[1] - logits[1]).abs().amax(dim=-1) > 1e-6
    assert again.tolist() == [False, True, False, False, False]
