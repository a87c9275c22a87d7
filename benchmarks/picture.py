"""The README's picture of a real front, exact match against memory, and its table; for light and for dark pages.

    python -m benchmarks.picture          # draws the recorded models again, and prints what README.md has of them
    python -m benchmarks.picture RUN      # records the models of a sweep's folder first

The models are in `benchmarks/tables/front.json` (`recorded_front.py` has what is recorded), the pictures in
`docs/pictures/front-light.svg` and `front-dark.svg`. A picture depends on the models alone, so that the same file gives
the same bytes.
"""

import argparse
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks.recorded_front import AS_TRAINED, Recorded, Shown, read, record, written
from qa_core import files
from qa_core.errors import ConfigError, unknown

PROJECT = Path(__file__).resolve().parents[1]
TABLE = PROJECT / "benchmarks" / "tables" / "front.json"
PICTURES = PROJECT / "docs" / "pictures"

WIDTH, HEIGHT = 720, 560
LEFT, RIGHT, TOP, BOTTOM = 62, 706, 202, 488  # of the plot
# Set in the unit of the picture: large where it is shown small. Browsers tell an image its width in CSS pixels.
LARGE, SMALL, SMALL_FROM = 20, 15, 600
SHAPES = ("float32", "float32+e8", "int8", "int8+e8", "nf4", "nf4+e8")


@dataclass(frozen=True)
class Theme:
    """Colours of a page, and of the families on it: Okabe and Ito's, as in the report."""

    paper: str
    ink: str
    quiet: str
    grid: str
    faint: float
    families: Mapping[str, str]


THEMES = {
    "light": Theme(
        paper="#ffffff",
        ink="#1f2328",
        quiet="#59636e",
        grid="#e4e7eb",
        faint=0.38,
        families={
            "bert": "#0072b2",
            "distilbert": "#d55e00",
            "lstm": "#009e73",
            "mamba": "#b8558e",
            "t5": "#b07d00",
        },
    ),
    "dark": Theme(
        paper="#0d1117",
        ink="#f0f6fc",
        quiet="#9198a1",
        grid="#262c36",
        faint=0.5,
        families={
            "bert": "#56a9e0",
            "distilbert": "#ff8b4a",
            "lstm": "#35c99c",
            "mamba": "#e49cc6",
            "t5": "#efb640",
        },
    ),
}


@dataclass(frozen=True)
class Scales:
    """Where values lie in the picture: memory on a log axis, exact match on an even one."""

    memory: tuple[float, float]
    em: tuple[float, float]

    def x(self, memory_mb: float) -> float:
        """Return where a memory lies."""
        low, high = map(math.log, self.memory)
        return LEFT + (RIGHT - LEFT) * (math.log(memory_mb) - low) / (high - low)

    def y(self, em_percent: float) -> float:
        """Return where an exact match lies."""
        low, high = self.em
        return BOTTOM - (BOTTOM - TOP) * (em_percent - low) / (high - low)


def picture(recorded: Recorded, theme: Theme) -> str:
    """Return the front as SVG.

    Raises:
        ConfigError: a family or a form that has no colour or shape here.
    """
    scales = _scales(recorded)
    parts = [
        _head(recorded, theme),
        *_titles(recorded),
        *_legend(recorded, theme),
        *_grid(scales),
        *_baseline(recorded, scales),
        *_marks(recorded, scales, theme),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _scales(recorded: Recorded) -> Scales:
    memories = [model.memory_mb for model in recorded.models]
    lows = [model.em_percent if model.low is None else model.low for model in recorded.front]
    least = min(recorded.baseline, *lows, *(model.em_percent for model in recorded.models))
    return Scales(
        memory=(min(memories) / 1.5, max(memories) * 1.3), em=(max(0.0, 20 * math.floor(least / 20)), 100.0)
    )


def _head(recorded: Recorded, theme: Theme) -> str:
    style = [
        f"text{{font:{LARGE}px system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;"
        f"fill:{theme.quiet}}}",
        f".ink{{fill:{theme.ink}}}",
        f".name{{fill:{theme.ink};font-weight:600;font-size:{LARGE + 3}px}}",
        f".halo{{paint-order:stroke;stroke:{theme.paper};stroke-width:5px;stroke-linejoin:round}}",
        f".grid{{stroke:{theme.grid}}}",
        f".front{{fill:none;stroke:{theme.quiet};stroke-width:1.5;opacity:.7}}",
        f".floor{{stroke:{theme.quiet};stroke-dasharray:2 5}}",
        f".mark{{stroke:{theme.paper};stroke-width:1.5}}",
        f".hollow{{fill:{theme.paper};stroke-width:2.5}}",
        f".faint{{opacity:{theme.faint}}}",
        ".bar{stroke-width:2.5;opacity:.6}",
        f"@media(min-width:{SMALL_FROM}px){{text{{font-size:{SMALL}px}}.name{{font-size:{SMALL + 3}px}}}}",
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            'aria-labelledby="title">',
            f'<title id="title">{escape(alt_text(recorded))}</title>',
            "<style>",
            *style,
            "</style>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{theme.paper}"/>',
        ]
    )


def _titles(recorded: Recorded) -> list[str]:
    counts = f"{len(recorded.models)} models of one sweep, {recorded.questions} questions."
    return [
        _text(14, 32, "What exact match costs in memory", "name"),
        _text(14, 62, f"{counts} Faint: beaten by another."),
        _text(14, 88, "Hollow: not told apart from a smaller one. Bars: 95 % intervals."),
        _text(14, TOP - 18, "exact match [%]"),
        _text((LEFT + RIGHT) / 2, HEIGHT - 16, "memory for one question [MB], log axis", anchor="middle"),
    ]


def _legend(recorded: Recorded, theme: Theme) -> list[str]:
    """Return a line of the families and one of the forms, spaced for the large letters."""
    parts = []
    x = 14.0
    for family in recorded.families:
        parts.append(f'<circle cx="{x + 7:.1f}" cy="113" r="7" fill="{_paint(theme, family)}"/>')
        parts.append(_text(x + 19, 120, family, "ink"))
        x += 19 + _wide(family) + 18
    x = 14.0
    for form in (form for form in SHAPES if any(model.form == form for model in recorded.models)):
        parts.append(f'<path d="{_shape(form, x + 7, 142, 7)}" fill="{theme.quiet}"/>')
        parts.append(_text(x + 19, 149, form, "ink"))
        x += 19 + _wide(form) + 18
    if any(model.form.endswith("+e8") for model in recorded.models):
        parts.append(_text(RIGHT, 120, "+e8: embeddings int8", anchor="end"))
    return parts


def _grid(scales: Scales) -> list[str]:
    parts = []
    for em in range(int(scales.em[0]), 101, 20):
        y = scales.y(em)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(LEFT - 10, y + 6, str(em), anchor="end"))
    for memory in _ticks(*scales.memory):
        x = scales.x(memory)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{BOTTOM}"/>')
        parts.append(_text(x, BOTTOM + 25, f"{memory:g}", anchor="middle"))
    return parts


def _ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 of each power of ten between two values, or the powers alone where that is many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1,)):
        found = [
            step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high
        ]
        if len(found) <= 8:
            break
    return found


def _baseline(recorded: Recorded, scales: Scales) -> list[str]:
    y = scales.y(recorded.baseline)
    return [
        f'<line class="floor" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>',
        _text(RIGHT, y - 7, f"no answer to anything: {recorded.baseline:.1f} %", "halo", anchor="end"),
    ]


def _marks(recorded: Recorded, scales: Scales, theme: Theme) -> list[str]:
    """Return beaten models, the steps of the front, then its models with intervals and the scores of the ends."""
    parts = []
    for model in recorded.models:
        if not model.on_front:
            shape = _shape(model.form, scales.x(model.memory_mb), scales.y(model.em_percent), 6)
            parts.append(f'<path class="faint" d="{shape}" fill="{_paint(theme, model.family)}"/>')
    front = recorded.front
    corners = [f"M{scales.x(front[0].memory_mb):.1f} {scales.y(front[0].em_percent):.1f}"]
    for _, model in itertools.pairwise(front):
        corners.append(f"H{scales.x(model.memory_mb):.1f}V{scales.y(model.em_percent):.1f}")
    parts.append(f'<path class="front" d="{"".join(corners)}H{RIGHT}"/>')
    for model in front:
        if model.low is not None and model.high is not None:
            x, y1, y2 = scales.x(model.memory_mb), scales.y(model.low), scales.y(model.high)
            parts.append(
                f'<line class="bar" x1="{x:.1f}" x2="{x:.1f}" y1="{y1:.1f}" y2="{y2:.1f}" '
                f'stroke="{_paint(theme, model.family)}"/>'
            )
    for model in sorted(front, key=lambda model: model.has_row):  # what has a row lies on top
        shape = _shape(model.form, scales.x(model.memory_mb), scales.y(model.em_percent), 8)
        paint = _paint(theme, model.family)
        colours = f'class="mark" fill="{paint}"' if model.has_row else f'class="hollow" stroke="{paint}"'
        parts.append(f'<path {colours} d="{shape}"/>')
    small, large = front[0], front[-1]
    parts.append(
        _text(scales.x(small.memory_mb) + 16, scales.y(small.em_percent) + 24, _place(small), "ink halo")
    )
    parts.append(
        _text(
            scales.x(large.memory_mb) - 18, scales.y(large.em_percent) - 4, _place(large), "ink halo", "end"
        )
    )
    return parts


def _place(model: Shown) -> str:
    return f"{model.em_percent:.1f} % at {model.memory_mb:.3g} MB"


def _paint(theme: Theme, family: str) -> str:
    if family not in theme.families:
        raise ConfigError(unknown("family", family, theme.families))
    return theme.families[family]


def _shape(form: str, x: float, y: float, size: float) -> str:
    """Return the outline of a form: a circle for 32 bits, a square for 8, a triangle for 4; turned with +e8."""
    if form not in SHAPES:
        raise ConfigError(unknown("form", form, SHAPES))
    if form == AS_TRAINED:
        r = f"{size:g}"
        return f"M{x - size:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * size:g} 0a{r} {r} 0 1 0 {-2 * size:g} 0z"
    corners, first, scale = {
        "float32+e8": (6, 90.0, 1.15),
        "int8": (4, 45.0, 1.25),
        "int8+e8": (4, 90.0, 1.25),
        "nf4": (3, 90.0, 1.35),
        "nf4+e8": (3, 270.0, 1.35),
    }[form]
    angles = [math.radians(first + 360.0 * corner / corners) for corner in range(corners)]
    places = [
        f"{x + scale * size * math.cos(angle):.1f} {y - scale * size * math.sin(angle):.1f}"
        for angle in angles
    ]
    return f"M{'L'.join(places)}z"


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "") -> str:
    attributes = f' class="{kind}"' if kind else ""
    attributes += f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(words)}</text>'


def _wide(words: str) -> float:
    """Return about how wide a word is in the large letters."""
    return 0.54 * LARGE * len(words)


def alt_text(recorded: Recorded) -> str:
    """Return what the picture shows, in words."""
    small, large = recorded.front[0], recorded.front[-1]
    return (
        f"Exact match against memory on a log axis: {len(recorded.models)} models of {len(recorded.families)} "
        f"families. {len(recorded.front)} are on the front, from {small.family}, {_place(small)}, to {large.family}, "
        f"{_place(large)}. Answering nothing has {recorded.baseline:.1f} %."
    )


def readme_parts(recorded: Recorded) -> tuple[str, str]:
    """Return what README.md has of the points: the pictures, and the table of models."""
    folder = PICTURES.relative_to(PROJECT).as_posix()
    shown = "\n".join(
        [
            "<picture>",
            f'  <source media="(prefers-color-scheme: dark)" srcset="{folder}/front-dark.svg">',
            f'  <img alt="{escape(alt_text(recorded))}" src="{folder}/front-light.svg" width="720">',
            "</picture>",
        ]
    )
    lines = ["| memory, MB | EM, % (95 % interval) | model | stored as |", "|---|---|---|---|"]
    for model in recorded.rows:
        interval = "" if model.low is None else f" ({model.low:.1f} to {model.high:.1f})"
        recipe = f"{model.family} {model.checkpoint}, {model.methods.replace('+', ' + ')}"
        lines.append(
            f"| {model.memory_mb:.3g} | {model.em_percent:.1f}{interval} | {recipe} | {model.form} |"
        )
    return shown, "\n".join(lines)


def main() -> None:
    """Record the points where a sweep is named, draw them, and print what README.md has of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN", help="the folder of a sweep")
    run_dir = parser.parse_args().run
    if run_dir is not None:
        files.write_text(TABLE, written(record(run_dir)))
    recorded = read(TABLE)
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, theme in THEMES.items():
        files.write_text(PICTURES / f"front-{name}.svg", picture(recorded, theme))
    print("\n\n".join(readme_parts(recorded)))


if __name__ == "__main__":
    main()
