"""A command that stands in the README is a command that runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from musclekit.cli.app import app
from musclekit.image import Contrast
from musclekit.io import write_image, write_labels
from musclekit.labels import label_mapping, label_set
from musclekit.phantom import make_thigh, render

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands() -> list[list[str]]:
    """The lines that call musclekit, without their comments."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line and line[0] == "musclekit"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files the README speaks of."""
    here = tmp_path_factory.mktemp("readme")
    phantom = make_thigh(2, shape=(4, 96, 96))
    write_image(render(phantom, Contrast.T1W), here / "scan.nii.gz")
    write_image(render(phantom, Contrast.T1W), here / "scans" / "one.nii.gz")
    write_image(render(phantom, Contrast.T1W, seed=5), here / "scans" / "two.nii.gz")
    write_image(render(phantom, Contrast.FAT), here / "fat.nii.gz")
    write_image(render(phantom, Contrast.WATER), here / "water.nii.gz")
    muscles = phantom.labels.mapped(label_mapping(phantom.labels.label_set, label_set("huashan-11")))
    write_labels(muscles, here / "labels.nii.gz")
    (plan,) = blocks("toml")
    (here / "plan.toml").write_text(plan, encoding="utf-8")
    return here


def test_the_readme_names_the_commands_for_newcomers() -> None:
    text = README.read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text
    assert len(commands()) >= 7


@pytest.mark.slow
def test_every_command_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for words in commands():
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, (words, result.stderr)


@pytest.mark.slow
def test_the_python_example_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), {})
    assert (folder / "scan_dseg.nii.gz").is_file()


def test_links_lead_somewhere() -> None:
    text = README.read_text(encoding="utf-8")
    local = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    assert local
    for link in local:
        assert (README.parent / link).is_file(), link


@pytest.mark.parametrize(
    "word", ["Apache License 2.0", "GPL-3", "Not a medical device", "doi:10.3389/fradi.2021.664444"]
)
def test_what_must_be_said_is_said(word: str) -> None:
    assert word in README.read_text(encoding="utf-8")
