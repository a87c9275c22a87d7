"""The command line: `qa-sweep`, with one command for each operation on sweeps and artifacts.

Names, options and exit codes only; what a command does is in `sweeps/commands/`, imported when it is called,
so that `--help` needs neither Ray nor torch. Exit codes: 0 done; 2 bad input; 3 finished, but some trials
failed; 130 interrupted.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from qa_core.errors import ConfigError, QaError
from sweeps.commands.options import DEFAULT_CONFIG, Columns, read_columns, read_spec, takes_spec
from sweeps.progress.console import may_be_lost
from sweeps.run_folder.masking import masked_text, printable
from sweeps.spec.sections import SweepSpec

DONE, BAD_INPUT, SOME_FAILED, INTERRUPTED = 0, 2, 3, 130

app = typer.Typer(
    help="Search for the Pareto front of exact match against memory, and export its points as ready-to-run models.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Calibrate = Annotated[
    bool,
    typer.Option("--calibrate", help="Time a few training steps of each kind of recipe, to estimate hours."),
]
AllowMixed = Annotated[
    bool,
    typer.Option(
        "--allow-mixed",
        help="Run although the cluster's nodes differ in versions or devices, or new trials do not compare with "
        "finished ones; the records are marked. Not stored: give it again with --resume.",
    ),
]
SkipBadExamples = Annotated[
    bool,
    typer.Option("--skip-bad-examples", help="Skip malformed questions, as data.skip_bad_examples does."),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a sweep.")]
Artifact = Annotated[
    Path, typer.Argument(metavar="ARTIFACT", help="Folder of a trial's artifact, or an export.")
]


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        print(f"qa-sweep {version('qa-sweeps')}")
        raise typer.Exit


@app.callback()
def _for_all_commands(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; every error of the user's is one line on stderr.

    Args:
        arguments: without the program's name; None for those of this process.
    """
    # What every complaint about arguments is: click's with older versions of typer, its own with newer ones.
    usage_error: Any = typer.BadParameter.__mro__[1]
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(args=given or ["--help"], prog_name="qa-sweep", standalone_mode=False)
    except QaError as error:
        _complain(str(error))
        return BAD_INPUT
    except usage_error as error:
        _complain(error.format_message())
        return BAD_INPUT
    except BrokenPipeError:  # the reader of the output has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:  # of a file or folder that no command has looked at for itself
        named = error.filename if isinstance(error.filename, str) else "a file"
        _complain(f"{named}: {error.strerror or error}")
        return BAD_INPUT
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED  # newer versions of typer return it
    if code == INTERRUPTED:
        with may_be_lost(sys.stderr):
            print("interrupted", file=sys.stderr)
    return int(code or DONE)


def _complain(message: str) -> None:
    """Print a message without secrets, and without what a terminal takes for a command."""
    lines = [printable(line) for line in masked_text(message).split("\n")]
    with may_be_lost(sys.stderr):
        print("error: " + "\n".join(lines), file=sys.stderr)


@app.command()
@takes_spec
def run(
    spec: SweepSpec,
    out: Annotated[
        Path | None,
        typer.Option(help="The sweep's own folder; default: runs/NAME-TIME. Must be new or empty."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN_DIR", help="Resume the sweep in this folder."),
    ] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster; default: a Ray on this machine.")] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow server or database; default: mlflow.db beside the run folders.")
    ] = None,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Start Ray's dashboard on the loopback.")
    ] = False,
    allow_mixed: AllowMixed = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    calibrate: Calibrate = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Show failures, notes and the result alone.")
    ] = False,
    json_events: Annotated[
        bool,
        typer.Option(
            "--json-events",
            help="Print one JSON object for each event, and nothing else; see docs/events.md.",
        ),
    ] = False,
) -> int:
    """Run a sweep and show its front. Without options: the quickstart."""
    from sweeps.commands import plan
    from sweeps.commands import run as sweep

    if dry_run:
        return plan.plan(spec, calibrate=calibrate)
    if calibrate:
        raise ConfigError("--calibrate: found without --dry-run; allowed: with it, or on `plan`")
    if quiet and json_events:
        raise ConfigError("--quiet: found with --json-events; allowed: one of them")
    if resume is not None and out is not None:
        raise ConfigError("--out: not with --resume: the sweep stays in its folder")
    folder = resume or out or sweep.default_folder(spec.name)
    target = sweep.Target(folder, address, tracking_uri, dashboard, allow_mixed)
    return sweep.run(spec, target, resume=resume is not None, quiet=quiet, json_events=json_events)


@app.command()
@takes_spec
def validate(spec: SweepSpec) -> int:
    """Check a configuration and its data without training; list dropped combinations with the reason."""
    from sweeps.commands import validate as planning

    return planning.validate(spec)


@app.command()
@takes_spec
def plan(spec: SweepSpec, calibrate: Calibrate = False) -> int:
    """Show the plan of a sweep: legal recipes, rungs, predicted memory, hours and money."""
    from sweeps.commands import plan

    return plan.plan(spec, calibrate=calibrate)


@app.command()
def data(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A file (SQuAD, JSON, JSON lines, CSV, TSV, Parquet, Arrow), a folder of the library datasets, a hub "
            "name, or sample.",
        ),
    ],
    columns: Columns = None,
    eval_data: Annotated[
        str | None, typer.Option(help="Evaluation data; default: its dev split, or a part held out.")
    ] = None,
    config: Annotated[
        str, typer.Option(help="Configuration whose tokenizers and settings are used.")
    ] = DEFAULT_CONFIG,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be given many times."),
    ] = None,
) -> int:
    """Show what is understood of a data source: columns, counts, lengths, hold-out, ceilings, examples."""
    from sweeps.commands import data as looking

    return looking.data(
        read_spec(config=config, set_=set_, data=source, eval_data=eval_data, columns=columns)
    )


@app.command()
def new(
    source: Annotated[str, typer.Argument(metavar="DATA", help="Training data, named as for `run --data`.")],
    max_memory_mb: Annotated[
        float | None, typer.Option(help="Memory that the model may need for one window, in 10^6 bytes.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="How long the sweep may take on this machine.")] = 60.0,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("my.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite it.")] = False,
    columns: Columns = None,
    eval_data: Annotated[
        str | None, typer.Option(help="Evaluation data; default: its dev split, or a part held out.")
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Network to start from, of the hub or a folder; may be given once for each family.",
        ),
    ] = None,
) -> int:
    """Write a commented YAML file for your data, memory and time on this machine."""
    from sweeps.commands import new as writing

    named = {} if columns is None else read_columns(columns)
    wanted = writing.Wanted(
        source, eval_data, named, max_memory_mb=max_memory_mb, minutes=minutes, checkpoints=checkpoint or ()
    )
    return writing.new(wanted, out, force=force)


@app.command()
def configs() -> int:
    """List the configurations that come with the package, and their scales."""
    from sweeps.commands import configs as listing

    return listing.configs()


@app.command()
def settings(
    prefix: Annotated[
        str,
        typer.Argument(metavar="PREFIX", help="Beginning of a path, such as train. or budget; default: all."),
    ] = "",
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print docs/settings.md, which holds all of them.")
    ] = False,
) -> int:
    """Show what each setting means, with its type, default, range and unit."""
    from sweeps.commands import settings as catalogue

    if markdown and prefix:
        raise ConfigError(f"--markdown: found with the prefix {prefix!r}; allowed: without one")
    return catalogue.settings(prefix, markdown=markdown)


@app.command()
def confirm(
    run_dir: RunFolder,
    seeds: Annotated[int, typer.Option(help="New seeds for each recipe of the front.")] = 3,
    address: Annotated[str | None, typer.Option(help="Ray cluster; default: a Ray on this machine.")] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow server or database; default: mlflow.db in the sweep's folder.")
    ] = None,
    allow_mixed: AllowMixed = False,
) -> int:
    """Run the recipes of a front again with new seeds and show which of its points are confirmed."""
    from sweeps.commands import confirm as confirmation
    from sweeps.commands import run as sweep

    target = sweep.Target(run_dir, address, tracking_uri, dashboard=False, allow_mixed=allow_mixed)
    return confirmation.confirm(run_dir, seeds=seeds, target=target)


@app.command()
def front(
    run_dir: RunFolder,
    csv: Annotated[Path | None, typer.Option(help="Also write the points here.")] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT",
            help="Name the smallest model that keeps so much of the best network's exact match; default: the sweep's.",
        ),
    ] = None,
) -> int:
    """Show the front of a sweep, finished or running, and say what it shows."""
    from sweeps.commands import results

    return results.front(run_dir, csv=csv, target=target)


@app.command()
def report(
    run_dir: RunFolder,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Default: report.html in the sweep's folder.")
    ] = None,
    with_examples: Annotated[
        bool,
        typer.Option("--with-examples", help="Show a few evaluation questions and answers on the page."),
    ] = False,
) -> int:
    """Write the report of a sweep anew, finished or running: one HTML file that needs no network."""
    from sweeps.commands import report as reporting

    return reporting.report(run_dir, out=out, with_examples=with_examples)


@app.command()
def compare(
    run_dirs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_DIR...", help="Folders of two sweeps or more; the first is the base."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The page; default: comparison.html in the first sweep's folder."),
    ] = None,
) -> int:
    """Lay the fronts of sweeps over each other: hypervolume, new points, settings that differ."""
    from sweeps.commands import compare as comparing

    return comparing.compare(run_dirs, out=out)


@app.command(name="list")
def list_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Holds the folders of sweeps.")] = Path(
        "runs"
    ),
) -> int:
    """List the sweeps of a folder: state, trials, front and best points."""
    from sweeps.commands import listing

    return listing.show(folder)


@app.command()
def export(
    run_dir: RunFolder,
    to: Annotated[Path, typer.Option(help="The folder to write; must not exist.")],
    max_memory_mb: Annotated[
        str | None, typer.Option(help="Short for --max memory_mb=MB: for one window, in 10^6 bytes.")
    ] = None,
    max_: Annotated[
        list[str] | None,
        typer.Option("--max", metavar="FIELD=VALUE", help="Upper limit on a cost; all given limits apply."),
    ] = None,
    trial: Annotated[str | None, typer.Option(metavar="ID", help="The trial to copy instead.")] = None,
    form: Annotated[
        str | None, typer.Option(metavar="LABEL", help="With --trial: which of its stored forms.")
    ] = None,
    min_em: Annotated[
        str | None,
        typer.Option(metavar="PERCENT", help="Take the smallest model with at least this exact match."),
    ] = None,
    with_examples: Annotated[
        bool,
        typer.Option("--with-examples", help="Show a few evaluation questions and answers on the card."),
    ] = False,
    register: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Also put it into MLflow's model registry, as a version of this model."
        ),
    ] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            help="With --register: MLflow server or database; default: mlflow.db beside the sweep's folder."
        ),
    ] = None,
) -> int:
    """Copy the best model within the given limits on cost, with a card that says what it is."""
    from sweeps.commands import export as exporting
    from sweeps.front.choosing import read_limits, read_min_em

    memory = [] if max_memory_mb is None else [f"memory_mb={max_memory_mb}"]
    limits = read_limits([*memory, *(max_ or [])])
    least = None if min_em is None else read_min_em(min_em)
    choice = exporting.Choice(limits, least, trial, form)
    return exporting.export(
        run_dir, choice, to=to, with_examples=with_examples, name=register, tracking_uri=tracking_uri
    )


@app.command()
def serve(
    artifact: Artifact,
    port: Annotated[int, typer.Option(help="Port on the loopback; 0: the system chooses.")] = 5001,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> int:
    """Serve a model on this machine: rows of question and context in, text, score and characters out."""
    from sweeps.commands import serve as serving

    return serving.serve(artifact, port=port, device=device)


@app.command()
def ui(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Holds the folders of sweeps and mlflow.db.")
    ] = Path("runs"),
    port: Annotated[int, typer.Option(help="Port on the loopback.")] = 5000,
    tracking_uri: Annotated[
        str | None, typer.Option(help="A database in place of FOLDER's mlflow.db; default: none.")
    ] = None,
) -> int:
    """Start MLflow's pages over the sweeps of a folder, wherever it was moved to."""
    from sweeps.commands import ui as pages

    return pages.ui(folder, port=port, tracking_uri=tracking_uri)


@app.command()
def forms(
    run_dir: RunFolder,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="forms.METHOD.OPTION=LIST",
            help="Values of an option that acts after training; may be given many times.",
        ),
    ] = None,
) -> int:
    """Store the trained networks of a sweep in more forms; nothing is trained. Their points join the front."""
    from sweeps.commands import forms as storing

    return storing.forms(run_dir, set_ or [])


@app.command()
def upload(
    run_dir: RunFolder,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="s3://BUCKET/PATH, gs://BUCKET/PATH or file:///PATH.")
    ],
) -> int:
    """Copy a sweep's folder to storage outside of the cluster, and check that all of it arrived."""
    from sweeps.commands import upload as copying

    return copying.upload(run_dir, url)


@app.command()
def evaluate(
    artifact: Artifact,
    data: Annotated[
        str | None,
        typer.Argument(help="File, folder or hub name, or sample; not needed with --probes."),
    ] = None,
    columns: Columns = None,
    against: Annotated[
        Path | None, typer.Option(help="Another artifact, compared on the same questions.")
    ] = None,
    semantic: Annotated[
        str | None, typer.Option(help="Sentence encoder (folder or hub name) for semantic similarity.")
    ] = None,
    probes: Annotated[bool, typer.Option("--probes", help="Also answer the built-in probes.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Also write all of it here as JSON, with every answer to the probes.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite --output.")] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print one JSON object in place of the table.")
    ] = False,
    skip_bad_examples: SkipBadExamples = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> int:
    """Score a model on data, with intervals and baselines."""
    from sweeps.commands import evaluate as evaluation

    named = None if columns is None else read_columns(columns)
    extras = evaluation.Extras(against, semantic, probes, output, force, skip_bad_examples, json_, named)
    return evaluation.evaluate(artifact, data, device=device, extras=extras)


@app.command()
def predict(
    artifact: Artifact,
    question: Annotated[str | None, typer.Option(help="One question; needs --context.")] = None,
    context: Annotated[str | None, typer.Option(help="The paragraph to read.")] = None,
    input_: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="FILE",
            help="Questions: a file, named as for `run --data`, or - for the standard input (JSON lines or a JSON "
            "document).",
        ),
    ] = None,
    columns: Columns = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the answers here, not on the standard output.")
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="text, json, jsonl, or squad: one object of ids and answers, which `score` reads. Default: text, with "
            "--output squad.",
        ),
    ] = None,
    n_best: Annotated[int, typer.Option(help="Give this many answers to each question.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Overwrite --output.")] = False,
    skip_bad_examples: SkipBadExamples = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> int:
    """Answer one question, or all questions of a file, with scores and places in the text."""
    from sweeps.commands import predict as answers

    named = None if columns is None else read_columns(columns)
    wanted = answers.Wanted(output, force, format_, n_best, skip_bad_examples, device, named)
    if input_ is None:
        return answers.predict_one(artifact, question=question, context=context, wanted=wanted)
    if question is not None or context is not None:
        raise ConfigError("predict: found --input beside --question or --context; allowed: one or the other")
    return answers.predict_file(artifact, input_, wanted=wanted)


@app.command()
def score(
    data: Annotated[Path, typer.Argument(help="File with the gold answers, named as for `run --data`.")],
    predictions: Annotated[Path, typer.Argument(help="JSON object: question id to answer.")],
    na_prob: Annotated[
        Path | None, typer.Option(help="JSON object: question id to no-answer probability.")
    ] = None,
    na_prob_thresh: Annotated[
        float, typer.Option(help="Above this probability, the answer counts as none.")
    ] = 1.0,
    official: Annotated[
        Literal["v1.1", "v2.0"] | None, typer.Option(help="Keys and rules of this official script.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="A missing prediction is an error.")] = False,
    skip_bad_examples: SkipBadExamples = False,
    columns: Columns = None,
) -> int:
    """Score a file of predictions; prints one JSON object."""
    import json

    from qa_core.scoring.scores import score_file

    scores = score_file(
        data,
        predictions,
        official=official,
        na_prob_path=na_prob,
        na_threshold=na_prob_thresh,
        strict=strict,
        skip_bad_examples=skip_bad_examples,
        columns=None if columns is None else read_columns(columns),
        warn=lambda text: print(f"warning: {text}", file=sys.stderr),
    )
    print(json.dumps(scores, indent=2))
    return DONE


@app.command()
def replay(
    source: Annotated[
        Path,
        typer.Argument(metavar="RUN_DIR_OR_TABLE", help="Folder of a sweep, or a Parquet file of curves."),
    ],
    scheduler: Annotated[str | None, typer.Option(help="Default: the sweep's own.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Option of the scheduler; may be given many times."),
    ] = None,
    searcher: Annotated[str | None, typer.Option(help="Default: the sweep's own.")] = None,
    searcher_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Option of the searcher; may be given many times."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Trials at a time; default: the sweep's budget.concurrent, else 1.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Replays, each with another order of proposals.")] = 20,
    save: Annotated[
        Path | None, typer.Option(help="Also write the curves here, as one Parquet file.")
    ] = None,
) -> int:
    """Replay a recorded sweep with another scheduler or searcher; show the budget it needs to find the front."""
    from sweeps.commands.replay import Choices, show

    choices = Choices(scheduler, option or (), searcher, searcher_option or (), workers=workers, seeds=seeds)
    return show(source, choices, save=save)


@app.command()
def doctor(
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Report all nodes of this Ray cluster instead, and their differences."
        ),
    ] = None,
    shared: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="With --cluster: check that every node sees this folder."),
    ] = None,
) -> int:
    """Report versions, devices, kernels, threads, open ports, memory and disk."""
    from sweeps.commands import doctor as report

    if cluster is not None:
        return report.cluster(cluster, shared)
    if shared is not None:
        raise ConfigError("--shared: found without --cluster; allowed: with it")
    return report.doctor()


for _each in app.registered_commands:
    # The list of commands wraps a `short_help`; without one it cuts the docstring to one line.
    _each.short_help = " ".join((getattr(_each.callback, "__doc__", None) or "").partition("\n\n")[0].split())


if __name__ == "__main__":
    sys.exit(main())
