"""What LoRA, its quantised forms and (IA)3 share: small trained parts beside the layers of a frozen base.

How adapters are put beside layers and what becomes of them is in `qa_core/models/adapters.py`.
"""

from typing import TYPE_CHECKING, Annotated, Any

from qa_core.artifact.manifest import OwnFolder
from qa_core.errors import ConfigError, unknown
from qa_core.families.base import Family
from qa_core.methods.base import Claim, Method, Stage
from qa_core.values import Setting

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import nn

# Options that the low-rank adapters share; each has defaults of its own.
AdapterRank = Annotated[int, Setting("Rank of each adapter: its inner width.", at_least=1)]
AdapterAlpha = Annotated[
    float, Setting("Scale of the adapters: their output is multiplied by alpha / rank.", above=0)
]
AdapterDropout = Annotated[float, Setting("Dropout on the adapters' inputs.", "share", at_least=0, below=1)]
AdapterTargets = Annotated[
    str,
    Setting(
        "A named set of the family's Linear layers that get an adapter, such as attention or all_linear."
    ),
]


class MergeableAdapter(Method):
    """Adapters that the option `merge` folds into the base at export, and that are kept beside it otherwise.

    `attach` of a subclass sets what is annotated here, at least where the two are kept apart.
    """

    is_never_smaller = True
    stage = Stage.ADAPTER
    claims = frozenset({Claim.TRAINED_WEIGHTS})
    after_training = frozenset({"merge"})

    _form: dict[str, Any]  # which layers have an adapter, see `adapters.with_adapters`
    _in_full: list[str]  # the modules that are trained in full
    _document: dict[str, Any]  # PEFT's adapter_config.json

    def form_words(self, options: "Iterable[str]") -> str:
        """Return whether base and adapters are one."""
        return "merged" if self.options.merge else "apart"

    def deployed_form(self, model: "nn.Module") -> dict[str, Any] | None:
        """Return where the adapters stand when they are kept apart; None when they are merged."""
        return None if self.options.merge else self._form

    def export(self, model: "nn.Module", *, borrowed: bool = False) -> "nn.Module":
        """Merge each adapter into its layer, or keep the two side by side."""
        from qa_core.models import adapters

        if self.options.merge:
            return adapters.merge(model, borrowed=borrowed)
        return adapters.separate(model, self._form, borrowed=borrowed)

    def own_folder(self, model: "nn.Module") -> OwnFolder | None:
        """Return the adapters' folder, which PEFT loads onto the base; None when they are merged."""
        from qa_core.models import adapters

        if self.options.merge:
            return None
        return OwnFolder(**adapters.peft_folder(model, self._in_full, self._document))

    @classmethod
    def restore(cls, model: "nn.Module", form: "Mapping[str, Any]") -> "nn.Module":
        """Put the adapters beside their layers again, unmerged."""
        from qa_core.models import adapters

        return adapters.with_adapters(model, form)


def target_names(model: "nn.Module", family: Family, chosen: str, setting: str) -> "Sequence[str]":
    """Return the ends of the names of the layers in a target set of the family.

    Raises:
        ConfigError: the family has no set of this name; `setting` names the setting at fault.
    """
    sets = family.adapter_targets(model)
    if chosen not in sets:
        raise ConfigError(f"{setting}: {unknown('target set', chosen, sets)}")
    return sets[chosen]
