"""What a recipe will need, known on the driver before any worker starts it: memory deployed, and in training.

`PREDICTED` names the objectives that a recipe fixes: `MemoryForecast.predict(config, objective)` says their values.

The same prediction as the worker's (`qa_core/memory/shapes.py`), from the recipe alone: of a checkpoint only the
configuration is read, and questions are read only where the tokenizer is trained on them, by the cache that workers
share. What cannot be predicted is admitted: a worker measures every form before it trains it.

Forms are predicted for a CPU, trials on a GPU too. Under precision `auto` a CPU is this machine's; a GPU that is not in
this machine may compute in 32 or in 16 bits, and the larger of the two counts.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from qa_core import registry
from qa_core.config import RunConfig
from qa_core.errors import QaError
from qa_core.values import to_dict
from sweeps.budget.earlier_answers import EarlierAnswers
from sweeps.space.forms import Listed, forms_of
from sweeps.spec.objectives import PREDICTED, measure

if TYPE_CHECKING:
    from torch import nn

    from qa_core.families.base import Family, Found
    from qa_core.methods.base import Method
    from sweeps.spec.sections import SweepSpec

# Parts of a recipe that its memory can depend on.
DECIDING = ("model", "methods", "data", "evaluation", "device")
MOST_AT_HAND = (
    2000  # recipes in their JSON form, and recipes' stored forms, that are kept beside the forecasts
)
# Settings of `train` that its memory in training depends on too.
OF_A_STEP = ("batch_size", "micro_batch_tokens", "optimizer", "precision", "gradient_checkpointing")
# Settings of `data` that decide which questions a tokenizer is trained on.
OF_THE_TRAIN_PART = (
    "train",
    "train_questions",
    "selection_share",
    "selection_questions",
    "skip_bad_examples",
    "split_seed",
)


@dataclass(frozen=True)
class _Forecast:
    size_bytes: int | None
    why: str | None  # why there is no number
    is_fault: bool = False  # the recipe cannot be built: its trial would fail


class MemoryForecast:
    """Predicts recipes, each deployed form once.

    Args:
        cache_dir: the workers' cache, for tokenizers and word vectors.
        max_memory_mb: what a recipe may need for one window at a time, in 10^6 bytes; None: no limit.
        on_gpu: whether recipes that leave the device open will run on a GPU.
        listed: the stored forms of every training; none: each is stored as its recipe says.
        earlier: forecasts of earlier calls; None: all are made anew.
    """

    def __init__(
        self,
        *,
        cache_dir: Path,
        max_memory_mb: float | None = None,
        on_gpu: bool = False,
        listed: Listed = MappingProxyType({}),
        earlier: EarlierAnswers | None = None,
    ) -> None:
        self.max_memory_mb = max_memory_mb
        self.listed = listed
        self._cache_dir, self._on_gpu = cache_dir, on_gpu
        self._earlier = earlier
        self._by_recipe: dict[str, _Forecast] = {}
        self._stored: dict[str, tuple[RunConfig, ...]] = {}
        self._converted: dict[int, tuple[RunConfig, dict[str, Any]]] = {}
        self._planned: dict[str, Any] = {}  # DECIDING of a recipe -> its family, tokenizer and planned form
        self._by_form: dict[str, _Forecast] = {}
        self._in_training: dict[str, _Forecast] = {}
        # The last network in training that was built, with its key and the methods attached to it.
        self._in_hand: tuple[str, list[Method], Any] | None = None
        self._tokenizers: dict[str, Any] = {}
        self._failed: dict[str, str] = {}  # model -> why it cannot be read: a hub is not asked for it twice

    @classmethod
    def of(cls, spec: "SweepSpec", earlier: EarlierAnswers | None = None) -> "MemoryForecast":
        """Return the forecast for the trials of a sweep."""
        from qa_core.data.cache import default_cache_dir

        return cls(
            cache_dir=default_cache_dir(),
            max_memory_mb=spec.budget.max_memory_mb,
            on_gpu=spec.resources.wants_gpus,
            listed=spec.forms,
            earlier=earlier,
        )

    def predict(self, config: RunConfig, objective: str = "memory_mb") -> float | None:
        """Return an objective that the recipe fixes, in its unit; None where `why` says why not.

        Args:
            objective: a name in `PREDICTED`.
        """
        size = self._forecast(config, PREDICTED[objective]).size_bytes
        return None if size is None else size / measure(objective).divisor

    def why(self, config: RunConfig, objective: str = "memory_mb") -> str | None:
        """Return why an objective of a recipe is not predicted, in one line; None when it is."""
        return self._forecast(config, PREDICTED[objective]).why

    def fault(self, config: RunConfig) -> str | None:
        """Return why a recipe cannot be built on this machine, in one line; None when it can, predicted or not."""
        forecast = self._forecast(config, PREDICTED["memory_mb"])
        return forecast.why if forecast.is_fault else None

    def training_bytes(self, config: RunConfig) -> int | None:
        """Return the peak of training the recipe, a teacher's training included; None where it cannot be predicted."""
        values = self._values(config)
        parts = self._deciding(config) | {name: values["train"][name] for name in OF_A_STEP}
        key = _key(parts)
        if key not in self._in_training:
            predict = partial(self._tried, config, self._predicted_training)
            self._in_training[key] = self._known(config, ["training", parts], predict)
        return self._in_training[key].size_bytes

    def stored(self, config: RunConfig) -> tuple[RunConfig, ...]:
        """Return what a recipe's training is stored as: its forms that can be built, or the recipe itself.

        Where none can be built, all of them: whoever looks at them finds out why.
        """
        if not self.listed:
            return (config,)
        key = _key(self._values(config))
        if key not in self._stored:
            if len(self._stored) >= MOST_AT_HAND:
                self._stored.clear()
            self._stored[key] = self._found_stored(config)
        return self._stored[key]

    def _found_stored(self, config: RunConfig) -> tuple[RunConfig, ...]:
        forms = [form.recipe for form in forms_of(config, self.listed)] or [config]
        return tuple(form for form in forms if len(forms) == 1 or self.fault(form) is None) or tuple(forms)

    def smallest(self, config: RunConfig, objective: str = "memory_mb") -> float | None:
        """Return the least value of `predict` among what a recipe is stored as; None where none is predicted."""
        found = [self.predict(form, objective) for form in self.stored(config)]
        return min((value for value in found if value is not None), default=None)

    def admits(self, config: RunConfig) -> bool:
        """Tell whether a recipe may start: some form that it is stored as fits, and with it the training is of use."""
        return any(map(self.fits, self.stored(config)))

    def fits(self, stored: RunConfig) -> bool:
        """Tell whether a single form is predicted to be within the limit, or not predicted at all."""
        if self.max_memory_mb is None:
            return True
        memory_mb = self.predict(stored)
        return memory_mb is None or memory_mb <= self.max_memory_mb

    def _forecast(self, config: RunConfig, quantity: str) -> _Forecast:
        values = self._values(config)
        parts = values if quantity == "artifact" else self._deciding(config)
        key = _key([quantity, parts])
        if key not in self._by_recipe:
            predict = partial(self._tried, config, partial(self._predicted, quantity=quantity))
            self._by_recipe[key] = self._known(config, [quantity, parts], predict)
        return self._by_recipe[key]

    def _values(self, config: RunConfig) -> dict[str, Any]:
        """Return a recipe as JSON values; a recipe that is asked about again and again is converted once."""
        found = self._converted.get(id(config))
        if found is None:
            if len(self._converted) >= MOST_AT_HAND:
                self._converted.clear()
            found = self._converted[id(config)] = (
                config,
                to_dict(config),
            )  # held, so that no other has its id
        return found[1]

    def _known(self, config: RunConfig, question: Any, predict: Callable[[], _Forecast]) -> _Forecast:
        """Return the forecast of an earlier call where there is one, else that of this one."""
        if self._earlier is None or self._is_for_gpu(config):  # which GPU is there is torch's to say
            return predict()
        found = self._earlier.answer(
            question, lambda: asdict(predict()), is_lasting=lambda found: not found["is_fault"]
        )
        return _Forecast(**found)

    def _tried(self, config: RunConfig, predict: Callable[[RunConfig], _Forecast]) -> _Forecast:
        model = config.model
        source = _key([model.family, model.head, model.checkpoint, model.tokenizer])
        if source in self._failed:
            return _Forecast(None, self._failed[source], is_fault=True)
        try:
            return predict(config)
        except QaError as error:
            why = str(error).splitlines()[0]
            if why.startswith(("model.checkpoint:", "model.tokenizer:")):
                self._failed[source] = why
            return _Forecast(None, why, is_fault=True)
        except (
            Exception
        ) as error:  # of a library, on a recipe that fails alike, with its traceback, in its own trial
            return _Forecast(None, f"{type(error).__name__}: {error}".splitlines()[0], is_fault=True)

    def _predicted(self, config: RunConfig, quantity: str) -> _Forecast:
        if quantity == "artifact":
            return self._artifact(config)
        family, tokenizer, planned = self._plan(config)
        if quantity == "weights":
            return self._weights(family, planned)
        from qa_core.memory.protocol import LARGE_MEMORY_ROWS, MEMORY_ROWS

        rows = {"peak": MEMORY_ROWS, "peak_batch8": LARGE_MEMORY_ROWS}[quantity]
        return _largest(
            self._of_form(family, planned, tokenizer=tokenizer, config=config, precision=precision, rows=rows)
            for precision in self._precisions(config, config.evaluation.precision)
        )

    def _plan(self, config: RunConfig) -> "tuple[Family, Any, Any]":
        """Return a recipe's family, tokenizer and planned form; weights and both peaks share them."""
        from qa_core.memory.forms import PlannedForm, planned_forms

        key = _key(self._deciding(config))
        if key not in self._planned:
            if len(self._planned) >= MOST_AT_HAND:
                self._planned.clear()
            family, methods, tokenizer, network = self._skeleton(config)
            architecture = family.architecture(network)
            planned = PlannedForm(architecture, planned_forms(family, architecture, methods))
            self._planned[key] = family, tokenizer, planned
        return self._planned[key]

    def _skeleton(self, config: RunConfig) -> "tuple[Family, list[Method], Any, nn.Module]":
        """Return a recipe's family, its methods as attached to the network in training, the tokenizer, and the network.

        What one training is stored as is asked for in turn: its forms share the network that was built last.
        """
        from qa_core.memory.forms import training_skeleton

        family, methods, tokenizer, found = self._parts(config)
        deciding = self._deciding(config)
        added = [method for method in methods if method.is_addable_after_training]
        names = deciding["methods"].keys() - {method.name for method in added}
        key = _key(deciding | {"methods": {name: deciding["methods"][name] for name in names}})
        if self._in_hand is None or self._in_hand[0] != key:
            own = [method for method in methods if method not in added]
            network = training_skeleton(config, family, own, tokenizer=tokenizer, found=found)
            self._in_hand = key, own, network
        _, own, network = self._in_hand
        for method in added:
            method.attach(network, family)  # which it leaves as it is
        attached = {method.name: method for method in (*own, *added)}
        return family, [attached[method.name] for method in methods], tokenizer, network

    def _deciding(self, config: RunConfig) -> dict[str, Any]:
        values = self._values(config)
        return {name: values[name] for name in DECIDING}

    def _predicted_training(self, config: RunConfig) -> _Forecast:
        from qa_core.memory.shapes import NotPredictable
        from qa_core.memory.training import predicted_training_memory

        named = {config.train.precision, config.evaluation.precision}
        forecasts = []
        for precision in {found for name in named for found in self._precisions(config, name)}:
            family, methods, tokenizer, found = self._parts(config)
            try:
                memory = predicted_training_memory(
                    config,
                    family,
                    methods,
                    tokenizer=tokenizer,
                    found=found,
                    precision=precision,
                    cache_dir=self._cache_dir,
                )
                forecasts.append(_Forecast(memory.peak_bytes, None))
            except NotPredictable as error:
                forecasts.append(_Forecast(None, str(error)))
        for needed in [method.prerequisite(config) for method in self._parts(config)[1]]:
            if isinstance(needed, RunConfig):
                forecasts.append(self._tried(needed, self._predicted_training))
        return _largest(forecasts)

    def _parts(self, config: RunConfig) -> "tuple[Family, list[Method], Any, Found]":
        """Return family and methods of the recipe, its tokenizer, and what its network is built with."""
        family, methods = registry.assemble(config)
        tokenizer = self._tokenizer(config, family)
        return family, methods, tokenizer, family.prepare(tokenizer, config.data, cache_dir=self._cache_dir)

    def _artifact(self, config: RunConfig) -> _Forecast:
        from qa_core.memory.artifact_size import planned_artifact_bytes

        family, methods, tokenizer, network = self._skeleton(config)
        if family.prompting is not None:
            return _Forecast(None, "the demonstrations in the artifact are drawn when the data are prepared")
        size = planned_artifact_bytes(config, family, network, methods, tokenizer=tokenizer)
        return _Forecast(size, None)

    def _weights(self, family: "Family", planned: Any) -> _Forecast:
        from qa_core.memory.forms import deployed_skeleton
        from qa_core.memory.protocol import weights_bytes

        return _Forecast(weights_bytes(deployed_skeleton(family, planned.architecture, planned.forms)), None)

    def _of_form(
        self,
        family: "Family",
        planned: Any,
        *,
        tokenizer: Any,
        config: RunConfig,
        precision: str,
        rows: int,
    ) -> _Forecast:
        import torch

        from qa_core.memory.forms import predicted_form_bytes
        from qa_core.memory.protocol import Protocol, form_key
        from qa_core.memory.shapes import NotPredictable

        evaluation = replace(config.evaluation, precision=precision)
        protocol = Protocol(family, tokenizer, config.data.max_length, evaluation, torch.device("cpu"))
        key = _key([rows, form_key(planned.architecture, planned.forms, protocol)])
        if key not in self._by_form:
            try:
                sizes = predicted_form_bytes(
                    family, planned.architecture, planned.forms, protocol=protocol, rows=[rows]
                )
                self._by_form[key] = _Forecast(sizes[0], None)
            except NotPredictable as error:
                self._by_form[key] = _Forecast(None, str(error))
        return self._by_form[key]

    def _tokenizer(self, config: RunConfig, family: "Family") -> Any:
        """Return the recipe's tokenizer, loaded or trained once."""
        from qa_core.data.prepare import recipe_tokenizer

        model = config.model
        if model.tokenizer is not None or not family.is_preset:
            key = family.place_of(model.tokenizer or model.checkpoint)
        else:
            questions = [getattr(config.data, name) for name in OF_THE_TRAIN_PART]
            key = _key([family.tokenizer_kind, model.vocab_size, questions])
        if key not in self._tokenizers:
            self._tokenizers[key] = recipe_tokenizer(config, family, cache_dir=self._cache_dir)
        return self._tokenizers[key]

    def _is_for_gpu(self, config: RunConfig) -> bool:
        return config.device == "cuda" or (config.device == "auto" and self._on_gpu)

    def _precisions(self, config: RunConfig, named: str) -> tuple[str, ...]:
        """Return the precisions that a recipe which names one may compute in."""
        import torch

        from qa_core.hardware import autocast_dtype

        is_gpu = self._is_for_gpu(config)
        if named != "auto":
            return (named,)
        if is_gpu and not torch.cuda.is_available():
            return ("float32", "bfloat16")
        dtype = autocast_dtype(named, torch.device("cuda" if is_gpu else "cpu"))
        return ("float32" if dtype is None else "bfloat16",)


def _largest(forecasts: Iterable[_Forecast]) -> _Forecast:
    """Return the largest forecast, or the first unpredictable one if there is any."""
    known = list(forecasts)
    missing = [forecast for forecast in known if forecast.size_bytes is None]
    return missing[0] if missing else max(known, key=lambda forecast: forecast.size_bytes or 0)


def _key(values: Any) -> str:
    return json.dumps(values, sort_keys=True)
