"""A model as MLflow serves it: rows with question and context in, rows with answers out.

`serve.py` puts it behind a port, `register.py` into MLflow's registry; MLflow loads `qa_sweeps/mlflow_model.py`.
"""

from threading import Lock
from typing import TYPE_CHECKING, Any

from qa_core.errors import DataError
from sweeps.commands.predict import asked_table, rank

if TYPE_CHECKING:
    import pandas
    from mlflow.models import ModelSignature

    from qa_core.artifact.loaded import LoadedArtifact
    from qa_core.scoring.decode import Ranked

ASKED = ("question", "context")
ANSWERED = ("text", "score", "start", "end")
# Of nobody's data: it is stored beside a registered model.
EXAMPLE = {"question": "Who built the tower?", "context": "The tower was built by the guild."}


def signature() -> "ModelSignature":
    """Return the columns of questions and answers, as MLflow checks them."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    kinds = {"text": "string", "score": "double", "start": "long", "end": "long"}
    return ModelSignature(
        Schema([ColSpec("string", name) for name in ASKED]),
        Schema([ColSpec(kinds[name], name, required=name == "score") for name in ANSWERED]),
    )


class AnsweringModel:
    """A loaded artifact that answers data frames; calls from several threads wait for each other."""

    def __init__(self, loaded: "LoadedArtifact", *, device: str) -> None:
        self._loaded, self._device = loaded, device
        self._turn = Lock()  # a network that decodes weights as it goes is used by one thread at a time

    def predict(self, model_input: "pandas.DataFrame") -> "pandas.DataFrame":
        """Answer each row.

        Args:
            model_input: columns `question` and `context`.

        Returns:
            The answers, in the order of the rows. `text`: the answer; None where there is none. `score`: of the answer,
            or of "no answer"; in nats. `start`, `end`: characters of the context; None without an answer, or where it
            was written.

        Raises:
            MlflowException: a question or context is no text, or blank; a server answers it with status 400.
            ArtifactError: the model cannot be used.
        """
        import pandas
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

        if model_input.empty:
            return pandas.DataFrame([], columns=list(ANSWERED), dtype=object)
        try:
            table = asked_table(*(model_input[name].tolist() for name in ASKED))
        except DataError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from error
        with self._turn:
            ranked = rank(self._loaded, table, device=self._device, count=1)
        rows = [_row(item, self._loaded.null_threshold) for item in ranked]
        # As objects, None stays None, which JSON has a word for.
        return pandas.DataFrame(rows, columns=list(ANSWERED), index=model_input.index, dtype=object)


def _row(item: "Ranked", threshold: float | None) -> list[Any]:
    answer = item.answer(threshold)
    if answer is None:
        return [None, item.null_score, None, None]
    return [answer.text, answer.score, answer.start, answer.end]
