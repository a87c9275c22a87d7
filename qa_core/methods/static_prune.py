"""Static model pruning: learn which weights of a fixed network to keep, then store only those.

Source: arXiv 2210.06210 (SMP): every weight is frozen, each Linear layer of the body gets a score for every weight,
and the network computes with M * W, M the top share of the scores. Baselines under the same schedule: movement pruning
(Sanh et al. 2020, arXiv 2005.07683), which trains weights beside scores, and magnitude pruning, which has no scores.

The study trains scores alone, at `train.learning_rate` 2e-2 without warm-up, decayed linearly, with the head
`model.options.span_head: lm_rows` of `bert`; both stay the recipe's to set. Where the head is trained too,
`score_learning_rate` gives the scores a rate that would be too high for it. Soft movement pruning (keep where
sigmoid(S) exceeds a threshold) is not here: what it keeps, and so its memory, is not known before training.

What is masked is the family's set `all_linear`. On Mamba these are in_proj and x_proj. dt_proj and out_proj could be
masked too, although the time steps read dt_proj's weight directly: a masked layer's `weight` carries gradients. They
are left alone so that all methods treat the same matrices; dt_proj is also small, and sets the time scales.

Stored and resident are two things. The artifact holds positions and values of the kept weights, packed. In memory,
`resident: dense` unpacks each matrix once after loading (fast; as large as the unpruned model with values of 32 bits,
half of that with 16, a quarter with 8 or 4), and `resident: packed` keeps it packed and unpacks one matrix at a time
(small, slower).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

from qa_core.errors import ConfigError, NonFiniteLoss
from qa_core.families.base import Batch, Family
from qa_core.methods.base import Claim, Method, ParameterGroup, Stage
from qa_core.values import Setting, check_ranges, require

if TYPE_CHECKING:
    from torch import Tensor, nn

    from qa_core.models.masked import MaskedLinear
    from qa_core.models.stored.sparse import SparseMatrix

MOVEMENT_SCORE_LEARNING_RATE = 1e-2
VALUE_FORMS: Mapping[int, Mapping[str, Any]] = {  # bits of a kept value -> how it is stored
    32: {"encoding": "plain", "settings": {}},
    16: {"encoding": "half", "settings": {"dtype": "float16"}},
}
RESIDENT = ("dense", "packed")


@dataclass(frozen=True)
class Criterion:
    """What decides which weights are kept."""

    scored: bool  # trained scores decide; False: the magnitude of the weights
    within: str  # the kept share is fixed within each "matrix", each "type" of matrix, or "all" of them
    trains_weights: bool


CRITERIA: Mapping[str, Criterion] = {
    "smp_l": Criterion(scored=True, within="matrix", trains_weights=False),
    "smp_s": Criterion(scored=True, within="type", trains_weights=False),
    "global": Criterion(scored=True, within="all", trains_weights=False),
    "movement": Criterion(scored=True, within="matrix", trains_weights=True),
    "magnitude": Criterion(scored=False, within="matrix", trains_weights=True),
}


@dataclass(frozen=True)
class StaticPruneOptions:
    """Options of `static_prune`. Shares are shares of the training budget."""

    density: Annotated[
        float,
        Setting(
            "Share of the masked matrices' weights that is kept. Embeddings, norms, biases and head stay whole.",
            "share",
            above=0,
            at_most=1,
        ),
    ] = 0.1
    criterion: Annotated[
        str,
        Setting(
            "What decides which weights are kept: scores within each matrix (smp_l), each type of matrix (smp_s) or "
            "all of them (global), with frozen weights; movement trains weights too; magnitude has no scores.",
            allowed=tuple(CRITERIA),
        ),
    ] = "smp_l"
    dense_share: Annotated[
        float,
        Setting("Share of the training budget before anything is pruned.", "share", at_least=0, below=1),
    ] = 0.0
    hold_share: Annotated[
        float,
        Setting(
            "Share of the training budget at its end with the final density; below 1 - dense_share.",
            "share",
            at_least=0,
            below=1,
        ),
    ] = 5000 / 27670
    penalty: Annotated[
        float, Setting("Final weight of the mean score in the loss; for frozen weights only.", at_least=0)
    ] = 400.0
    temperature: Annotated[
        float, Setting("p of smp_s: a larger one makes the densities of layers more alike.", above=0)
    ] = 1.0
    score_learning_rate: Annotated[
        float | None,
        Setting(
            "Learning rate of the scores. null: train.learning_rate, or the study's where weights are trained too.",
            above=0,
        ),
    ] = None
    value_bits: Annotated[
        int, Setting("How a kept weight is stored.", "bits", allowed=tuple(VALUE_FORMS))
    ] = 32
    resident: Annotated[
        str,
        Setting(
            "dense unpacks each matrix once after loading (fast); packed keeps it packed and unpacks one matrix at a "
            "time (small, slower).",
            allowed=RESIDENT,
        ),
    ] = "dense"

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self, "methods.static_prune")
        left = 1 - self.dense_share
        path = "methods.static_prune."
        require(
            self.hold_share < left, f"{path}hold_share", self.hold_share, f"below 1 - dense_share = {left:g}"
        )
        rate, has_scores = self.score_learning_rate, CRITERIA[self.criterion].scored
        allowed = f"null, since criterion {self.criterion!r} has no scores"
        require(rate is None or has_scores, f"{path}score_learning_rate", rate, allowed)


def density_at(share_done: float, density: float, *, dense_share: float, hold_share: float) -> float:
    """Return v_t = v + (1 - v) (1 - x)^3, x the share of the ramp that is done, from 1 down to v = `density`."""
    ramp = (share_done - dense_share) / (1 - dense_share - hold_share)
    return density + (1 - density) * (1 - min(1.0, max(0.0, ramp))) ** 3


def penalty_at(share_done: float, penalty: float) -> float:
    """Return lambda_t = lambda (1 - (1 - t / T)^3), the weight of the mean score in the loss."""
    return penalty * (1 - (1 - share_done) ** 3)


def allocated(density: float, levels: Sequence[float]) -> list[float]:
    """Return the densities v_l = L v r_l / sum r_l of the L matrices of one type, at most 1 each.

    Args:
        levels: r_l, the mean of sigmoid(S_l / p), for each matrix.
    """
    total = sum(levels)
    return [min(1.0, len(levels) * density * level / total) for level in levels]


def matrix_type(name: str) -> str:
    """Return a module's name without its layer numbers: what the matrices of one kind share."""
    return ".".join(part for part in name.split(".") if not part.isdigit())


class StaticPrune(Method):
    """Masks on every Linear layer of the body; packed on export."""

    name = "static_prune"
    stage = Stage.MASK
    needs = frozenset({"linear_layers"})
    claims = frozenset({Claim.TRAINED_WEIGHTS})
    after_training = frozenset({"resident", "value_bits"})
    Options = StaticPruneOptions

    def __init__(self, options: StaticPruneOptions) -> None:
        super().__init__(options)
        self._criterion = CRITERIA[options.criterion]
        self._names: tuple[str, ...] = ()  # of the masked modules
        self._penalty = 0.0  # now

    def form_words(self, options: Iterable[str]) -> str:
        """Return "packed" or "dense", and the bits of a kept value: "packed-v16"."""
        words = {"resident": self.options.resident, "value_bits": f"v{self.options.value_bits}"}
        return "-".join(text for name, text in words.items() if name in set(options))

    def attach(self, model: "nn.Module", family: Family) -> "nn.Module":
        """Mask every Linear layer of the family's body; freeze all but scores and head, unless weights are trained.

        Raises:
            ConfigError: a target of the family matches no Linear layer.
        """
        from torch import nn

        from qa_core.models.masked import MaskedLinear
        from qa_core.models.stored.base import set_module

        self._names = tuple(_target_names(model, family.adapter_targets(model)["all_linear"]))
        if not self._criterion.trains_weights:
            for name, parameter in model.named_parameters():
                parameter.requires_grad = bool(set(name.split(".")) & set(family.head_modules))
        for name in self._names:
            layer = model.get_submodule(name)
            assert isinstance(layer, nn.Linear)
            set_module(model, name, MaskedLinear(layer, scored=self._criterion.scored))
        return model

    @property
    def answers_as_trained(self) -> bool:
        """Only where nothing is pruned or rounded: until its end the schedule keeps more than what is deployed."""
        return self.options.density == 1 and self.options.value_bits == 32

    @property
    def rounding(self) -> str | None:
        """How the kept values are stored; which ones are kept, training decides."""
        return None if self.options.value_bits == 32 else f"kept{self.options.value_bits}"

    def parameter_group(self, name: str) -> ParameterGroup | None:
        """Return the scores' own rate, and no weight decay: a score of 0 means nothing in particular."""
        if name.rpartition(".")[2] != "scores":
            return None
        rate = self.options.score_learning_rate
        if rate is None and self._criterion.trains_weights:
            rate = MOVEMENT_SCORE_LEARNING_RATE
        return ParameterGroup(learning_rate=rate, weight_decay=0.0)

    def progress(self, model: "nn.Module", share_done: float) -> None:
        """Set every mask to what the schedule's density and the present scores (or weights) say."""
        from qa_core.models.masked import masked_layers

        schedule = {name: getattr(self.options, name) for name in ("dense_share", "hold_share")}
        density = density_at(share_done, self.options.density, **schedule)
        self._penalty = 0.0
        if not self._criterion.trains_weights:
            self._penalty = penalty_at(share_done, self.options.penalty)
        layers = masked_layers(model)
        for name, mask in self._masks(layers, density):
            layers[name].mask.copy_(mask)

    def _masks(self, layers: "Mapping[str, MaskedLinear]", density: float) -> "Iterator[tuple[str, Tensor]]":
        """Yield the name and the mask of every layer at a density; no layer is changed.

        Raises:
            NonFiniteLoss: what decides is NaN somewhere; names the matrices.
        """
        try:
            yield from self._ranked(layers, density)
        except FloatingPointError as error:
            broken = [name for name, layer in layers.items() if bool(layer.importance.isnan().any())]
            what = "scores" if self._criterion.scored else "weights"
            raise NonFiniteLoss(
                f"methods.static_prune: NaN among the {what} of {', '.join(broken)}; a lower learning rate or "
                "train.precision: float32 may help"
            ) from error

    def _ranked(self, layers: "Mapping[str, MaskedLinear]", density: float) -> "Iterator[tuple[str, Tensor]]":
        from qa_core.models.masked import masks_within_all, masks_within_each, score_levels

        if self._criterion.within == "matrix" or density == 1:
            yield from zip(layers, masks_within_each(layers.values(), [density] * len(layers)), strict=True)
            return
        if self._criterion.within == "all":
            yield from zip(layers, masks_within_all(list(layers.values()), density), strict=True)
            return
        for _, group in groupby(sorted(layers, key=matrix_type), key=matrix_type):
            names = list(group)
            members = [layers[name] for name in names]
            shares = allocated(density, score_levels(members, self.options.temperature))
            yield from zip(names, masks_within_each(members, shares), strict=True)

    def loss(
        self, task_loss: "Tensor", model: "nn.Module", batch: Batch, logits: "tuple[Tensor, ...]"
    ) -> "Tensor":
        """Return the loss plus lambda_t R, R the mean over matrices of the mean of sigmoid(S)."""
        if self._penalty == 0:
            return task_loss
        from qa_core.models.masked import masked_layers, mean_score

        return task_loss + self._penalty * mean_score(list(masked_layers(model).values()))

    def deployed_form(self, model: "nn.Module") -> dict[str, Any]:
        """Return how each matrix is packed: planned at the recipe's density, or counted on its final masks."""
        from qa_core.models.masked import kept_count, masked_layers
        from qa_core.models.stored.sparse import sparse_form

        masked = {name: layer for name, layer in masked_layers(model).items() if not layer.mask.is_meta}
        kept = {name: int(mask.sum()) for name, mask in self._masks(masked, self.options.density)}
        matrices = {}
        for name in self._names:
            layer: Any = model.get_submodule(name)
            shape = (layer.out_features, layer.in_features)
            count = kept.get(name, kept_count(self.options.density, shape[0] * shape[1]))
            matrices[name] = sparse_form(shape, count, VALUE_FORMS[self.options.value_bits])
        return {"resident": self.options.resident, "matrices": matrices}

    def export(self, model: "nn.Module", *, borrowed: bool = False) -> "nn.Module":
        """Pack every masked layer at the final density: positions and values of what it keeps; scores are dropped."""
        from qa_core.models.masked import masked_layers
        from qa_core.models.stored.base import StoredLinear, set_module

        layers = masked_layers(model)
        for name, matrix in self._packed(layers, borrowed=borrowed):
            set_module(model, name, StoredLinear(matrix, layers[name].bias))
        for parameter in model.parameters():
            if not borrowed:
                parameter.requires_grad = True
        return model

    def _packed(
        self, layers: "Mapping[str, MaskedLinear]", *, borrowed: bool
    ) -> "Iterator[tuple[str, SparseMatrix]]":
        """Yield the name and the packed matrix of every layer, one at a time."""
        from qa_core.models.masked import kept_count
        from qa_core.models.stored.sparse import SparseMatrix, packed_plan

        values = VALUE_FORMS[self.options.value_bits]
        if any(layer.mask.is_meta for layer in layers.values()):
            for name, layer in layers.items():
                kept = kept_count(self.options.density, layer.mask.numel())
                yield name, packed_plan(layer.base_layer.weight, kept, values, borrowed=borrowed)
            return
        for name, mask in self._masks(layers, self.options.density):
            yield name, SparseMatrix.pack(layers[name].base_layer.weight, mask, values, borrowed=borrowed)

    def stored_anew(
        self, model: "nn.Module", form: Mapping[str, Any] | None
    ) -> "tuple[nn.Module, Mapping[str, Any] | None]":
        """Store kept values in fewer bits where these options say so; how they are resident is a word of the form.

        Raises:
            ConfigError: values in more bits are wanted than are stored.
        """
        from qa_core.models.stored.base import StoredLinear, set_module
        from qa_core.models.stored.sparse import SparseMatrix

        assert form is not None, "a pruned network always has a form"
        values = VALUE_FORMS[self.options.value_bits]
        matrices = {}
        for name, matrix in form["matrices"].items():
            stored = matrix["settings"]["values"]
            if stored["encoding"] != values["encoding"]:
                if stored["encoding"] != VALUE_FORMS[32]["encoding"]:
                    raise ConfigError(
                        f"methods.static_prune.value_bits: found {self.options.value_bits} for values stored as "
                        f"{stored['encoding']}; allowed: no more bits than these"
                    )
                layer: Any = model.get_submodule(name)
                set_module(model, name, StoredLinear(layer.matrix.recoded(values), layer.bias))
                matrix = SparseMatrix.recoded_form(matrix, values)
            matrices[name] = dict(matrix)
        return model, {"resident": self.options.resident, "matrices": matrices}

    @classmethod
    def restore(cls, model: "nn.Module", form: Mapping[str, Any]) -> "nn.Module":
        """Put an empty packed layer in the place of each pruned one."""
        from qa_core.models.stored.base import StoredLinear, empty_matrix, set_module

        for name, matrix in form["matrices"].items():
            layer: Any = model.get_submodule(name)
            set_module(model, name, StoredLinear(empty_matrix(matrix), layer.bias))
        return model

    @classmethod
    def settle(cls, model: "nn.Module", form: Mapping[str, Any]) -> "nn.Module":
        """Unpack each layer that is still packed, unless it is to stay so."""
        from qa_core.models.stored.base import StoredLinear, set_module
        from qa_core.models.stored.sparse import SparseMatrix, unpacked_linear

        if form["resident"] == "packed":
            return model
        for name in form["matrices"]:
            layer = model.get_submodule(name)
            if isinstance(layer, StoredLinear) and isinstance(layer.matrix, SparseMatrix):
                set_module(model, name, unpacked_linear(layer))
        return model


def _target_names(model: "nn.Module", suffixes: Iterable[str]) -> list[str]:
    from torch import nn

    found = []
    for suffix in suffixes:
        matches = [name for name, _ in model.named_modules() if f".{name}".endswith(f".{suffix}")]
        if not matches or not all(isinstance(model.get_submodule(name), nn.Linear) for name in matches):
            raise ConfigError(f"methods.static_prune: no Linear layer of the model is named {suffix}")
        found += matches
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    return sorted(set(found), key=order.__getitem__)
