"""Demonstrations: solved questions that stand before every prompt of a network that is not trained.

They are drawn from the train part alone and enter windows through the layout's prefix, so `data.max_length`
counts them and the cache of windows tells them apart. A demonstration is a window of its whole paragraph,
followed by its target. How many are wanted, and of what length, is `families.base.Prompting`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from qa_core.data.chunks import WindowLengths, lay_out
from qa_core.data.encoding import encode_table
from qa_core.data.layout import Prompting, WindowLayout
from qa_core.data.table import QaTable, TableBuilder
from qa_core.errors import DataError
from qa_core.schema import Example
from qa_core.seeding import numpy_generator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NO_LIMIT = 2**31


def draw_demonstrations(
    table: QaTable,
    tokenizer: "PreTrainedTokenizerFast",
    layout: WindowLayout,
    *,
    prompting: Prompting,
    seed: int,
) -> tuple[Example, ...]:
    """Return `prompting.shots` questions of the table, each on another paragraph, in random order.

    From two shots on, one of them is unanswerable where the table has such questions.

    Args:
        table: the training questions.
        tokenizer, layout: of the recipe; a demonstration longer than `prompting.max_tokens` is passed over.
        prompting: how many, and how long at most.
        seed: decides which, and their order.

    Raises:
        DataError: the table has too few that are short enough.
    """
    generator = numpy_generator(seed, "demonstrations")
    order = generator.permutation(len(table))
    unanswerable = int(table.has_unanswerable and prompting.shots >= 2)
    chosen: list[Example] = []
    used: set[int] = set()
    # The rarer kind first, or the others might take all of its paragraphs.
    for kind, count in ((True, unanswerable), (False, prompting.shots)):
        for index in order[table.is_unanswerable[order] == kind].tolist():
            paragraph = int(table.context_index[index])
            if len(chosen) == count:
                break
            if paragraph not in used:
                example = table.example(index)
                if len(_token_ids([example], tokenizer, layout)) <= prompting.max_tokens:
                    chosen.append(example)
                    used.add(paragraph)
        if len(chosen) < count:
            raise DataError(
                f"{table.source}: found {len(chosen)} demonstrations of at most {prompting.max_tokens} tokens, "
                f"each on a paragraph of its own; allowed: {prompting.shots}, {unanswerable} of them "
                "unanswerable (methods.few_shot.shots, methods.few_shot.max_demonstration_tokens)"
            )
    return tuple(chosen[place] for place in generator.permutation(len(chosen)).tolist())


def with_demonstrations(
    layout: WindowLayout, demonstrations: Sequence[Example], tokenizer: "PreTrainedTokenizerFast"
) -> WindowLayout:
    """Return the layout with the demonstrations before every window."""
    if not demonstrations:
        return layout
    return replace(layout, prefix=(*layout.prefix, *_token_ids(demonstrations, tokenizer, layout)))


def _token_ids(
    demonstrations: Sequence[Example], tokenizer: "PreTrainedTokenizerFast", layout: WindowLayout
) -> list[int]:
    builder = TableBuilder("demonstrations")
    for example in demonstrations:
        answers = [{"text": answer.text, "answer_start": answer.start} for answer in example.answers]
        values = {"id": example.question_id, "question": example.question, "answers": answers}
        builder.add_question(
            example.question_id,
            values,
            context=example.context,
            title=example.title,
            empty_is_unanswerable=True,
        )
    encoded = encode_table(builder.build(), tokenizer, layout, max_question_length=NO_LIMIT)
    windows = lay_out(encoded, replace(layout, prefix=()), WindowLengths(NO_LIMIT, 0, NO_LIMIT))
    prompts, targets = windows.column("token_ids").to_pylist(), windows.column("target_ids").to_pylist()
    return [token for prompt, target in zip(prompts, targets, strict=True) for token in (*prompt, *target)]
