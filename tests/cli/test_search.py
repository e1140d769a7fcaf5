"""`musclekit search`: what it writes, that it goes on where it stopped, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from musclekit.evaluation import units
from musclekit.image import Contrast
from musclekit.segmenters.threshold import ThresholdSegmenter
from tests.cli.conftest import Command

PLAN = '[method]\nname = "graphcut"\n[grid]\nsmoothness = [0.02, 0.5]\nsigma = [0.0, 1.0]\n'


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def change(manifest: Path, **cells: str) -> None:
    """Rewrite the manifest with other cells in its first row; an empty text empties the cell."""
    table = rows(manifest)
    table[0] |= cells
    with manifest.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def refused(command: Command, *arguments: object) -> str:
    """The one line that a refused command prints."""
    result = command(*arguments, "--quiet")
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert result.stdout == ""
    return line


def test_a_search_writes_its_tables_and_a_report_that_validates(
    command: Command, cohort: Path, plan: Path, tmp_path: Path
) -> None:
    result = command("search", plan, "--cases", cohort / "manifest.csv", "-o", "out")
    assert result.returncode == 0, result.stderr
    out = tmp_path / "out"
    for name in ("scores.csv", "folds.csv", "params.csv", "grid.csv", "summary.json", "report.html", "run.json"):
        assert (out / name).is_file(), name
    assert "report: out/report.html" in result.stdout
    assert "best so far: dice" in result.stderr
    folds = pd.read_csv(out / "folds.csv")
    assert len(folds) == 4
    assert set(folds["smoothness"]) <= {0.02, 0.5}
    for file in ("scores.csv", "report.json"):
        checked = command("validate", out / file)
        assert checked.returncode == 0, checked.stderr
    data = json.loads((out / "report.json").read_text())
    titles = [table["title"] for table in data["tables"]]
    assert titles[0] == "Chosen parameters"
    assert "What a choice on the test scores would claim" in titles
    figures = [figure["title"] for figure in data["figures"]]
    assert figures[:2] == ["What the parameters change", "Dice of muscle"]
    assert not any("optimistic" in warning for warning in data["warnings"])
    record = json.loads((out / "run.json").read_text())
    assert record["command"] == "search"
    assert all(len(item["sha256"]) == 64 for item in record["inputs"])
    assert len(record["inputs"]) == 2 + 2 * 4


def test_a_second_call_goes_on_and_another_plan_is_refused(
    command: Command, cohort: Path, plan: Path, tmp_path: Path
) -> None:
    arguments = ("search", plan, "--cases", cohort / "manifest.csv", "-o", "out", "--quiet")
    assert command(*arguments).returncode == 0
    kept = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.csv")}
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "units").iterdir()}
    assert len(kept) >= 4
    assert times
    assert command(*arguments).returncode == 0
    assert {path: path.read_bytes() for path in kept} == kept
    assert {path: path.stat().st_mtime_ns for path in times} == times
    plan.write_text(PLAN.replace("0.5", "0.7"))
    assert "out holds the results of another search" in refused(command, *arguments[:-1])
    assert {path: path.read_bytes() for path in kept} == kept


def test_paper_mode_says_that_it_is_optimistic(command: Command, cohort: Path, plan: Path, tmp_path: Path) -> None:
    plan.write_text('metric = "asd"\n' + PLAN.replace("0.02", "0.0005"))
    result = command(
        "search", plan, "--cases", cohort / "manifest.csv", "-o", "out", "--mode", "paper", "--json", "--quiet"
    )
    assert result.returncode == 0, result.stderr
    assert "These scores are optimistic." in result.stderr
    assert "These scores are optimistic." in (tmp_path / "out" / "report.html").read_text()
    printed = json.loads(result.stdout)
    assert printed["mode"] == "paper"
    assert printed["optimistic"] is True
    assert printed["report"] == "out/report.html"
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    scores = pd.read_csv(tmp_path / "out" / "points.csv")["score"]
    assert data["figures"][0]["alt"].endswith(f": {scores.min():.3f}.")  # of a distance the least is the best
    assert re.search(r"<td[^>]*>(0\.0005|0\.5)</td>", (tmp_path / "out" / "report.html").read_text())


def test_a_parameter_that_does_not_exist(command: Command, cohort: Path, plan: Path) -> None:
    plan.write_text('[method]\nname = "graphcut"\n[grid]\nsmothness = [0.1]\n')
    line = refused(command, "search", plan, "--cases", cohort / "manifest.csv", "-o", "out")
    assert "has no parameter 'smothness'; it has: unary, smoothness, sigma" in line


def test_a_parameter_outside_its_range(command: Command, cohort: Path, plan: Path, tmp_path: Path) -> None:
    plan.write_text('[method]\nname = "graphcut"\n[grid]\nsmoothness = [0.1, -1.0]\n')
    line = refused(command, "search", plan, "--cases", cohort / "manifest.csv", "-o", "out")
    assert "smoothness must be a number of at least 0, not -1.0" in line
    assert not (tmp_path / "out" / "plan.json").exists()


def test_a_scheduler_that_does_not_answer(
    command: Command, cohort: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(units, "CONNECT_S", 0.5)
    line = refused(
        command, "search", plan, "--cases", cohort / "manifest.csv", "-o", "out", "--scheduler", "tcp://127.0.0.1:9"
    )
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in line
    assert "start one with 'dask scheduler'" in line


def test_a_segmenter_that_cannot_take_what_its_translator_gives(
    command: Command, cohort: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ThresholdSegmenter, "contrasts", frozenset({Contrast.CT}))
    plan.write_text('[method]\nname = "translated"\ntranslator = {name = "n4"}\nsegmenter = {name = "threshold"}\n')
    line = refused(command, "search", plan, "--cases", cohort / "manifest.csv", "-o", "out")
    assert "its segmenter cannot take what its translator gives" in line
    assert "cannot take what its translator gives" in refused_validate(command, plan)


def refused_validate(command: Command, plan: Path) -> str:
    result = command("validate", plan)
    assert result.returncode == 2
    return result.stderr


def test_a_case_without_a_label_map(command: Command, manifest: Path, plan: Path) -> None:
    change(manifest, labels="")
    line = refused(command, "search", plan, "--cases", manifest, "-o", "out")
    assert "case 'sub-01_mr' has no label map; annotated cases are needed" in line


def test_a_single_subject(command: Command, manifest: Path, plan: Path) -> None:
    table = manifest.read_text().splitlines()
    manifest.write_text("\n".join(table[:2]) + "\n")
    line = refused(command, "search", plan, "--cases", manifest, "-o", "out")
    assert "leave-one-subject-out needs at least 3 subjects" in line


def test_a_label_map_on_another_grid(command: Command, manifest: Path, plan: Path) -> None:
    labels = manifest.parent / rows(manifest)[0]["labels"]
    nib.save(nib.Nifti1Image(np.ones((20, 20, 2), np.uint8), np.diag([3.0, 3.0, 6.0, 1.0])), labels)
    line = refused(command, "search", plan, "--cases", manifest, "-o", "out")
    assert "case 'sub-01_mr'" in line
    assert "lies on another grid" in line


def test_ids_outside_the_label_set(command: Command, manifest: Path, plan: Path) -> None:
    labels = manifest.parent / rows(manifest)[0]["labels"]
    image = nib.load(labels)
    voxels = np.asarray(image.dataobj).copy()
    voxels[0, 0, 0] = 77
    nib.save(nib.Nifti1Image(voxels, image.affine, image.header), labels)
    line = refused(command, "search", plan, "--cases", manifest, "-o", "out")
    assert "sub-01_mr" in line
    assert "label ids [77] do not belong to the set 'muscle'" in line


def test_labels_of_unknown_meaning(command: Command, manifest: Path, plan: Path) -> None:
    for table in manifest.parent.glob("*.tsv"):
        table.unlink()
    arguments = ("search", plan, "--cases", manifest, "-o", "out")
    assert "case 'sub-01_mr': sub-01_mr_dseg.nii.gz: what the ids mean is not known" in refused(command, *arguments)
    assert command(*arguments, "--label-set", "muscle", "--quiet").returncode == 0


def test_files_that_are_not_there(command: Command, cohort: Path, plan: Path) -> None:
    manifest = cohort / "manifest.csv"
    assert "no.toml: no such file" in refused(command, "search", "no.toml", "--cases", manifest, "-o", "out")
    assert "no.csv: no such manifest" in refused(command, "search", plan, "--cases", "no.csv", "-o", "out")
    assert command("search", plan, "-o", "out").returncode == 2


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_the_end_is_the_same(cohort: Path, plan: Path, tmp_path: Path) -> None:
    def start(out: str) -> subprocess.Popen[str]:
        words = [
            sys.executable,
            "-m",
            "musclekit.cli",
            "search",
            plan,
            "--cases",
            cohort / "manifest.csv",
            "-o",
            out,
            "--quiet",
        ]
        return subprocess.Popen([str(word) for word in words], cwd=tmp_path, stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)  # fmt: skip

    def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
        _, said = process.communicate(timeout=300)
        return process.returncode, said

    plan.write_text(PLAN.replace("[0.02, 0.5]", "[0.02, 0.05, 0.1, 0.2, 0.5, 1.0]"))
    assert finished(start("whole")) == (0, "")
    stopped = start("stopped")
    units_of = tmp_path / "stopped" / "units"
    while stopped.poll() is None and not (units_of.is_dir() and any(units_of.glob("[!.]*.zip"))):
        time.sleep(0.01)
    stopped.send_signal(signal.SIGINT)
    code, said = finished(stopped)
    assert code == 130
    assert "interrupted; the files already written are whole" in said
    assert "Traceback" not in said
    done = {path.name: path.stat().st_mtime_ns for path in units_of.glob("[!.]*.zip")}
    assert done
    assert not (tmp_path / "stopped" / "scores.csv").exists()
    assert finished(start("stopped")) == (0, "")
    assert {name: (units_of / name).stat().st_mtime_ns for name in done} == done
    for name in ("scores.csv", "folds.csv", "points.csv", "grid.csv", "params.csv", "summary.json"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
