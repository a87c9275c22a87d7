"""Every legal product of family, head, methods and bits runs from its recipe to a measured artifact."""

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.products import BITS, METHOD_SETS, all_products, legal_products, run_product
from qa_core.artifact import artifact
from tests.ids import plain

PRODUCTS = legal_products()


def test_the_legal_products_are_counted_for_each_family_and_head():
    assert len(list(all_products())) == 7 * len(METHOD_SETS) * len(BITS) == 7 * 13 * 4
    # 12 sets train; the four on a quantised base are not quantised again. (IA)3 needs attention, which Mamba lacks;
    # prompting needs a head that writes; an LSTM has no Linear layers to adapt or mask.
    counts = Counter((product.family, product.head) for product in PRODUCTS)
    trained, without_ia3, prompted = 8 * 4 + 4, 6 * 4 + 4, 4
    assert counts == {
        ("bert", "span"): trained,
        ("distilbert", "span"): trained,
        ("lstm", "span"): 2 * 4,
        ("mamba", "span"): without_ia3,
        ("mamba", "generate"): without_ia3 + prompted,
        ("t5", "span"): trained,
        ("t5", "generate"): trained + prompted,
    }
    assert len(PRODUCTS) == 216


# Each method set and each number of bits once, on a family that changes from one to the next.
SAMPLE = [
    legal[index % len(legal)]
    for index, methods in enumerate(METHOD_SETS)
    for bits in BITS
    if (legal := [item for item in PRODUCTS if (item.methods, item.bits) == (methods, bits)])
]


@pytest.mark.parametrize(
    "product", SAMPLE[:: max(1, len(SAMPLE) // 16)], ids=lambda product: plain(product.name)
)
@pytest.mark.long
def test_a_product_runs_to_a_measured_artifact(product, tmp_path: Path, cache_dir: Path):
    check(product, tmp_path, cache_dir)


@pytest.mark.slow
@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: plain(product.name))
def test_every_product_runs_to_a_measured_artifact(product, tmp_path: Path, cache_dir: Path):
    check(product, tmp_path, cache_dir)


def check(product, folder: Path, cache_dir: Path) -> None:
    result = run_product(product, folder=folder / "trial", cache_dir=cache_dir)
    manifest = artifact.verify(Path(result.artifact))
    assert ("quantize" in manifest["forms"]) == (product.bits != 32)
    assert result.quality.questions == 16
    cost = result.cost
    assert cost.artifact_bytes >= 1000
    assert cost.predicted_artifact_bytes == pytest.approx(cost.artifact_bytes, rel=0.02)
    assert cost.weights_bytes <= cost.inference_peak_bytes
    assert cost.form_inference_peak_bytes == pytest.approx(cost.inference_peak_bytes, rel=0.02)
