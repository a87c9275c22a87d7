"""What windows are made of, as a family asks for it: the order of their parts, and solved questions before each prompt.

Plain values. Windows are laid out in `chunks.py`; demonstrations are drawn in `demonstrations.py`.
"""

from dataclasses import dataclass

from qa_core.schema import Example


@dataclass(frozen=True)
class WindowLayout:
    """How question and a chunk of context become one token sequence.

    `prefix + question + middle + context + suffix`, or context before question when `question_first` is False.
    With `null_text`, each window also gets a target: the answer's tokens, or those of `null_text` when the window
    holds no answer, then `target_end`.
    """

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    null_at: str  # "first" or "last": the token that stands for "no answer"
    question_first: bool = True
    null_text: str | None = None
    target_end: tuple[int, ...] = ()


@dataclass(frozen=True)
class Prompting:
    """How a network that is not trained is shown its task: solved questions before each prompt."""

    shots: int
    max_tokens: int  # of one demonstration
    demonstrations: tuple[Example, ...] = ()  # drawn when the data is prepared; an artifact carries them
