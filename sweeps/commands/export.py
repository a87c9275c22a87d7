"""`export`: one model of a sweep, chosen by limits or by name, copied with a card that says what it is.

The rule that chose it is printed, and which smaller models are tied with it. The card is in `sweeps/front/card.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from qa_core import files
from qa_core.errors import ConfigError, DataError, StorageError, unknown
from sweeps.commands.results import artifact_folder, front_of, load_records
from sweeps.front import choosing
from sweeps.front.card import CARD, Example, Shipped, model_card
from sweeps.front.points import Point
from sweeps.front.result import FrontResult
from sweeps.front.tables import words_against_twin
from sweeps.front.ties import Ties, answers_of, smaller_and_tied
from sweeps.progress.shell_command import shell_command
from sweeps.run_folder.layout import RunFolder
from sweeps.run_folder.masking import printable
from sweeps.run_folder.models import id_of, models_of
from sweeps.run_folder.records import Record
from sweeps.spec.objectives import measure

if TYPE_CHECKING:
    from qa_core.artifact.loaded import LoadedArtifact
    from sweeps.run_folder.records import Loaded

EXAMPLES = 5  # questions that a card shows, where they are asked for


@dataclass(frozen=True)
class Choice:
    """Which model is exported.

    Args:
        limits: upper bounds on costs, by objective; see `sweeps/front/choosing.py`.
        min_em: least exact match in percent; then the smallest such model is taken, not the best. None: the best one.
        trial: whose artifact is copied, in place of the best one; None for that.
        form: label of the trial's stored form; None where it has none, or one alone.
    """

    limits: Mapping[str, float] = field(default_factory=dict)
    min_em: float | None = None
    trial: str | None = None
    form: str | None = None


def export(
    run_dir: Path,
    choice: Choice,
    *,
    to: Path,
    with_examples: bool = False,
    name: str | None = None,
    tracking_uri: str | None = None,
) -> int:
    """Copy the chosen artifact and print what was chosen, by which rule; put it into a registry where one is asked for.

    Args:
        run_dir, choice, to, with_examples: as for `exported`.
        name: of the model in MLflow's registry; None: it goes into none.
        tracking_uri: of the registry; None: the store beside the sweep's folder.

    Raises:
        ConfigError: the registry cannot be used, which is known before anything is copied; otherwise as `exported`.
    """
    if tracking_uri is not None and name is None:
        raise ConfigError("--tracking-uri: found without --register; allowed: together with --register NAME")
    _check(choice)  # before anything is read
    registry = None
    if name is not None:
        from sweeps.commands import register

        registry = register.open_registry(name, run_dir, tracking_uri)
    for note in (loaded := load_records(run_dir)).notes:
        print(f"note: {printable(note)}")
    done = exported(run_dir, loaded, choice, to=to, with_examples=with_examples)
    for line in done.lines:
        print(line)
    if registry is not None:
        for line in register.register(registry, to, run_dir=run_dir, model=done.point.id):
            print(line)
    return 0


def _check(choice: Choice) -> None:
    """Refuse a choice that is none, or several; raises ConfigError."""
    is_by_rule = bool(choice.limits) or choice.min_em is not None
    if is_by_rule == (choice.trial is not None):
        found = "neither a limit nor a trial" if choice.trial is None else "limits and a trial"
        raise ConfigError(
            f"export: found {found}; allowed: --max-memory-mb MB, --max FIELD=VALUE (several), --min-em PERCENT, or "
            "--trial ID"
        )
    if choice.form is not None and choice.trial is None:
        raise ConfigError(f"--form: found {choice.form!r} without --trial; allowed: together with --trial ID")


@dataclass(frozen=True)
class Exported:
    """A model that was copied, and lines that say by which rule and which smaller models are tied with it."""

    point: Point
    lines: tuple[str, ...]


def exported(
    run_dir: Path, loaded: "Loaded", choice: Choice, *, to: Path, with_examples: bool = False
) -> Exported:
    """Copy the chosen artifact with a card, verified and loaded before it is copied and verified after.

    Args:
        run_dir: folder of the sweep.
        loaded: its records.
        choice: of the model.
        to: the folder to write.
        with_examples: show a few evaluation questions with the model's answers on the card.

    Raises:
        ConfigError: neither limits nor a trial are given, or both; no finished trial fits, and the message names the
            smallest need; or there is no such trial or form.
        ArtifactError: the artifact is altered or does not load.
        DataError: the questions to show cannot be read.
        StorageError: the target exists or cannot be written.
    """
    _check(choice)
    result = front_of(run_dir, loaded)
    notes: list[str] = []
    if choice.trial is None:
        best, rule, notes = _best(result, run_dir, choice)
    else:
        best = _named(result, loaded.records, choice.trial, choice.form)
        rule = f"the {'form' if choice.form else 'trial'} that was asked for"
    if best.artifact is None:
        raise DataError(f"{RunFolder(run_dir).records}: trial {best.id} does not say where its artifact is")
    if files.is_there(to):
        raise StorageError(f"{to}: exists already; choose a new folder")
    source = artifact_folder(run_dir, best.id, best.artifact)
    if not files.is_folder(source):
        raise DataError(
            f"{source}: the artifact of trial {best.id} is not there; its recipe is in the records"
        )
    from qa_core.artifact import artifact

    shipped = artifact.load(source)
    card = _card(run_dir, loaded.records, best, result, shipped, to=to, with_examples=with_examples)
    artifact.copy(source, to, documents={CARD: card})
    return Exported(best, (*notes, *_said(result, run_dir, choice, best, rule, to=to)))


def _said(
    result: FrontResult, run_dir: Path, choice: Choice, best: Point, rule: str, *, to: Path
) -> Iterator[str]:
    """Yield the rule, what was copied, and which smaller models are tied with it."""
    values = ", ".join(f"{item.name} {best.values[item.name]:.2f}" for item in result.objectives)
    yield f"{rule}: trial {best.id}"
    yield f"{to}: {best.family} {best.methods} {best.checkpoint}, {values}"
    if facts := [f"{path}={value}" for path, value in best.form_settings.items()]:
        against = [words_against_twin(best.against_twin)] if best.against_twin else []
        yield f"form {best.form}: {'; '.join([', '.join(facts), *against])}"
    if choice.trial is None and choice.min_em is None:
        by = choosing.cost_to_save(result, choice.limits)
        fitting = [
            point
            for point in choosing.within(result, choice.limits)
            if point.artifact is not None
            and files.is_folder(artifact_folder(run_dir, point.id, point.artifact))
        ]
        ties = smaller_and_tied(best, fitting, by, lambda point: answers_of(run_dir, point))
        yield from _tie_lines(ties, by, run_dir, to)
    if result.is_no_better_than_a_baseline(best):
        yield f"warning: this model is not better than {result.baseline_words()}"
    yield f"card: {to / CARD} (its field `license` is yours to fill in; read it before you pass it on)"


def _tie_lines(ties: Ties, by: str, run_dir: Path, to: Path) -> list[str]:
    """Return a line on the smallest model that is tied with the chosen one, and one on the others."""
    unknown = ", ".join(str(point.id) for point in ties.not_judged)
    lines = [f"smaller, not compared (no answers, or too few articles): {unknown}"] if unknown else []
    if not ties.tied:
        return lines
    first, *others = ties.tied
    point, difference = first.point, first.difference
    form = ["--form", point.form] if point.form else []
    smaller = to.with_name(f"{to.name}-smaller")
    command = shell_command("qa-sweep", "export", run_dir, "--trial", point.trial_id, *form, "--to", smaller)
    unit = measure(by).unit
    lines.append(
        f"tied: trial {point.id} is smaller ({by} {point.costs[by]:.2f} {unit}), and no worse as far as the questions "
        f"tell: EM {difference.estimate:+.2f}, {100 * difference.confidence:.0f} % interval by {difference.unit} "
        f"{difference.low:+.2f} to {difference.high:+.2f}. To take it: {command}"
    )
    if others:
        lines.append(f"tied too: {', '.join(str(tie.point.id) for tie in others)}")
    return lines


def _card(
    run_dir: Path,
    records: Sequence[Record],
    best: Point,
    result: FrontResult,
    shipped: "LoadedArtifact",
    *,
    to: Path,
    with_examples: bool,
) -> str:
    model = next(model for record in records for model in models_of(record) if id_of(model) == best.id)
    path = answers_of(run_dir, best)
    facts = Shipped(
        name=to.name,
        files=tuple(shipped.manifest["files"]),
        plain_class=_plain_class(shipped),
        has_prompt=shipped.manifest.get("prompting") is not None,
        threshold=shipped.null_threshold,
        compared=len(result.points),
        head=shipped.family.head,
        is_preset=shipped.family.is_preset,
        is_shipped=shipped.family.is_shipped,
    )
    intervals = None
    if files.is_file(path):
        from qa_core.scoring.answer_file import read_scores
        from qa_core.scoring.evaluate import score_intervals

        _, scores, clusters = read_scores(path)
        intervals = score_intervals(scores, clusters)
    examples = examples_of(model, path) if with_examples else ()
    return model_card(model, facts, intervals=intervals, examples=examples)


def _plain_class(shipped: "LoadedArtifact") -> str | None:
    """Return the class of transformers that opens the folder; None where none does."""
    from qa_core.artifact.plain_folder import CONFIG

    assert shipped.folder is not None, "it was read from a folder"
    if CONFIG not in shipped.manifest["files"]:
        return None
    return str(files.read_object(shipped.folder / CONFIG)["architectures"][0])


def examples_of(model: Record, path: Path) -> list[Example]:
    """Return the first questions of the evaluation set with golds and answers.

    Raises:
        DataError: answers or questions cannot be read, or are not of one set.
    """
    from qa_core.data.squad import load_table
    from qa_core.scoring.answer_file import read_answers

    answers = read_answers(path)
    data = model.config["data"]
    source = data.get("evaluation") or data["train"]
    table = load_table(source, split="dev", skip_bad_examples=bool(data.get("skip_bad_examples")))
    shown = []
    for example in table.examples():
        if example.question_id in answers:
            golds = tuple(answer.text for answer in example.answers)
            shown.append(Example(example.question, golds, answers[example.question_id]))
        if len(shown) == EXAMPLES:
            break
    if not shown:
        raise DataError(f"{source}: found none of the questions that {path} has answers to")
    return shown


def _named(result: FrontResult, records: Sequence[Record], trial: str, form: str | None) -> Point:
    """Return the point of a trial, and of one of its stored forms; raises ConfigError where there is none."""
    points = {point.id: point for points in (result.points, *result.apart) for point in points}
    mine = {model.form: point for model, point in points.items() if model.trial_id == trial}
    beside = {point.form: point for point in result.others if point.trial_id == trial}
    if not mine and beside and all(beside):
        whys = "; ".join(f"{label} {_why(point)}" for label, point in beside.items())
        raise ConfigError(f"--trial: found {trial!r}, of which no stored form is a model: {whys}")
    ended = next((record for record in records if record.trial_id == trial), None)
    if not mine and ended is not None and ended.status != "ok":
        raise ConfigError(
            f"--trial: found {trial!r}, which has no model: {ended.status}, {ended.reason}; allowed: a trial that "
            "finished"
        )
    if not mine:
        raise ConfigError(
            f"--trial: {unknown('finished trial', trial, {model.trial_id for model in points})}"
        )
    if form in mine:
        return mine[form]
    labels = [label for label in mine if label is not None]
    if form is None and len(labels) == 1:
        return mine[labels[0]]
    if form is None:
        raise ConfigError(
            f"--form: found none, and trial {trial} has {len(labels)} stored forms; allowed: {', '.join(labels)}"
        )
    if form in beside:
        why = _why(beside[form])
        raise ConfigError(
            f"--form: found {form!r}, which is no model: {why}; allowed: {', '.join(labels) or 'none'}"
        )
    raise ConfigError(f"--form: {unknown(f'stored form of trial {trial}', form, labels)}")


def _why(point: Point) -> str:
    """Return why a stored form is no point."""
    return str(point.left_out) if point.status == "ok" else f"{point.status}: {point.left_out}"


def _best(result: FrontResult, run_dir: Path, choice: Choice) -> tuple[Point, str, list[str]]:
    """Return the best point within limits whose artifact is there, the rule that chose it, and notes on others."""
    limits, min_em = choice.limits, choice.min_em
    fitting = choosing.within(result, limits, min_em=min_em)
    if not fitting:
        raise ConfigError(choosing.refusal(result, limits, min_em=min_em))
    bounds = [f"{name} <= {limit:g} {measure(name).unit}" for name, limit in limits.items()]
    quality = choosing.objective_of_quality(result.objectives)
    chosen_by = f"best {quality.name}"
    if min_em is not None:
        bounds.insert(0, f"em_percent >= {min_em:g} %")
        chosen_by = f"least {choosing.cost_to_save(result, limits)}"
    rule = f"{chosen_by} with {', '.join(bounds)}, of {len(fitting)} that fit"
    best = fitting[0]
    notes: list[str] = []
    for point in fitting:
        if point.artifact is None or files.is_there(artifact_folder(run_dir, point.id, point.artifact)):
            if point is not best:
                is_what = "is better" if min_em is None else "costs less"
                notes.append(
                    f"note: trial {best.id} {is_what} ({quality.name} {best.values[quality.name]:.2f}), and its "
                    "artifact was removed (budget.keep_artifacts: all keeps them)"
                )
            return point, rule, notes
    return best, rule, notes
