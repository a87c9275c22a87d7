"""Distillation: a student learns from the answers of a frozen teacher, and from its hidden states if asked to.

    loss = weight * KD + (1 - weight) * task loss + hidden_weight * MSE + cosine_weight * (1 - cosine)

KD compares start and end distributions of span readers, or the distribution over the vocabulary at each target token
of generating heads, fed the gold target; its formulas are in `qa_core/models/distillation.py`. Penalties of other
methods are added to this mixture, not mixed.

The teacher reads the windows that the student reads: same head, tokenizer and layout. It is an artifact, or a recipe
that is trained once on a machine for all trials that name it, see `qa_core/prerequisites.py`. It is no part of the
network: neither the optimiser nor checkpoints nor the artifact hold it. Its examples count neither in the trial's
budget nor in its training time; its memory counts in `train_peak_bytes`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from qa_core import registry
from qa_core.config import RunConfig
from qa_core.errors import ConfigError, IllegalCombination
from qa_core.families.base import Batch, Block, Family
from qa_core.methods.base import Claim, Method, Stage
from qa_core.values import Setting, check_ranges, from_dict, refusal, to_dict

if TYPE_CHECKING:
    from torch import Tensor, nn

    from qa_core.artifact.loaded import LoadedArtifact

PROJECTIONS = "distill_projections"  # the network's attribute while it trains
CHECKPOINTS = 10  # of a teacher whose recipe does not say when: a kill costs a tenth of its training at most


@dataclass(frozen=True)
class DistillOptions:
    """Options of `distill`.

    `teacher_recipe` is laid over the trial's own recipe without its methods, and `head` follows the trial: settings
    that a sweep searches must stand in it, or each of their values gets a teacher of its own. A recipe that names
    another family leaves `model.options` of the trial out.
    """

    teacher: Annotated[
        str | None, Setting("Folder of the artifact that teaches. null: teacher_recipe is trained first.")
    ] = None
    teacher_recipe: Annotated[
        Mapping[str, Any],
        Setting(
            "Settings of the teacher, laid over the trial's recipe without its methods. {}: full fine-tuning with the "
            "trial's settings. A searched setting that is not named here gives each of its values a teacher of its own."
        ),
    ] = field(default_factory=dict)
    teacher_seed: Annotated[
        int, Setting("Seed of a teacher that is trained: the same for all trials.", at_least=0)
    ] = 0
    temperature: Annotated[
        float, Setting("Softens both sides' logits before they are compared.", above=0)
    ] = 2.0
    weight: Annotated[
        float,
        Setting(
            "Weight of the teacher's answers in the loss; the task's own loss has the rest.",
            "share",
            at_least=0,
            at_most=1,
        ),
    ] = 0.5
    hidden_weight: Annotated[
        float, Setting("Weight of the mean squared distance of hidden states.", at_least=0)
    ] = 0.0
    cosine_weight: Annotated[
        float, Setting("Weight of the cosine distance of hidden states.", at_least=0)
    ] = 0.0
    layer_map: Annotated[
        str | None,
        Setting(
            "Which hidden states are compared: STUDENT:TEACHER,... as block numbers from 0. null: spread evenly, the "
            "last with the last."
        ),
    ] = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self, "methods.distill")
        if self.teacher is not None and self.teacher_recipe:
            raise ConfigError(
                f"methods.distill: found teacher {self.teacher!r} and a teacher_recipe; allowed: one of them"
            )
        if "seed" in self.teacher_recipe:
            allowed = "none here, the seed of a teacher is methods.distill.teacher_seed"
            raise refusal("methods.distill.teacher_recipe.seed", self.teacher_recipe["seed"], allowed)
        _pairs_of(self.layer_map)


class Distill(Method):
    """Knowledge distillation from a frozen teacher."""

    name = "distill"
    is_never_smaller = True
    stage = Stage.LOSS
    claims = frozenset({Claim.LOSS})
    Options = DistillOptions

    def __init__(self, options: DistillOptions) -> None:
        """Take checked options; the teacher comes with `provide`."""
        super().__init__(options)
        self._teacher: Any = None
        self._teacher_family: Any = None
        self._family: Any = None
        self._pairs: list[tuple[int, int]] = []  # (student block, teacher block)
        self._states: list[Tensor] = []  # of the student's last training forward pass, one for each pair

    def prerequisite(self, config: RunConfig) -> RunConfig | Path:
        """Return the teacher's recipe, or the folder of its artifact.

        Raises:
            ConfigError: `teacher_recipe` makes no recipe. IllegalCombination: its head is not the trial's.
        """
        if self.options.teacher is not None:
            return Path(self.options.teacher).expanduser()
        head = registry.make_family(config).head
        try:
            recipe = from_dict(RunConfig, _teacher_values(config, head, self.options))
            family = registry.make_family(recipe)
            registry.check_combination(family, registry.make_methods(recipe))
        except ConfigError as error:
            raise type(error)(f"methods.distill.teacher_recipe: {error}") from error
        if family.head != head:
            raise IllegalCombination(
                f"methods.distill.teacher_recipe: model.head: found {family.head!r}; allowed: {head!r}, the head of "
                "the student"
            )
        return recipe

    def provide(self, artifact: "LoadedArtifact", model: "nn.Module", family: Family) -> "nn.Module":
        """Take the teacher, on the device of `model`; add projections where hidden states differ in width.

        Raises:
            ConfigError: hidden states are to be compared and the layer map does not fit the two networks.
        """
        device = next(model.parameters()).device
        self._teacher = artifact.model.to(device).eval().requires_grad_(False)
        self._teacher_family, self._family = artifact.family, family
        if self.options.hidden_weight or self.options.cosine_weight:
            own, other = family.blocks(model), artifact.family.blocks(artifact.model)
            self._pairs = _checked_pairs(self.options.layer_map, own, other)
            widths = [(own[student].width, other[teacher].width) for student, teacher in self._pairs]
            model.add_module(PROJECTIONS, _projections(widths, device))
        return model

    def companions(self) -> "Sequence[nn.Module]":
        """Return the teacher."""
        return () if self._teacher is None else (self._teacher,)

    @contextmanager
    def watch(self, model: "nn.Module") -> Iterator[None]:
        """Catch the student's hidden states of one forward pass, if they are compared."""
        from qa_core.models.distillation import caught_outputs

        blocks = self._family.blocks(model) if self._pairs else ()
        with caught_outputs([blocks[student].module for student, _ in self._pairs]) as states:
            yield
        self._states = states

    def loss(
        self, task_loss: "Tensor", model: "nn.Module", batch: Batch, logits: "tuple[Tensor, ...]"
    ) -> "Tensor":
        """Return the mixture of the module's docstring; the teacher runs once, without dropout or gradient."""
        import torch

        from qa_core.models.distillation import caught_outputs

        assert self._teacher is not None, "`provide` comes before the first step"
        student_states, self._states = self._states, []
        blocks = self._teacher_family.blocks(self._teacher) if self._pairs else ()
        modules = [blocks[teacher].module for _, teacher in self._pairs]
        with torch.no_grad(), caught_outputs(modules) as teacher_states:
            teacher_logits = self._teacher_family.logits(self._teacher, batch)
        soft_loss = self._soft_loss(logits, teacher_logits, batch)
        total = self.options.weight * soft_loss + (1 - self.options.weight) * task_loss
        if not self._pairs:
            return total
        return total + self._state_loss(model, student_states, teacher_states, batch)

    def export(self, model: "nn.Module", *, borrowed: bool = False) -> "nn.Module":
        """Take the projections away and let the teacher go."""
        if hasattr(model, PROJECTIONS):
            delattr(model, PROJECTIONS)
        if not borrowed:
            self._teacher, self._states = None, []
        return model

    def _soft_loss(
        self, student: "tuple[Tensor, ...]", teacher: "tuple[Tensor, ...]", batch: Batch
    ) -> "Tensor":
        from qa_core.models.distillation import span_distillation, target_distillation

        temperature = self.options.temperature
        if self._family.head == "span":
            return span_distillation(student, teacher, batch["span_mask"], temperature=temperature)
        return target_distillation(student[0], teacher[0], batch["target_ids"], temperature=temperature)

    def _state_loss(
        self,
        model: "nn.Module",
        student_states: "Sequence[Tensor]",
        teacher_states: "Sequence[Tensor]",
        batch: Batch,
    ) -> "Tensor":
        """Return the weighted distances of hidden states, averaged over the pairs."""
        import torch

        from qa_core.models.distillation import on_context, state_angle, state_distance, token_mask

        own, other = self._family.blocks(model), self._teacher_family.blocks(self._teacher)
        projections: Any = getattr(model, PROJECTIONS)
        losses = []
        for number, (student, teacher) in enumerate(self._pairs):
            kinds = {own[student].tokens, other[teacher].tokens}
            tokens = "context" if "context" in kinds else own[student].tokens
            states = [
                on_context(item, batch) if block.tokens != tokens else item
                for block, item in (
                    (own[student], student_states[number]),
                    (other[teacher], teacher_states[number]),
                )
            ]
            compared = (projections[number](states[0]), states[1], token_mask(tokens, batch))
            distance = self.options.hidden_weight * state_distance(*compared)
            losses.append(distance + self.options.cosine_weight * state_angle(*compared))
        return torch.stack(losses).mean()


def _teacher_values(config: RunConfig, head: str, options: DistillOptions) -> dict[str, Any]:
    """Return `teacher_recipe` laid over the recipe without its methods, as plain values."""
    values = {**to_dict(config), "methods": {}, "seed": options.teacher_seed}
    values["model"]["head"] = head
    model, train = (_section(options.teacher_recipe, name) for name in ("model", "train"))
    if model.get("family", config.model.family) != config.model.family:
        values["model"]["options"] = {}
    if train.keys() & {"budget_examples", "epochs"}:
        values["train"] |= {"budget_examples": None, "epochs": None}
    values = _laid_over(values, options.teacher_recipe)
    budget = _section(values, "train").get("budget_examples")
    if "rungs" not in train and isinstance(budget, int):
        values["train"]["rungs"] = sorted(
            {budget * part // CHECKPOINTS for part in range(1, CHECKPOINTS)} - {0}
        )
    return values


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = values.get(name)
    return section if isinstance(section, Mapping) else {}


def _laid_over(values: Any, changes: Any) -> Any:
    if not isinstance(values, Mapping) or not isinstance(changes, Mapping):
        return changes
    return {**values, **{key: _laid_over(values.get(key), change) for key, change in changes.items()}}


def _pairs_of(layer_map: str | None) -> list[tuple[int, int]] | None:
    """Read a layer map; None stays None.

    Raises:
        ConfigError: it is not of the form "0:1,1:3".
    """
    if layer_map is None:
        return None
    parts = [re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", part) for part in layer_map.split(",")]
    if not all(parts):
        raise ConfigError(
            f"methods.distill.layer_map: found {layer_map!r}; allowed: pairs STUDENT:TEACHER of block numbers from "
            '0, such as "0:1,1:3"'
        )
    return [(int(part[1]), int(part[2])) for part in parts if part]


def _checked_pairs(
    layer_map: str | None, own: Sequence[Block], other: Sequence[Block]
) -> list[tuple[int, int]]:
    """Return (student block, teacher block) for each pair whose states are compared."""
    pairs = _pairs_of(layer_map)
    if pairs is None:
        pairs = _even_pairs(own, other)
        if not pairs:
            raise ConfigError(
                "methods.distill.hidden_weight, methods.distill.cosine_weight: student and teacher have no blocks "
                f"that can be compared (student: {len(own)}, teacher: {len(other)}); allowed: 0"
            )
    for pair in pairs:
        for whose, number, blocks in (("student", pair[0], own), ("teacher", pair[1], other)):
            if number >= len(blocks):
                raise ConfigError(
                    f"methods.distill.layer_map: found block {number} of the {whose}; allowed: 0 to "
                    f"{len(blocks) - 1}"
                )
        kinds = own[pair[0]].tokens, other[pair[1]].tokens
        if not _comparable(*kinds):
            raise ConfigError(
                f"methods.distill.layer_map: found {pair[0]}:{pair[1]}, states of {kinds[0]} and of {kinds[1]}; "
                "allowed: blocks whose states stand on the same tokens"
            )
    return pairs


def _even_pairs(own: Sequence[Block], other: Sequence[Block]) -> list[tuple[int, int]]:
    """Spread the student's blocks evenly over the teacher's, last to last: 2i + 1 -> i for half as many."""
    pairs = []
    for kind in dict.fromkeys(block.tokens for block in own):
        students = [number for number, block in enumerate(own) if block.tokens == kind]
        teachers = [number for number, block in enumerate(other) if _comparable(kind, block.tokens)]
        for place, student in enumerate(students, start=1):
            if teachers:
                pairs.append((student, teachers[-(-place * len(teachers) // len(students)) - 1]))
    return pairs


def _comparable(kind: str, other: str) -> bool:
    return kind == other or {kind, other} == {"window", "context"}


def _projections(widths: Sequence[tuple[int, int]], device: Any) -> "nn.Module":
    from torch import nn

    return nn.ModuleList(
        nn.Identity() if student == teacher else nn.Linear(student, teacher, bias=False, device=device)
        for student, teacher in widths
    )
