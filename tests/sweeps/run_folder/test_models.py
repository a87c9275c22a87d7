"""Which models a record stands for, and what each is called."""

from sweeps.run_folder.model_id import ModelId
from sweeps.run_folder.models import as_model, id_of, models_of, trials_of
from tests.sweeps.forms import stored, with_forms, without
from tests.sweeps.run_folder.test_records import record


def test_a_record_without_forms_is_its_own_model() -> None:
    assert models_of(record()) == (record(),)
    assert str(id_of(record())) == "t0000"


def test_a_record_with_forms_stands_for_each_that_is_ok_with_its_own_values() -> None:
    whole = with_forms(
        record(),
        stored("int8+e8", 40.5, 2.5, cost={"inference_peak_bytes": 2_500_000, "device": "cuda: H200"}),
        without("nf4", "failed", "RuntimeError: no kernel"),
        stored("float32", 41.5, 7.25),
    )
    small, twin = models_of(whole)
    assert [str(id_of(model)) for model in (small, twin)] == ["t0000 int8+e8", "t0000 float32"]
    assert small.objectives == {"em_percent": 40.5, "memory_mb": 2.5}
    assert small.cost == {"inference_peak_bytes": 2_500_000, "device": "cuda: H200"}
    assert (small.device, twin.device) == ("cuda: H200", "cpu: some processor")
    assert small.artifact == "trials/t0000/forms/int8+e8/artifact"
    assert twin.artifact == "trials/t0000/artifact"
    assert (small.config, small.curve, small.data) == (whole.config, whole.curve, whole.data)
    assert trials_of([small, twin, record("t0001")]) == ("t0000", "t0001")


def test_a_form_without_a_result_has_none_and_where_it_was_measured_may_be_damaged() -> None:
    whole = with_forms(record(), without("nf4", "skipped", "over budget"))
    assert models_of(whole) == ()
    assert as_model(whole, whole.forms[0]).objectives == {}
    odd = with_forms(record(), stored("int8", 1, 1, cost={"device": 5}))
    assert models_of(odd)[0].device == "cpu: some processor"


def test_models_of_one_trial_can_be_sorted_with_and_without_a_form() -> None:
    found = [ModelId("t1"), ModelId("t0", "int8"), ModelId("t0"), ModelId("t0", "float32")]
    assert [str(item) for item in sorted(found, key=lambda item: item.order)] == [
        "t0",
        "t0 float32",
        "t0 int8",
        "t1",
    ]
