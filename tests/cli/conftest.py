from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from musclekit.cli.app import app
from musclekit.image import Contrast
from musclekit.io import write_image
from musclekit.testing import example_image
from musclekit.workflows import write_phantoms

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


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of four phantom thighs of four subjects, 64 px and two slices, with a manifest; not to be changed."""
    folder = tmp_path_factory.mktemp("cohort")
    write_phantoms(folder, subjects=4, slices=2, size=64, leg="alternate", reference="muscle", seed=3)
    return folder


@pytest.fixture
def manifest(cohort: Path, tmp_path: Path) -> Path:
    """A copy of the cohort of one's own: its manifest."""
    shutil.copytree(cohort, tmp_path / "cases")
    return tmp_path / "cases" / "manifest.csv"
