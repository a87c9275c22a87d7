"""Where recipes stand: exact places of the toy space."""

import math

import numpy as np
import pytest

from sweeps.searchers.encoding import Encoding
from tests.sweeps.toys import toy_space

pytestmark = pytest.mark.usefixtures("toy_registry")
WORD = math.sqrt(0.5)
FULL = {
    "model.family": "beta",
    "model.head": "generate",
    "methods": "full",
    "train.learning_rate.1": 1e-3,
    "train.batch_size": 8,
}
ADAPTED = {
    "model.family": "gamma",
    "methods": "adapt+pack",
    "train.learning_rate.2": 1e-3,
    "methods.adapt.rank": 8,
    "train.batch_size": 16,
}


def test_each_path_has_its_group_and_what_does_not_apply_a_place_of_its_own() -> None:
    encoding = Encoding(toy_space())
    assert encoding.paths == (
        "model.family",
        "model.head",
        "methods",
        "train.learning_rate",
        "methods.adapt.rank",
        "train.batch_size",
    )
    assert encoding.groups.tolist() == [0] * 4 + [1] * 3 + [2] * 3 + [3] * 2 + [4] * 2 + [5] * 2
    expected = [
        *(0, WORD, 0, 0),  # alpha, beta, gamma, none
        *(0, WORD, 0),  # span, generate, none
        *(0, 0, 0),  # adapt, pack, sole
        *(0.5, 0),  # of two entries with rates from 1e-5 to 1e-1: one scale, and 1e-3 is its middle
        *(0.5, 1),  # no rank
        *(0, 0),
    ]
    np.testing.assert_allclose(encoding.place(FULL), expected, atol=1e-12)
    expected = [
        *(0, 0, WORD, 0),
        *(0, 0, WORD),
        *(1, 1, 0),
        *(0.5, 0),
        *(math.log(8 / 2) / math.log(16 / 2), 0),
        *(1, 0),
    ]
    np.testing.assert_allclose(encoding.place(ADAPTED), expected, atol=1e-12)


def test_two_words_are_one_apart_and_so_is_one_method() -> None:
    encoding = Encoding(toy_space())
    other = {**ADAPTED, "model.family": "alpha", "model.head": "span", "methods": "adapt"}
    step = (encoding.place(ADAPTED) - encoding.place(other)) ** 2
    found = [step[encoding.groups == group].sum() for group in range(len(encoding.paths))]
    np.testing.assert_allclose(found, [1, 1, 1, 0, 0, 0], atol=1e-12)


def test_a_range_that_is_linear_and_numbers_that_are_not_positive_stay_linear_and_booleans_are_words() -> (
    None
):
    encoding = Encoding(
        toy_space(
            space=[
                {"set": "model.family", "choice": ["alpha"]},
                {"set": "train.weight_decay", "uniform": [0.1, 0.9]},
                {"set": "train.warmup_share", "choice": [0.0, 0.1, 0.4]},
                {"set": "train.gradient_checkpointing", "choice": [True, False]},
            ]
        )
    )
    place = encoding.place(
        {
            "model.family": "alpha",
            "train.weight_decay": 0.3,
            "train.warmup_share": 0.1,
            "train.gradient_checkpointing": False,
        }
    )
    np.testing.assert_allclose(place, [WORD, 0, 0.25, 0, 0.25, 0, 0, WORD, 0], atol=1e-12)
