"""What one step of inference costs in each stored form of a BERT, beside the int8 of torch and of ONNX Runtime.

    python -m benchmarks.inference FOLDER --rounds 5

FOLDER is a checkpoint of BERT; its head is new, which changes no time. Each form is written, loaded back and asked
for one window and for eight, of 384 tokens, all in turn in one process with one thread (OMP_NUM_THREADS=1); each time
is CPU time, and each ratio is that within a round. The error is that of the logits, in the norm, relative to those in
float32: a form that is fast and answers something else is no form. The peak while loading is what a process of its own
holds at most beyond what it held before, as a multiple of the weights.

ONNX Runtime is a row where `onnx` and `onnxruntime` are installed; the project does not need them.
"""

import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import psutil
import torch
import typer
from rich.console import Console
from rich.table import Table

from qa_core import registry
from qa_core.artifact import artifact
from qa_core.config import RunConfig
from qa_core.data.tokenizers import ready_tokenizer
from qa_core.families.base import Batch
from qa_core.hardware import describe_device, precision_name
from qa_core.memory.protocol import Protocol, inference_peak_bytes, weights_bytes
from qa_core.training.deployment import exported
from qa_core.values import from_dict

FLOAT32 = "float32"
FORMS: dict[str, dict[str, Any]] = {  # of `methods`
    FLOAT32: {},
    "bfloat16": {"quantize": {"bits": 16}},
    "int8": {"quantize": {"bits": 8}},
    "int8-dynamic": {"quantize": {"bits": 8, "scheme": "dynamic"}},
    "nf4": {"quantize": {"bits": 4}},
}
LIKE = {"int8": "bfloat16", "nf4": "bfloat16", "int8-dynamic": "torch.ao int8"}  # what a form is held against
MAX_LENGTH, SIZES = 384, (1, 8)

Step = Callable[[Batch], torch.Tensor]


def main(
    model: Annotated[str, typer.Argument(help="folder or hub name of a BERT checkpoint")],
    rounds: Annotated[int, typer.Option(help="measurements of each way")] = 5,
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("runs/benchmarks/inference.json"),
) -> None:
    """Measure, print the table and write the JSON file."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        protocols = {name: write_form(name, model, folder / name) for name in FORMS}
        facts = {name: facts_of(folder / name, protocol) for name, protocol in protocols.items()}
        protocol = protocols[FLOAT32]
        steps = {name: our_step(folder / name, one) for name, one in protocols.items()}
        steps |= other_steps(folder / FLOAT32, protocol, folder)
        seconds = {rows: timed(steps, protocol, rows=rows, rounds=rounds) for rows in SIZES}
        errors = relative_errors(steps, protocol)
    device = torch.device("cpu")
    found = {
        "rows": {
            name: {
                **{f"seconds_{rows}": seconds[rows][name] for rows in SIZES},
                **{f"ratio_{rows}": ratio(seconds[rows], name) for rows in SIZES},
                "relative_error": errors[name],
                **facts.get(name, {}),
            }
            for name in steps
        },
        "held_against": LIKE,
        "provenance": {
            "model": model,
            "device": describe_device(device),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "precision": precision_name("auto", device),
            "versions": {name: version(name) for name in ("torch", "transformers", "qa-sweeps")},
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=2))
    print_table(found)
    typer.echo(f"written to {out}")


def write_form(name: str, model: str, folder: Path) -> Protocol:
    """Write the artifact of a form, and a small one beside it, and return the protocol by which it is asked."""
    recipe = {
        "model": {"family": "bert", "checkpoint": model},
        "data": {"max_length": MAX_LENGTH},
        "methods": FORMS[name],
    }
    config = from_dict(RunConfig, recipe)
    small = replace(config, model=replace(config.model, checkpoint="micro"))
    tokenizer = ready_tokenizer(registry.make_family(config))
    assert tokenizer is not None, f"{model}: has no tokenizer"
    for one, place in ((small, small_beside(folder)), (config, folder)):
        family, methods = registry.assemble(one)
        torch.manual_seed(0)
        network = family.build(tokenizer)
        for method in methods:
            network = method.attach(network, family)
        network, forms = exported(network, methods)
        artifact.write(place, network, config=one, tokenizer=tokenizer, forms=forms)
    return Protocol(family, tokenizer, MAX_LENGTH, config.evaluation, torch.device("cpu"))


def small_beside(folder: Path) -> Path:
    """Return the folder of the small artifact that is of the same form."""
    return folder.with_name(f"{folder.name} small")


def facts_of(folder: Path, protocol: Protocol) -> dict[str, float]:
    """Return sizes in bytes, and the peak while loading over the weights."""
    model = artifact.load(folder).model
    weights = weights_bytes(model)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        held = other.submit(held_while_loading, folder).result()
    return {
        "weights_bytes": weights,
        **{f"peak_bytes_{rows}": inference_peak_bytes(model, protocol, rows=rows) for rows in SIZES},
        "loading_peak": held / weights,
    }


def held_while_loading(folder: Path) -> int:
    """Return the most that loading the artifact holds beyond what the process held before, in bytes, on Linux.

    A small artifact of the same form has been loaded by then, and with it all libraries.
    """
    kept = artifact.load(small_beside(folder))
    Path("/proc/self/clear_refs").write_text("5")  # from here on the peak is counted anew
    before = psutil.Process().memory_info().rss
    loaded = artifact.load(folder)
    assert loaded.artifact_bytes > kept.artifact_bytes
    status = Path("/proc/self/status").read_text()
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak) * 1024 - before


def our_step(folder: Path, protocol: Protocol) -> Step:
    """Return what answers with the loaded artifact: start and end logits of a batch, [2, B, L]."""
    model = artifact.load(folder).model.eval()
    kept: list[torch.Tensor] = []

    class Keeping:
        """The family, whose logits are kept: the protocol's step throws them away."""

        head = protocol.family.head

        def span_logits(self, *arguments: Any) -> Any:
            kept[:] = protocol.family.span_logits(*arguments)

    asked = copy.copy(protocol)
    object.__setattr__(asked, "family", Keeping())

    def step(batch: Batch) -> torch.Tensor:
        asked.step(model, batch)
        return torch.stack(kept)

    return step


def other_steps(folder: Path, protocol: Protocol, scratch: Path) -> dict[str, Step]:
    """Return the ways of others, with the weights of the artifact in float32."""
    model: Any = artifact.load(folder).model.eval()
    names = ("input_ids", "attention_mask", "token_type_ids")
    quantised = torch.ao.quantization.quantize_dynamic(
        copy.deepcopy(model), {torch.nn.Linear}, dtype=torch.qint8
    )

    def by_torch(network: Any) -> Step:
        def step(batch: Batch) -> torch.Tensor:
            with torch.inference_mode():
                found = network(**{name: batch[name] for name in names})
            return torch.stack([found.start_logits, found.end_logits])

        return step

    steps = {"transformers float32": by_torch(model), "torch.ao int8": by_torch(quantised)}
    if find_spec("onnx") is None or find_spec("onnxruntime") is None:
        typer.echo("ONNX Runtime: not measured, it is not installed")
        return steps
    return steps | onnx_steps(model, protocol, scratch, names)


def onnx_steps(model: Any, protocol: Protocol, scratch: Path, names: tuple[str, ...]) -> dict[str, Step]:
    """Return ONNX Runtime in float32 and with its own dynamic int8."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            found = self.model(**dict(zip(names, inputs, strict=True)))
            return torch.stack([found.start_logits, found.end_logits])

    batch = protocol.batch("cpu", rows=2)
    plain, int8 = scratch / "float32.onnx", scratch / "int8.onnx"
    axes = {name: {0: "rows", 1: "tokens"} for name in names}
    with torch.inference_mode():
        torch.onnx.export(
            Logits().eval(),  # the exporter brings back what it finds
            tuple(batch[name] for name in names),
            str(plain),
            input_names=list(names),
            output_names=["logits"],
            dynamic_axes=axes,
            dynamo=False,
        )
    quantize_dynamic(str(plain), str(int8), weight_type=QuantType.QInt8)

    def by_onnx(path: Path) -> Step:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

        def step(batch: Batch) -> torch.Tensor:
            (found,) = session.run(None, {name: batch[name].numpy() for name in names})
            return torch.from_numpy(found)

        return step

    return {"ONNX Runtime float32": by_onnx(plain), "ONNX Runtime int8": by_onnx(int8)}


def timed(steps: Mapping[str, Step], protocol: Protocol, *, rows: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of CPU of each way's step, round by round, after one that is not counted."""
    batch = {name: tensor.contiguous() for name, tensor in protocol.batch("cpu", rows=rows).items()}
    found: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            began = time.process_time()
            step(batch)
            if number:
                found[name].append(time.process_time() - began)
    return found


def ratio(seconds: Mapping[str, list[float]], name: str) -> list[float]:
    """Return a way's times over those that it is held against, of each round; float32 where nothing else is named."""
    other = LIKE.get(name, FLOAT32)
    return [own / its for own, its in zip(seconds[name], seconds[other], strict=True)]


def relative_errors(steps: Mapping[str, Step], protocol: Protocol) -> dict[str, float]:
    """Return the norm of the difference of the logits of the passage, over the norm of those in float32."""
    batch = {name: tensor.contiguous() for name, tensor in protocol.batch("cpu", rows=8).items()}
    is_asked = batch["span_mask"].expand(2, -1, -1)
    exact = steps[FLOAT32](batch)[is_asked].double()
    return {
        name: float((step(batch)[is_asked].double() - exact).norm() / exact.norm())
        for name, step in steps.items()
    }


def print_table(found: Mapping[str, Any]) -> None:
    """Print medians, and the least and the largest ratio."""
    about = found["provenance"]
    table = Table(title=f"{about['device']}, {about['cpu_capability']}, `auto` is {about['precision']}")
    headings = ("form", *(f"{rows} x {MAX_LENGTH}, CPU ms" for rows in SIZES), "held against")
    for heading in (*headings, *(f"ratio at {rows}" for rows in SIZES), "error", "weights MB", "loading"):
        table.add_column(heading, justify="left" if heading in ("form", "held against") else "right")
    for name, row in found["rows"].items():
        ratios = [row[f"ratio_{rows}"] for rows in SIZES]
        table.add_row(
            name,
            *(f"{statistics.median(row[f'seconds_{rows}']) * 1e3:.1f}" for rows in SIZES),
            found["held_against"].get(name, FLOAT32),
            *(f"{statistics.median(one):.2f} ({min(one):.2f}-{max(one):.2f})" for one in ratios),
            f"{row['relative_error']:.1e}",
            f"{row['weights_bytes'] / 1e6:.1f}" if "weights_bytes" in row else "",
            f"{row['loading_peak']:.2f}" if "loading_peak" in row else "",
        )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
