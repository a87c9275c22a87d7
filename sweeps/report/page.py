"""One HTML file from a story: styles, scripts and data inside, nothing from the network.

The data is JSON in an element that no browser runs, with every `<`, `>` and `&` escaped; the scripts put text on the
page as text. A content security policy lets only our own script and style run, each named by its hash, so that even
markup that slipped through would do nothing.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from qa_core import files

SCRIPTS = ("base.js", "charts.js", "report.js", "comparison.js", "start.js")
STYLE = "page.css"
ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}
TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src '{style_hash}'; script-src \
'{script_hash}'; base-uri 'none'; form-action 'none'">
<title>Sweep report</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#models">Skip to the table</a>
<main id="page"></main>
<noscript><p>This page draws itself with JavaScript. The same rows are in front.csv beside it.</p></noscript>
<script type="application/json" id="story">{story}</script>
<script>{script}</script>
</body>
</html>
"""


def page(story: Mapping[str, Any]) -> str:
    """Return the page of a story; raises ValueError where a number in it is not finite."""
    assets = package_files("sweeps.report") / "assets"
    style = (assets / STYLE).read_text(encoding="utf-8")
    parts = [(assets / name).read_text(encoding="utf-8") for name in SCRIPTS]
    script = '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"
    # ASCII alone: half characters and U+2028 are escaped too.
    data = json.dumps(story, allow_nan=False, ensure_ascii=True, separators=(",", ":")).translate(ESCAPES)
    values = {
        "style_hash": _hash(style),
        "script_hash": _hash(script),
        "style": style,
        "story": data,
        "script": script,
    }
    return TEMPLATE.format(**values)


def write_page(story: Mapping[str, Any], path: Path) -> None:
    """Write the page of a story, whole or not at all; raises StorageError."""
    files.write_text(path, page(story))


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
