"""Which questions belong together."""

from typing import Any

import numpy as np
import pytest

from qa_core.data.clusters import Clusters, each_alone, question_clusters
from qa_core.data.squad import read_squad


def document(*articles: tuple[str, list[tuple[str, int]]]) -> dict[str, Any]:
    """Make articles of paragraphs, each with so many unanswerable questions."""
    data = []
    for title, paragraphs in articles:
        made = [
            {
                "context": context,
                "qas": [
                    {"id": f"{context}{number}", "question": "?", "answers": [], "is_impossible": True}
                    for number in range(questions)
                ],
            }
            for context, questions in paragraphs
        ]
        data.append({"title": title, "paragraphs": made})
    return {"version": "v2.0", "data": data}


@pytest.mark.parametrize(
    ("articles", "unit", "numbers"),
    [
        ([("A", [("x", 2), ("y", 1)]), ("B", [("z", 2)])], "article", [0, 0, 0, 1, 1]),
        ([("A", [("x", 2), ("y", 1)])], "paragraph", [0, 0, 1]),  # one article says nothing
        ([("", [("x", 1), ("y", 2)]), ("", [("z", 1)])], "paragraph", [0, 1, 1, 2]),
        ([("A", [("x", 1), ("y", 1)]), ("", [("z", 2)])], "article", [0, 0, 1, 1]),
    ],
)
def test_articles_keep_together_and_paragraphs_where_no_articles_are_named(articles, unit, numbers):
    found = question_clusters(read_squad(document(*articles), "made"))
    assert (found.unit, found.of_value.tolist()) == (unit, numbers)


def test_some_of_the_values_are_numbered_anew():
    clusters = Clusters("article", np.array([0, 0, 1, 2, 2, 3]))
    taken = clusters.take(np.array([5, 0, 3, 4]))
    assert (taken.unit, taken.of_value.tolist(), taken.count) == ("article", [2, 0, 1, 1], 3)


def test_values_that_are_independent_each_stand_alone():
    assert each_alone(3, "paragraph").of_value.tolist() == [0, 1, 2]
    assert each_alone(0, "paragraph").count == 0
