"""The pages in headless Chromium: everything is clicked, by pointer and by keys, in light and dark, wide and narrow."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sweeps.commands.compare import compare
from sweeps.commands.report import report
from sweeps.front.front import compute_front
from tests.browser import chromium
from tests.sweeps.report.made import made_records, write_run
from tests.sweeps.report.test_story import OBJECTIVES

pytestmark = pytest.mark.slow

SECONDS = 20
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 400, "height": 800}
NASTY = '</script><img src=x onerror="alert(1)">'
FRONT = "#front .chart svg"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of 60 trials and 3 paused ones, one family of which has a name that is markup."""
    records = made_records(60, family_names={"t5": NASTY})
    front = [point.trial_id for point in compute_front(records, OBJECTIVES).front]
    folder = write_run(tmp_path_factory.mktemp("browser") / "run", records, paused=3, answers_for=front)
    report(folder, out=None)
    return folder


class Opened:
    """A page, what it complained of, and whether it asked for anything but itself."""

    def __init__(
        self, browser: Any, path: Path, viewport: dict[str, int] = WIDE, *, dark: bool = False
    ) -> None:
        self.page = browser.new_page(viewport=viewport, color_scheme="dark" if dark else "light")
        self.page.set_default_timeout(1000 * SECONDS)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append("dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("body[data-ready]")

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, *error: object) -> None:
        self.page.close()
        if error[0] is None:
            assert self.complaints == []
            assert len(self.requests) == 1


def tip_of(page: Any) -> str:
    page.wait_for_selector("#tip:not([hidden])")
    return str(page.inner_text("#tip"))


def rows_in(page: Any) -> list[str]:
    return [str(row.get_attribute("data-row")) for row in page.query_selector_all(".models tbody tr")]


def test_every_point_is_drawn_once_and_markup_in_a_name_stays_text(browser: Any, folder: Path) -> None:
    with Opened(browser, folder / "report.html") as page:
        drawn = page.eval_on_selector_all(
            f"{FRONT} [data-model]", "marks => marks.map(mark => mark.dataset.model)"
        )
        records = [item for item in made_records(60) if item.status in ("ok", "stopped")]
        assert sorted(drawn) == sorted([*(item.trial_id for item in records), "t0060", "t0061", "t0062"])
        front = compute_front(made_records(60), OBJECTIVES).front
        large = page.eval_on_selector_all(
            f"{FRONT} [data-place=front]", "marks => marks.map(mark => mark.dataset.model)"
        )
        assert sorted(large) == sorted(point.trial_id for point in front)
        assert page.query_selector_all("img") == []
        assert NASTY in page.inner_text("#front .legend")


def test_axes_scales_and_families_can_be_chosen(browser: Any, folder: Path) -> None:
    with Opened(browser, folder / "report.html") as page:
        count = f"document.querySelectorAll('{FRONT} [data-model]').length"
        before = page.evaluate(count)
        page.uncheck("#front >> text=stopped and paused")
        ok = sum(item.status == "ok" for item in made_records(60))
        assert page.evaluate(count) == ok < before
        place = f"document.querySelector('{FRONT} [data-place=front]').getAttribute('d')"
        linear = page.evaluate(place)
        page.check("#front >> text=log across")
        assert page.evaluate(place) != linear
        page.select_option("#front select >> nth=1", "latency_p50_ms")
        assert "latency, median [ms] →" in page.text_content(FRONT)
        assert "on these two axes alone" in page.inner_text("#front")
        button = page.locator("#front .legend button", has_text="lstm")
        button.click()
        lstm = sum(
            item.status == "ok" and item.config["model"]["family"] == "lstm" for item in made_records(60)
        )
        assert lstm > 0
        assert page.evaluate(count) == ok - lstm
        assert button.get_attribute("aria-pressed") == "false"


def test_hover_tells_of_a_point_and_a_click_shows_it_in_the_table(browser: Any, folder: Path) -> None:
    best = compute_front(made_records(60), OBJECTIVES).front[0]
    with Opened(browser, folder / "report.html") as page:
        mark = page.query_selector(f"{FRONT} [data-model={best.trial_id}]")
        mark.scroll_into_view_if_needed()
        box = mark.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        told = tip_of(page)
        for words in (
            best.trial_id,
            "on the front",
            f"{best.values['em_percent']:.2f} %",
            f"{best.values['memory_mb']:.2f} MB",
        ):
            assert words in told
        page.mouse.down()
        page.mouse.up()
        assert page.get_attribute(".models tr.picked", "data-row") == best.trial_id


def test_keys_alone_reach_the_points_and_what_they_say_is_spoken(browser: Any, folder: Path) -> None:
    with Opened(browser, folder / "report.html") as page:
        page.focus(FRONT)
        page.keyboard.press("ArrowRight")
        first = tip_of(page)
        page.keyboard.press("ArrowRight")
        second = tip_of(page)
        assert first != second
        assert page.inner_text("[aria-live=polite]").startswith(second.split("\n")[0])
        page.keyboard.press("Enter")
        assert page.get_attribute(".models tr.picked", "data-row") == second.split("\n")[0].split(" · ")[0]
        assert page.evaluate("document.activeElement.dataset.row") == second.split("\n")[0].split(" · ")[0]
        page.focus(FRONT)
        page.keyboard.press("End")
        tip_of(page)
        page.keyboard.press("Escape")
        assert page.is_hidden("#tip")


def test_the_table_sorts_filters_and_gives_the_command_that_exports(browser: Any, folder: Path) -> None:
    front = compute_front(made_records(60), OBJECTIVES).front
    with Opened(browser, folder / "report.html") as page:
        assert rows_in(page) == [point.trial_id for point in front]
        heading = page.locator(".models th", has=page.get_by_text("memory, one window [MB]", exact=True))
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == "ascending"
        by_memory = sorted(front, key=lambda point: point.values["memory_mb"])
        assert rows_in(page) == [point.trial_id for point in by_memory]
        heading.locator("button").click()
        assert rows_in(page) == [point.trial_id for point in reversed(by_memory)]
        code = page.inner_text(".models tbody tr >> nth=0 >> code")
        assert code == f"qa-sweep export {folder} --trial {by_memory[-1].trial_id} --to {folder}-model"
        page.click(".segments >> text=/^All/")
        assert len(rows_in(page)) == 50
        page.click("text=Show 200 more")
        assert len(rows_in(page)) == 63
        page.fill("input[type=search]", "ia3")
        wanted = [item.trial_id for item in made_records(60) if "ia3" in item.config["methods"]]
        assert set(wanted) <= set(rows_in(page))
        assert len(rows_in(page)) < 63


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_names_of_settings_side_by_side_do_not_run_into_each_other(
    browser: Any, folder: Path, viewport: dict[str, int]
) -> None:
    with Opened(browser, folder / "report.html", viewport) as page:
        edges = page.eval_on_selector_all(
            "#parallel svg text.name",
            "names => names.map(name => name.getBoundingClientRect()).map(box => [box.left, box.right])",
        )
        told = page.eval_on_selector_all(
            "#parallel svg text.name > title", "titles => titles.map(t => t.textContent)"
        )
    assert len(edges) == len(told) >= 4
    assert "memory, one window [MB]" in told
    assert all(right < left for (_, right), (left, _) in pairwise(edges)), list(zip(told, edges, strict=True))


def test_the_other_charts_answer_to_their_controls(browser: Any, folder: Path) -> None:
    with Opened(browser, folder / "report.html") as page:
        lines = "document.querySelectorAll('#parallel polyline').length"
        assert page.evaluate(lines) == sum(item.status == "ok" for item in made_records(60))
        page.check("#parallel >> text=front only")
        assert page.evaluate(lines) == len(compute_front(made_records(60), OBJECTIVES).front)
        page.select_option("#curves select", "train_loss")
        assert "training loss" in page.text_content("#curves svg")
        page.select_option("#history select", "2")
        assert "hours of the clock" in page.text_content("#history svg")
        page.focus("#curves svg")
        page.keyboard.press("End")
        assert "training loss" in tip_of(page)
        assert "learning rate" in page.inner_text("#importance")
        page.click("text=Search space, 2 entries")
        assert "0.001 to 0.004" in page.inner_text("#asked")
        for word in ("Front", "Hypervolume", "Rung", "Knee"):
            assert word in page.inner_text("#words")


def test_every_control_has_a_name_and_every_table_its_headings(browser: Any, folder: Path) -> None:
    with Opened(browser, folder / "report.html") as page:
        nameless = page.evaluate(
            "[...document.querySelectorAll('button, select, input')].filter(item => !(item.textContent.trim() || "
            "item.getAttribute('aria-label') || item.closest('label'))).length"
        )
        assert nameless == 0
        charts = page.query_selector_all(".chart svg")
        assert len(charts) == 4
        assert all(
            chart.get_attribute("aria-label") and chart.get_attribute("tabindex") == "0" for chart in charts
        )
        assert page.evaluate(
            "[...document.querySelectorAll('table')].every(table => table.querySelector('th[scope]'))"
        )
        assert page.evaluate(
            "[...document.querySelectorAll('section')].every(part => part.getAttribute('aria-labelledby'))"
        )
        assert len(page.query_selector_all("h1")) == 1


@pytest.mark.parametrize(
    ("viewport", "dark"), [(WIDE, False), (NARROW, False), (NARROW, True)], ids=["wide", "narrow", "dark"]
)
def test_nothing_is_cut_and_text_stands_out(
    browser: Any, folder: Path, viewport: dict[str, int], dark: bool
) -> None:
    with Opened(browser, folder / "report.html", viewport, dark=dark) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        colours = page.evaluate(
            "['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name])"
        )
        shades = [
            sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(", "))) / 3 for colour in colours
        ]
        assert (shades[0] > shades[1]) == dark
        assert abs(shades[0] - shades[1]) > 150


def test_a_comparison_draws_both_fronts_and_says_what_differs(browser: Any, folder: Path) -> None:
    records = [replace(item, seed=item.seed + 1) for item in made_records(90)]
    other = write_run(folder.parent / "other", records, spec={"seed": 9})
    compare([folder, other], out=folder.parent / "both.html")
    with Opened(browser, folder.parent / "both.html") as page:
        sizes = [
            len(compute_front(items, OBJECTIVES).front) for items in (made_records(60), made_records(90))
        ]
        assert len(page.query_selector_all("#front [data-place=front]")) == sum(sizes)
        assert "run" in page.inner_text("#front .legend")
        page.uncheck("#front >> text=beaten models")
        assert page.query_selector_all("#front [data-place=behind]") == []
        page.focus("#front .chart svg")
        page.keyboard.press("ArrowRight")
        assert "exact match" in tip_of(page)
        assert "seed" in page.inner_text("#settings")
        assert "answers of a model of a front are not there" in page.inner_text("#volumes")
