"""Every example in the documents is what its schema says, and the pages on studies and training run."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from musclekit.cli.app import app
from musclekit.image import Contrast
from musclekit.io import write_image
from musclekit.phantom import make_thigh, render
from musclekit.workflows import validate_file

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
STUDY = ROOT / "docs" / "search.md"
TRAINING = ROOT / "docs" / "train.md"
SEGMENTERS = ROOT / "docs" / "segmenters.md"
THIGH = ROOT / "docs" / "thigh.md"
ADAPTATION = ROOT / "docs" / "adapt.md"

#: Language of a block to the ending that ``musclekit validate`` goes by.
ENDINGS = {"toml": ".toml", "csv": ".csv", "json": ".json"}


def blocks(path: Path) -> list[tuple[str, str]]:
    """Language and content of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


EXAMPLES = [
    pytest.param(language, content, id=f"{path.name}-{number}")
    for path in DOCUMENTS
    for number, (language, content) in enumerate(blocks(path))
    if language in ENDINGS
]


def test_there_are_examples_of_every_kind() -> None:
    kinds = {param.values[0] for param in EXAMPLES}
    assert {"toml", "csv"} <= kinds
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize(("language", "content"), EXAMPLES)
def test_an_example_validates(language: str, content: str, tmp_path: Path) -> None:
    file = tmp_path / f"example{ENDINGS[language]}"
    file.write_text(content, encoding="utf-8")
    if language == "csv":
        # A manifest is checked with the files that it names.
        for row in csv.DictReader(io.StringIO(content)):
            for column in ("image", "labels"):
                if row.get(column):
                    (tmp_path / row[column]).parent.mkdir(parents=True, exist_ok=True)
                    (tmp_path / row[column]).touch()
    assert validate_file(file)["kind"] in {"plan", "manifest", "scores", "report"}


@pytest.mark.slow
def test_the_study_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plans = [content for language, content in blocks(STUDY) if language == "toml"]
    (tmp_path / "plan.toml").write_text(plans[0], encoding="utf-8")
    lines = [line for language, content in blocks(STUDY) if language == "sh" for line in content.splitlines()]
    commands = [words[1:] for line in lines if (words := shlex.split(line, comments=True))]
    assert len(commands) >= 7
    for words in commands:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, (words, result.stderr)
    named = re.findall(r"^\| `([\w./`, ]+)` \|", STUDY.read_text(encoding="utf-8"), flags=re.MULTILINE)
    files = [name.strip("` ") for cell in named for name in cell.split(",")]
    assert len(files) >= 9
    for name in files:
        assert (tmp_path / "runs" / "spgc" / name).exists(), name
    report = json.loads((tmp_path / "runs" / "spgc" / "report.json").read_text(encoding="utf-8"))
    assert not any("optimistic" in warning for warning in report["warnings"])
    for report_file in tmp_path.glob("runs/*/report.json"):
        assert validate_file(report_file)["kind"] == "report"


def test_the_plan_of_make_train_small_is_the_one_on_the_page() -> None:
    plans = [content for language, content in blocks(TRAINING) if language == "toml"]
    assert plans[0] == (ROOT / "docs" / "train_small.toml").read_text(encoding="utf-8")


#: What the page says, and what the test does in its place.
SMALLER = {
    "--slices 8": "--slices 1 --size 64",
    "--subjects 16": "--subjects 4",
    "size = 128": "size = 64",
    "spacing_mm = 1.5625": "spacing_mm = 3.5",
    "width = 16": "width = 8",
    "blocks = 6": "blocks = 3",
    "width = 32": "width = 8",
    "constant = 12": "constant = 1",
    "decay = 12": "decay = 1",
}


#: The same of the page on segmenters.
SMALLER_SEGMENTER = {
    "--slices 12": "--slices 2 --size 64",
    "--subjects 12": "--subjects 4",
    "spacing_mm = 2.5": "spacing_mm = 6",
    "size = [96, 96]": "size = [32, 32]",
    "width = 16": "width = 4",
    "epochs = 30": "epochs = 2",
}


#: The same of the page on adaptation.
SMALLER_ADAPTATION = {
    "--subjects 6": "--subjects 2",
    "--slices 8": "--slices 2 --size 64",
    "spacing_mm = 2.0, size = 96": "spacing_mm = 6, size = 32",
    "generator = { width = 16, blocks = 4 }": "generator = { width = 4, blocks = 1 }",
    "discriminator = { width = 16": "discriminator = { width = 4",
    'name = "unet-2d", width = 16': 'name = "unet-2d", width = 4',
    "constant = 10, decay = 10": "constant = 1, decay = 1",
    "most_removed = 0.3": "most_removed = 1.0",
    "epochs = 5": "epochs = 1",
}


def _run_smaller(page: Path, smaller: dict[str, str], folder: Path) -> set[str]:
    """Run the commands of a page on the first plan in it, and return the names of the files that it tells of."""
    text = "\n".join(content for language, content in blocks(page) if language in ("sh", "toml"))
    assert all(words in text for words in smaller)
    plans = [content for language, content in blocks(page) if language == "toml"]
    (folder / "plan.toml").write_text(_smaller(plans[0], smaller), encoding="utf-8")
    lines = [line for language, content in blocks(page) if language == "sh" for line in content.splitlines()]
    commands = [words[1:] for line in lines if (words := shlex.split(_smaller(line, smaller), comments=True))]
    assert len(commands) >= 5
    for words in commands:
        result = CliRunner().invoke(app, [*words, "--jobs", "1"] if words[0] in ("train", "adapt") else words)
        assert result.exit_code == 0, (words, result.stderr)
    named = re.findall(r"^\| `([\w./`, ]+)` \|", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name.strip("` ") for cell in named for name in cell.split(",")}


def test_the_training_runs_as_it_stands_but_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = _run_smaller(TRAINING, SMALLER, tmp_path)
    # Sheets are drawn every ten epochs, and this is two.
    assert files - {"sheets/"} == {path.name for path in (tmp_path / "runs" / "h2e").iterdir()}
    assert list((tmp_path / "translated").rglob("*.nii.gz"))


def test_the_segmenter_is_trained_as_it_stands_but_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = _run_smaller(SEGMENTERS, SMALLER_SEGMENTER, tmp_path)
    files = {name for name in named if "." in name or name.endswith("/")}
    assert files - {"sheets/"} == {path.name for path in (tmp_path / "runs" / "unet").iterdir()}
    assert list((tmp_path / "told").rglob("*_variance.nii.gz"))
    calibration = json.loads((tmp_path / "runs" / "folds" / "calibration.json").read_text(encoding="utf-8"))
    assert calibration["n_samples"] == 20


def test_the_adaptation_runs_as_it_stands_but_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = {name.rstrip("/") for name in _run_smaller(ADAPTATION, SMALLER_ADAPTATION, tmp_path)}
    made = {path.name for path in (tmp_path / "runs" / "mr2ct").iterdir()}
    assert made - {"run.json", "report.json"} == {name for name in named if name in made}
    assert {"images", "joint", "judged", "tuned", "report.html"} <= made
    assert list((tmp_path / "out").rglob("*_dseg.nii.gz"))


def _smaller(text: str, smaller: dict[str, str]) -> str:
    for large, small in smaller.items():
        text = text.replace(large, small)
    return text


@pytest.mark.slow
def test_the_page_on_thighs_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(render(make_thigh(2, shape=(4, 96, 96)), Contrast.T1W), tmp_path / "scan.nii.gz")
    lines = [line for language, content in blocks(THIGH) if language == "sh" for line in content.splitlines()]
    for line in lines:
        result = CliRunner().invoke(app, shlex.split(line, comments=True)[1:])
        assert result.exit_code == 0, (line, result.stderr)
    assert "sartorius" in (tmp_path / "out" / "scan_dseg.tsv").read_text()
    assert "extensor" in (tmp_path / "groups" / "scan_dseg.tsv").read_text()
    (example,) = [content for language, content in blocks(THIGH) if language == "python"]
    exec(compile(example, THIGH.name, "exec"), {})
