"""The README's picture and table: what is committed is what the command makes of the committed points."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import picture
from benchmarks.picture import TABLE, THEMES
from benchmarks.recorded_front import Recorded, Shown, read, record, rows_of, written
from qa_core.errors import ConfigError
from sweeps.front.points import Point
from sweeps.run_folder.records import Record
from tests.browser import chromium
from tests.sweeps.report.made import made_records, write_answers, write_run

SVG = "{http://www.w3.org/2000/svg}"
README = picture.PROJECT / "README.md"


def model(**changes: Any) -> Shown:
    usual = Shown("t0000", "nf4", "bert", "full", "micro", 60.0, 50.0, 70.0, 1.0, on_front=True, has_row=True)
    return replace(usual, **changes)


def recorded(*models: Shown) -> Recorded:
    return Recorded(
        "made up", 1, "dev.json", "0f", 100, 10, "cpu", "torch 2", {"finished": 2}, 24.0, ["One."], models
    )


def elements(text: str, name: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(text).iter(f"{SVG}{name}"))


@pytest.mark.parametrize("name", THEMES)
def test_the_committed_picture_is_what_the_command_makes(name: str) -> None:
    committed = (picture.PICTURES / f"front-{name}.svg").read_text(encoding="utf-8")
    assert committed == picture.picture(read(TABLE), THEMES[name])


def test_the_readme_has_the_pictures_the_table_and_sentences_of_the_same_sweep() -> None:
    text = README.read_text(encoding="utf-8")
    points = read(TABLE)
    for part in picture.readme_parts(points):
        assert part in text
    (printed,) = re.findall(r"(?s)ended with:\n\n```\n(.+?)```", text)
    words = " ".join(printed.split())
    shown = [sentence for sentence in points.said if sentence in words]
    assert shown[0] == points.said[0]
    assert shown[-1] == points.said[-1]
    for sentence in shown:
        words = words.replace(sentence, "")
    assert " EM " not in words  # no sentence that it did not say
    ended = ", ".join(f"{count} {how}" for how, count in points.trials.items())
    assert f"{points.sweep} {ended} in " in words.replace("sweep ", f"{points.sweep} ")


def test_points_come_back_as_they_were_written(tmp_path: Path) -> None:
    points = recorded(model(), model(trial="t0001", low=None, high=None, on_front=False))
    (tmp_path / "front.json").write_text(written(points))
    assert read(tmp_path / "front.json") == points


def test_memory_lies_on_a_log_axis_and_what_has_a_row_is_filled() -> None:
    points = recorded(
        model(memory_mb=1.0, em_percent=40.0),
        model(memory_mb=2.0, em_percent=50.0, has_row=False, low=None, high=None, family="lstm"),
        model(memory_mb=4.0, em_percent=80.0, family="t5"),
        model(memory_mb=4.0, em_percent=30.0, on_front=False, form="int8"),
    )
    text = picture.picture(points, THEMES["light"])
    paths = {kind: [] for kind in ("mark", "hollow", "faint", "front")}  # type: dict[str, list[str]]
    for path in elements(text, "path"):
        if path.get("class") in paths:
            paths[path.attrib["class"]].append(path.attrib["d"])
    assert {kind: len(found) for kind, found in paths.items()} == {
        "mark": 2,
        "hollow": 1,
        "faint": 1,
        "front": 1,
    }
    # The first corner of a triangle for 4 bits is straight above its place.
    first, third = (float(path[1:].split(" ")[0]) for path in paths["mark"])
    second = float(paths["hollow"][0][1:].split(" ")[0])
    assert second - first == pytest.approx(third - second, abs=0.11)
    heights = [float(path.split(" ")[1].split("L")[0]) for path in paths["mark"]]
    assert heights[0] - heights[1] == pytest.approx((picture.BOTTOM - picture.TOP) / 80 * 40, abs=0.11)
    bars = [line for line in elements(text, "line") if line.get("class") == "bar"]
    assert len(bars) == 2
    assert {float(bar.attrib["x1"]) for bar in bars} == {first, third}


def test_the_picture_says_in_words_what_it_shows() -> None:
    points = recorded(model(memory_mb=0.1234), model(memory_mb=4.0, em_percent=81.25, family="t5"))
    (title,) = elements(picture.picture(points, THEMES["dark"]), "title")
    assert title.text == picture.alt_text(points)
    for word in (
        "2 models of 2 families",
        "bert, 60.0 % at 0.123 MB",
        "t5, 81.2 % at 4 MB",
        "24.0 %",
    ):
        assert word in picture.alt_text(points)


@pytest.mark.parametrize(("field", "value"), [("family", "gpt"), ("form", "int3")])
def test_what_has_no_colour_or_shape_is_refused(field: str, value: str) -> None:
    with pytest.raises(ConfigError, match=value):
        picture.picture(recorded(model(), model(**{field: value})), THEMES["light"])


def test_a_row_is_told_apart_from_the_last_row_and_not_from_its_neighbour() -> None:
    # Each of these is better than the one before by less than the questions tell, the third than the first by more.
    points = [point(f"t{index}", em) for index, em in enumerate((60.0, 62.0, 64.5, 66.0, 70.0))]
    found = rows_of(
        points, lambda larger, smaller: larger.values["em_percent"] - smaller.values["em_percent"] > 4
    )
    assert {name.trial_id for name in found} == {"t0", "t2", "t4"}


def point(trial_id: str, em: float) -> Point:
    return Point(trial_id, {"em_percent": em}, "bert", None, "full", "micro", 1, 1.0, 1.0, 1.0, None)


def test_the_points_of_a_sweep_are_its_front_with_intervals_and_rows_by_its_answers(tmp_path: Path) -> None:
    places = [(40.0, 1.0), (40.5508, 2.0), (90.0, 4.0)]  # 40.55 would be printed as 40.5
    finished = [item for item in made_records(40) if item.status == "ok"]
    made = [with_place(item, *place) for item, place in zip(finished, places, strict=False)]
    folder = write_run(tmp_path / "run", made)
    for item, (em, _) in zip(made, places, strict=True):
        write_answers(folder / "trials" / item.trial_id / "answers.parquet", round(2 * em) / 2)
    points = record(folder)
    assert [(shown.em_percent, shown.memory_mb, shown.on_front, shown.has_row) for shown in points.front] == [
        (40.0, 1.0, True, True),
        (40.5508, 2.0, True, False),
        (90.0, 4.0, True, True),
    ]


def with_place(trial: Record, em: float, memory_mb: float) -> Record:
    return replace(
        trial,
        objectives={"em_percent": em, "memory_mb": memory_mb},
        cost={**(trial.cost or {}), "inference_peak_bytes": round(1e6 * memory_mb)},
        data={"evaluation": {"source": "dev.json", "data_hash": "0f", "questions": 200}},
        provenance={"packages": {"torch": "2", "transformers": "5", "ray": "2"}},
    )


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 900])
def test_all_words_lie_in_the_picture_apart_and_large_enough(width: int, tmp_path: Path) -> None:
    source = picture.PICTURES / "front-light.svg"
    with chromium() as browser:
        page = browser.new_page(
            viewport={"width": width, "height": round(width * picture.HEIGHT / picture.WIDTH)}
        )
        page.goto(source.as_uri())
        boxes = page.eval_on_selector_all(
            "text",
            "all => all.map(one => one.getBoundingClientRect()).map(b => [b.left, b.top, b.right, b.bottom])",
        )
    assert len(boxes) > 15
    assert all(left >= 0 and right <= width for left, _, right, _ in boxes)
    assert min(bottom - top for _, top, _, bottom in boxes) > 11
    overlapping = [
        (one, other)
        for index, one in enumerate(boxes)
        for other in boxes[:index]
        if min(one[2], other[2]) > max(one[0], other[0]) and min(one[3], other[3]) > max(one[1], other[1]) + 3
    ]
    assert overlapping == []
