"""`configs`: each configuration that ships with the package."""

import pytest

from sweeps import cli
from sweeps.commands import options


def test_configs_lists_each_configuration_with_its_scales(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["configs"]) == 0
    output = capsys.readouterr().out
    assert {f"{path.stem}:" for path in options.configs_folder().glob("*.yaml")} <= set(output.splitlines())
    assert "scales: study_rates, study_final, smoke (--scale NAME)" in " ".join(output.split())
    assert max(map(len, output.splitlines())) <= 80
