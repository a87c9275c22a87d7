"""How a source was understood: what a reader guessed, found and left out, kept beside the table it made.

Plain values, so that the table cache stores them. Standard library only.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Reading:
    """How a source was understood.

    Attributes:
        layout: in words, such as "CSV, separated by commas".
        columns: field -> the column it was read from; empty for articles with paragraphs, which have none.
        guessed: the fields whose column was neither named by the user nor has the field's own or the hub's name.
        unused: columns that were not read.
        is_numbered: whether questions have their number in the source as id, because it gives none.
        answers: how answers given as text alone were placed: words of `find_answer` -> number of answers.
        malformed: what was left out, as the first few refusals word it, without the name of the source.
    """

    layout: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    guessed: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    is_numbered: bool = False
    answers: Mapping[str, int] = field(default_factory=dict)
    malformed: tuple[str, ...] = ()

    def as_values(self) -> dict[str, Any]:
        """Return plain values, from which `from_values` makes an equal one."""
        return {name: list(item) if isinstance(item, tuple) else item for name, item in asdict(self).items()}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Reading":
        """Return what `as_values` was called on."""
        read: dict[str, Any] = {
            name: tuple(item) if isinstance(item, list) else item for name, item in values.items()
        }
        return cls(**read)
