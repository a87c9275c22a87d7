"""The design's rules of layering, held by reading every import of the project.

Each rule is a function from a root folder to the places that break it, so that the same function judges the
project and a copy with a planted violation: every rule is seen red. Imports inside functions, those under
TYPE_CHECKING and `import_module("name")` count as well.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from shutil import copytree, ignore_patterns, rmtree

import pytest

PROJECT = Path(__file__).resolve().parents[1]
OWN_FOLDERS = ("qa_core", "sweeps", "qa_sweeps", "benchmarks", "tests")
PACKAGES = ("qa_core", "sweeps", "qa_sweeps")
# The floors of the house, from the ground up. A module belongs to the longest entry that begins its name; it imports
# from its own entry and from floors below, and entries of one floor do not import each other.
FLOORS = (
    "qa_core qa_core.errors qa_core.seeding qa_core.heartbeat qa_core.turns qa_core.schema qa_core.training.schedules "
    "qa_core.form_folder qa_core.checkpoints",
    "qa_core.files qa_core.values",
    "qa_core.config",
    "qa_core.hardware qa_core.artifact.manifest",
    "qa_core.data qa_core.artifact.weight_file",
    "qa_core.models",
    "qa_core.families",
    "qa_core.artifact.loaded",
    "qa_core.methods.base",
    "qa_core.registry",
    "qa_core.methods qa_core.artifact",
    "qa_core.scoring qa_core.training qa_core.memory.protocol qa_core.data.prepare",
    "qa_core.memory",
    "qa_core.prerequisites qa_core.measure qa_core.form_kinds",
    "qa_core.stored_forms",
    "qa_core.run",
    "qa_core.calibration",
    "sweeps sweeps.registry sweeps.run_folder",
    "sweeps.spec sweeps.progress",
    "sweeps.space",
    "sweeps.front",
    "sweeps.searchers",
    "sweeps.schedulers sweeps.nodes sweeps.report",
    "sweeps.budget sweeps.replay",
    "sweeps.checks sweeps.trials",
    "sweeps.commands",
    "sweeps.cli",
    "sweeps.run qa_sweeps.sweep qa_sweeps.reader qa_sweeps.given qa_sweeps.child qa_sweeps.mlflow_model",
    "qa_sweeps.running",
    "qa_sweeps",
    "qa_sweeps.reference",
)
HEAVY = ("ray", "mlflow", "torch", "pandas")
LIGHT_MODULES = (  # imported before importer, so that the one at fault is named
    "qa_core.config",
    "qa_core.registry",
    "qa_core.schema",
    "sweeps.front.pareto",
    "sweeps.schedulers.ranks",
    "sweeps.schedulers.halving",
    "sweeps.schedulers.forms",
    "sweeps.run_folder.records",
    "sweeps.registry",
    "sweeps.spec.load",
    "sweeps.space.space",
    "sweeps.space.known_recipes",
    "sweeps.front.comparability",
    "sweeps.front.front",
    "sweeps.front.volume",
    "sweeps.replay.curves",
    "sweeps.replay.curve_files",
    "sweeps.replay.recorded",
    "sweeps.replay.simulate",
    "sweeps.budget.memory",
    "sweeps.budget.references",
    "sweeps.budget.hours",
    "sweeps.progress.console",
    "sweeps.nodes.preflight",
    "sweeps.budget.gpu_shares",
    "sweeps.budget.gpu_cap",
    "sweeps.nodes.gpu_use",
    "sweeps.cli",
    "qa_sweeps",
)
RAY_FILES = (
    "sweeps/trials/worker.py",
    "sweeps/trials/ray_adapters.py",
    "sweeps/trials/ray_driver.py",
    "sweeps/nodes/survey.py",
    "sweeps/trials/ray_service.py",
)
RAY_FOLDERS = ("sweeps/schedulers", "sweeps/searchers")
MLFLOW_FILES = (
    "sweeps/progress/mlflow_retry.py",
    "sweeps/progress/mlflow_runs.py",
    "sweeps/progress/mlflow_store.py",
    "sweeps/progress/mlflow_writer.py",
    "sweeps/commands/register.py",
    "sweeps/commands/serve.py",
    "sweeps/commands/served.py",
)
PICKLERS = ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal")
RUNS_CODE = ("eval", "exec", "compile", "os.system", "os.popen", "torch.hub.load")
UNSAFE_READERS = ("unsafe_load", "unsafe_load_all", "full_load", "full_load_all", "read_pickle")
SAFE_LOADERS = (
    "yaml.SafeLoader",
    "yaml.CSafeLoader",
    "_Loader",
)  # the last: of sweeps/spec/source.py, made from the first
# folder of one noun -> the file and the name of its registry
REGISTRIES = {
    "qa_core/families": ("qa_core/registry.py", "FAMILIES"),
    "qa_core/methods": ("qa_core/registry.py", "METHODS"),
    "sweeps/schedulers": ("sweeps/registry.py", "SCHEDULERS"),
    "sweeps/searchers": ("sweeps/registry.py", "SEARCHERS"),
}
# What others are made with.
NOT_REGISTERED = (
    "__init__",
    "base",
    "heads",
    "halving",
    "pausing",
    "ranks",
    "forms",
    "nsga2",
    "encoding",
    "gaussian_process",
)

Rule = Callable[[Path], list[str]]


# What the rules read


def python_files(root: Path, *folders: str) -> list[Path]:
    """Return the source files below the given folders, relative to `root`."""
    return sorted(path.relative_to(root) for folder in folders for path in (root / folder).rglob("*.py"))


def tree_of(root: Path, file: Path) -> ast.Module:
    return parsed((root / file).read_text(encoding="utf-8"))


@cache  # by content: a copy with a planted violation differs in one file
def parsed(text: str) -> ast.Module:
    return ast.parse(text)


def imports_of(root: Path, file: Path) -> tuple[tuple[str, int], ...]:
    """Return each imported name with its line: "a.b" for `import a.b`; "a" and "a.b" for `from a import b`."""
    return imports_in((root / file).read_text(encoding="utf-8"), file.with_suffix("").parts[:-1])


@cache
def imports_in(text: str, package: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    return tuple(found_imports(parsed(text), package))


def found_imports(tree: ast.Module, package: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*start, *([node.module] if node.module else [])])
            yield module, node.lineno
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and name_of(node.func) in ("import_module", "__import__"):
            named = node.args[0] if node.args else None
            if isinstance(named, ast.Constant) and isinstance(named.value, str):
                yield named.value, node.lineno


def name_of(function: ast.expr) -> str:
    """Return the last part of a called name: "load" for `torch.load`."""
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def is_in(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def forbidden_imports(root: Path, files: list[Path], packages: tuple[str, ...]) -> list[str]:
    return [
        f"{file}:{line}: imports {name}"
        for file in files
        for name, line in sorted(set(imports_of(root, file)), key=lambda found: (found[1], found[0]))
        if is_in(name, packages)
    ]


def registered_files(root: Path, folder: str) -> dict[str, str]:
    """Return the registry of a folder's noun, read from source: name -> the file its class lives in."""
    file, variable = REGISTRIES[folder]
    table: dict[str, str] = {}
    for node in tree_of(root, Path(file)).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == variable for target in targets):
            table = ast.literal_eval(node.value)  # type: ignore[attr-defined]
    assert table, f"{file} has no {variable}"
    return {name: place.partition(":")[0].replace(".", "/") + ".py" for name, place in table.items()}


def module_of(file: Path) -> str:
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


def floor_of(module: str) -> tuple[int, str] | None:
    """Return the floor of a module and the entry it belongs to; None where it belongs to none."""
    found = [
        (number, entry)
        for number, floor in enumerate(FLOORS)
        for entry in floor.split()
        if module == entry or (module.startswith(f"{entry}.") and "." in entry)
    ]
    return max(found, key=lambda item: len(item[1]), default=None)


def own_imports(root: Path) -> dict[str, dict[str, int]]:
    """Return module -> imported module of the project -> line, for all of the packages."""
    files = {module_of(file): file for file in python_files(root, *PACKAGES)}
    return {
        module: {
            name: line for name, line in imports_of(root, file) if name in files and name not in (module, "")
        }
        for module, file in files.items()
    }


def is_package(root: Path, module: str) -> bool:
    return (root / module.replace(".", "/")).is_dir()


@cache
def docstrings_in(text: str) -> tuple[tuple[str, int], ...]:
    """Return each docstring with the line of what it describes."""
    described = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(parsed(text)) if isinstance(node, described)]
    found = ((ast.get_docstring(node), getattr(node, "lineno", 1)) for node in nodes)
    return tuple((docstring, line) for docstring, line in found if docstring)


# The rules


def every_file_is_on_a_floor(root: Path) -> list[str]:
    files = python_files(root, *PACKAGES)
    return [f"{file}: is in no package of FLOORS" for file in files if floor_of(module_of(file)) is None]


def imports_point_downward(root: Path) -> list[str]:
    broken = []
    for module, imported in own_imports(root).items():
        here = floor_of(module)
        for name, line in imported.items():
            there = floor_of(name)
            if here is None or there is None or is_package(root, name):
                continue  # a package itself holds a docstring and no code
            if here[1] != there[1] and here[0] <= there[0]:
                broken.append(
                    f"{module}:{line}: {here[1]} imports {name} of {there[1]}, which is not below it"
                )
    return broken


def no_circle_of_imports(root: Path) -> list[str]:
    graph = {module: set(imported) for module, imported in own_imports(root).items()}
    while True:
        leaves = {module for module, imported in graph.items() if not imported & graph.keys()}
        if not leaves:
            break
        graph = {module: imported for module, imported in graph.items() if module not in leaves}
    return [f"{module}: is in a circle, or imports one" for module in sorted(graph)]


def docstrings_name_modules_that_are_there(root: Path) -> list[str]:
    """Hold that a bare `x.py` is of the same folder and that imports connect the two, and that any path is there."""
    graph = own_imports(root)
    broken = []
    for file in python_files(root, *PACKAGES):
        for text, line in docstrings_in((root / file).read_text(encoding="utf-8")):
            for name in re.findall(r"`([\w/]+\.py)`", text):
                named = Path(name) if "/" in name else file.parent / name
                if not (root / named).is_file():
                    broken.append(f"{file}:{line}: names {name}, which is not there")
                elif "/" not in name and file.stem != "__init__":
                    here, there = module_of(file), module_of(named)
                    if not leads(graph, here, there) and not leads(graph, there, here):
                        broken.append(f"{file}:{line}: names {name}, and neither imports the other")
    return broken


def leads(graph: Mapping[str, Mapping[str, int]], start: str, end: str) -> bool:
    seen, left = {start}, [start]
    while left:
        for name in graph.get(left.pop(), ()):
            if name not in seen:
                seen.add(name)
                left.append(name)
    return end in seen


def core_knows_nothing_of_sweeps(root: Path) -> list[str]:
    return forbidden_imports(
        root, python_files(root, "qa_core"), ("ray", "mlflow", "optuna", "sweeps", "qa_sweeps")
    )


def families_and_methods_stand_alone(root: Path) -> list[str]:
    broken = []
    nouns = [file.with_suffix("") for file in python_files(root, "qa_core/families", "qa_core/methods")]
    modules = {".".join(noun.parts) for noun in nouns if noun.name not in NOT_REGISTERED}
    loop = ("qa_core.training.train", "qa_core.run")
    for file in python_files(root, "qa_core/families", "qa_core/methods"):
        others = tuple(modules - {".".join(file.with_suffix("").parts)})
        broken += forbidden_imports(root, [file], (*others, *loop))
    return broken


def ray_stays_at_the_edge(root: Path) -> list[str]:
    files = python_files(root, *PACKAGES, "benchmarks")
    allowed = [
        file for file in files if file.as_posix() in RAY_FILES or file.parent.as_posix() in RAY_FOLDERS
    ]
    return forbidden_imports(root, [file for file in files if file not in allowed], ("ray",))


def mlflow_stays_in_tracking(root: Path) -> list[str]:
    files = python_files(root, *PACKAGES, "benchmarks")
    return forbidden_imports(
        root, [file for file in files if file.as_posix() not in MLFLOW_FILES], ("mlflow",)
    )


def light_modules_load_nothing_heavy(root: Path) -> list[str]:
    """Import light modules and registered families and methods one after the other in a fresh process."""
    modules = list(LIGHT_MODULES)
    for folder in ("qa_core/families", "qa_core/methods"):
        files = registered_files(root, folder).values()
        modules += sorted(file.removesuffix(".py").replace("/", ".") for file in files)
    code = (
        "import sys, importlib\n"
        "for name in sys.argv[1:]:\n"
        "    module = importlib.import_module(name)\n"
        f"    heavy = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "    print(name, module.__file__, ','.join(heavy), sep='|')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *modules], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    broken, seen = [], ""
    for line, module in zip(done.stdout.splitlines(), modules, strict=True):
        name, file, heavy = line.split("|")
        assert name == module
        assert Path(file).is_relative_to(root), file
        if heavy != seen:  # what one module loaded stays loaded: later ones are judged when this one is clean
            broken.append(f"importing {name} loads {heavy}")
            seen = heavy
    return broken


def registry_folder_and_tests_agree(root: Path) -> list[str]:
    broken = []
    for folder in REGISTRIES:
        registered = set(registered_files(root, folder).values())
        present = {file for file in map(Path.as_posix, python_files(root, folder)) if named(file)}
        tested = {
            f"{folder}/{file.stem.removeprefix('test_')}.py"
            for file in python_files(root, f"tests/{folder}")
            if file.stem.startswith("test_") and named(file.as_posix())
        }
        broken += [f"{file}: registered, but there is no such file" for file in sorted(registered - present)]
        broken += [f"{file}: has no line in {REGISTRIES[folder][1]}" for file in sorted(present - registered)]
        broken += [f"{file}: has no test file in tests/{folder}" for file in sorted(present - tested)]
        broken += [f"tests of {file}: there is no such file" for file in sorted(tested - present)]
    return broken


def named(file: str) -> bool:
    return Path(file).stem.removeprefix("test_") not in NOT_REGISTERED


def no_name_hides_another_module(root: Path) -> list[str]:
    """`python sweeps/run.py` starts with `sweeps/` first on the import path."""
    installed = {name for name, owners in packages_distributions().items() if set(owners) != {"qa-sweeps"}}
    names = {path.stem: path for path in sorted((root / "sweeps").iterdir()) if is_importable(path)}
    taken = set(sys.stdlib_module_names) | installed
    return [f"sweeps/{path.name}: hides the module {name}" for name, path in names.items() if name in taken]


def is_importable(path: Path) -> bool:
    return path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))


def nothing_runs_what_it_loads(root: Path) -> list[str]:
    files = python_files(root, *PACKAGES, "benchmarks")
    broken = forbidden_imports(root, files, PICKLERS)
    for file in files:
        places = unsafe_places((root / file).read_text(encoding="utf-8"))
        broken += [f"{file}:{line}: {fault}" for line, fault in places]
    return broken


@cache
def unsafe_places(text: str) -> tuple[tuple[int, str], ...]:
    places = []
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.Call):
            places += [(node.lineno, fault) for fault in unsafe(node)]
        elif isinstance(node, ast.Dict):
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            places += [(node.lineno, key) for key in keys if key == "trust_remote_code"]
    return tuple(places)


def unsafe(call: ast.Call) -> list[str]:
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    called = ast.unparse(call.func)
    faults = []
    if called == "torch.load" and given.get("weights_only") != "True":
        faults.append("torch.load without weights_only=True")
    if called in RUNS_CODE or name_of(call.func) in UNSAFE_READERS:
        faults.append(called)
    if called in ("yaml.load", "yaml.load_all") and given.get("Loader") not in SAFE_LOADERS:
        faults.append(f"{called} without a safe Loader")
    if given.get("shell", "False") != "False":
        faults.append(f"shell={given['shell']}")
    if name_of(call.func) == "from_pretrained" and given.get("trust_remote_code") != "False":
        faults.append("from_pretrained without trust_remote_code=False")
    for name in ("trust_remote_code", "allow_pickle"):
        if given.get(name, "False") != "False":
            faults.append(f"{name}={given[name]}")
    return faults


# rule, file of the planted violation, its text, a part of the message that must come
VIOLATIONS: list[tuple[Rule, str, str, str]] = [
    (every_file_is_on_a_floor, "sweeps/planted/new.py", "", "sweeps/planted/new.py: is in no package"),
    (every_file_is_on_a_floor, "qa_core/planted.py", "", "qa_core/planted.py: is in no package"),
    (imports_point_downward, "sweeps/front/pareto.py", "from sweeps.trials import driver", "not below it"),
    (
        imports_point_downward,
        "sweeps/spec/load.py",
        "def f():\n    import sweeps.space.space",
        "not below it",
    ),
    (
        imports_point_downward,
        "qa_core/data/text.py",
        "from qa_core.scoring.scores import f1",
        "qa_core.scoring",
    ),
    (imports_point_downward, "sweeps/front/pareto.py", "import sweeps.searchers.base", "sweeps.searchers"),
    (
        no_circle_of_imports,
        "sweeps/front/pareto.py",
        "from sweeps.front import front",
        "front.pareto: is in a circle",
    ),
    (
        no_circle_of_imports,
        "qa_core/data/text.py",
        "if TYPE_CHECKING:\n    from qa_core.data import negatives",
        "qa_core.data.negatives: is in a circle",
    ),
    (
        docstrings_name_modules_that_are_there,
        "sweeps/front/pareto.py",
        'class Planted:\n    """See `gone.py`."""',
        "names gone.py, which is not there",
    ),
    (
        docstrings_name_modules_that_are_there,
        "sweeps/front/pareto.py",
        'def planted():\n    """See `sweeps/tuner.py`."""',
        "names sweeps/tuner.py, which is not there",
    ),
    (
        docstrings_name_modules_that_are_there,
        "sweeps/front/plots.py",
        'def planted():\n    """See `volume.py`."""',
        "neither imports the other",
    ),
    (core_knows_nothing_of_sweeps, "qa_core/seeding.py", "import ray", "imports ray"),
    (
        core_knows_nothing_of_sweeps,
        "qa_core/data/planted.py",
        "from optuna.trial import Trial",
        "imports optuna",
    ),
    (
        core_knows_nothing_of_sweeps,
        "qa_core/config.py",
        "def f():\n    import sweeps.front.front",
        "sweeps.front.front",
    ),
    (
        core_knows_nothing_of_sweeps,
        "qa_core/config.py",
        "import_module('mlflow.entities')",
        "mlflow.entities",
    ),
    (
        core_knows_nothing_of_sweeps,
        "qa_core/errors.py",
        "if TYPE_CHECKING:\n    from sweeps import spec",
        "sweeps",
    ),
    (
        families_and_methods_stand_alone,
        "qa_core/families/bert.py",
        "from . import lstm",
        "imports qa_core.families.lstm",
    ),
    (
        families_and_methods_stand_alone,
        "qa_core/families/t5.py",
        "from .bert import Bert",
        "imports qa_core.families.bert",
    ),
    (
        families_and_methods_stand_alone,
        "qa_core/methods/lora.py",
        "from qa_core.families import t5",
        "families.t5",
    ),
    (
        families_and_methods_stand_alone,
        "qa_core/families/t5.py",
        "import qa_core.methods.lora",
        "methods.lora",
    ),
    (
        families_and_methods_stand_alone,
        "qa_core/methods/lora.py",
        "from qa_core.training.train import train",
        "qa_core.training.train",
    ),
    (families_and_methods_stand_alone, "qa_core/families/base.py", "from qa_core import run", "qa_core.run"),
    (imports_point_downward, "sweeps/commands/run.py", "import qa_sweeps.sweep", "qa_sweeps.sweep"),
    (ray_stays_at_the_edge, "qa_sweeps/running.py", "import ray", "imports ray"),
    (ray_stays_at_the_edge, "sweeps/front/front.py", "def f():\n    from ray import tune", "imports ray"),
    (ray_stays_at_the_edge, "sweeps/configs/planted.py", "import ray.tune", "imports ray.tune"),
    (
        mlflow_stays_in_tracking,
        "sweeps/trials/ray_driver.py",
        "def f():\n    from mlflow import MlflowClient",
        "mlflow",
    ),
    (
        light_modules_load_nothing_heavy,
        "sweeps/front/pareto.py",
        "import torch",
        "importing sweeps.front.pareto loads torch",
    ),
    (
        light_modules_load_nothing_heavy,
        "qa_core/families/lstm.py",
        "import pandas",
        "families.lstm loads pandas",
    ),
    (
        registry_folder_and_tests_agree,
        "qa_core/methods/planted.py",
        "",
        "methods/planted.py: has no line in METHODS",
    ),
    (registry_folder_and_tests_agree, "sweeps/searchers/planted.py", "", "planted.py: has no test file"),
    (
        registry_folder_and_tests_agree,
        "tests/qa_core/families/test_planted.py",
        "",
        "families/planted.py: there is no",
    ),
    (
        registry_folder_and_tests_agree,
        "sweeps/registry.py",
        "SCHEDULERS = {'gone': 'sweeps.schedulers.gone:Gone'}",
        "sweeps/schedulers/gone.py: registered, but there is no such file",
    ),
    (no_name_hides_another_module, "sweeps/queue.py", "", "sweeps/queue.py: hides the module queue"),
    (no_name_hides_another_module, "sweeps/optuna/__init__.py", "", "sweeps/optuna: hides the module optuna"),
    (nothing_runs_what_it_loads, "qa_core/artifact/artifact.py", "import pickle", "imports pickle"),
    (
        nothing_runs_what_it_loads,
        "qa_core/artifact/artifact.py",
        "torch.load('x')",
        "torch.load without weights_only",
    ),
    (
        nothing_runs_what_it_loads,
        "sweeps/front/front.py",
        "f(trust_remote_code=True)",
        "trust_remote_code=True",
    ),
    (
        nothing_runs_what_it_loads,
        "sweeps/front/front.py",
        "options = {'trust_remote_code': True}",
        "trust_remote_code",
    ),
    (
        nothing_runs_what_it_loads,
        "qa_core/data/windows.py",
        "np.load(p, allow_pickle=True)",
        "allow_pickle=True",
    ),
    (
        nothing_runs_what_it_loads,
        "sweeps/spec/source.py",
        "yaml.load(text)",
        "yaml.load without a safe Loader",
    ),
    (
        nothing_runs_what_it_loads,
        "sweeps/spec/source.py",
        "yaml.load(text, Loader=yaml.UnsafeLoader)",
        "yaml.load without a safe Loader",
    ),
    (nothing_runs_what_it_loads, "sweeps/spec/source.py", "yaml.unsafe_load(text)", "yaml.unsafe_load"),
    (nothing_runs_what_it_loads, "sweeps/space/space.py", "eval('1')", "eval"),
    (nothing_runs_what_it_loads, "sweeps/space/space.py", "def f(): exec('x = 1')", "exec"),
    (nothing_runs_what_it_loads, "sweeps/run_folder/provenance.py", "os.system('git log')", "os.system"),
    (
        nothing_runs_what_it_loads,
        "sweeps/run_folder/provenance.py",
        "subprocess.run('ls', shell=True)",
        "shell=True",
    ),
    (nothing_runs_what_it_loads, "qa_core/data/columns.py", "pandas.read_pickle('x')", "pandas.read_pickle"),
    (
        nothing_runs_what_it_loads,
        "qa_core/scoring/semantic.py",
        "AutoModel.from_pretrained('x')",
        "from_pretrained without trust_remote_code=False",
    ),
    (
        nothing_runs_what_it_loads,
        "sweeps/run_folder/journal.py",
        "from sweeps.spec.source import _Loader\nimport joblib",
        "imports joblib",
    ),
]
RULES = list(dict.fromkeys(rule for rule, *_ in VIOLATIONS))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_project_keeps_the_rule(rule: Rule) -> None:
    assert rule(PROJECT) == []


@pytest.mark.parametrize(
    ("rule", "file", "text", "message"),
    VIOLATIONS,
    ids=[f"{rule.__name__}-{file}" for rule, file, *_ in VIOLATIONS],
)
def test_the_rule_is_red_when_broken(
    planted: Callable[[str, str], Path], rule: Rule, file: str, text: str, message: str
) -> None:
    broken = rule(planted(file, text))
    assert any(message in place for place in broken), broken


@pytest.fixture(scope="module")
def project_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    for folder in OWN_FOLDERS:
        copytree(PROJECT / folder, root / folder, ignore=ignore_patterns("__pycache__"))
    return root


@pytest.fixture
def planted(project_copy: Path) -> Iterator[Callable[[str, str], Path]]:
    """Append text to a file of the copy, or make the file, for the time of a test."""
    with ExitStack() as undo:

        def plant(file: str, text: str) -> Path:
            target = project_copy / file
            made = [target.parent, *target.parent.parents][::-1]
            made = [folder for folder in made if not folder.exists()]
            before = target.read_bytes() if target.exists() else None
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((before or b"") + f"\n{text}\n".encode())
            if made:
                undo.callback(rmtree, made[0])
            elif before is None:
                undo.callback(target.unlink)
            else:
                undo.callback(target.write_bytes, before)
            return project_copy

        yield plant


def test_a_planted_violation_is_gone_after_its_test(planted: Callable[[str, str], Path]) -> None:
    root = planted("sweeps/front/pareto.py", "import torch")
    for folder in OWN_FOLDERS:
        for file in python_files(root, folder):
            is_equal = (root / file).read_bytes() == (PROJECT / file).read_bytes()
            assert is_equal == (file.as_posix() != "sweeps/front/pareto.py"), file


def test_every_rule_of_the_design_is_here_and_looks_at_real_files() -> None:
    assert len(RULES) == 12
    files = [file.as_posix() for file in python_files(PROJECT, "qa_core", "sweeps")]
    for expected in (*RAY_FILES, *MLFLOW_FILES, "qa_core/training/train.py", "sweeps/searchers/optuna.py"):
        assert expected in files
    least = {
        "qa_core/families": 5,
        "qa_core/methods": 8,
        "sweeps/schedulers": 3,
        "sweeps/searchers": 5,
    }
    for name in REGISTRIES:
        assert len(registered_files(PROJECT, name)) >= least[name], name


def test_the_loader_of_sweep_files_is_a_safe_one() -> None:
    import yaml

    from sweeps.spec.source import _Loader

    assert issubclass(_Loader, yaml.SafeLoader)
    with pytest.raises(yaml.YAMLError, match=r"found the tag .*python/object/apply:os"):
        yaml.load("!!python/object/apply:os.mkdir [x]", Loader=_Loader)


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "package" / "inner" / "module.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "import a.b\n"
        "from . import c\n"
        "from ..d import e\n"
        "def f():\n"
        "    import g as h\n"
        "if TYPE_CHECKING:\n"
        "    from i import j\n"
        "k = importlib.import_module('l.m')\n"
    )
    found = list(imports_of(tmp_path, Path("package/inner/module.py")))
    assert sorted(found) == sorted(
        [
            ("a.b", 1),
            ("package.inner", 2),
            ("package.inner.c", 2),
            ("package.d", 3),
            ("package.d.e", 3),
            ("g", 5),
            ("i", 7),
            ("i.j", 7),
            ("l.m", 8),
        ]
    )
