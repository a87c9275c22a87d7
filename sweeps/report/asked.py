"""What was asked of a sweep, in words: command, budget, data, search space, searcher and scheduler."""

from collections.abc import Mapping
from typing import Any

from sweeps.report.snapshot import Snapshot

DOMAINS = {"choice": "one of", "uniform": "evenly", "log_uniform": "evenly in the logarithm", "int": "whole"}


def asked(snapshot: Snapshot) -> dict[str, Any]:
    """Return the settings in words, and the command, versions and devices that the records name."""
    spec = snapshot.spec
    provenance: Mapping[str, Any] = snapshot.records[0].provenance if snapshot.records else {}
    git = provenance.get("git") or {}
    packages = provenance.get("packages") or {}
    versions = [
        f"{name} {packages[name]}"
        for name in ("qa-sweeps", "torch", "transformers", "ray")
        if packages.get(name)
    ]
    recipe, data = spec.get("recipe") or {}, {}
    for name, value in (recipe.get("data") or {}).items():
        data[name] = _words(value)
    return {
        "command": provenance.get("command"),
        "commit": git.get("commit"),
        "versions": ", ".join(versions),
        "devices": sorted({str(record.device) for record in snapshot.records if record.device}),
        "seed": spec.get("seed"),
        "searcher": _words((spec.get("searcher") or {}).get("name")),
        "scheduler": _named(spec.get("scheduler") or {}),
        "budget": {name: _words(value) for name, value in (spec.get("budget") or {}).items()},
        "data": data,
        "space": [parameter_words(entry) for entry in spec.get("space") or ()],
        "forms": {
            f"{method}.{option}": _words(values)
            for method, options in (spec.get("forms") or {}).items()
            if isinstance(options, Mapping)
            for option, values in options.items()
        },
    }


def _named(section: Mapping[str, Any]) -> str:
    options = ", ".join(f"{name} {_words(value)}" for name, value in (section.get("options") or {}).items())
    return f"{section.get('name')}{f' ({options})' if options else ''}"


def parameter_words(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return what an entry of a space sets, how it is drawn, from which values, and under which conditions."""
    domain = next((name for name in DOMAINS if entry.get(name) is not None), None)
    how, values = "", ""
    if domain == "choice":
        values = _words(entry[domain])
        how = DOMAINS[domain] if len(entry[domain]) > 1 else "always"
    elif domain is not None:
        values = " to ".join(map(_words, entry[domain]))
        how = DOMAINS[domain] + (", in the logarithm" if entry.get("log") else "")
    when = "; ".join(f"{path}: {_words(value)}" for path, value in (entry.get("when") or {}).items())
    return {"set": str(entry.get("set")), "how": how, "values": values, "when": when}


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)
