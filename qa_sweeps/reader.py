"""A trained model that answers questions. Sweeps, from which it is exported, are in `qa_sweeps/sweep.py`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qa_core.errors import ConfigError

if TYPE_CHECKING:
    from qa_core.artifact.loaded import LoadedArtifact
    from qa_core.scoring import decode


@dataclass(frozen=True)
class Candidate:
    """One answer that a model offers.

    Attributes:
        text: the answer.
        score: start plus end logit, or the log-probability of a written answer; in nats.
        start: first character in the context; None where the answer was written.
        end: character behind the last one; `context[start:end] == text`.
    """

    text: str
    score: float
    start: int | None
    end: int | None


@dataclass(frozen=True)
class Answer:
    """The answer to one question.

    Attributes:
        text: the answer; None where the model says that there is none.
        score: of the answer, or of "no answer"; in nats.
        start: first character in the context; None without an answer, or where it was written.
        end: character behind the last one; `context[start:end] == text`.
        no_answer_score: of "no answer", in nats.
        candidates: the best answers by falling score, whether or not one of them stands; as many as were asked for, or
            fewer.
    """

    text: str | None
    score: float
    start: int | None
    end: int | None
    no_answer_score: float
    candidates: tuple[Candidate, ...]

    @property
    def is_answered(self) -> bool:
        """Whether there is an answer."""
        return self.text is not None


class Reader:
    """A model in memory, loaded and verified once.

    Attributes:
        folder: where it was read from.
        no_answer_threshold: a question has no answer where the score of "no answer" exceeds that of the best answer by
            more, in nats; None: the best answer always stands.
    """

    def __init__(self, loaded: "LoadedArtifact", folder: Path, *, device: str) -> None:
        self.folder = folder
        self.no_answer_threshold = loaded.null_threshold
        self._loaded, self._device = loaded, device

    def __repr__(self) -> str:
        return f"Reader({str(self.folder)!r})"

    def answer(self, question: str, context: str, *, candidates: int = 1) -> Answer:
        """Answer one question.

        Args:
            question: the question.
            context: the text to read; a long one is read in windows.
            candidates: how many answers `Answer.candidates` holds, at most.

        Raises:
            DataError: question or context is no text, or blank.
            ConfigError: `candidates` is below 1.
            ArtifactError: the model cannot be used.
        """
        (found,) = self.answers([question], [context], candidates=candidates)
        return found

    def answers(
        self, questions: Sequence[str], contexts: str | Sequence[str], *, candidates: int = 1
    ) -> list[Answer]:
        """Answer many questions in batches, which is faster than one by one.

        Args:
            questions: the questions.
            contexts: a context for each question, or one text for all.
            candidates: as for `answer`.

        Returns:
            The answers, in the order of the questions.

        Raises:
            ConfigError: there are not as many contexts as questions, or as `answer`.
            DataError, ArtifactError: as `answer`; the message names the question by its number, from 0.
        """
        questions = list(questions)
        texts = [contexts] * len(questions) if isinstance(contexts, str) else list(contexts)
        if len(texts) != len(questions):
            raise ConfigError(
                f"contexts: found {len(texts)}; allowed: {len(questions)}, one for each question, or one text for all"
            )
        if candidates < 1:
            raise ConfigError(f"candidates: found {candidates}; allowed: 1 or more")
        if not questions:
            return []
        from sweeps.commands.predict import asked_table, rank

        ranked = rank(self._loaded, asked_table(questions, texts), device=self._device, count=candidates)
        return [self._answer(item) for item in ranked]

    def _answer(self, item: "decode.Ranked") -> Answer:
        best = item.answer(self.no_answer_threshold)
        return Answer(
            text=None if best is None else best.text,
            score=item.null_score if best is None else best.score,
            start=None if best is None else best.start,
            end=None if best is None else best.end,
            no_answer_score=item.null_score,
            candidates=tuple(
                Candidate(found.text, found.score, found.start, found.end)
                for found in item.candidates
                if found.text
            ),
        )


def load(folder: str | os.PathLike[str], *, device: str = "auto") -> Reader:
    """Load a model that answers questions.

    Args:
        folder: an export, or the artifact of a trial.
        device: auto, cpu or cuda.

    Raises:
        ArtifactError: the folder is no model, or was altered.
        ConfigError: there is no such device.
    """
    from qa_core.hardware import choose_device
    from sweeps.commands.predict import load_artifact

    choose_device(device)
    path = Path(folder)
    return Reader(load_artifact(path), path, device=device)
