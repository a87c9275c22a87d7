"""(IA)3: learned vectors, 1 at the start, that scale the inputs or outputs of a few layers.

Source: Liu et al. 2022, arXiv 2205.05638, section 3.3: keys, values and the activations inside the feed-forward are
scaled. Those activations are the inputs of its second layer, so the vector stands on that layer's input side. A count
of parameters cannot tell the two sides of a square layer apart; the shapes can: [1, C] on inputs, [R, 1] on outputs.

The study scaled more: queries, which is redundant, as attention sees only the product of queries and keys; the
attention's output; and the input of the first feed-forward layer, which is the residual stream and not an activation.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from qa_core.families.base import Family
from qa_core.methods.adapter import MergeableAdapter
from qa_core.values import Setting, check_ranges

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Variant:
    """Which roles of a family's Linear layers (fields of `LinearRoles`) are scaled, on which side."""

    outputs: tuple[str, ...]
    inputs: tuple[str, ...]


VARIANTS = {
    "canonical": Variant(outputs=("keys", "values"), inputs=("feed_forward_out",)),
    "study": Variant(
        outputs=("queries", "keys", "values", "attention_outputs"),
        inputs=("feed_forward_in", "feed_forward_out"),
    ),
    # What PEFT's table makes of BERT: "output.dense" also ends the name of the attention's output layer.
    "library": Variant(outputs=("keys", "values"), inputs=("attention_outputs", "feed_forward_out")),
}


@dataclass(frozen=True)
class Ia3Options:
    """Options of `ia3`."""

    variant: Annotated[
        str,
        Setting(
            "Which activations are scaled: canonical (Liu et al. 2022), study (more of them), library (PEFT's table "
            "for BERT).",
            allowed=tuple(VARIANTS),
        ),
    ] = "canonical"
    merge: Annotated[
        bool,
        Setting(
            "true merges the vectors into the base at export; false keeps the two apart in the artifact."
        ),
    ] = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self, "methods.ia3")


class Ia3(MergeableAdapter):
    """(IA)3 on the layers of a named variant; the head is trained in full."""

    name = "ia3"
    needs = frozenset(
        {"linear_layers", "attention"}
    )  # without keys and values there is nothing that it could mean
    Options = Ia3Options

    def attach(self, model: "nn.Module", family: Family) -> "nn.Module":
        """Freeze the model, put a vector beside every layer of the variant, leave the head trainable.

        Raises:
            ConfigError: the model has no layer of a role that the variant scales.
        """
        from peft import IA3Config

        from qa_core.models import adapters

        setting = "methods.ia3.variant"
        variant, roles = VARIANTS[self.options.variant], family.linear_roles(model)
        outputs = adapters.layers_with_roles(model, roles, variant.outputs, setting)
        inputs = adapters.layers_with_roles(model, roles, variant.inputs, setting)
        # Whole names: PEFT compares the ends of names, and one end may fit layers of two roles.
        targets: dict[str, Any] = {"target_modules": [*outputs, *inputs], "feedforward_modules": inputs}
        model = adapters.attach(model, IA3Config(**targets), [*outputs, *inputs], setting)
        adapters.train_adapters(model, family.head_modules)
        self._form = {"scaled_outputs": outputs, "scaled_inputs": inputs}
        self._in_full = adapters.modules_in_full(model, family.head_modules, setting)
        config = IA3Config(**targets, modules_to_save=list(self._in_full))
        self._document = adapters.peft_document(config, family.checkpoint_name)
        return model
