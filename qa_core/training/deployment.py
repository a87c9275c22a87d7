"""From the network that trains to the one that answers: exported at the end, or as a copy while training goes on.

Both ways run the same hooks of the methods in the same order. `exported` consumes the network; the result is what an
artifact holds. `deployed_copy` is what a rung scores, so that exact match and memory of a report are of one form: its
matrices are made one by one. Tensors that the deployed form leaves unchanged are shared with the network. Neither the
network nor any generator is changed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from qa_core.methods.base import Method
from qa_core.models.stored.derived import sharing_copy


def exported(
    model: torch.nn.Module, methods: Sequence[Method], *, borrowed: bool = False
) -> tuple[torch.nn.Module, dict[str, dict[str, Any]]]:
    """Bring a trained network into its deployed form; returns it with the forms that its reader needs.

    Args:
        methods: of the recipe, in the order in which they act.
        borrowed: see `Method.export`.
    """
    forms = {}
    for method in methods:
        form = method.deployed_form(model)
        if form is not None:
            forms[method.name] = form
        model = method.export(model, borrowed=borrowed)
    return model, forms


def settled(
    model: torch.nn.Module, methods: Sequence[Method], forms: Mapping[str, Mapping[str, Any]]
) -> torch.nn.Module:
    """Turn an exported network into the one that answers, as loading an artifact does."""
    for method in methods:
        if method.name in forms:
            model = type(method).settle(model, forms[method.name])
    return model


def scores_a_copy(methods: Sequence[Method]) -> bool:
    """Tell whether a rung scores another network than the one that trains."""
    return not all(method.answers_as_trained for method in methods)


def deployed_copy(model: torch.nn.Module, methods: Sequence[Method]) -> torch.nn.Module:
    """Return the network that a rung scores, in evaluation mode; `model` itself where the recipe deploys that.

    Works on the meta device too, with which the memory of a rung is predicted.
    """
    if not scores_a_copy(methods):
        return model
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        copied, forms = exported(sharing_copy(model), methods, borrowed=True)
        return settled(copied, methods, forms).eval()
