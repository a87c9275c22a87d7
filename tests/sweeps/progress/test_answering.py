"""Progress of many questions: a line now and then where there is no terminal, nothing at the end."""

import io

from sweeps.progress.answering import SECONDS_BETWEEN_LINES, answering


def test_a_line_is_written_now_and_then_and_none_at_the_end() -> None:
    output, times = (
        io.StringIO(),
        iter([0.0, 1.0, SECONDS_BETWEEN_LINES, SECONDS_BETWEEN_LINES + 1, 99.0, 199.0]),
    )
    with answering(2500, output=output, clock=lambda: next(times)) as on_batch:
        for _ in range(5):
            on_batch(500)
    assert output.getvalue() == "answered 1,000 of 2,500 windows\nanswered 2,000 of 2,500 windows\n"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_there_is_a_bar() -> None:
    output = Terminal()
    with answering(10, output=output) as on_batch:
        on_batch(10)
    assert "answering" in output.getvalue()
