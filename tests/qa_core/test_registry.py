"""Names of families and methods: found, refused with the nearest name, light to import."""

import subprocess
import sys

import pytest

from qa_core import registry
from qa_core.config import RunConfig
from qa_core.errors import ConfigError, IllegalCombination
from qa_core.methods.base import Method
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


def test_methods_that_exclude_each_other_are_refused(monkeypatch):
    class First(Method):
        name = "first"
        excludes = frozenset({"second"})

    class Second(Method):
        name = "second"

    family = registry.make_family(from_dict(RunConfig, {"model": {"family": "bert"}}))
    first, second = First.from_options({}), Second.from_options({})
    registry.check_combination(family, [first])
    with pytest.raises(IllegalCombination, match="'first' cannot be combined with second"):
        registry.check_combination(family, [first, second])
