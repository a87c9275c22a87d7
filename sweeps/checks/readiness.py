"""Checks, before anything starts, that the recipes of a sweep have a device, checkpoints and enough memory.

A recipe that cannot succeed would fail in each of its trials. `check` reads names, configurations and headers of
files, never weights; of the hub it asks at most one question for each name. Data are looked at by
`sweeps/checks/data.py`, and what differs between the nodes of a cluster by `sweeps/nodes/preflight.py`.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_core import registry
from qa_core.config import RunConfig
from qa_core.errors import ArtifactError, ConfigError
from sweeps.budget import least_memory
from sweeps.budget.examples import check_teachers
from sweeps.budget.hours import cells_of
from sweeps.budget.memory import DECIDING, MemoryForecast
from sweeps.front.choosing import at_least
from sweeps.space.extremes import recipe_of, start_of

if TYPE_CHECKING:
    from sweeps.space.space import Space
    from sweeps.spec.sections import SweepSpec

HUB_SECONDS = 5.0  # for the one question to the hub
# Without any of these transformers makes up a tokenizer that knows no word.
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
WEIGHTS, SHARDED_WEIGHTS = "model.safetensors", "model.safetensors.index.json"
OF_A_CHECKPOINT = ("model.checkpoint:", "model.tokenizer:")  # begin what is said of one


def check(
    spec: "SweepSpec",
    space: "Space",
    forecast: MemoryForecast,
    *,
    is_cluster: bool = False,
) -> None:
    """Refuse a sweep of which some recipes, or all, cannot succeed.

    Args:
        spec: of the sweep.
        space: of the spec.
        forecast: of the spec.
        is_cluster: trials run on other machines: their devices, and the paths that this one lacks, are theirs to judge.

    Raises:
        ConfigError: names the setting, what was found and what is allowed.
    """
    from qa_core.seeding import numpy_generator

    cells = cells_of(space, numpy_generator(spec.seed, "readiness"))
    recipes = [recipe for drawn in cells.values() for recipe in drawn]
    if not is_cluster:
        _check_devices(spec, recipes)
    _check_training(spec, recipes)
    # One recipe for each network that is begun from.
    check_teachers(recipes, spec.budget.total_examples)
    starts: dict[Any, RunConfig] = {}
    for recipe in (*recipes, *_teachers(recipes)):
        model = recipe.model
        starts.setdefault((model.family, model.head, model.checkpoint, model.tokenizer), recipe)
    to_build = [recipe for recipe in starts.values() if _is_here(spec, recipe, is_cluster=is_cluster)]
    if spec.budget.max_memory_mb is not None:  # it may be refused before most networks are built
        _check_memory(spec, space, forecast)
    for recipe in to_build:
        _check_architecture(spec, recipe, forecast)


def _check_training(spec: "SweepSpec", recipes: list[RunConfig]) -> None:
    """Refuse a sweep that trains nothing where a network has random weights: its answers would mean nothing."""
    if spec.budget.examples > 0:
        return
    for recipe in recipes:
        if registry.make_family(recipe).is_preset:
            raise ConfigError(
                f"{spec.where('budget', 'examples')}: found 0, and {recipe.model.family} {recipe.model.checkpoint} has "
                "random weights; allowed: 1 or more, or a model.checkpoint that has been trained"
            )


def _check_devices(spec: "SweepSpec", recipes: list[RunConfig]) -> None:
    for device in dict.fromkeys(recipe.device for recipe in recipes):
        if device != "cuda":  # the others are always there
            continue
        from qa_core.hardware import choose_device

        try:
            choose_device(device)
        except ConfigError as error:
            raise ConfigError(
                f"{spec.where('recipe', 'device')}: {str(error).removeprefix('device: ')}; a cluster's GPUs are asked "
                "with run --address"
            ) from error


def _teachers(recipes: list[RunConfig]) -> Iterator[RunConfig]:
    """Yield the recipes that are trained before others."""
    for recipe in recipes:
        for method in registry.make_methods(recipe):
            try:
                needed = method.prerequisite(recipe)
            except (ConfigError, ArtifactError):  # said by the trial's own recipe, where it is looked at
                continue
            if isinstance(needed, RunConfig):
                yield needed


def _is_here(spec: "SweepSpec", recipe: RunConfig, *, is_cluster: bool) -> bool:
    """Refuse a checkpoint or a tokenizer that is not there or has no weights; builds no network.

    Returns:
        Whether there is something that may be of another architecture.
    """
    family = registry.make_family(recipe)
    if family.is_preset and recipe.model.tokenizer is None:
        return False
    for setting in ("checkpoint", "tokenizer"):
        place = spec.where("recipe", "model", setting)
        named = getattr(recipe.model, setting)
        if named is None or (setting == "checkpoint" and family.is_preset):
            continue
        name = family.place_of(named)
        if Path(name).expanduser().is_dir():
            if setting == "checkpoint":
                _check_weights(place, Path(name).expanduser())
            if recipe.model.tokenizer in (None, named):
                _check_tokenizer(place, Path(name).expanduser())
        elif _looks_local(name):
            if is_cluster:
                return False
        else:
            if is_cluster:
                return False  # the nodes download it
            check_hub(place, name)
    # That a network of the package fits its family is held by tests; to build it costs seconds before the first trial.
    return not (family.is_shipped and recipe.model.tokenizer is None)


def _check_architecture(spec: "SweepSpec", recipe: RunConfig, forecast: MemoryForecast) -> None:
    """Refuse a checkpoint or a tokenizer that cannot be read, or is of another architecture."""
    why = forecast.why(recipe)
    if why is not None and why.startswith(OF_A_CHECKPOINT):
        setting, _, reason = why.partition(": ")
        raise ConfigError(f"{spec.where('recipe', *setting.split('.'))}: {reason}")


def _looks_local(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def _check_tokenizer(place: str, folder: Path) -> None:
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ConfigError(
            f"{place}: found {str(folder)!r}, which has none of the files of a tokenizer; allowed: a "
            f"folder with one of {', '.join(TOKENIZER_FILES)}, or another model.tokenizer"
        )


def _check_weights(place: str, folder: Path) -> None:
    """Refuse a folder without safetensors weights that can be opened; an artifact's own are checked by its manifest."""
    import json

    from safetensors import SafetensorError, safe_open

    from qa_core.artifact.artifact import is_artifact

    if is_artifact(folder):
        return
    found = f"{place}: found {str(folder)!r}"
    names = [WEIGHTS]
    try:
        if (folder / SHARDED_WEIGHTS).is_file():
            names = sorted(set(json.loads((folder / SHARDED_WEIGHTS).read_text())["weight_map"].values()))
        for name in names:
            if not (folder / name).is_file():
                others = sorted(item.name for item in folder.glob("pytorch_model*.bin"))
                beside = f", but {', '.join(others)}" if others else ""
                raise ConfigError(
                    f"{found}, which has no {name}{beside}; allowed: a folder with safetensors weights"
                )
            with safe_open(folder / name, framework="np"):
                pass
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ConfigError(
            f"{found}, whose weights cannot be opened: {type(error).__name__}: {error}"
        ) from error


def check_hub(setting: str, name: str) -> None:
    """Refuse a hub name that is neither in the cache nor on a hub that can be reached; asks once, for seconds."""
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    allowed = "allowed: a name of the hub that is in its cache (HF_HOME) or can be reached, or a folder"
    try:
        if isinstance(huggingface_hub.try_to_load_from_cache(name, "config.json"), str):
            return
        if constants.HF_HUB_OFFLINE:
            raise ConfigError(
                f"{setting}: found {name!r}, which is not in the cache, and HF_HUB_OFFLINE is set; {allowed}"
            )
        huggingface_hub.get_hf_file_metadata(
            huggingface_hub.hf_hub_url(name, "config.json"), timeout=HUB_SECONDS
        )
    except HFValidationError as error:
        raise ConfigError(f"{setting}: found {name!r}, which is no name of the hub; {allowed}") from error
    except HfHubHTTPError as error:
        said = str(error).strip().splitlines()
        raise ConfigError(
            f"{setting}: found {name!r}, for which the hub has no config.json to give: "
            f"{said[0] if said else type(error).__name__}; {allowed}"
        ) from error
    except ConfigError:
        raise
    except Exception as error:  # of the library that talks to the hub, which has changed before
        raise ConfigError(
            f"{setting}: found {name!r}, which is not in the cache, and the hub does not answer "
            f"({type(error).__name__}); {allowed}"
        ) from error


def _check_memory(spec: "SweepSpec", space: "Space", forecast: MemoryForecast) -> None:
    """Refuse a memory budget that no recipe fits; names the smallest need.

    A prediction can take seconds, imports included. So what may need least comes first, and what is known to need more
    than some other recipe, which does not fit either, is not predicted.
    """
    smallest: tuple[float, RunConfig] | None = None

    def need_of(recipe: RunConfig) -> float | None:
        plain = least_memory.without_what_only_adds(recipe)
        if smallest is not None and plain is not None:
            least = forecast.smallest(plain)
            if least is not None and least >= smallest[0]:
                return least
        return forecast.smallest(recipe)

    for least, combination in _by_table(space):
        if smallest is not None and least >= smallest[0]:
            break
        for recipe in _towards_less(space, combination, need_of):
            need = need_of(recipe)
            if smallest is None or need is None or need < smallest[0]:
                if forecast.admits(recipe):
                    return
                if need is not None:
                    smallest = need, recipe
    if smallest is not None:
        need, recipe = smallest
        name = " ".join([recipe.model.family, "+".join(recipe.methods) or "full", recipe.model.checkpoint])
        raise ConfigError(
            f"{spec.where('budget', 'max_memory_mb')}: found {spec.budget.max_memory_mb:g}; allowed: at least "
            f"{at_least(need)}, the smallest need that is predicted for a recipe of the space ({name})"
        )


def _by_table(space: "Space") -> list[tuple[float, Mapping[str, Any]]]:
    """Return the combinations with what their tables of words need at least, in MB, from the smallest up.

    A combination has one checkpoint and one tokenizer: choices of settings of the model are always part of it.
    """
    found = []
    for combination in space.legal:
        assignment, _ = start_of(space, combination, DECIDING)
        recipe = recipe_of(space, assignment)
        found.append((0.0 if recipe is None else least_memory.of_the_table(recipe), combination))
    return sorted(found, key=lambda item: item[0])


def _towards_less(
    space: "Space", combination: Any, need_of: Callable[[RunConfig], float | None]
) -> Iterator[RunConfig]:
    """Yield recipes of a combination: one setting after the other moved to the end of its domain that needs least."""
    assignment, parameters = start_of(space, combination, DECIDING)
    changes = [(item.id, value) for item in parameters for value in item.domain.extremes()[1:]]
    least = None
    for change in [None, *changes]:
        tried = assignment if change is None else {**assignment, change[0]: change[1]}
        recipe = recipe_of(space, tried)
        if recipe is None:
            continue
        yield recipe
        need = need_of(recipe)
        if need is not None and (least is None or need < least):
            least, assignment = need, tried
