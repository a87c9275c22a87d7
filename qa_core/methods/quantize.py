"""Post-training quantisation: the trained network, stored in fewer bits; training itself is untouched.

Encodings are in `qa_core/models/{half,int8,int4,nf4}.py`; memory holds what the file holds, and one matrix at a time is
decoded to compute with it. `dynamic` quantises activations too: Bhandare et al. 2019, arXiv 1906.00532, without their
calibration. The order of the studies is kept: train in float, quantise once at the end.

What is quantised is found by the type of a module, whatever the family: every Linear and LSTM layer of the body, those
that another method has packed included. The family's head modules stay in float32, as do convolutions, norms, biases
and other vectors. Tables of words are left alone unless `embedding_bits` says so; an output layer that shares its
weight with one follows it and never gets a copy of its own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

from qa_core.errors import ConfigError, NonFiniteLoss, unknown
from qa_core.families.base import Family
from qa_core.methods.base import Claim, Method, Stage
from qa_core.values import Setting, check_ranges, require

if TYPE_CHECKING:
    from torch import nn

    from qa_core.models.stored.base import StoredMatrix

# bits -> its schemes, the default first; 32 leaves weights as they are, so that a sweep has one axis
SCHEMES: Mapping[int, tuple[str, ...]] = {
    32: (),
    16: ("bfloat16", "float16"),
    8: ("weight_only", "dynamic"),
    4: ("nf4", "int4"),
}
GRANULARITIES = ("row", "tensor", "group")
GROUP_SIZES = (64, 128)
EMBEDDING_BITS = (32, 16, 8)
GROUP_SIZE = 128  # where the recipe names none
SMALL_TABLE_ROWS = (
    64  # tables with fewer rows hold token types or position biases, weigh nothing and stay float32
)

EncodingForm = Mapping[str, Any]  # encoding and settings
Plan = Mapping[
    str, Mapping[str, EncodingForm] | str
]  # module -> its matrices, or the module whose matrix it shares


@dataclass(frozen=True)
class QuantizeOptions:
    """Options of `quantize`."""

    bits: Annotated[
        int,
        Setting(
            "Bits of a weight of the body's matrices; 32 leaves them as they are.",
            "bits",
            allowed=tuple(SCHEMES),
        ),
    ] = 8
    scheme: Annotated[
        str | None,
        Setting(
            "How they are stored: with 16 bits bfloat16 or float16, with 8 weight_only or dynamic, with 4 nf4 or int4. "
            "null: the first of these.",
            allowed=tuple(name for names in SCHEMES.values() for name in names),
        ),
    ] = None
    granularity: Annotated[
        str | None,
        Setting("Which weights share a scale; with 8 bits only. null: each row.", allowed=GRANULARITIES),
    ] = None
    group_size: Annotated[
        int | None,
        Setting(
            "Weights that share a scale in int4 and with granularity group. null: 128.",
            "weights",
            allowed=GROUP_SIZES,
        ),
    ] = None
    double_quantisation: Annotated[
        bool | None, Setting("Whether nf4 stores its scales in 8 bits. null: true.")
    ] = None
    embedding_bits: Annotated[
        int,
        Setting(
            "Bits of the word and position tables; 16 takes the scheme of bits 16, else float16.",
            "bits",
            allowed=EMBEDDING_BITS,
        ),
    ] = 32

    def __post_init__(self) -> None:
        """Refuse unknown values, and settings that would change nothing beside the others."""
        check_ranges(self, "methods.quantize")
        schemes = SCHEMES[self.bits]
        if self.scheme not in (None, *schemes):
            raise ConfigError(
                f"methods.quantize.scheme: with bits {self.bits}: {unknown('scheme', str(self.scheme), schemes)}"
            )
        by_row = self.granularity in (None, "row")
        has_groups = self.granularity == "group" or self.chosen_scheme == "int4"
        for name, is_of_use, allowed in (
            ("granularity", self.granularity is None or self.bits == 8, "only with bits 8"),
            ("granularity", by_row or self.scheme != "dynamic", "row with scheme 'dynamic'"),
            (
                "group_size",
                self.group_size is None or has_groups,
                "only with scheme 'int4' or granularity 'group'",
            ),
            (
                "double_quantisation",
                self.double_quantisation is None or self.chosen_scheme == "nf4",
                "only with scheme 'nf4'",
            ),
        ):
            require(is_of_use, f"methods.quantize.{name}", getattr(self, name), allowed)

    @property
    def chosen_scheme(self) -> str | None:
        """The scheme, the default filled in; None for 32 bits."""
        return self.scheme or next(iter(SCHEMES[self.bits]), None)

    def body_form(self) -> EncodingForm | None:
        """Return the encoding of the body's matrices; None when they stay in float32."""
        if self.bits == 32:
            return None
        if self.bits == 16:
            return {"encoding": "half", "settings": {"dtype": self.chosen_scheme}}
        if self.bits == 8:
            return _int8_form(
                self.granularity or GRANULARITIES[0],
                group_size=self.group_size or GROUP_SIZE,
                dynamic=self.chosen_scheme == "dynamic",
            )
        if self.chosen_scheme == "int4":
            return {"encoding": "int4", "settings": {"group_size": self.group_size or GROUP_SIZE}}
        return {"encoding": "nf4", "settings": {"double_quantisation": self.double_quantisation is not False}}

    def float_form(self) -> EncodingForm | None:
        """Return the encoding of matrices with which only floats are multiplied, such as an LSTM's."""
        form = self.body_form()
        if form is None or form["encoding"] != "int8":
            return form
        return {**form, "settings": {**form["settings"], "dynamic": False}}

    def packed_form(self) -> EncodingForm | None:
        """Return the encoding of the kept values of a packed matrix: one line of numbers, so that int8 takes groups.

        Raises:
            ConfigError: the scheme is `dynamic`, which needs whole rows of integers.
        """
        if self.chosen_scheme == "dynamic":
            raise ConfigError(
                "methods.quantize.scheme: found 'dynamic' for weights that are packed; allowed: weight_only"
            )
        if self.bits != 8:
            return self.body_form()
        return _int8_form("group", group_size=self.group_size or GROUP_SIZE, dynamic=False)

    def embedding_form(self) -> EncodingForm | None:
        """Return the encoding of tables; None when they stay in float32."""
        if self.embedding_bits == 32:
            return None
        if self.embedding_bits == 8:
            return _int8_form("row", group_size=GROUP_SIZE, dynamic=False)
        dtype = self.chosen_scheme if self.bits == 16 else "float16"
        return {"encoding": "half", "settings": {"dtype": dtype}}


class Quantize(Method):
    """Every matrix of the body in its encoding; on any family, alone or after other methods."""

    name = "quantize"
    stage = Stage.STORAGE
    claims = frozenset({Claim.STORED_BASE})
    after_training = frozenset(
        item.name for item in fields(QuantizeOptions)
    )  # it acts on what is trained, alone
    is_addable_after_training = True
    Options = QuantizeOptions
    options: QuantizeOptions

    def __init__(self, options: QuantizeOptions) -> None:
        super().__init__(options)
        self._head_modules: tuple[str, ...] | None = None

    def form_words(self, options: Iterable[str]) -> str:
        """Return the number format and what is not its default: "int8", "nf4", "float16+e8"."""
        found = self.options
        name = {None: "float32", "weight_only": "int8", "dynamic": "int8-dynamic"}.get(
            found.chosen_scheme, found.chosen_scheme
        )
        words = [str(name)]
        if found.granularity not in (None, GRANULARITIES[0]):
            words.append(found.granularity)
        if found.group_size not in (None, GROUP_SIZE):
            words.append(f"g{found.group_size}")
        if found.double_quantisation is False:
            words.append("single")
        table = "" if found.embedding_bits == 32 else f"+e{found.embedding_bits}"
        return "-".join(words) + table

    def attach(self, model: "nn.Module", family: Family) -> "nn.Module":
        """Remember which modules are the head; training goes on as without this method."""
        self._head_modules = family.head_modules
        return model

    def deployed_form(self, model: "nn.Module") -> dict[str, Any] | None:
        """Return for each replaced module the forms of its matrices, or the module whose matrix it shares.

        Raises:
            ConfigError: the options do not fit weights that another method has packed.
        """
        plan = self._plan(model)
        if not plan:
            return None
        modules: dict[str, Any] = {}
        for name, entry in plan.items():
            if isinstance(entry, str):
                modules[name] = {"shares": entry}
            else:
                module = model.get_submodule(name)
                matrices = {part: _planned_form(module, part, form) for part, form in entry.items()}
                modules[name] = {"matrices": matrices}
        return {"modules": modules}

    @property
    def answers_as_trained(self) -> bool:
        """Only with 32 bits throughout."""
        return self.options.bits == 32 and self.options.embedding_bits == 32

    @property
    def rounding(self) -> str | None:
        """The number formats of matrices and tables, and what is not their default."""
        return None if self.answers_as_trained else self.form_words(())

    def export(self, model: "nn.Module", *, borrowed: bool = False) -> "nn.Module":
        """Encode module by module, so that few float matrices and their codes are alive together.

        Raises:
            NonFiniteLoss: a matrix holds NaN or infinity, of which codes would make ordinary numbers.
        """
        import torch

        with torch.no_grad():
            for name, entry in self._plan(model).items():
                _check_finite(name, model.get_submodule(name))
                _replace(model, name, entry, _encoded)
        return model

    @classmethod
    def restore(cls, model: "nn.Module", form: Mapping[str, Any]) -> "nn.Module":
        """Put empty matrices of the recorded forms into the recorded modules."""
        from qa_core.models.stored.base import empty_matrix

        for name, entry in form["modules"].items():
            _replace(
                model,
                name,
                entry["shares"] if "shares" in entry else entry["matrices"],
                lambda module, part, matrix_form: empty_matrix(matrix_form),
            )
        return model

    def _plan(self, model: "nn.Module") -> Plan:
        """Return what happens to which module, in an order in which a shared matrix comes before its sharers."""
        assert self._head_modules is not None, "`attach` comes first"
        heads = set(self._head_modules)
        options = self.options
        plan: dict[str, Mapping[str, EncodingForm] | str] = {}
        first_with: dict[int, str] = {}  # id of a weight -> the module that holds its matrix
        for name, kind, parts in _matrices_of(model):
            if heads & set(name.split(".")):
                continue
            form = {
                "table": options.embedding_form,
                "linear": options.body_form,
                "lstm": options.float_form,
                "packed": options.packed_form,
            }[kind]()
            if form is None:
                continue
            weight = id(next(iter(parts.values())))
            if weight in first_with:
                plan[name] = first_with[weight]
            else:
                plan[name] = dict.fromkeys(parts, form)
                first_with[weight] = name
        return plan


def _check_finite(name: str, module: "nn.Module") -> None:
    for part, weight in module.named_parameters(recurse=False):
        if not weight.is_meta and not bool(weight.isfinite().all()):
            raise NonFiniteLoss(
                f"methods.quantize: {name}.{part} holds NaN or infinity; allowed: finite numbers"
            )


def _int8_form(granularity: str, *, group_size: int, dynamic: bool) -> EncodingForm:
    settings = {
        "granularity": granularity,
        "group_size": group_size if granularity == "group" else None,
        "dynamic": dynamic,
    }
    return {"encoding": "int8", "settings": settings}


def _matrices_of(model: "nn.Module") -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield (module name, kind, its matrices by their names), tables before the layers that may be tied to them.

    A Linear layer that shares the weight of a table is of the table's kind. Exact types: a subclass may compute
    something else.
    """
    from torch import nn

    from qa_core.models.stored.base import StoredLinear, StoredMatrix
    from qa_core.models.stored.lstm import matrix_names

    modules = list(model.named_modules(remove_duplicate=False))
    tables = set()
    for name, module in modules:
        if type(module) is nn.Embedding and module.num_embeddings >= SMALL_TABLE_ROWS:
            tables.add(id(module.weight))
            yield name, "table", {"weight": module.weight}
    for name, module in modules:
        if type(module) is nn.Linear:
            yield name, "table" if id(module.weight) in tables else "linear", {"weight": module.weight}
        elif type(module) is nn.LSTM:
            yield name, "lstm", {part: module.get_parameter(part) for part in matrix_names(module)}
        elif type(module) is StoredLinear:
            is_packed = type(module.matrix).recoded is not StoredMatrix.recoded
            yield name, "packed" if is_packed else "linear", {"weight": module.matrix}


def _planned_form(module: "nn.Module", part: str, form: EncodingForm) -> dict[str, Any]:
    from qa_core.models.stored.base import StoredLinear, matrix_form

    if isinstance(module, StoredLinear):
        return type(module.matrix).recoded_form(matrix_form(module.matrix), form)
    shape = list(module.get_parameter(part).shape)
    return {"encoding": form["encoding"], "shape": shape, "settings": dict(form["settings"])}


def _encoded(module: "nn.Module", part: str, form: EncodingForm) -> "StoredMatrix":
    import torch

    from qa_core.models.stored.base import StoredLinear, empty_matrix, encoding

    matrix = module.matrix if isinstance(module, StoredLinear) else None
    weight = module.get_parameter(part) if matrix is None else next(matrix.buffers())
    if weight.is_meta:
        with torch.device("meta"):
            return empty_matrix(_planned_form(module, part, form))
    if matrix is not None:
        return matrix.recoded(form)
    return encoding(form["encoding"]).encode(weight, form["settings"])


def _replace(
    model: "nn.Module",
    name: str,
    entry: Mapping[str, Any] | str,
    make: "Callable[[nn.Module, str, Mapping[str, Any]], StoredMatrix]",
) -> None:
    """Put the stored form of a module in its place; a str names the replaced module whose matrix it shares."""
    from torch import nn

    from qa_core.models.stored.base import StoredEmbedding, StoredLinear, set_module
    from qa_core.models.stored.lstm import StoredLstm

    module: Any = model.get_submodule(name)
    if isinstance(entry, str):
        sharer: Any = model.get_submodule(entry)
        matrices = {"weight": sharer.matrix}
    else:
        matrices = {part: make(module, part, form) for part, form in entry.items()}
    stored: nn.Module
    if isinstance(module, nn.LSTM):
        stored = StoredLstm(module, matrices)
    elif isinstance(module, nn.Embedding):
        stored = StoredEmbedding(matrices["weight"], module.padding_idx)
    else:
        stored = StoredLinear(matrices["weight"], module.bias)
    set_module(model, name, stored.train(module.training))
