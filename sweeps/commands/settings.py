"""`settings`: print what each setting means, its type, default, range and unit."""

from sweeps.spec import catalogue


def settings(prefix: str, *, markdown: bool) -> int:
    """Print the settings whose path begins with `prefix`, or the whole of `docs/settings.md`."""
    print(catalogue.as_markdown() if markdown else catalogue.as_text(catalogue.rows(prefix)), end="")
    return 0
