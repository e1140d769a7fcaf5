from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from tests.cli.conftest import Command

FILES = {
    "thigh_dseg.nii.gz",
    "thigh_dseg.tsv",
    "thigh_measures.csv",
    "thigh_slices.csv",
    "thigh_measures.json",
    "thigh_qc.png",
    "measures.csv",
    "report.html",
    "report.json",
    "run.json",
}


def test_one_scan_gives_masks_numbers_pictures_and_a_report(command: Command, ct_scan: Path, tmp_path: Path) -> None:
    result = command("segment", ct_scan, "-o", "out", "--method", "tissue")
    assert result.returncode == 0, result.stderr
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == FILES
    assert "report: out/report.html" in result.stdout
    labels, scan = nib.load(out / "thigh_dseg.nii.gz"), nib.load(ct_scan)
    assert labels.shape == scan.shape
    assert np.array_equal(labels.affine, scan.affine)
    assert set(np.unique(np.asarray(labels.dataobj))) <= set(range(6))
    measures = pd.read_csv(out / "thigh_measures.csv")
    muscle = measures[measures["structure"] == "muscle"].iloc[0]
    # The ring of the example: 0.2 to 0.78 of a radius of 0.42 * 192 mm, four slices of 6 mm.
    expected_ml = np.pi * (0.42 * 192) ** 2 * (0.78**2 - 0.2**2) * 24 / 1000
    assert abs(muscle["volume_ml"] - expected_ml) < 0.1 * expected_ml
    assert 50 < muscle["hu_median"] < 60
    record = json.loads((out / "run.json").read_text())
    assert record["parameters"]["method"]["name"] == "tissue"
    assert record["inputs"][0]["status"] == "done"
    assert record["device"] == "cpu"
    assert len(record["inputs"][0]["sha256"]) == 64


def test_the_same_command_twice_gives_the_same_bytes(command: Command, ct_scan: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        assert command("segment", ct_scan, "-o", folder, "--method", "tissue").returncode == 0
    for name in FILES - {"run.json"}:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_a_batch_names_what_failed_and_finishes_the_rest(
    command: Command, ct_scan: Path, mr_scan: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"")
    result = command("segment", ct_scan, bad, mr_scan, "-o", "out", "--jobs", 2, "--method", "tissue")
    assert result.returncode == 1, result.stderr
    assert "failed bad: " in result.stderr
    assert "empty" in result.stderr
    assert (tmp_path / "out" / "thigh" / "thigh_dseg.nii.gz").is_file()
    assert (tmp_path / "out" / "thigh_t1" / "thigh_t1_dseg.nii.gz").is_file()
    assert not (tmp_path / "out" / "bad").exists()
    statuses = [item["status"] for item in json.loads((tmp_path / "out" / "run.json").read_text())["inputs"]]
    assert statuses == ["done", "failed", "done"]
    everything = pd.read_csv(tmp_path / "out" / "measures.csv")
    assert list(everything["scan"].unique()) == ["thigh", "bad", "thigh_t1"]
    assert everything[everything["scan"] == "bad"]["status"].tolist() == ["failed"]
    assert "bad" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_folder_stands_for_its_scans_and_label_maps_are_passed_over(
    command: Command, ct_scan: Path, tmp_path: Path
) -> None:
    assert command("segment", ct_scan, "-o", tmp_path / "scans", "--method", "tissue").returncode == 0
    (tmp_path / "scans" / "copy.nii.gz").write_bytes(ct_scan.read_bytes())
    result = command("segment", tmp_path / "scans", "-o", "out", "--json", "--quiet", "--method", "tissue")
    assert result.returncode == 0, result.stderr
    assert [scan["name"] for scan in json.loads(result.stdout)["scans"]] == ["copy"]


def test_a_translator_feeds_the_segmenter(command: Command, mr_scan: Path, tmp_path: Path) -> None:
    result = command(
        "segment", mr_scan, "-o", "out", "--method", "gmm", "--translator", "n4",
        "--set", "translator__n_iterations=[5]", "--modality", "t1w",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    method = json.loads((tmp_path / "out" / "run.json").read_text())["parameters"]["method"]
    assert method["name"] == "translated"
    assert method["translator"] == {"name": "n4", "spline_mm": 150.0, "n_iterations": [5]}
    assert method["segmenter"]["name"] == "gmm"


def test_a_given_side_stands_in_the_table(command: Command, ct_scan: Path, tmp_path: Path) -> None:
    assert command("segment", ct_scan, "-o", "out", "--side", "left", "--method", "tissue").returncode == 0
    measures = pd.read_csv(tmp_path / "out" / "thigh_measures.csv")
    assert set(measures["side"].dropna()) == {"left"}


def test_a_path_that_leads_to_no_scan_is_named_and_the_others_finish(
    command: Command, ct_scan: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    result = command("segment", ct_scan, "nowhere.nii.gz", "empty", "-o", "out", "--quiet", "--method", "tissue")
    assert result.returncode == 1, result.stderr
    assert "failed nowhere.nii.gz: nowhere.nii.gz: no such file or folder" in result.stderr
    assert "failed empty: empty: the folder holds no scan" in result.stderr
    assert (tmp_path / "out" / "thigh" / "thigh_dseg.nii.gz").is_file()


def test_names_are_printed_as_they_are_on_one_line_each(command: Command, ct_scan: Path, tmp_path: Path) -> None:
    odd = tmp_path / f"a[red]b[bold] {'long ' * 30}.nii.gz"
    odd.write_bytes(ct_scan.read_bytes()[:100])
    result = command("segment", ct_scan, odd, "-o", "out", "--method", "tissue")
    assert result.returncode == 1
    failures = [line for line in result.stderr.splitlines() if line.startswith("failed ")]
    assert len(failures) == 1
    assert "a[red]b[bold] long long" in failures[0]


def test_a_message_names_its_scan(command: Command, tmp_path: Path, ct_scan: Path) -> None:
    image = nib.load(ct_scan)
    flat = nib.Nifti1Image(np.full(image.shape, 40, np.float32), image.affine)
    nib.save(flat, tmp_path / "flat.nii.gz")
    result = command("segment", "flat.nii.gz", "-o", "out", "--modality", "mr", "--quiet", "--method", "tissue")
    assert result.returncode == 2
    assert result.stderr.startswith("error: flat.nii.gz: the image is constant")


def test_a_method_that_learns_is_fitted_on_the_cases_first(
    command: Command, cohort: Path, mr_scan: Path, tmp_path: Path
) -> None:
    scan, options = cohort / "sub-01_t1w.nii.gz", ("-o", "out", "--method", "spgc", "--modality", "t1w", "--quiet")
    without = command("segment", scan, *options)
    assert without.returncode == 2
    assert "'spgc' needs annotated cases" in without.stderr
    assert "--cases" in without.stderr
    assert not (tmp_path / "out").exists()
    result = command("segment", scan, *options, "--cases", cohort / "manifest.csv")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "sub-01_t1w_dseg.nii.gz").is_file()
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["parameters"]["cases"].endswith("manifest.csv")
    batch = command("segment", scan, mr_scan, *options, "--cases", cohort / "manifest.csv", "--jobs", 2)
    assert "sub-01_t1w: out" in batch.stdout, batch.stderr + batch.stdout
    assert (tmp_path / "out" / "sub-01_t1w" / "sub-01_t1w_dseg.nii.gz").is_file()


def test_cases_without_label_maps_cannot_be_learnt_from(command: Command, cohort: Path, tmp_path: Path) -> None:
    (cohort / "bare.csv").write_text("case_id,subject,image\na,a,sub-01_t1w.nii.gz\n")
    result = command(
        "segment", cohort / "sub-02_t1w.nii.gz", "-o", "out", "--method", "appearance", "--cases", cohort / "bare.csv"
    )
    assert result.returncode == 2
    assert "case 'a' has no label map; annotated cases are needed" in result.stderr
