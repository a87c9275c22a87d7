"""From records to points: which models are on a front or beside it, and what is shown of each.

Only finished, full-budget trials have points: one for each stored form that is ok, or one of their own where the sweep
lists no forms. What is left out is counted by reason, trials and forms apart. Of trials that do not compare
(`comparability.py`) the largest group is shown, and the others are named. `front.py` finds the non-dominated points.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sweeps.front.comparability import ALLOWED, Group, device_for, groups, left_out_words
from sweeps.progress.console import error_signature
from sweeps.progress.recipe_words import recipe_words
from sweeps.run_folder.model_id import ModelId
from sweeps.run_folder.models import as_model, id_of, models_of, trials_of
from sweeps.run_folder.records import Record, StoredForm, read_inside, text_at
from sweeps.spec.objectives import MEASURES, measure

if TYPE_CHECKING:
    from sweeps.spec.objectives import Objective

BASELINES = {
    "no answer to anything": "baseline_no_answer_em_percent",
    "first span": "baseline_first_span_em_percent",
    "question blind": "baseline_question_blind_em_percent",
}
LIMITABLE = tuple(name for name, item in MEASURES.items() if item.section == "cost")
FULL_FINE_TUNING = "full"
LONGEST_REASON = 60  # characters of why forms failed, where they are counted
WITHOUT_FORMS = "without a stored form"  # that is ok, though the sweep lists forms for the trial
AGAINST_TWIN = ("em_difference_percent", "low", "high")  # of `StoredForm.against_twin`
OF_A_POINT = (
    "model.family",
    "model.head",
    "model.checkpoint",
    "methods",
)  # searched settings with a field of a point


@dataclass(frozen=True)
class Point:
    """One model of a finished trial, placed by its objectives in their units. What identifies it is `id`."""

    trial_id: str
    values: Mapping[str, float]
    family: str
    head: str | None
    methods: str  # of the training, joined by "+"; "full" for none
    checkpoint: str
    seed: int
    memory_mb: float | None  # with one window at a time, unless the record is of protocol version 1
    memory_batch8_mb: float | None
    seconds: float
    artifact: str | None
    on_front: bool = False
    is_knee: bool = False
    em_percent: float | None = None  # objective or not
    status: str = "ok"  # of its record, or of its form
    left_out: str | None = None  # why it is not compared with the points of the front; None: it is
    costs: Mapping[str, float] = field(default_factory=dict)  # by objective, in its unit: what can be limited
    settings: Mapping[str, Any] = field(
        default_factory=dict
    )  # searched, by path; what has a field is not among them
    form: str | None = None  # label of the stored form; None: the artifact of a trial without forms
    form_settings: Mapping[str, Any] = field(
        default_factory=dict
    )  # by path: how the form differs from the recipe
    against_twin: Mapping[str, float | None] = field(
        default_factory=dict
    )  # `AGAINST_TWIN` of a form, or empty

    @property
    def id(self) -> ModelId:
        """Which model it is; as text what tables show, such as "t0007 int8+e8"."""
        return ModelId(self.trial_id, self.form)

    @property
    def recipe(self) -> str:
        """What tells it from others, in words; of a checkpoint's path the end says most."""
        own = {path: value for path, value in self.settings.items() if path not in self.form_settings}
        return recipe_words(own, family=self.family, methods=self.methods, checkpoint=self.checkpoint)


@dataclass(frozen=True)
class FrontInput:
    """Comparable points, how many trials and forms were left out for which reason, and the trivial baselines.

    Attributes:
        points: of the largest group of finished trials that compare.
        left_out: how many trials are not among them, by reason.
        baselines: exact match in percent, by name.
        apart: the points of the other groups of finished trials, each comparable in itself.
        others: all trials and forms that ended and are not among the points, with the reason; their objectives may be
            missing. A trial with forms is there by its forms.
        several_devices: those of the points, where their user allowed several.
        forms_left_out: how many forms of finished trials are not among the points, by reason.
    """

    points: tuple[Point, ...]
    left_out: Mapping[str, int]
    baselines: Mapping[str, float]
    apart: tuple[tuple[Point, ...], ...] = ()
    others: tuple[Point, ...] = ()
    several_devices: tuple[str, ...] = ()
    forms_left_out: Mapping[str, int] = field(default_factory=dict)


def finished(records: Iterable[Record], objectives: Sequence["Objective"]) -> list[Record]:
    """Return the records that have points: the whole budget was spent, and every objective of a model measured."""
    return [record for record in records if _why_left_out(record, objectives) is None]


def points(records: Iterable[Record], objectives: Sequence["Objective"]) -> FrontInput:
    """Turn records into comparable points.

    Raises:
        DataError: a finished trial's record cannot be read, or does not say what it was measured on.
    """
    records = tuple(records)
    whys = [_why_left_out(record, objectives) for record in records]
    left_out = Counter(why for why in whys if why is not None)
    forms_left_out: Counter[str] = Counter()
    others: list[Point] = []
    for record, why in zip(records, whys, strict=True):
        if why is not None and why != WITHOUT_FORMS:
            others.append(replace(_read_point(record, ()), left_out=why))
            continue
        for form in record.forms:
            if (missing := _why_no_point(record, form, objectives)) is not None:
                forms_left_out[missing] += 1
                others.append(_form_left_out(record, form, missing))
    placeable = [
        model for record in finished(records, objectives) for model in _points_in(record, objectives)
    ]
    if not placeable:
        return _nothing_to_place(left_out, forms_left_out, others)
    main, *apart = groups(placeable, objectives)
    shown, shown_trials = {id_of(model) for model in main.records}, set(trials_of(main.records))
    for group in apart:
        models = [model for model in group.records if id_of(model) not in shown]
        reason = left_out_words(group, main)
        if alone := set(trials_of(models)) - shown_trials:
            left_out[reason] += len(alone)
        if beside := sum(model.trial_id in shown_trials for model in models):
            forms_left_out[reason] += beside
        others += [replace(_read_point(model, objectives), left_out=reason) for model in models]
    placed, *placed_apart = (_points_of(group, objectives) for group in (main, *apart))
    return FrontInput(
        placed,
        dict(sorted(left_out.items())),
        read_inside(main.records[0], _baselines),
        tuple(placed_apart),
        tuple(others),
        _several_devices(main, objectives),
        dict(sorted(forms_left_out.items())),
    )


def _nothing_to_place(
    left_out: Counter[str], forms_left_out: Counter[str], others: list[Point]
) -> FrontInput:
    return FrontInput(
        (),
        dict(sorted(left_out.items())),
        {},
        others=tuple(others),
        forms_left_out=dict(sorted(forms_left_out.items())),
    )


def _why_left_out(record: Record, objectives: Sequence["Objective"]) -> str | None:
    """Return why a trial has no point; None where it has."""
    if record.status != "ok":
        return record.status
    if record.examples_seen < record.budget_examples:
        return "short of the whole budget"
    if record.forms:
        return None if _points_in(record, objectives) else WITHOUT_FORMS
    return _lacking(record.objectives, objectives)


def _points_in(record: Record, objectives: Sequence["Objective"]) -> list[Record]:
    """Return the models of a finished trial for which every objective was measured."""
    return [model for model in models_of(record) if _lacking(model.objectives, objectives) is None]


def _why_no_point(record: Record, form: StoredForm, objectives: Sequence["Objective"]) -> str | None:
    """Return why a form of a finished trial is no point, as it is counted; None where it is one."""
    if form.status == "ok":
        return _lacking(form.objectives, objectives)
    why = error_signature(str(form.reason))
    return f"{form.status} ({why if len(why) <= LONGEST_REASON else why[: LONGEST_REASON - 3] + '...'})"


def _lacking(values: Mapping[str, float] | None, objectives: Sequence["Objective"]) -> str | None:
    missing = [item.name for item in objectives if (values or {}).get(item.name) is None]
    return f"without {', '.join(missing)}" if missing else None


def _form_left_out(record: Record, form: StoredForm, why: str) -> Point:
    """Return a form that is no point as a row of the tables; the reason is there in full."""
    point = _read_point(as_model(record, form), ())
    return replace(point, status=form.status, left_out=form.reason or why)


def _points_of(group: Group, objectives: Sequence["Objective"]) -> tuple[Point, ...]:
    return tuple(_read_point(model, objectives) for model in group.records)


def _read_point(model: Record, objectives: Sequence["Objective"]) -> Point:
    return read_inside(model, lambda model: _point(model, objectives))


def _several_devices(group: Group, objectives: Sequence["Objective"]) -> tuple[str, ...]:
    if group.terms.device != ALLOWED:
        return ()
    return tuple(sorted({device_for(objectives, str(record.device)) for record in group.records}))


def _baselines(record: Record) -> dict[str, float]:
    quality = record.quality or {}
    return {name: float(quality[key]) for name, key in BASELINES.items() if quality.get(key) is not None}


def _point(record: Record, objectives: Sequence["Objective"]) -> Point:
    """Return the point of a record of `models_of`, or of a trial that has none, with its own values alone."""
    form = record.forms[0] if record.forms else None
    found = (record.quality or {}).get("em_percent")
    model = record.config["model"]
    costs = known_costs(record.cost)
    return Point(
        trial_id=record.trial_id,
        values={item.name: float((record.objectives or {})[item.name]) for item in objectives},
        family=text_at(model["family"], "config.model.family"),
        head=None if model.get("head") is None else text_at(model["head"], "config.model.head"),
        methods="+".join(dict(record.config.get("methods") or {})) or FULL_FINE_TUNING,
        checkpoint=text_at(model["checkpoint"], "config.model.checkpoint"),
        seed=record.seed,
        memory_mb=costs.get("memory_mb"),
        memory_batch8_mb=costs.get("memory_batch8_mb"),
        costs=costs,
        seconds=record.seconds,
        artifact=record.artifact,
        em_percent=None if found is None else float(found),
        status=record.status,
        settings=settings_of(record.assignment, record.config),
        form=None if form is None else form.label,
        form_settings={} if form is None else dict(form.settings),
        against_twin={} if form is None else _against_twin(form),
    )


def _against_twin(form: StoredForm) -> dict[str, float | None]:
    """Return the difference in exact match to the twin, and its interval; nothing where none is recorded."""
    found = form.against_twin or {}
    if found.get("em_difference_percent") is None:
        return {}
    return {name: None if found.get(name) is None else float(found[name]) for name in AGAINST_TWIN}


def known_costs(cost: Mapping[str, Any] | None) -> dict[str, float]:
    """Return what a record says of costs, by objective, in its unit; raises TypeError where one is no number."""
    found = {name: (cost or {}).get(measure(name).field) for name in LIMITABLE}
    return {name: value / measure(name).divisor for name, value in found.items() if value is not None}


def settings_of(assignment: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the sweep searched of a recipe, by path; an id of the space is its path, which may be numbered."""
    settings = {}
    for identity in assignment:
        path, _, number = identity.rpartition(".")
        path = path if number.isdecimal() and path else identity
        if path in OF_A_POINT:
            continue
        value: Any = config
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        settings[path] = value
    return settings
