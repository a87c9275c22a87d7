"""A table of forms as one of recipes that are trained each."""

from benchmarks.one_form_each import one_form_each
from sweeps import registry
from sweeps.replay.simulate import recorded_space, replay
from sweeps.schedulers.base import make_scheduler
from tests.sweeps.curves import with_three_forms


def test_a_table_with_forms_is_also_one_of_recipes_that_are_trained_each() -> None:
    table = with_three_forms()
    recipes = one_form_each(table)
    assert [item.trial_id for item in recipes.curves] == [
        *("A float32", "A int8", "A nf4", "B float32", "B nf4", "C float32", "C int8", "C nf4")
    ]
    assert recipes.losses.tolist() == table.losses.tolist()
    assert recipes.total_examples == 8 * 30
    assert table.total_examples == 3 * 30
    assert {item.seconds for item in recipes.curves} == {30.0 + 2.0}
    nf4 = recipes.curves[4]
    assert nf4.rung_values == {"em_percent": (25.0 * 45 / 50, 45.0), "memory_mb": (4.0, 4.0)}
    assert nf4.assignment == {"train.learning_rate": 0.002, "form": "nf4"}
    for kind in ("grid", "random"):
        space = recorded_space(recipes)
        searcher = registry.searcher_class(kind)(space, recipes.spec.objectives, seed=0, options={})
        outcome = replay(recipes, searcher, make_scheduler("fifo", {"reports": 0}), workers=2)
        assert sorted(trial.curve for trial in outcome.trials) == list(range(8))
        assert outcome.trace[-1].worker_seconds == 8 * 32.0
