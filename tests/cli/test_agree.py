"""`musclekit agree`: automatic and manual volumes of functional groups, side by side."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from musclekit.io import write_label_table
from musclekit.labels import label_set
from musclekit.workflows import write_phantoms
from tests.cli.conftest import Command
from tests.cli.test_search import change, refused
from tests.test_docs import ROOT, blocks

CASES = ("sub-01_ct", "sub-02_ct", "sub-03_ct", "sub-04_ct")


@pytest.fixture(scope="module")
def ct_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people in CT, both legs, and automatic labels that lie one voxel too far back; not to be changed."""
    folder = tmp_path_factory.mktemp("ct")
    write_phantoms(folder, subjects=4, modalities=["ct"], slices=2, size=64, seed=5)
    theirs = folder / "theirs"
    theirs.mkdir()
    for case in CASES:
        known = nib.load(folder / f"{case}_dseg.nii.gz")
        voxels = np.roll(np.asarray(known.dataobj), 1, axis=1)
        nib.save(nib.Nifti1Image(voxels, known.affine, known.header), theirs / f"{case}_dseg.nii.gz")
        shutil.copy(folder / f"{case}_dseg.tsv", theirs)
    return folder


@pytest.fixture
def ct_manifest(ct_cohort: Path, tmp_path: Path) -> Path:
    """A copy of one's own: its manifest."""
    shutil.copytree(ct_cohort, tmp_path / "ct")
    return tmp_path / "ct" / "manifest.csv"


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def test_given_label_maps(command: Command, ct_cohort: Path, tmp_path: Path) -> None:
    arguments = ("agree", ct_cohort / "manifest.csv", "--predictions", ct_cohort / "theirs", "-o", "out")
    result = command(*arguments, "--quiet")
    assert result.returncode == 0, result.stderr
    assert "agreement: out/agreement.csv" in result.stdout
    out = tmp_path / "out"
    volumes = read(out / "volumes.csv")
    assert len(volumes) == 4 * 3 * 2
    assert set(volumes["side"]) == {"left", "right"}
    assert set(volumes["status"]) == {"ok"}
    # Moved labels are as large as they were; what they hold is not.
    np.testing.assert_allclose(volumes["automatic_total_ml"], volumes["reference_total_ml"])
    assert (volumes["automatic_lean_ml"] < volumes["reference_lean_ml"]).mean() > 0.8
    agreement = read(out / "agreement.csv").set_index(["group", "quantity"])
    assert agreement.loc[("flexor", "total_ml"), ["icc_2_1", "bias_ml", "subjects", "pairs"]].tolist() == [1, 0, 4, 8]
    assert agreement.loc[("flexor", "lean_ml"), "bias_ml"] < 0
    overlap = read(out / "overlap.csv")
    assert set(overlap["metric"]) == {"dice", "sensitivity", "specificity", "accuracy"}
    assert overlap.loc[overlap["metric"] == "specificity", "mean"].between(0.5, 0.999).all()
    data = json.loads((out / "report.json").read_text())
    assert [table["title"] for table in data["tables"]] == [
        "Agreement of volumes", "Overlap of the masks", "Every volume",
    ]  # fmt: skip
    assert "Lean volume: adductor" in [figure["title"] for figure in data["figures"]]
    assert len(data["figures"]) == 9
    for file in ("report.json", "evaluation/scores.csv"):
        assert command("validate", out / file).returncode == 0
    assert json.loads((out / "run.json").read_text())["parameters"]["legs"] == "mean"
    kept = (out / "agreement.csv").read_bytes()
    assert command(*arguments, "--quiet").returncode == 0
    assert (out / "agreement.csv").read_bytes() == kept
    assert "it differs in: legs" in refused(command, *arguments, "--legs", "apart")


def test_sets_and_legs_apart_as_json(command: Command, ct_manifest: Path) -> None:
    table = pd.read_csv(ct_manifest).assign(split=["internal", "internal", "internal", "external"])
    table.to_csv(ct_manifest, index=False)
    result = command(
        "agree", ct_manifest, "--predictions", ct_manifest.parent / "theirs", "-o", "out", "--by", "split",
        "--legs", "apart", "--json", "--quiet",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    rows = pd.DataFrame(printed["agreement"]).set_index(["set", "side", "group", "quantity"])
    assert len(rows) == 2 * 2 * 3 * 3
    assert rows.loc[("internal", "left", "extensor", "total_ml"), ["subjects", "pairs"]].tolist() == [3, 3]
    assert np.isnan(float(rows.loc[("external", "left", "extensor", "total_ml"), "icc_2_1"]))
    assert "few persons, 1 where there are fewest" in printed["warnings"][0]
    assert {row["set"] for row in printed["overlap"]} == {"internal", "external"}


def test_a_case_without_prediction_is_a_failed_row(command: Command, ct_manifest: Path, tmp_path: Path) -> None:
    theirs = ct_manifest.parent / "theirs"
    (theirs / "sub-02_ct_dseg.nii.gz").unlink()
    change(ct_manifest, labels="")  # of the first case
    result = command("agree", ct_manifest, "--predictions", theirs, "-o", "out", "--by", "grade", "--quiet")
    assert result.returncode == 1
    assert "failed sub-02_ct, theirs: there is no label map sub-02_ct_dseg.nii.gz" in result.stderr
    assert "failed sub-01_ct, theirs: case 'sub-01_ct' has no reference labels" in result.stderr
    volumes = read(tmp_path / "out" / "volumes.csv").set_index("case_id")
    assert set(volumes.index) == set(CASES)
    assert volumes.loc["sub-02_ct", "status"].str.startswith("failed: there is no label map").all()
    assert set(volumes.loc["sub-02_ct", "set"]) == {"severe"}
    agreement = read(tmp_path / "out" / "agreement.csv")
    assert set(agreement["left_out"]) == {"1 failed"}


def test_a_muscle_that_was_not_found_counts_as_nothing(command: Command, ct_manifest: Path, tmp_path: Path) -> None:
    path = ct_manifest.parent / "theirs" / "sub-03_ct_dseg.nii.gz"
    known = nib.load(path)
    voxels = np.asarray(known.dataobj).copy()
    names = label_set("thigh-full-sided")
    adductors = [label.id for label in names if label.group == "adductor" and label.side == "right"]
    voxels[np.isin(voxels, adductors)] = 0
    nib.save(nib.Nifti1Image(voxels, known.affine, known.header), path)
    result = command("agree", ct_manifest, "--predictions", path.parent, "-o", "out", "--quiet")
    assert result.returncode == 0
    assert "adductor right of sub-03_ct: the automatic labels have none of it, and count as 0 mL" in result.stderr
    volumes = read(tmp_path / "out" / "volumes.csv").set_index(["case_id", "side", "group"])
    missed = volumes.loc[("sub-03_ct", "right", "adductor")]
    assert (missed["status"], missed["automatic_total_ml"], missed["automatic_fat_ml"]) == ("missed", 0, 0)


def test_groups_of_other_muscles_are_noted(command: Command, ct_cohort: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "four"
    theirs.mkdir()
    four, full = label_set("thigh-4"), label_set("thigh-full-sided")
    gracilis = {label.id: four.ids_of("gracilis")[0] for label in full if label.name == "gracilis"}
    for case in CASES:
        known = nib.load(ct_cohort / f"{case}_dseg.nii.gz")
        voxels = np.zeros(known.shape, np.uint8)
        for before, after in gracilis.items():
            voxels[np.asarray(known.dataobj) == before] = after
        nib.save(nib.Nifti1Image(voxels, known.affine), theirs / f"{case}.nii.gz")
        write_label_table(four, theirs / f"{case}.tsv")
    result = command("agree", ct_cohort / "manifest.csv", "--predictions", theirs, "-o", "out", "--quiet")
    assert result.returncode == 0, result.stderr
    assert "adductor: gracilis in the automatic labels, adductor magnus, gracilis in the reference" in result.stderr


def test_a_method_segments_first(command: Command, cohort: Path, tmp_path: Path) -> None:
    result = command(
        "agree", cohort / "manifest.csv", "--method", "threshold", "--groups", "muscle", "-o", "out", "--quiet"
    )
    assert result.returncode == 0, result.stderr
    assert "4 cases have neither CT nor Dixon images, so that only total volumes are told" in result.stderr
    volumes = read(tmp_path / "out" / "volumes.csv")
    assert set(volumes["group"]) == {"muscle"}
    assert sorted(volumes["side"]) == ["left", "left", "right", "right"]
    assert volumes["reference_lean_ml"].isna().all()
    assert set(read(tmp_path / "out" / "agreement.csv")["quantity"]) == {"total_ml"}
    labels = tmp_path / "out" / "evaluation" / "labels" / "threshold"
    again = command(
        "agree", cohort / "manifest.csv", "--predictions", labels, "--groups", "muscle", "-o", "again", "--quiet"
    )
    assert again.returncode == 0
    assert (tmp_path / "again" / "volumes.csv").read_bytes() == (tmp_path / "out" / "volumes.csv").read_bytes()


def test_dixon_images_tell_lean_from_fat(command: Command, tmp_path: Path) -> None:
    manifest = write_phantoms(tmp_path / "dixon", subjects=3, modalities=["dixon"], slices=1, size=64)
    result = command("agree", manifest, "--predictions", manifest.parent, "-o", "out", "--quiet")
    assert result.returncode == 0, result.stderr
    volumes = read(tmp_path / "out" / "volumes.csv")
    parts = volumes["reference_lean_ml"] + volumes["reference_fat_ml"]
    np.testing.assert_allclose(parts, volumes["reference_total_ml"], rtol=1e-3)
    agreement = read(tmp_path / "out" / "agreement.csv")
    assert set(agreement["quantity"]) == {"total_ml", "lean_ml", "fat_ml"}
    assert agreement[["icc_2_1", "icc_3_1"]].eq(1).all(axis=None)
    assert agreement["bias_ml"].eq(0).all()


def test_a_method_that_learns_is_fitted_on_folds(command: Command, cohort: Path, tmp_path: Path) -> None:
    result = command(
        "agree", cohort / "manifest.csv", "--method", "appearance", "--splits", 2, "--groups", "muscle", "-o", "out",
        "--quiet",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert read(tmp_path / "out" / "agreement.csv")["subjects"].tolist() == [4]


def test_usage(command: Command, ct_cohort: Path, tmp_path: Path) -> None:
    manifest, theirs = ct_cohort / "manifest.csv", ct_cohort / "theirs"
    given = ("agree", manifest, "--predictions", theirs, "-o", "o")
    assert "give one of --method and --predictions" in refused(command, "agree", manifest, "-o", "o")
    assert "give one of --method and --predictions" in refused(command, *given, "--method", "gmm")
    assert "--predictions takes label maps as they are" in refused(command, *given, "--splits", 2)
    assert "unknown column 'hospital'" in refused(command, *given, "--by", "hospital")
    assert "the column 'split' is empty" in refused(command, *given, "--by", "split")
    assert "unknown label set 'functional'" in refused(command, *given, "--groups", "functional")
    assert "'functional-3-sided' tells sides apart" in refused(command, *given, "--groups", "functional-3-sided")
    assert "no map from" in refused(command, *given, "--groups", "compartment")
    (tmp_path / "none").mkdir()
    assert "there is a label map for none of the 4 cases" in refused(
        command, "agree", manifest, "--predictions", "none", "-o", "o"
    )
    assert not (tmp_path / "o" / "run.json").exists()


@pytest.mark.slow
def test_the_page_on_volumes_runs_as_it_stands_but_smaller(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = blocks(ROOT / "docs" / "volumes.md")
    lines = [line for language, content in page if language == "sh" for line in content.splitlines()]
    commands = [words[1:] for line in lines if (words := shlex.split(line, comments=True))]
    assert len(commands) >= 3
    for words in commands:
        small = [*words, "--slices", 2, "--size", 64] if words[0] == "phantom" else words
        result = command(*small, "--quiet")
        assert result.returncode == 0, (words, result.stderr)
    (python,) = (content for language, content in page if language == "python")
    monkeypatch.chdir(tmp_path)
    exec(compile(python, "volumes.md", "exec"), {})
