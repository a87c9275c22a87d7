"""From the `forms` of a sweep to the stored forms of one recipe: every legal combination of the listed options, once.

A form is the recipe with other options of methods that act after training. Which options do is said by each method
(`Method.after_training`). Forms belong to the sweep and not to the recipe: a recipe that named them would train another
teacher for each list. What a list may hold is checked in
`sweeps/spec/load.py`.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import count, product
from typing import TYPE_CHECKING, Any

from qa_core import registry
from qa_core.config import Form, RunConfig, form_of
from qa_core.errors import ConfigError
from sweeps.space.paths import METHODS_PATH

if TYPE_CHECKING:
    from qa_core.methods.base import Method

__all__ = ["Form", "Listed", "form_of", "forms_of", "free_label"]

Listed = Mapping[str, Mapping[str, Sequence[Any]]]  # method -> option -> values, as `SweepSpec.forms`


def forms_of(recipe: RunConfig, listed: Listed) -> tuple[Form, ...]:
    """Return the forms that a recipe is stored in, in the order of the lists, the last option varying fastest.

    A method that the recipe lacks drops out, unless it can be added after training: `quantize` is added to every recipe
    that has none and goes together with it. Combinations that the methods refuse are left out, and of several that
    come to the same options one is kept.

    Returns:
        () where nothing of the lists applies to the recipe: it is then stored as it says, and is one point.
    """
    applied = {name: options for name, options in listed.items() if options and _applies(recipe, name)}
    if not applied:
        return ()
    forms: dict[str, Form] = {}  # by their settings
    labels: set[str] = set()
    for chosen in _combinations(applied):
        try:
            methods = {name: _with_options(recipe, name, options) for name, options in chosen.items()}
        except ConfigError:
            continue
        settings = {
            f"{METHODS_PATH}.{name}.{option}": value
            for name, options in chosen.items()
            for option, value in options.items()
            if _differs(recipe, methods[name], option)
        }
        if (key := repr(settings)) not in forms:
            label = free_label(_label(recipe, methods, applied), labels)
            labels.add(label)
            forms[key] = form_of(recipe, label, settings)
    return tuple(forms.values())


def free_label(label: str, taken: Container[str]) -> str:
    """Return the label, numbered where two forms differ in what it does not say."""
    if label not in taken:
        return label
    return next(found for number in count(2) if (found := f"{label}-{number}") not in taken)


def _applies(recipe: RunConfig, name: str) -> bool:
    """Tell whether a listed method makes forms of the recipe."""
    kind = registry.method_class(name)
    if not kind.is_addable_after_training:
        return name in recipe.methods
    if name in recipe.methods:  # the recipe itself says how it is stored
        return False
    others = [registry.method_class(other) for other in recipe.methods]
    clashes = any(other.claims & kind.claims for other in others)
    return not clashes and not (kind.needs and kind.needs - registry.make_family(recipe).traits)


def _combinations(applied: Listed) -> Iterator[dict[str, dict[str, Any]]]:
    """Yield method -> option -> value of every combination, legal or not."""
    paths = [(name, option) for name, options in applied.items() for option in options]
    values = [values for options in applied.values() for values in options.values()]
    for chosen in product(*values):
        combination: dict[str, dict[str, Any]] = {}
        for (name, option), value in zip(paths, chosen, strict=True):
            combination.setdefault(name, {})[option] = value
        yield combination


def _with_options(recipe: RunConfig, name: str, options: Mapping[str, Any]) -> "Method":
    """Return the method of a form; raises ConfigError where its options do not go together."""
    return registry.method_class(name).from_options({**(recipe.methods.get(name) or {}), **options})


def _differs(recipe: RunConfig, method: "Method", option: str) -> bool:
    """Tell whether an option makes a form another than what the recipe stores.

    A method that is added, and whose options leave the network as it was trained, adds nothing.
    """
    if method.name not in recipe.methods:
        return not method.answers_as_trained
    own = _with_options(recipe, method.name, {})
    return bool(getattr(method.options, option) != getattr(own.options, option))


def _label(recipe: RunConfig, methods: Mapping[str, "Method"], applied: Listed) -> str:
    """Return the words of the methods that are added, and of those with other options than the recipe's.

    Where these are none, of all of them.
    """
    told = [
        method
        for name, method in methods.items()
        if name not in recipe.methods or any(_differs(recipe, method, option) for option in applied[name])
    ]
    told = sorted(
        told or methods.values(), key=lambda method: method.name in recipe.methods
    )  # added ones first
    return "+".join(method.form_words(applied[method.name]) for method in told)
