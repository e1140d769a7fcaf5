from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from musclekit.cli.app import app
from musclekit.image import Contrast
from musclekit.io import write_image
from musclekit.testing import example_image

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run ``musclekit`` with the arguments given, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    runner = CliRunner(env={"NO_COLOR": "1", "COLUMNS": "200", "TERM": "dumb"})

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = [str(argument) for argument in arguments]
        result = runner.invoke(app, words)
        # What no command expects must reach the test, as it would reach the person.
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def ct_scan(tmp_path: Path) -> Path:
    """A small CT on disk."""
    path = tmp_path / "thigh.nii.gz"
    write_image(example_image(Contrast.CT, shape=(4, 64, 64), spacing=(6, 3, 3)), path)
    return path


@pytest.fixture
def mr_scan(tmp_path: Path) -> Path:
    """A small T1-weighted MR on disk."""
    path = tmp_path / "thigh_t1.nii.gz"
    write_image(example_image(Contrast.T1W, shape=(4, 64, 64), spacing=(6, 3, 3)), path)
    return path
