"""`musclekit evaluate`: methods and given label maps over a manifest, with every failure named."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from tests.cli.conftest import Command
from tests.cli.test_search import change, refused, rows


def dice(path: Path) -> pd.Series:
    scores = pd.read_csv(path, keep_default_na=False, dtype={"slice": str})
    whole = scores[(scores["metric"] == "dice") & (scores["slice"] == "")]
    return whole.set_index(["method", "case_id"])["value"]


def test_methods_are_scored_and_label_maps_kept(command: Command, cohort: Path, tmp_path: Path) -> None:
    result = command(
        "evaluate", cohort / "manifest.csv", "-o", "out", "--method", "gmm", "--method", "threshold", "--keep-labels"
    )
    assert result.returncode == 0, result.stderr
    out = tmp_path / "out"
    assert len(dice(out / "scores.csv")) == 8
    assert "scores: out/scores.csv" in result.stdout
    assert (out / "labels" / "threshold" / "sub-04_mr_dseg.nii.gz").is_file()
    for file in ("scores.csv", "report.json"):
        assert command("validate", out / file).returncode == 0
    data = json.loads((out / "report.json").read_text())
    assert [table["title"] for table in data["tables"]] == [
        "Dice: median (quartiles)",
        "Agreement of volumes",
        "Every metric",
    ]
    assert "Agreement of the volume of muscle" in [figure["title"] for figure in data["figures"]]
    params = pd.read_csv(out / "params.csv")
    assert {'"gmm"', '"threshold"'} <= set(params["value"])
    record = json.loads((out / "run.json").read_text())
    assert record["parameters"]["methods"]["gmm"]["name"] == "gmm"
    # The label maps that were kept score as they did when they were made.
    again = command("evaluate", cohort / "manifest.csv", "-o", "again", "--predictions", out / "labels" / "gmm")
    assert again.returncode == 0, again.stderr
    assert dice(tmp_path / "again" / "scores.csv").equals(dice(out / "scores.csv").loc[["gmm"]])


def test_label_maps_alone_cannot_be_segmented(command: Command, cohort: Path, tmp_path: Path) -> None:
    table = pd.read_csv(cohort / "manifest.csv", dtype=str)
    table["labels"] = [str(cohort / name) for name in table["labels"]]
    table.drop(columns=["image", "modality"]).to_csv(tmp_path / "maps.csv", index=False)
    assert "maps.csv: no case has an image, only label maps: there is nothing to segment" in refused(
        command, "evaluate", tmp_path / "maps.csv", "-o", "out", "--method", "gmm"
    )


def test_a_method_that_learns_is_fitted_on_folds(command: Command, cohort: Path, tmp_path: Path) -> None:
    manifest = cohort / "manifest.csv"
    assert "'appearance' learns from annotated cases" in refused(
        command, "evaluate", manifest, "-o", "lost", "--method", "appearance"
    )
    result = command(
        "evaluate", manifest, "-o", "out", "--method", "appearance", "--splits", "leave-one-subject-out",
        "--metrics", "dice,asd", "--json", "--quiet",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    assert [row["metric"] for row in printed["summary"]] == ["dice", "asd"]
    scores = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert (scores["fold"] == scores["subject"]).all()
    folds = command("evaluate", manifest, "-o", "two", "--method", "appearance", "--splits", 2, "--quiet")
    assert folds.returncode == 0, folds.stderr
    assert set(pd.read_csv(tmp_path / "two" / "scores.csv")["fold"]) == {1, 2}


def test_cases_to_fit_on_are_not_scored(command: Command, cohort: Path, tmp_path: Path) -> None:
    manifest = cohort / "manifest.csv"
    table = manifest.read_text().splitlines()
    (cohort / "train.csv").write_text("\n".join(table[:3]) + "\n")
    result = command(
        "evaluate", manifest, "-o", "out", "--method", "appearance", "--cases", cohort / "train.csv", "--quiet"
    )
    assert result.returncode == 1
    assert "failed sub-01_mr, appearance: the method was fitted on subject 'sub-01'" in result.stderr
    assert "sub-03_mr" not in result.stderr
    both = ("--cases", cohort / "train.csv", "--splits", 2)
    assert "give either --cases" in refused(command, "evaluate", manifest, "-o", "x", "--method", "gmm", *both)


def test_the_split_column_says_what_is_fitted_on(command: Command, manifest: Path, tmp_path: Path) -> None:
    arguments = ("evaluate", manifest, "-o", "out", "--method", "appearance", "--splits", "manifest")
    assert "no case is in the split 'train'" in refused(command, *arguments)
    table = pd.read_csv(manifest).assign(split=["train", "train", "test", "test"])
    table.to_csv(manifest, index=False)
    assert command(*arguments, "--quiet").returncode == 0
    assert set(pd.read_csv(tmp_path / "out" / "scores.csv")["case_id"]) == {"sub-03_mr", "sub-04_mr"}


def test_a_single_subject_cannot_be_left_out(command: Command, manifest: Path) -> None:
    table = pd.read_csv(manifest).assign(subject="sub-01")
    table.to_csv(manifest, index=False)
    arguments = ("evaluate", manifest, "-o", "out", "--method", "appearance", "--splits")
    assert "leaving one subject out needs two or more subjects; all 4 cases are of subject 'sub-01'" in refused(
        command, *arguments, "leave-one-subject-out"
    )
    assert "--splits is none, leave-one-subject-out, manifest or a number" in refused(command, *arguments, "loso")


def test_a_plan_and_a_composition(command: Command, cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text('[method]\nname = "graphcut"\nsmoothness = 0.3\n')
    manifest = cohort / "manifest.csv"
    plan = ("evaluate", manifest, "-o", "plan", "--plan", "plan.toml", "--set", "sigma=0.0", "--quiet")
    assert command(*plan).returncode == 0
    record = json.loads((tmp_path / "plan" / "run.json").read_text())["parameters"]["methods"]["graphcut"]
    assert (record["smoothness"], record["sigma"]) == (0.3, 0.0)
    behind = ("evaluate", manifest, "-o", "n4", "--method", "threshold", "--translator", "n4", "--quiet")
    assert command(*behind, "--set", "translator__n_iterations=[2]").returncode == 0
    assert set(dice(tmp_path / "n4" / "scores.csv").index.get_level_values(0)) == {"n4 + threshold"}


def test_a_case_that_cannot_be_used_is_named_and_the_others_are_done(
    command: Command, manifest: Path, tmp_path: Path
) -> None:
    (manifest.parent / rows(manifest)[1]["image"]).write_bytes(b"")
    labels = manifest.parent / rows(manifest)[2]["labels"]
    nib.save(nib.Nifti1Image(np.ones((20, 20, 2), np.uint8), np.diag([3.0, 3.0, 6.0, 1.0])), labels)
    change(manifest, labels="")
    result = command("evaluate", manifest, "-o", "out", "--method", "threshold", "--quiet")
    assert result.returncode == 1, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("failed")]
    assert [line.split(":")[0] for line in lines] == [f"failed sub-0{n}_mr, threshold" for n in (1, 2, 3)]
    assert "no reference labels" in lines[0]
    assert "the file is empty" in lines[1] or "empty" in lines[1]
    assert "lies on another grid" in lines[2]
    scores = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert set(scores["case_id"]) == {f"sub-0{n}_mr" for n in (1, 2, 3, 4)}
    assert scores.loc[scores["case_id"] == "sub-04_mr", "status"].eq("ok").all()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "sub-02_mr, threshold" in page


def test_no_case_that_can_be_used_is_a_refusal(command: Command, manifest: Path) -> None:
    for row in rows(manifest):
        (manifest.parent / row["image"]).write_bytes(b"")
    result = command("evaluate", manifest, "-o", "out", "--method", "threshold", "--quiet")
    assert result.returncode == 2
    assert "case" in result.stderr


def test_a_run_in_which_nothing_works_leaves_the_folder_free(command: Command, cohort: Path) -> None:
    manifest = cohort / "manifest.csv"
    arguments = ("evaluate", manifest, "-o", "out", "--method", "appearance")
    line = refused(command, *arguments, "--cases", manifest)
    assert "no case could be scored: sub-01_mr, appearance: the method was fitted on subject 'sub-01'" in line
    result = command(*arguments, "--splits", "leave-one-subject-out", "--quiet")
    assert result.returncode == 0, result.stderr


def test_a_case_that_nobody_annotated_is_in_no_fold(command: Command, manifest: Path, tmp_path: Path) -> None:
    change(manifest, labels="")
    arguments = ("evaluate", manifest, "--method", "appearance", "--splits", "leave-one-subject-out")
    result = command(*arguments, "-o", "out", "--quiet")
    assert result.returncode == 1
    assert "failed sub-01_mr, appearance: case 'sub-01_mr' has no reference labels" in result.stderr
    scores = pd.read_csv(tmp_path / "out" / "scores.csv", keep_default_na=False)
    assert set(scores.loc[scores["status"] == "ok", "case_id"]) == {"sub-02_mr", "sub-03_mr", "sub-04_mr"}
    manifest.write_text(re.sub(r"[^,]*_dseg.nii.gz", "", manifest.read_text()))
    assert "no case can be fitted on: none has a label map" in refused(command, *arguments, "-o", "none")


def test_given_label_maps(command: Command, cohort: Path, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for case in ("sub-01_mr", "sub-02_mr", "sub-03_mr"):
        shutil.copy(cohort / f"{case}_dseg.nii.gz", folder)
    strange = nib.load(folder / "sub-03_mr_dseg.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(strange.dataobj) * 9, strange.affine), folder / "sub-03_mr_dseg.nii.gz")
    arguments = ("evaluate", cohort / "manifest.csv", "-o", "out", "--predictions", "theirs")
    unknown = command(*arguments, "-o", "unknown", "--quiet")
    assert unknown.returncode == 2
    assert "what the ids mean is not known" in unknown.stderr
    result = command(*arguments, "--label-set", "muscle", "--name", "raters", "--quiet")
    assert result.returncode == 1
    assert "failed sub-03_mr, raters" in result.stderr
    assert "label ids [9] do not belong to the set 'muscle'" in result.stderr
    assert "failed sub-04_mr, raters: there is no label map sub-04_mr_dseg.nii.gz" in result.stderr
    scored = dice(tmp_path / "out" / "scores.csv")
    assert scored.loc[("raters", "sub-01_mr")] == "1"


def test_predictions_that_are_nowhere(command: Command, cohort: Path, tmp_path: Path) -> None:
    manifest = cohort / "manifest.csv"
    assert "nowhere: no such folder" in refused(command, "evaluate", manifest, "-o", "o", "--predictions", "nowhere")
    (tmp_path / "empty").mkdir()
    line = refused(command, "evaluate", manifest, "-o", "o", "--predictions", "empty")
    assert "there is a label map for none of the 4 cases" in line
    line = refused(command, "evaluate", manifest, "-o", "o", "--predictions", "empty", "--set", "a=1")
    assert "--predictions scores label maps as they are" in line


def test_usage(command: Command, cohort: Path) -> None:
    manifest = cohort / "manifest.csv"
    assert "give one of --method, --plan and --predictions" in refused(command, "evaluate", manifest, "-o", "o")
    two = ("--method", "gmm", "--method", "threshold", "--set", "hu_low=3")
    assert "--set and --name are for one method" in refused(command, "evaluate", manifest, "-o", "o", *two)
    line = refused(command, "evaluate", manifest, "-o", "o", "--method", "gmm", "--metrics", "dise")
    assert "unknown metric 'dise'; did you mean 'dice'?" in line
    line = refused(command, "evaluate", manifest, "-o", "o", "--method", "graphcut", "--set", "smoothness=-1")
    assert "error: smoothness must be a number of at least 0, not -1" in line


def test_another_run_is_never_mixed_in(command: Command, cohort: Path, tmp_path: Path) -> None:
    manifest = cohort / "manifest.csv"
    arguments = ("evaluate", manifest, "-o", "out", "--metrics", "dice")
    assert command(*arguments, "--method", "threshold", "--quiet").returncode == 0
    kept = (tmp_path / "out" / "scores.csv").read_bytes()
    assert command(*arguments, "--method", "threshold", "--quiet").returncode == 0
    assert "it differs in: methods" in refused(command, *arguments, "--method", "gmm")
    (tmp_path / "plan.toml").write_text('[method]\nname = "gmm"\n')
    line = refused(command, "search", "plan.toml", "--cases", manifest, "-o", "out")
    assert "out holds the results of 'musclekit evaluate'" in line
    assert (tmp_path / "out" / "scores.csv").read_bytes() == kept
