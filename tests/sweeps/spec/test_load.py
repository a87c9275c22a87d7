"""Specs: what is read, what overrides change, and how a mistake is named."""

import json
from pathlib import Path

import pytest

from qa_core.errors import ConfigError
from sweeps.space.compile import compile_space
from sweeps.spec.load import load_spec, spec_of, store_spec, stored_spec
from sweeps.spec.sections import SHARES, SweepSpec
from sweeps.spec.source import values_of

YAML = """\
name: small
seed: 3
objectives:
  - {name: em_percent, goal: max, unit: "%", reference: 0}
  - {name: memory_mb, goal: min, unit: MB, reference: 64}
searcher: {name: optuna, options: {sampler: nsga2}}
scheduler:
  name: asha
  options: {grace_examples: 1000, eta: 3}
budget: {trials: 24, examples: 9000}
recipe:
  data: {train: sample, max_length: 160, stride: 32}
space:
  - {set: model.family, choice: [bert, lstm]}
  - {set: methods, choice: [full, lora]}
  - {set: train.learning_rate, log_uniform: [1e-3, 1.0e-2], when: {methods: full}}
  - {set: train.learning_rate, log_uniform: [3e-3, 3e-2], when: {methods: lora}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(YAML)
    return file


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_spec(path, list(overrides))
    return str(caught.value)


def changed(path: Path, old: str, new: str) -> Path:
    assert YAML.count(old) == 1
    path.write_text(YAML.replace(old, new))
    return path


def test_a_spec_is_read_with_its_values_and_defaults(path: Path) -> None:
    spec = load_spec(path)
    assert (spec.name, spec.seed, spec.budget.trials, spec.budget.examples) == ("small", 3, 24, 9000)
    assert spec.budget.concurrent is None
    assert [(item.name, item.goal, item.reference) for item in spec.objectives] == [
        ("em_percent", "max", 0.0),
        ("memory_mb", "min", 64.0),
    ]
    assert spec.scheduler.options == {"grace_examples": 1000, "eta": 3}
    assert spec.space[2].log_uniform == [1e-3, 1e-2]  # 1e-3 without a point is a number as well
    assert spec.space[2].when == {"methods": ("full",)}
    assert SweepSpec.model_validate(spec.as_dict()).as_dict() == spec.as_dict()


@pytest.mark.parametrize(
    ("old", "new", "line", "expected"),
    [
        (
            "seed: 3",
            "sead: 3",
            2,
            "sead: unknown setting 'sead'; did you mean 'seed'? (allowed: budget, forms,",
        ),
        (
            "{trials: 24, examples: 9000}",
            "{trials: 24, exmples: 9000, examples: 1}",
            10,
            "budget.exmples: unknown setting 'exmples'; did you mean 'examples'? (allowed: concurrent,",
        ),
        (
            "{name: memory_mb, goal: min,",
            "{name: memory_mb, gaol: min, goal: min,",
            5,
            "objectives[1].gaol: unknown setting 'gaol'; did you mean 'goal'?",
        ),
        (
            "choice: [full, lora]}",
            "choices: [full, lora], choice: [full]}",
            15,
            "space[1].choices: unknown setting 'choices'; did you mean 'choice'? (allowed: choice, int, log,",
        ),
        ("max_length: 160", "max_lenght: 160", 12, "recipe.data.max_lenght: unknown setting"),
        (
            "max_length: 160",
            "max_length: long",
            12,
            "recipe.data.max_length: found 'long'; allowed: a whole number",
        ),
        ("  data: {", "  dta: {", 12, "recipe.dta: unknown setting 'dta'; did you mean 'data'?"),
        ("  data: {", "  seed: 1\n  data: {", 12, "recipe.seed: not allowed here; set the top-level seed"),
        ("  data: {", "  train: {epochs: 2}\n  data: {", 12, "recipe.train.epochs: not allowed here"),
        (
            "name: asha",
            "name: ahsa",
            8,
            "unknown scheduler 'ahsa'; did you mean 'asha'? (allowed: asha, fifo, pareto_asha)",
        ),
        (
            "name: optuna",
            "name: optna",
            6,
            "unknown searcher 'optna'; did you mean 'optuna'? (allowed: grid,",
        ),
        ("eta: 3", "etta: 3", 9, "scheduler.options.etta: unknown setting 'etta'; did you mean 'eta'?"),
        ("eta: 3", "eta: 1", 9, "scheduler.options.eta: found 1.0; allowed: a number above 1"),
        ("grace_examples: 1000", "grace_examples: 9000", 9, "allowed: below budget.examples = 9000"),
        (
            "sampler: nsga2",
            "sampler: nsga3",
            6,
            "found 'nsga3'; allowed: tpe, nsga2, random; did you mean 'nsga2'?",
        ),
        (
            "name: em_percent",
            "name: em_precent",
            4,
            "unknown objective 'em_precent'; did you mean 'em_percent'?",
        ),
        ('name: em_percent, goal: max, unit: "%"', "name: latency_p50_ms, goal: min", 8, "measured only on"),
        (
            "name: memory_mb, goal: min, unit: MB",
            "name: rss_peak_bytes, goal: min",
            5,
            "'rss_peak_bytes' is no objective any more: the resident set of a worker holds what earlier trials left",
        ),
        ("unit: MB", "unit: GB", 5, "unit: found 'GB'; memory_mb is measured in 'MB'"),
        ("goal: min", "goal: less", 5, "objectives[1].goal: found 'less'; allowed: min or max"),
        (
            "name: memory_mb, goal: min, unit: MB",
            "name: em_percent, goal: min",
            3,
            "an objective stands twice",
        ),
        ("trials: 24", "trials: 0", 10, "budget.trials: found 0; allowed: 1 or more"),
        ("trials: 24", "trials: true", 10, "budget.trials: found True; allowed: a whole number"),
        ("trials: 24, ", "", 10, "budget.trials: missing, and it has no default"),
        ("name: small", "name: ../up", 1, "name: "),
        ("[1e-3, 1.0e-2]", "[1e-2, 1e-3]", 16, "log_uniform: found [0.01, 0.001]; allowed: [low, high] with"),
        ("[1e-3, 1.0e-2]", "[0, 1]", 16, "a logarithmic range starts above 0"),
        ("[full, lora]", "[]", 15, "choice: the list is empty"),
        ("[full, lora]", "[full, full]", 15, "choice: 'full' stands twice"),
        ("[full, lora]", "[[full]]", 15, "choice: found ['full']; allowed: text, numbers"),
        (
            "choice: [full, lora]",
            "when: {}",
            15,
            "one of choice, value, uniform, log_uniform, int, found none",
        ),
        ("choice: [full, lora]", "choice: [full], log: true", 15, "log: only for `int`"),
        ("seed: 3", "seed: 3\nseed: 4", 3, "seed stands twice (first in line 2)"),
        ("seed: 3", "seed: [3", 3, "not valid YAML"),
    ],
)
def test_a_mistake_is_named_with_file_line_setting_and_what_is_allowed(
    path: Path, old: str, new: str, line: int, expected: str
) -> None:
    message = refusal(changed(path, old, new))
    assert message.startswith(f"{path}:{line}: ")
    assert expected in message


def test_all_mistakes_of_the_shape_are_listed_at_once(path: Path) -> None:
    message = refusal(changed(path, "seed: 3\n", "sead: 3\ncolour: red\n"))
    assert [line.split(": ")[1] for line in message.splitlines()] == ["sead", "colour"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "found nothing"),
        (b"- a\n", "expected a mapping of settings, found a list"),
        (b"name: \x00", "not valid YAML"),
        (b"\xff\xfe\xfa", "cannot be read"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(path: Path, content: bytes, expected: str) -> None:
    path.write_bytes(content)
    message = refusal(path)
    assert message.startswith(str(path))
    assert expected in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "absent.yaml" in refusal(tmp_path / "absent.yaml")


def test_overrides_replace_values_in_order(path: Path) -> None:
    spec = load_spec(
        path,
        [
            "budget.trials=8",
            "budget.trials=9",
            "budget.max_memory_mb=12.5",
            "recipe.data.train=some/file.json",
            "recipe.train.batch_size=4",
            "objectives.memory_mb.reference=99",
            "space.model.family.choice=[bert]",
            "space.train.learning_rate.2.log_uniform=[1e-4, 2e-4]",
            "searcher.options={}",
            "resources.cpus_per_trial=0.5",
        ],
    )
    assert (spec.budget.trials, spec.budget.max_memory_mb) == (9, 12.5)
    assert spec.recipe["data"] == {"train": "some/file.json", "max_length": 160, "stride": 32}
    assert spec.recipe["train"] == {"batch_size": 4}
    assert [item.reference for item in spec.objectives] == [0.0, 99.0]
    assert spec.space[0].choice == ["bert"]
    assert spec.space[2].log_uniform == [1e-3, 1e-2]
    assert spec.space[3].log_uniform == [1e-4, 2e-4]
    assert (spec.searcher.options, spec.resources.cpus_per_trial) == ({}, 0.5)


def test_an_override_of_a_domain_replaces_the_other_kind(path: Path) -> None:
    spec = load_spec(path, ["space.train.learning_rate.1.choice=[1e-3, 2E-3]"])
    assert (spec.space[2].choice, spec.space[2].log_uniform) == ([0.001, 0.002], None)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("budget.trails=8", "budget.trails: unknown setting 'trails'; did you mean 'trials'?"),
        ("budgt.trials=8", "budgt: unknown setting 'budgt'; did you mean 'budget'?"),
        ("recipe.data.trian=x", "recipe.data.trian: unknown setting 'trian'; did you mean 'train'?"),
        ("recipe.data.max_length=long", "recipe.data.max_length: found 'long'; allowed: a whole number"),
        ("budget.trials=many", "budget.trials: found 'many'; allowed: a whole number"),
        ("budget.trials.x=1", "budget.trials is 24, not a mapping"),
        ("budget.trials", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("budget.trials=[", "not valid YAML"),
        ("objectives.memry_mb.reference=9", "unknown objective 'memry_mb'; did you mean 'memory_mb'?"),
        (
            "space.model.famly.choice=[bert]",
            "unknown space entry 'model.famly'; did you mean 'model.family'?",
        ),
        ("space.train.learning_rate.choice=[1]", "unknown space entry 'train.learning_rate'"),
        (
            "space.model.family.choise=[bert]",
            "space[0].choise: unknown setting 'choise'; did you mean 'choice'?",
        ),
        ("scheduler.name=fifo", "scheduler.options.grace_examples: unknown setting"),
        ("searcher.options.startup_trials=0", "searcher.options.startup_trials: found 0; allowed: 1 or more"),
    ],
)
def test_a_wrong_override_is_named_as_it_was_typed(path: Path, override: str, expected: str) -> None:
    message = refusal(path, override)
    assert expected in message
    if not override.startswith("scheduler.name"):  # there the option is the file's
        assert message.startswith(f"--set {override}: ")


CONSTANT = "  - {set: train.batch_size, value: 32, when: {model.family: lstm}}\n"


def test_a_value_is_a_choice_of_one_and_stays_one_when_it_is_stored(path: Path, tmp_path: Path) -> None:
    null = "  - {set: model.options.hidden_size, value: null, when: {model.family: lstm}}\n"
    path.write_text(YAML + CONSTANT + null)
    spec = load_spec(path)
    assert [entry.choice for entry in spec.space[-2:]] == [[32], [None]]
    folder = tmp_path / "run"
    folder.mkdir()
    store_spec(spec, folder)
    assert stored_spec(folder).space == spec.space
    assert load_spec(path, ["space.train.batch_size.value=8"]).space[-2].choice == [8]
    assert load_spec(path, ["space.train.batch_size.choice=[8, 16]"]).space[-2].choice == [8, 16]


@pytest.mark.parametrize(
    ("entry", "line", "expected"),
    [
        (
            "{set: train.batch_size, value: 32}",
            18,
            "space[4]: value: found without when; allowed: with a condition",
        ),
        (
            "{set: train.batch_size, value: 32, choice: [8], when: {methods: lora}}",
            18,
            "exactly one of choice, value, uniform, log_uniform, int, found value, choice",
        ),
        (
            "{set: train.batch_size, value: [32], when: {methods: lora}}",
            18,
            "choice: found [32]; allowed: text",
        ),
        ("{set: train.batch_size, vlaue: 3, when: {methods: lora}}", 18, "'vlaue'; did you mean 'value'?"),
        (
            "{set: train.batch_size, value: 3, when: {methods: {not: lora}}}",
            18,
            "found {'not': 'lora'}; allowed:",
        ),
        (
            "{set: train.batch_size, value: 3, when: {methods: {is: []}}}",
            18,
            "found {'is': []}; allowed: text",
        ),
        ("{set: train.batch_size, value: 3, when: {methods: []}}", 18, "methods: found []; allowed: text"),
        ("{set: train.batch_size, value: 3, when: {methods: {is: {a: 1}}}}", 18, "allowed: text, numbers"),
    ],
)
def test_a_wrong_constant_or_condition_is_named(path: Path, entry: str, line: int, expected: str) -> None:
    path.write_text(f"{YAML}  - {entry}\n")
    message = refusal(path)
    assert message.startswith(f"{path}:{line}: space[4]")
    assert expected in message


def test_an_exact_condition_survives_storing(path: Path, tmp_path: Path) -> None:
    path.write_text(YAML.replace("when: {methods: lora}", "when: {methods: {is: lora}}"))
    spec = load_spec(path)
    assert spec.space[3].when == {"methods": {"is": ("lora",)}}
    folder = tmp_path / "run"
    folder.mkdir()
    store_spec(spec, folder)
    assert stored_spec(folder).space == spec.space


def test_a_shared_setting_out_of_range_is_named_when_the_space_is_compiled(path: Path) -> None:
    spec = load_spec(changed(path, "max_length: 160", "max_length: 20"))
    with pytest.raises(ConfigError, match=r"data\.max_length: found 20; allowed: more than") as caught:
        compile_space(spec)
    assert str(caught.value).startswith(f"{path}:12: recipe.data.max_length: ")


def test_a_shared_setting_may_fit_only_what_is_searched(path: Path) -> None:
    path.write_text(
        YAML.replace("max_length: 160, stride: 32", "stride: 400")
        + "  - {set: data.max_length, choice: [512]}\n"
    )
    assert {item.path for item in compile_space(load_spec(path)).parameters} > {"data.max_length"}
    with pytest.raises(ConfigError, match=r"data\.stride: found 400"):
        compile_space(load_spec(path, ["space.data.max_length.choice=[384]"]))


def test_errors_of_the_space_name_file_and_line(path: Path) -> None:
    spec = load_spec(changed(path, "set: methods", "set: train.learning_rat"))
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'") as caught:
        compile_space(spec)
    assert str(caught.value).startswith(f"{path}:15: space[1].set: ")


SCALES = """\
scales:
  smoke:
    budget.examples: 64
    scheduler.options.grace_examples: 16
    space.model.family.choice: [lstm]
    space.train.learning_rate.2.log_uniform: [1e-2, 2e-2]
  tiny: {budget.examples: 32}
"""


def test_a_scale_replaces_settings_and_is_no_setting_itself(path: Path) -> None:
    path.write_text(YAML + SCALES)
    assert load_spec(path) == load_spec(path, scales=[])
    assert load_spec(path).budget.examples == 9000
    smoke = load_spec(path, scales=["smoke"])
    assert (smoke.budget.examples, smoke.scheduler.options["grace_examples"]) == (64, 16)
    assert smoke.space[0].choice == ["lstm"]
    assert (smoke.space[2].log_uniform, smoke.space[3].log_uniform) == ([1e-3, 1e-2], [1e-2, 2e-2])
    assert "scales" not in smoke.as_dict()


def test_scales_apply_in_order_and_overrides_after_them(path: Path) -> None:
    path.write_text(YAML + SCALES)
    assert load_spec(path, scales=["smoke", "tiny"]).budget.examples == 32
    assert load_spec(path, ["budget.examples=48"], scales=["smoke"]).budget.examples == 48


def test_an_unknown_scale_is_refused_with_the_nearest_and_a_wrong_value_names_its_scale(path: Path) -> None:
    path.write_text(YAML + SCALES)
    with pytest.raises(ConfigError, match="unknown scale 'smok'; did you mean 'smoke'"):
        load_spec(path, scales=["smok"])
    path.write_text(YAML + "scales: {smoke: {budget.exampels: 3}}\n")
    with pytest.raises(ConfigError, match=r"--scale smoke: budget.exampels=3.*did you mean 'examples'"):
        load_spec(path, scales=["smoke"])
    path.write_text(YAML + "scales: [smoke]\n")
    with pytest.raises(ConfigError, match=r"small.yaml:\d+: scales: expected a mapping"):
        load_spec(path)


@pytest.mark.parametrize(
    ("written", "gpus", "least", "wants"),
    [
        ("auto", "auto", SHARES[0], True),
        ("0.5", 0.5, 0.5, True),
        ("2", 2.0, 2.0, True),
        ("0", 0.0, 0.0, False),
    ],
)
def test_gpus_of_a_trial_are_a_number_or_found_for_each(path: Path, written, gpus, least, wants) -> None:
    resources = load_spec(path, [f"resources.gpus_per_trial={written}"]).resources
    assert (resources.gpus_per_trial, resources.least_gpus, resources.wants_gpus) == (gpus, least, wants)
    assert resources.is_auto is (written == "auto")


def test_the_memory_of_a_gpu_is_named_for_shares_that_are_found_alone(path: Path) -> None:
    settings = ["resources.gpus_per_trial=auto", "resources.gpu_memory_gb=16"]
    spec = load_spec(path, settings)
    assert spec.resources.gpu_memory_gb == 16
    assert SweepSpec.model_validate(spec.as_dict()).resources == spec.resources
    with pytest.raises(
        ConfigError, match=r"gpu_memory_gb: found 16 beside gpus_per_trial 0; allowed: with .* auto"
    ):
        load_spec(path, settings[1:])


@pytest.mark.parametrize(
    ("forms", "place", "expected"),
    [
        ("{quantise: {bits: [8]}}", "quantise", "unknown method 'quantise'; did you mean 'quantize'?"),
        (
            "{distill: {weight: [0.5]}}",
            "distill",
            "no option of 'distill' acts after training; allowed: options of",
        ),
        ("{quantize: {}}", "quantize", "found nothing; allowed: options with lists of values"),
        ("{quantize: {bit: [8]}}", "quantize.bit", "unknown option 'bit'; did you mean 'bits'?"),
        ("{lora: {rank: [4, 8]}}", "lora.rank", "acts in training, so that each value is another training"),
        ("{quantize: {bits: 8}}", "quantize.bits", "input should be a valid list, found 8"),
        ("{quantize: [8]}", "quantize", "input should be a valid dictionary, found [8]"),
        ("{quantize: {bits: []}}", "quantize.bits", "the list is empty; allowed: at least one value"),
        ("{quantize: {bits: [8, 7]}}", "quantize.bits[1]", "found 7; allowed: 32, 16, 8, 4"),
        ("{quantize: {bits: [8, '4']}}", "quantize.bits[1]", "found '4'; allowed: a whole number"),
        ("{quantize: {bits: [8, 4, 8]}}", "quantize.bits[2]", "8 stands twice"),
        ("{static_prune: {resident: [dens]}}", "static_prune.resident[0]", "did you mean 'dense'?"),
        ("{lora: {merge: [yes, 1]}}", "lora.merge[1]", "found 1; allowed: true or false"),
        (
            "{quantize: {bits: [32, 8], scheme: [null, nf4]}}",
            "quantize.scheme[1]",
            "'nf4' goes with none of the other values: methods.quantize.scheme: with bits 32: unknown scheme 'nf4'",
        ),
    ],
)
def test_a_mistake_in_the_stored_forms_is_named_with_its_place(
    path: Path, forms: str, place: str, expected: str
) -> None:
    path.write_text(path.read_text() + f"forms:\n  {forms}\n")
    message = refusal(path)
    lines = path.read_text().count("\n")
    assert message.startswith((f"{path}:{lines}: forms.{place}: ", f"{path}:{lines - 1}: forms.{place}: "))
    assert expected in message


def test_stored_forms_are_kept_with_the_settings_of_the_sweep(path: Path, tmp_path: Path) -> None:
    listed = {"quantize": {"bits": [32, 8], "scheme": [None, "dynamic"]}, "lora": {"merge": [True, False]}}
    spec = load_spec(
        path, ["forms.lora.merge=[true, false]", f"forms.quantize={json.dumps(listed['quantize'])}"]
    )
    assert spec.forms == {"lora": listed["lora"], "quantize": listed["quantize"]}
    store_spec(spec, tmp_path)
    assert stored_spec(tmp_path).forms == spec.forms
    assert load_spec(path).forms == {}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trials=5", "trials: unknown setting 'trials'; did you mean 'budget.trials'? (allowed: budget, "),
        (
            "recipe.data.batch_size=8",
            "recipe.data.batch_size: unknown setting 'batch_size'; did you mean 'recipe.train.batch_size'? (allowed: ",
        ),
        (
            "budget.rank=8",
            "budget.rank: unknown setting 'rank'; did you mean 'recipe.methods.lora.rank' or "
            "'recipe.methods.lora_int8.rank' or 'recipe.methods.qlora.rank'? (allowed: ",
        ),
        ("recipe.seed_=1", "recipe.seed_: unknown setting 'seed_'; did you mean 'seed'? (allowed: "),
        ("budget.trails=5", "budget.trails: unknown setting 'trails'; did you mean 'trials'? (allowed: "),
    ],
)
def test_a_setting_that_is_known_elsewhere_is_named_with_its_place(
    path: Path, override: str, message: str
) -> None:
    assert refusal(path, override).startswith(f"--set {override}: {message}")


def test_settings_that_stand_in_no_file_are_checked_as_those_of_a_file(path: Path) -> None:
    values = values_of(YAML, "x.yaml")
    spec = spec_of(values, ["budget.trials=8"])
    assert spec.as_dict() == load_spec(path, ["budget.trials=8"]).as_dict()
    spec.recipe["data"]["train"] = "changed"
    assert values["recipe"]["data"]["train"] == "sample"  # copied
    for wrong, message in (
        (
            {**values, "budget": {"trials": 0, "examples": 1}},
            "settings: budget.trials: found 0; allowed: 1 or more",
        ),
        ({**values, "seed": object()}, "settings: Object of type object is not JSON serializable"),
        ([], "settings: found a list; allowed: a mapping of settings"),
    ):
        with pytest.raises(ConfigError) as caught:
            spec_of(wrong)  # type: ignore[arg-type]
        assert str(caught.value).startswith(message)
