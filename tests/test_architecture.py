"""The order of packages and the places of libraries, held by reading every import of the project."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tests.source_tree import (
    PACKAGES,
    PROJECT,
    Rule,
    Sources,
    docstrings_in,
    files_in,
    forbidden_imports,
    imports_of,
    module_of,
    planted,
    project_sources,
)

# The floors of the house, from the ground up. A module belongs to the longest entry that begins its name; it imports
# from its own entry and from floors below, and entries of one floor do not import each other.
ORDER = """
qa_core qa_core.errors qa_core.seeding qa_core.heartbeat qa_core.turns qa_core.schema qa_core.form_folder
qa_core.checkpoints qa_core.training.schedules < qa_core.files qa_core.values < qa_core.config
< qa_core.hardware qa_core.artifact.manifest < qa_core.data qa_core.artifact.weight_file < qa_core.models
< qa_core.families < qa_core.artifact.loaded < qa_core.methods.base < qa_core.registry
< qa_core.methods qa_core.artifact < qa_core.scoring qa_core.training qa_core.memory.protocol qa_core.data.prepare
< qa_core.memory < qa_core.prerequisites qa_core.measure qa_core.form_kinds < qa_core.stored_forms
< qa_core.run < qa_core.calibration
< sweeps sweeps.registry sweeps.run_folder < sweeps.spec sweeps.progress < sweeps.space < sweeps.front
< sweeps.searchers < sweeps.schedulers sweeps.nodes sweeps.report < sweeps.budget sweeps.replay
< sweeps.checks sweeps.trials < sweeps.commands < sweeps.cli
< sweeps.run qa_sweeps.sweep qa_sweeps.reader qa_sweeps.given qa_sweeps.child qa_sweeps.mlflow_model
< qa_sweeps.running < qa_sweeps < qa_sweeps.reference
"""
FLOORS = [floor.split() for floor in ORDER.split("<")]
RAY_FILES = [f"sweeps/trials/{name}.py" for name in ("worker", "ray_adapters", "ray_driver", "ray_service")]
RAY_FILES += ["sweeps/nodes/survey.py"]
RAY_FOLDERS = ("sweeps/schedulers", "sweeps/searchers")  # inside functions: they are light
MLFLOW_FILES = [f"sweeps/progress/mlflow_{name}.py" for name in ("retry", "runs", "store", "writer")]
MLFLOW_FILES += [f"sweeps/commands/{name}.py" for name in ("register", "serve", "served")]
# Packages that load nothing heavy when any of their modules is imported, and the modules that stay out of this.
HEAVY = ("ray", "mlflow", "torch", "pandas")
LIGHT = (
    "qa_core.config qa_core.schema qa_core.registry qa_core.values qa_core.files qa_core.data qa_core.families "
    "qa_core.methods sweeps.run_folder sweeps.registry sweeps.spec sweeps.space sweeps.front sweeps.searchers "
    "sweeps.schedulers sweeps.nodes sweeps.progress sweeps.budget sweeps.replay sweeps.checks sweeps.cli qa_sweeps"
)
NOT_LIGHT = ["sweeps.front.confirm", "sweeps.front.findings", "sweeps.front.ties", "sweeps.nodes.survey"]
# Of families and methods: what the others are made with.
SHARED_PARTS = ("__init__", "adapter", "base", "heads")


def floor_of(module: str) -> tuple[int, str] | None:
    """Return the floor of a module and the entry it belongs to; None where it belongs to none."""
    found = [
        (number, entry)
        for number, floor in enumerate(FLOORS)
        for entry in floor
        if module == entry or (module.startswith(f"{entry}.") and "." in entry)
    ]
    return max(found, key=lambda item: len(item[1]), default=None)


def own_imports(sources: Sources) -> dict[str, dict[str, int]]:
    """Return module -> imported module of the packages -> line."""
    files = {module_of(file): file for file in files_in(sources, *PACKAGES)}
    return {
        module: {name: line for name, line in imports_of(sources, file) if name in files and name != module}
        for module, file in files.items()
    }


def every_file_is_on_a_floor(sources: Sources) -> list[str]:
    files = files_in(sources, *PACKAGES)
    return [f"{file}: is in no package of FLOORS" for file in files if floor_of(module_of(file)) is None]


def imports_point_downward(sources: Sources) -> list[str]:
    broken = []
    for module, imported in own_imports(sources).items():
        here = floor_of(module)
        for name, line in imported.items():
            there = floor_of(name)
            if here is None or there is None or f"{name.replace('.', '/')}/__init__.py" in sources:
                continue  # a package itself holds a docstring and no code
            if here[1] != there[1] and here[0] <= there[0]:
                broken.append(
                    f"{module}:{line}: {here[1]} imports {name} of {there[1]}, which is not below it"
                )
    return broken


def no_circle_of_imports(sources: Sources) -> list[str]:
    graph = {module: set(imported) for module, imported in own_imports(sources).items()}
    while leaves := {module for module, imported in graph.items() if not imported & graph.keys()}:
        graph = {module: imported for module, imported in graph.items() if module not in leaves}
    return [f"{module}: is in a circle, or imports one" for module in sorted(graph)]


def docstrings_name_modules_that_are_there(sources: Sources) -> list[str]:
    """Hold that a bare `x.py` is of the same folder and that imports connect the two, and that any path is there."""
    graph = own_imports(sources)
    broken = []
    for file in files_in(sources, *PACKAGES):
        for text, line in docstrings_in(sources[file]):
            for name in re.findall(r"`([\w/]+\.py)`", text):
                named = name if "/" in name else f"{file.rpartition('/')[0]}/{name}"
                if named not in sources and not (PROJECT / named).is_file():
                    broken.append(f"{file}:{line}: names {name}, which is not there")
                elif "/" not in name and not file.endswith("/__init__.py"):
                    here, there = module_of(file), module_of(named)
                    if not leads(graph, here, there) and not leads(graph, there, here):
                        broken.append(f"{file}:{line}: names {name}, and neither imports the other")
    return broken


def leads(graph: Mapping[str, Mapping[str, int]], start: str, end: str) -> bool:
    seen, left = {start}, [start]
    while left:
        new = graph.get(left.pop(), {}).keys() - seen
        seen |= new
        left += new
    return end in seen


def core_knows_nothing_of_sweeps(sources: Sources) -> list[str]:
    others = ("ray", "mlflow", "optuna", "sweeps", "qa_sweeps")
    return forbidden_imports(sources, files_in(sources, "qa_core"), others)


def families_and_methods_stand_alone(sources: Sources) -> list[str]:
    files = files_in(sources, "qa_core/families", "qa_core/methods")
    modules = {module_of(file) for file in files if Path(file).stem not in SHARED_PARTS}
    loop = {"qa_core.training.train", "qa_core.run"}
    return [
        place
        for file in files
        for place in forbidden_imports(sources, [file], (modules | loop) - {module_of(file)})
    ]


def ray_stays_at_the_edge(sources: Sources) -> list[str]:
    files = set(files_in(sources, *PACKAGES, "benchmarks")) - set(RAY_FILES)
    return forbidden_imports(sources, sorted(files - set(files_in(sources, *RAY_FOLDERS))), ("ray",))


def mlflow_stays_in_tracking(sources: Sources) -> list[str]:
    files = set(files_in(sources, *PACKAGES, "benchmarks")) - set(MLFLOW_FILES)
    return forbidden_imports(sources, sorted(files), ("mlflow",))


# rule -> file of a planted violation, its text, a part of the message that must come
VIOLATIONS: dict[Rule, list[tuple[str, str, str]]] = {
    every_file_is_on_a_floor: [
        ("sweeps/planted/new.py", "", "sweeps/planted/new.py: is in no package"),
        ("qa_core/planted.py", "", "qa_core/planted.py: is in no package"),
    ],
    imports_point_downward: [
        ("sweeps/front/pareto.py", "from sweeps.trials import driver", "not below it"),
        ("sweeps/spec/load.py", "def f():\n    import sweeps.space.space", "not below it"),
        ("qa_core/data/text.py", "from qa_core.scoring.scores import f1", "qa_core.scoring"),
        ("sweeps/front/pareto.py", "import sweeps.searchers.base", "sweeps.searchers"),
        ("sweeps/commands/run.py", "import qa_sweeps.sweep", "qa_sweeps.sweep"),
    ],
    no_circle_of_imports: [
        ("sweeps/front/pareto.py", "from sweeps.front import front", "front.pareto: is in a circle"),
        (
            "qa_core/data/text.py",
            "if TYPE_CHECKING:\n    from qa_core.data import negatives",
            "qa_core.data.negatives: is in a circle",
        ),
    ],
    docstrings_name_modules_that_are_there: [
        ("sweeps/front/pareto.py", 'class P:\n    """See `gone.py`."""', "names gone.py, which is not there"),
        (
            "sweeps/front/pareto.py",
            'def p():\n    """See `sweeps/tuner.py`."""',
            "names sweeps/tuner.py, which",
        ),
        ("sweeps/front/plots.py", 'def p():\n    """See `volume.py`."""', "neither imports the other"),
    ],
    core_knows_nothing_of_sweeps: [
        ("qa_core/seeding.py", "import ray", "imports ray"),
        ("qa_core/data/planted.py", "from optuna.trial import Trial", "imports optuna"),
        ("qa_core/config.py", "def f():\n    import sweeps.front.front", "sweeps.front.front"),
        ("qa_core/config.py", "import_module('mlflow.entities')", "mlflow.entities"),
        ("qa_core/errors.py", "if TYPE_CHECKING:\n    from sweeps import spec", "sweeps"),
    ],
    families_and_methods_stand_alone: [
        ("qa_core/families/bert.py", "from . import lstm", "imports qa_core.families.lstm"),
        ("qa_core/families/t5.py", "from .bert import Bert", "imports qa_core.families.bert"),
        ("qa_core/methods/lora.py", "from qa_core.families import t5", "families.t5"),
        ("qa_core/families/t5.py", "import qa_core.methods.lora", "methods.lora"),
        ("qa_core/methods/lora.py", "from qa_core.training.train import train", "qa_core.training.train"),
        ("qa_core/families/base.py", "from qa_core import run", "qa_core.run"),
    ],
    ray_stays_at_the_edge: [
        ("qa_sweeps/running.py", "import ray", "imports ray"),
        ("sweeps/front/front.py", "def f():\n    from ray import tune", "imports ray"),
        ("sweeps/configs/planted.py", "import ray.tune", "imports ray.tune"),
    ],
    mlflow_stays_in_tracking: [
        ("sweeps/trials/ray_driver.py", "def f():\n    from mlflow import MlflowClient", "mlflow"),
    ],
}
PLANTED = [(rule, *violation) for rule, violations in VIOLATIONS.items() for violation in violations]


@pytest.mark.parametrize("rule", VIOLATIONS, ids=lambda rule: rule.__name__)
def test_the_project_keeps_the_rule(rule: Rule) -> None:
    assert rule(project_sources()) == []


@pytest.mark.parametrize(
    ("rule", "file", "text", "message"),
    PLANTED,
    ids=[f"{rule.__name__}-{file}" for rule, file, *_ in PLANTED],
)
def test_the_rule_is_red_when_broken(rule: Rule, file: str, text: str, message: str) -> None:
    broken = rule(planted(file, text))
    assert any(message in place for place in broken), broken


def test_the_files_that_rules_name_are_there() -> None:
    assert {*RAY_FILES, *MLFLOW_FILES} <= project_sources().keys()
    modules = {module_of(file) for file in files_in(project_sources(), *PACKAGES)}
    assert {*LIGHT.split(), *NOT_LIGHT} <= modules
    assert {entry for floor in FLOORS for entry in floor} <= modules


def first_heavy(root: Path, modules: Iterable[str]) -> str:
    """Import modules one after the other in a fresh process and return the first that loads what is heavy."""
    code = (
        "import sys, importlib\n"
        "for name in sys.argv[1:]:\n"
        "    file = importlib.import_module(name).__file__\n"
        "    assert file.startswith(sys.path[0]), file\n"
        f"    heavy = sorted({set(HEAVY)} & set(sys.modules))\n"
        "    if heavy: sys.exit(print(f'importing {name} loads', *heavy))\n"
    )
    command = [sys.executable, "-c", f"import sys; sys.path[0] = {str(root)!r}\n{code}", *modules]
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_light_packages_load_nothing_heavy() -> None:
    modules = [module_of(file) for file in files_in(project_sources(), *PACKAGES)]
    light = [
        name
        for name in modules
        if name not in NOT_LIGHT and f"{name}.".startswith(tuple(f"{package}." for package in LIGHT.split()))
    ]
    assert len(light) > 150
    assert first_heavy(PROJECT, light) == ""


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("sweeps/front/pareto.py", "import torch", "importing sweeps.front.pareto loads torch"),
        ("qa_core/families/lstm.py", "import pandas", "importing qa_core.families.lstm loads pandas"),
    ],
    ids=["torch", "pandas"],
)
def test_a_light_module_that_loads_something_heavy_is_named(
    tmp_path: Path, file: str, text: str, message: str
) -> None:
    sources = planted(file, text)
    for name in files_in(sources, *PACKAGES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(sources[name], encoding="utf-8")
    for name in HEAVY:  # in their places; whether they load is all that is asked
        (tmp_path / f"{name}.py").touch()
    assert first_heavy(tmp_path, ["qa_core.registry", module_of(file)]) == message


def test_imports_are_found_wherever_they_stand() -> None:
    text = (
        "import a.b\n"
        "from . import c\n"
        "from ..d import e\n"
        "def f():\n"
        "    import g as h\n"
        "if TYPE_CHECKING:\n"
        "    from i import j\n"
        "k = importlib.import_module('l.m')\n"
    )
    assert set(imports_of({"package/inner/module.py": text}, "package/inner/module.py")) == {
        ("a.b", 1),
        ("package.inner", 2),
        ("package.inner.c", 2),
        ("package.d", 3),
        ("package.d.e", 3),
        ("g", 5),
        ("i", 7),
        ("i.j", 7),
        ("l.m", 8),
    }
