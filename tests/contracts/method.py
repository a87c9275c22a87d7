"""The contract that every method keeps on every family that allows it; a test class inherits `MethodContract`."""

import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from qa_core import registry, seeding
from qa_core.config import RunConfig
from qa_core.data.batches import collate
from qa_core.data.prepare import prepare
from qa_core.errors import IllegalCombination
from qa_core.values import from_dict

HEADS = [(name, head) for name in sorted(registry.FAMILIES) for head in registry.family_class(name).heads]


def recipe(small_squad: Path, family: str, head: str, methods: dict[str, Any]) -> RunConfig:
    """A micro preset of the family without dropout, on the small data set."""
    values = {
        "model": {"family": family, "checkpoint": "micro", "head": head, "vocab_size": 300, "dropout": 0.0},
        "methods": methods,
        "data": {
            "train": str(small_squad),
            "evaluation": str(small_squad),
            "max_length": 64,
            "stride": 8,
            "max_question_length": 24,
        },
    }
    return from_dict(RunConfig, values)


@dataclass(frozen=True)
class Training:
    """A method on one family and head, after a few steps."""

    family: Any
    method: Any
    model: Any  # in training mode, before export
    batch: Any
    before: dict[str, torch.Tensor]  # the state of the network before `attach`
    loss_before: float


class MethodContract:
    """Set `name` and `options`; `refused` lists the (family, head) pairs that the method's needs rule out.

    A method that trains every weight, or whose export loses bits, says so.
    """

    name: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}
    refused: ClassVar[set[tuple[str, str]]] = set()
    freezes: ClassVar[bool] = True  # whether some weights are not trained
    export_loses: ClassVar[float] = 0.0  # share of what training gained by which the export may move the loss

    @pytest.fixture(params=HEADS, ids=lambda pair: "-".join(pair))
    def pair(self, request: pytest.FixtureRequest) -> tuple[str, str]:
        return request.param

    def open(self, small_squad: Path, cache_dir: Path, pair: tuple[str, str]) -> tuple[Any, Any, Any, Any]:
        config = recipe(small_squad, *pair, {self.name: self.options})
        family, (method,) = registry.make_family(config), registry.make_methods(config)
        if pair in self.refused:
            pytest.skip(f"{self.name} is refused on {pair[0]}, see the test of legality")
        data = prepare(config, family, cache_dir=cache_dir)
        seeding.seed_torch(4)
        model = family.build(data.tokenizer)
        batch = collate(data.train, np.arange(8), data.tokenizer.pad_token_id)
        return family, method, model, batch

    def test_it_is_legal_where_traits_allow_it_and_refused_elsewhere(self, small_squad: Path) -> None:
        assert len(HEADS) == 7
        found = set()
        for pair in HEADS:
            config = recipe(small_squad, *pair, {self.name: self.options})
            try:
                registry.check_combination(registry.make_family(config), registry.make_methods(config))
            except IllegalCombination:
                found.add(pair)
        assert found == self.refused

    @pytest.fixture(scope="class")
    def kept(self) -> dict[tuple[str, str], Training]:
        return {}

    @pytest.fixture
    def training(
        self,
        kept: dict[tuple[str, str], Training],
        small_squad: Path,
        cache_dir: Path,
        pair: tuple[str, str],
    ) -> Training:
        """Train the method on a pair once for the class; each test gets its own copy of network and method."""
        if pair not in kept:
            family, method, model, batch = self.open(small_squad, cache_dir, pair)
            before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            loss_before = family.loss(model, batch).item()
            model = self.trained(family, method, model, batch)
            kept[pair] = Training(family, method, model, batch, before, loss_before)
        method, model = copy.deepcopy((kept[pair].method, kept[pair].model))
        return replace(kept[pair], method=method, model=model)

    def test_untouched_weights_stay_bit_equal(self, training: Training) -> None:
        model = training.model
        frozen = {name for name, item in model.named_parameters() if not item.requires_grad}
        assert bool(frozen) == self.freezes
        after = model.state_dict()
        for name in frozen:
            plain = name.replace(".base_layer.", ".")
            assert torch.equal(after[name], training.before[plain]), name

    def test_the_exported_model_computes_what_the_trained_one_did(self, training: Training) -> None:
        family, batch, fresh = training.family, training.batch, training.loss_before
        trained = training.model.eval()
        with torch.no_grad():
            expected = family.loss(trained, batch).item()
            exported = training.method.export(copy.deepcopy(trained)).eval()
            found = family.loss(exported, batch).item()
        assert expected < fresh, "training moved it"
        assert found == pytest.approx(expected, rel=1e-4, abs=self.export_loses * (fresh - expected))

    def test_the_exported_weights_fit_a_network_restored_from_its_architecture(
        self, training: Training
    ) -> None:
        family, method, trained, batch = training.family, training.method, training.model, training.batch
        form = method.deployed_form(trained)
        exported = method.export(trained).eval()
        restored = family.restore(family.architecture(exported))
        if form is not None:
            form = json.loads(json.dumps(form))
            restored = type(method).restore(restored, form)
        restored.load_state_dict(exported.state_dict())
        if form is not None:
            restored = type(method).settle(restored, form)
        with torch.no_grad():
            assert family.loss(restored.eval(), batch).item() == pytest.approx(
                family.loss(exported, batch).item(), rel=1e-6
            )

    def provided(self, family: Any, method: Any, model: Any) -> Any:
        """Hand the method what it needs trained before; most need nothing."""
        return model

    def trained(self, family: Any, method: Any, model: Any, batch: Any) -> Any:
        model = self.provided(family, method, method.attach(model, family)).train()
        method.progress(model, 0.0)
        optimizer = torch.optim.AdamW([item for item in model.parameters() if item.requires_grad], lr=1e-2)
        for step in range(4):
            with method.watch(model):
                logits = family.logits(model, batch)
            method.loss(family.loss(model, batch, logits), model, batch, logits).backward()
            optimizer.step()
            optimizer.zero_grad()
            method.progress(model, (step + 1) / 4)
        return model
