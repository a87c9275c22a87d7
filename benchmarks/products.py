"""Every legal product of family, head, methods and bits: trained a few steps, exported, loaded back, scored.

    python -m benchmarks.products

Not a comparison: 32 examples teach nothing. It shows that each product runs from recipe to measured artifact, and what
the artifact weighs. `tests/test_products.py` holds the number of legal products and that all of them run.
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from qa_core import registry
from qa_core.config import RunConfig
from qa_core.errors import IllegalCombination
from qa_core.run import run
from qa_core.schema import RunResult
from qa_core.values import from_dict

BITS = (32, 16, 8, 4)
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 2},
    "ia3": {},
    "qlora": {"rank": 2},
    "lora_int8": {"rank": 2},
    "static_prune": {"density": 0.3},
    "distill": {},
    "few_shot": {"shots": 1, "max_demonstration_tokens": 160},
}
# Alone and together; bits multiply each.
METHOD_SETS = (
    (),
    *((name,) for name in METHODS),
    *((name, "distill") for name in ("lora", "ia3", "qlora", "lora_int8", "static_prune")),
)


@dataclass(frozen=True)
class Product:
    """One family and head, some methods, and the bits that its weights are stored in."""

    family: str
    head: str
    methods: tuple[str, ...]
    bits: int

    @property
    def name(self) -> str:
        """Its parts, joined."""
        return f"{self.family}-{self.head} {'+'.join(self.methods) or 'full'} {self.bits}"

    def recipe(self) -> RunConfig:
        """Return a recipe of seconds: the smallest preset, the built-in corpus, 32 examples."""
        methods = {name: METHODS[name] for name in self.methods}
        if self.bits != 32:
            methods["quantize"] = {"bits": self.bits}
        values = {
            "model": {"family": self.family, "head": self.head, "checkpoint": "micro", "vocab_size": 400},
            "methods": methods,
            "data": {
                "train_questions": 120,
                "evaluation_questions": 16,
                "selection_questions": 16,
                "max_length": 256,
                "stride": 16,
                "max_question_length": 32,
            },
            "train": {"budget_examples": 32, "batch_size": 8, "learning_rate": 1e-3, "precision": "float32"},
            "evaluation": {"precision": "float32", "latency_runs": 1, "max_new_tokens": 4},
        }
        return from_dict(RunConfig, values)


def all_products() -> Iterator[Product]:
    """Yield every product, legal or not."""
    for family in sorted(registry.FAMILIES):
        for head in registry.family_class(family).heads:
            for methods in METHOD_SETS:
                for bits in BITS:
                    yield Product(family, head, methods, bits)


def legal_products() -> list[Product]:
    """Return the products that families and methods allow."""
    legal = []
    for product in all_products():
        config = product.recipe()
        try:
            registry.check_combination(registry.make_family(config), registry.make_methods(config))
        except IllegalCombination:
            continue
        legal.append(product)
    return legal


def run_product(product: Product, *, folder: Path, cache_dir: Path) -> RunResult:
    """Run one product from its recipe to its measured artifact."""
    return run(product.recipe(), lambda progress: None, folder=folder, cache_dir=cache_dir)


def main(
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("runs/benchmarks/products.json"),
) -> None:
    """Run all, print the table and write the JSON file."""
    figures = {}
    table = Table("product", "EM", "artifact kB", "memory MB", title="legal products")
    with tempfile.TemporaryDirectory() as scratch:
        for number, product in enumerate(legal_products()):
            result = run_product(
                product, folder=Path(scratch) / str(number), cache_dir=Path(scratch) / "cache"
            )
            cost = result.cost
            figures[product.name] = {
                "em_percent": result.quality.em_percent,
                "artifact_bytes": cost.artifact_bytes,
                "memory_mb": cost.memory_mb,
            }
            table.add_row(
                product.name,
                f"{result.quality.em_percent:.1f}",
                f"{cost.artifact_bytes / 1e3:.0f}",
                f"{cost.memory_mb:.2f}",
            )
    Console().print(table)
    print(f"{len(figures)} legal products, all ran")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    typer.run(main)
