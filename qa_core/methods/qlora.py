"""LoRA on a frozen base in fewer bits: QLoRA on NF4, and the study's LoRA on an int8 base.

Source of `qlora`: Dettmers et al. 2023, arXiv 2305.14314: 4-bit NormalFloat in blocks of 64, their scales quantised in
turn, adapters on all Linear layers. The defaults are those of its authors' program, which trained with
`paged_adamw_32bit`, a constant rate of 2e-4, clipping at 0.3, no decay, 16 examples in a step and gradient
checkpointing: settings of the recipe, not of the method.

`lora_int8` is what the study ran under the name of QLoRA: an LLM.int8 base (Dettmers et al. 2022, arXiv 2208.07339),
adapters on query and value.

The layers of the body are replaced after the checkpoint is read, whatever it is, by the layers of
`qa_core/models/quantised_linear.py`. Head, tables and output layers stay in float32, as do the few layers whose weight
the network reads itself. In the artifact the base keeps its codes, and the adapter lies beside it in float32: merging
would mean to quantise the sum once more, which is another network than the one that was trained.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from qa_core.artifact.manifest import OwnFolder
from qa_core.families.base import Family
from qa_core.methods.adapter import (
    AdapterAlpha,
    AdapterDropout,
    AdapterRank,
    AdapterTargets,
    target_names,
)
from qa_core.methods.base import Claim, Method, Stage
from qa_core.values import Setting, check_ranges

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class QloraOptions:
    """Options of `qlora`."""

    rank: AdapterRank = 64
    alpha: AdapterAlpha = 16.0
    dropout: AdapterDropout = 0.0
    targets: AdapterTargets = "all_linear"
    double_quantisation: Annotated[
        bool, Setting("true stores the scales in 8 bits: 4.127 bits a weight instead of 4.5.")
    ] = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self, "methods.qlora")


@dataclass(frozen=True)
class LoraInt8Options:
    """Options of `lora_int8`; the defaults are the study's."""

    rank: AdapterRank = 8
    alpha: AdapterAlpha = 32.0
    dropout: AdapterDropout = 0.05
    targets: AdapterTargets = "attention"
    outlier_threshold: Annotated[
        float,
        Setting(
            "On a GPU, columns of inputs with a larger magnitude are not quantised; 0: none is left out.",
            at_least=0,
        ),
    ] = 6.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self, "methods.lora_int8")


class Qlora(Method):
    """LoRA on an NF4 base; the head is trained in full."""

    name = "qlora"
    stage = Stage.BASE
    needs = frozenset({"linear_layers"})
    claims = frozenset({Claim.TRAINED_WEIGHTS, Claim.STORED_BASE})
    Options: ClassVar[type] = QloraOptions

    def attach(self, model: "nn.Module", family: Family) -> "nn.Module":
        """Quantise the body, freeze it, add one adapter to every target module, leave the head trainable.

        Raises:
            ConfigError: the target set is unknown, or a target's name matches no module.
        """
        from peft import LoraConfig

        from qa_core.models import adapters
        from qa_core.models.quantised_linear import quantise_body

        setting = f"methods.{self.name}.targets"
        names = target_names(model, family, self.options.targets, setting)
        shapes = quantise_body(
            model, self._make_layer(), keep=family.head_modules, keep_endings=family.weights_read_directly
        )
        layers = adapters.matching_layers(model, names, setting)
        settings: dict[str, Any] = {
            "r": self.options.rank,
            "lora_alpha": self.options.alpha,
            "lora_dropout": self.options.dropout,
            "bias": "none",
        }
        model = adapters.attach(model, LoraConfig(target_modules=list(layers), **settings), layers, setting)
        adapters.train_adapters(model, family.head_modules)
        self._form = {
            "matrices": {
                name: {**self._matrix_form(), "shape": list(shape)} for name, shape in shapes.items()
            },
            "low_rank": layers,
            "rank": self.options.rank,
            "scale": self.options.alpha / self.options.rank,
        }
        self._in_full = adapters.modules_in_full(model, family.head_modules, setting)
        config = LoraConfig(target_modules=list(layers), modules_to_save=list(self._in_full), **settings)
        self._document = adapters.peft_document(config, family.checkpoint_name)
        return model

    def deployed_form(self, model: "nn.Module") -> dict[str, Any] | None:
        """Return the forms of the base's matrices and where the adapters stand."""
        return self._form

    @property
    def answers_as_trained(self) -> bool:
        """No: other kernels multiply with the stored codes, and those of LLM.int8 round inputs too."""
        return False

    @property
    def rounding(self) -> str | None:
        """The number format of the base, which the network is trained with."""
        return "nf4" if self.options.double_quantisation else "nf4-single"

    def export(self, model: "nn.Module", *, borrowed: bool = False) -> "nn.Module":
        """Store the base's codes as they are, the adapters beside them."""
        from qa_core.models import adapters
        from qa_core.models.quantised_linear import store_quantised

        return adapters.separate(store_quantised(model), self._form, borrowed=borrowed)

    def own_folder(self, model: "nn.Module") -> OwnFolder | None:
        """Return the adapter's folder; PEFT loads it onto the base, quantised or not."""
        from qa_core.models import adapters

        return OwnFolder(**adapters.peft_folder(model, self._in_full, self._document))

    @classmethod
    def restore(cls, model: "nn.Module", form: Mapping[str, Any]) -> "nn.Module":
        """Put empty matrices into the base and the adapters beside their layers."""
        from qa_core.models import adapters
        from qa_core.models.stored.base import StoredLinear, empty_matrix, set_module

        for name, matrix_form in form["matrices"].items():
            linear: Any = model.get_submodule(name)
            set_module(model, name, StoredLinear(empty_matrix(matrix_form), linear.bias))
        return adapters.with_adapters(model, form)

    def _make_layer(self) -> "Callable[[nn.Linear], nn.Module]":
        from qa_core.models.quantised_linear import Nf4Linear

        return lambda linear: Nf4Linear(linear, double_quantisation=self.options.double_quantisation)

    def _matrix_form(self) -> dict[str, Any]:
        return {
            "encoding": "nf4",
            "settings": {"double_quantisation": self.options.double_quantisation},
        }


class LoraInt8(Qlora):
    """LoRA on an LLM.int8 base; the head is trained in full.

    The artifact keeps the codes and the absmax of each row. It multiplies float inputs with the decoded weight: what
    LLM.int8 does to inputs while it runs on a GPU, rounding them and sparing outliers, is not repeated there.
    """

    name = "lora_int8"
    Options: ClassVar[type] = LoraInt8Options

    @property
    def rounding(self) -> str | None:
        """The number format of the base, which the network is trained with."""
        return "int8"

    def _make_layer(self) -> "Callable[[nn.Linear], nn.Module]":
        from qa_core.models.quantised_linear import Int8Linear

        return lambda linear: Int8Linear(linear, threshold=self.options.outlier_threshold)

    def _matrix_form(self) -> dict[str, Any]:
        from qa_core.models.quantised_linear import INT8_SETTINGS

        return {"encoding": "int8", "settings": dict(INT8_SETTINGS)}
