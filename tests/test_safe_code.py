"""No code of the project runs what it loads: held by reading every call."""

import ast
from functools import cache

import pytest
import yaml

from tests.source_tree import (
    PACKAGES,
    Sources,
    files_in,
    forbidden_imports,
    name_of,
    parsed,
    planted,
    project_sources,
)

PICKLERS = ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal")
RUNS_CODE = ("eval", "exec", "compile", "os.system", "os.popen", "torch.hub.load")
UNSAFE_READERS = ("unsafe_load", "unsafe_load_all", "full_load", "full_load_all", "read_pickle")
# The last one is of sweeps/spec/source.py, made from the first.
SAFE_LOADERS = ("yaml.SafeLoader", "yaml.CSafeLoader", "_Loader")
# Arguments that are looked at: what others are given may be anything.
ARGUMENTS = ("weights_only", "Loader", "shell", "trust_remote_code", "allow_pickle")


def nothing_runs_what_it_loads(sources: Sources) -> list[str]:
    files = files_in(sources, *PACKAGES, "benchmarks")
    broken = forbidden_imports(sources, files, PICKLERS)
    return broken + [
        f"{file}:{line}: {fault}" for file in files for line, fault in unsafe_places(sources[file])
    ]


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
    given = {word.arg: ast.unparse(word.value) for word in call.keywords if word.arg in ARGUMENTS}
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


def test_the_project_keeps_the_rule() -> None:
    assert nothing_runs_what_it_loads(project_sources()) == []


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("qa_core/artifact/artifact.py", "import pickle", "imports pickle"),
        ("qa_core/artifact/artifact.py", "torch.load('x')", "torch.load without weights_only"),
        ("sweeps/front/front.py", "f(trust_remote_code=True)", "trust_remote_code=True"),
        ("sweeps/front/front.py", "options = {'trust_remote_code': True}", "trust_remote_code"),
        ("qa_core/data/windows.py", "np.load(p, allow_pickle=True)", "allow_pickle=True"),
        ("sweeps/spec/source.py", "yaml.load(text)", "yaml.load without a safe Loader"),
        (
            "sweeps/spec/source.py",
            "yaml.load(text, Loader=yaml.UnsafeLoader)",
            "yaml.load without a safe Loader",
        ),
        ("sweeps/spec/source.py", "yaml.unsafe_load(text)", "yaml.unsafe_load"),
        ("sweeps/space/space.py", "eval('1')", "eval"),
        ("sweeps/space/space.py", "def f(): exec('x = 1')", "exec"),
        ("sweeps/run_folder/provenance.py", "os.system('git log')", "os.system"),
        ("sweeps/run_folder/provenance.py", "subprocess.run('ls', shell=True)", "shell=True"),
        ("qa_core/data/columns.py", "pandas.read_pickle('x')", "pandas.read_pickle"),
        ("qa_core/scoring/semantic.py", "AutoModel.from_pretrained('x')", "without trust_remote_code=False"),
        (
            "sweeps/run_folder/journal.py",
            "from sweeps.spec.source import _Loader\nimport joblib",
            "imports joblib",
        ),
    ],
)
def test_the_rule_is_red_when_broken(file: str, text: str, message: str) -> None:
    broken = nothing_runs_what_it_loads(planted(file, text))
    assert any(message in place for place in broken), broken


def test_the_loader_of_sweep_files_is_a_safe_one() -> None:
    from sweeps.spec.source import _Loader

    assert issubclass(_Loader, yaml.SafeLoader)
    with pytest.raises(yaml.YAMLError, match=r"found the tag .*python/object/apply:os"):
        yaml.load("!!python/object/apply:os.mkdir [x]", Loader=_Loader)
