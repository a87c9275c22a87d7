"""Names of families and methods: found, refused with the nearest name, light to import."""

import subprocess
import sys
from itertools import combinations

import pytest

from qa_core import registry
from qa_core.config import RunConfig
from qa_core.errors import ConfigError, IllegalCombination
from qa_core.methods.base import Claim, Method
from qa_core.values import from_dict


def test_every_name_leads_to_a_class_of_that_name():
    assert len(registry.FAMILIES) == 5
    for name in registry.FAMILIES:
        assert registry.family_class(name).name == name
    for name in registry.METHODS:
        assert registry.method_class(name).name == name


@pytest.mark.parametrize(
    ("name", "words"), [("brt", "did you mean 'bert'"), ("xyzzy", "allowed: bert, distilbert")]
)
def test_an_unknown_family_is_refused_with_the_nearest_name(name, words):
    with pytest.raises(ConfigError, match=words):
        registry.family_class(name)


def test_naming_every_class_imports_neither_torch_nor_transformers():
    program = (
        "import sys\n"
        "from qa_core import registry\n"
        "for name in registry.FAMILIES: registry.family_class(name)\n"
        "for name in registry.METHODS: registry.method_class(name)\n"
        "print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_methods_that_decide_the_same_are_refused_together():
    class First(Method):
        name = "first"
        claims = frozenset({Claim.LOSS, Claim.STORED_BASE})

    class Second(Method):
        name = "second"
        claims = frozenset({Claim.STORED_BASE})

    family = registry.make_family(from_dict(RunConfig, {"model": {"family": "bert"}}))
    first, second = First.from_options({}), Second.from_options({})
    registry.check_combination(family, [first])
    with pytest.raises(IllegalCombination, match="combined with second: both decide how the base is stored"):
        registry.check_combination(family, [first, second])


def test_which_methods_go_together():
    """All pairs: one method decides which weights are trained, one the loss, one how the base is stored."""
    training = {"lora", "ia3", "qlora", "lora_int8", "static_prune"}
    refused = {frozenset(pair) for pair in combinations(training, 2)}
    refused |= {frozenset({"few_shot", other}) for other in (*training, "distill")}
    refused |= {frozenset({"quantize", other}) for other in ("qlora", "lora_int8")}
    found = set()
    for pair in combinations(registry.METHODS, 2):
        one, other = map(registry.method_class, pair)
        if one.claims & other.claims:
            found.add(frozenset(pair))
    assert found == refused
