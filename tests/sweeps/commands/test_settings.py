"""`settings`: a part of them, or the nearest name."""

import pytest

from sweeps import cli


def test_settings_shows_a_part_or_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["settings", "train.batch"]) == 0
    assert capsys.readouterr().out == (
        "train.batch_size\n"
        "    Windows in one optimiser step.\n"
        "    type: a whole number; default: 16; allowed: 1 or more; unit: windows\n"
    )
    assert cli.main(["settings", "train.bach_size"]) == 2
    assert "did you mean 'train.batch_size'?" in capsys.readouterr().err
    assert cli.main(["settings", "train.", "--markdown"]) == 2
    assert "--markdown: found with the prefix 'train.'" in capsys.readouterr().err
