from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from musclekit.errors import GeometryError, InputError, ParameterError, SchemaError, UnknownNameError
from musclekit.evaluation.scores import COLUMNS, write_scores
from musclekit.image import Grid, LabelMap
from musclekit.io import write_label_table, write_labels
from musclekit.labels import label_set
from musclekit.workflows import compare_scores, open_cases, summarise_scores, write_phantoms
from musclekit.workflows.score_report import failures_of, volume_pairs
from musclekit.workflows.summarise import agreement, kept_labels, read_score_tables

REFERENCE_ML = {"sub-01_mr": 100.0, "sub-02_mr": 200.0, "sub-03_mr": 150.0}


def table(method: str = "gmm", dice: tuple[float, ...] = (0.9, 0.6, 0.8), params: str = "a" * 10) -> pd.DataFrame:
    """Three cases; the volume is 10 mL too large in each."""
    rows = []
    for (case, ml), value in zip(REFERENCE_ML.items(), dice, strict=True):
        key = {"case_id": case, "subject": case[:6], "side": "left", "slice": None, "fold": "", "method": method}
        key |= {"params_id": params, "label": "muscle"}
        status = "failed: nothing found" if np.isnan(value) else "ok"
        found = np.nan if np.isnan(value) else ml + 10
        rows += [
            {**key, "metric": "dice", "value": value, "unit": "", "status": status},
            {**key, "metric": "volume", "value": found, "unit": "ml", "status": status},
            {**key, "metric": "reference_volume", "value": ml, "unit": "ml", "status": "ok"},
        ]
    return pd.DataFrame(rows).astype({"slice": "Int64"})[list(COLUMNS)]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    return write_phantoms(
        folder, subjects=3, slices=2, size=48, leg="alternate", reference="muscle", grades=("healthy", "severe")
    )


def test_tables_and_figures_are_written(tmp_path: Path) -> None:
    write_scores(table(), tmp_path / "one" / "scores.csv")
    write_scores(table("spgc", (0.95, 0.85, np.nan)), tmp_path / "two" / "scores.csv")
    seen: list[tuple[float, float, str]] = []
    result = summarise_scores(
        [tmp_path / "one", tmp_path / "two" / "scores.csv"], tmp_path / "out", progress=lambda *step: seen.append(step)
    )
    out = tmp_path / "out"
    assert result.table.to_dict("records") == [
        {"method": "gmm", "structure": "muscle", "median (quartiles)": "0.800 (0.700–0.850), n 3"},
        {"method": "spgc", "structure": "muscle", "median (quartiles)": "0.900 (0.875–0.925), n 2, 1 failed"},
    ]
    assert "| gmm | muscle | 0.800 (0.700–0.850), n 3 |" in (out / "table.md").read_text()
    assert "gmm & muscle & 0.800 (0.700--0.850), n 3 \\\\" in (out / "table.tex").read_text()
    assert pd.read_csv(out / "summary.csv").set_index(["method", "metric"]).loc[("spgc", "dice"), "failed"] == 1
    assert {path.name for path in (out / "figures").iterdir()} == {"boxplot_dice.svg", "bland_altman_muscle.svg"}
    data = json.loads((out / "report.json").read_text())
    assert data["failures"] == [{"name": "sub-03_mr, spgc", "message": "nothing found"}]
    tables = {table["title"]: table for table in data["tables"]}
    # Three volumes, each 10 mL too large; spgc has two.
    row = ["gmm", "muscle", 3, 3, *["+10.0 (+10.0 to +10.0)"] * 3, 0]
    assert tables["Agreement of volumes"]["rows"] == [row]
    assert "gmm +10 (+10 to +10)" in data["figures"][1]["alt"]
    assert "1 of 6 pairs lack a number" in data["figures"][1]["caption"]
    assert seen[0][0] == 0
    assert seen[-1][:2] == (seen[0][1], seen[0][1])
    assert [step[0] for step in seen] == sorted(step[0] for step in seen)


def test_cases_are_parted_by_a_column_of_the_manifest(tmp_path: Path, manifest: Path) -> None:
    write_scores(table(), tmp_path / "scores.csv")
    result = summarise_scores([tmp_path / "scores.csv"], tmp_path / "out", manifest=manifest, by="grade")
    (row,) = result.table.to_dict("records")
    assert row["healthy"] == "0.850 (0.825–0.875), n 2"
    assert row["severe"] == "0.600 (0.600–0.600), n 1"


def test_best_median_and_worst_case_are_drawn(tmp_path: Path, manifest: Path) -> None:
    write_scores(table(), tmp_path / "run" / "scores.csv")
    cases = open_cases(manifest)
    for case in cases:
        assert case.reference is not None
        path = kept_labels(tmp_path / "run" / "scores.csv", "gmm", case.id)
        write_labels(case.reference, path)
        write_label_table(case.reference.label_set, path.with_name(f"{case.id}_dseg.tsv"))
    result = summarise_scores([tmp_path / "run"], tmp_path / "out", manifest=manifest)
    assert result.warnings == ()
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    shown = {scan["name"]: scan["details"] for scan in data["scans"]}
    assert shown == {
        "gmm: worst case": {"case": "sub-02_mr", "Dice": "0.600", "structure": "muscle"},
        "gmm: median case": {"case": "sub-03_mr", "Dice": "0.800", "structure": "muscle"},
        "gmm: best case": {"case": "sub-01_mr", "Dice": "0.900", "structure": "muscle"},
    }
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/jpeg") == 3


def test_what_is_not_drawn_is_said(tmp_path: Path, manifest: Path) -> None:
    write_scores(table(), tmp_path / "scores.csv")
    without = summarise_scores([tmp_path / "scores.csv"], tmp_path / "out")
    assert without.warnings == ("no pictures of cases: they need the manifest (--manifest)",)
    lost = summarise_scores([tmp_path / "scores.csv"], tmp_path / "out", manifest=manifest)
    assert "gmm: no pictures of sub-02_mr, sub-03_mr, sub-01_mr: their label maps were not kept" in lost.warnings[0]
    dice = table()[lambda rows: rows["metric"] == "dice"]
    write_scores(dice, tmp_path / "scores.csv")
    volumes = summarise_scores([tmp_path / "scores.csv"], tmp_path / "out")
    assert "the tables have no volumes: there is no Bland-Altman figure" in volumes.warnings
    write_scores(dice.assign(value=np.nan, status="undefined"), tmp_path / "scores.csv")
    nothing = summarise_scores([tmp_path / "scores.csv"], tmp_path / "out")
    assert nothing.warnings[0].startswith("dice: no score is a finite number (3 undefined (both masks empty))")


def test_names_that_do_not_exist_are_answered_with_those_that_do(tmp_path: Path, manifest: Path) -> None:
    path = tmp_path / "scores.csv"
    write_scores(table(), path)
    with pytest.raises(UnknownNameError, match=r"unknown metric 'asd'.*Known: dice"):
        summarise_scores([path], tmp_path / "out", metric="asd")
    with pytest.raises(UnknownNameError, match=r"unknown structure 'bone'.*Known: muscle"):
        summarise_scores([path], tmp_path / "out", label="bone")
    with pytest.raises(ParameterError, match=r"has no column 'grade'.*A column of the manifest needs the manifest"):
        summarise_scores([path], tmp_path / "out", by="grade")
    with pytest.raises(UnknownNameError, match="unknown column 'grad'; did you mean 'grade'"):
        summarise_scores([path], tmp_path / "out", by="grad", manifest=manifest)
    other = table().assign(case_id=lambda rows: rows["case_id"].str.replace("sub-01", "sub-99"))
    write_scores(other, path)
    with pytest.raises(SchemaError, match="the scores are of other cases too: sub-99_mr"):
        summarise_scores([path], tmp_path / "out", by="grade", manifest=manifest)
    with pytest.raises(InputError, match="no score table was given"):
        summarise_scores([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_name_with_other_parameters_is_told_apart(tmp_path: Path) -> None:
    write_scores(table(), tmp_path / "one" / "scores.csv")
    write_scores(table(params="b" * 10), tmp_path / "two" / "scores.csv")
    both = read_score_tables([tmp_path / "one", tmp_path / "two"])
    assert set(both["method"]) == {"gmm [one]", "gmm [two]"}
    write_scores(table(), tmp_path / "two" / "scores.csv")
    with pytest.raises(InputError, match=r"case 'sub-01_mr' is scored with 'gmm' twice, in .*one.* and .*two"):
        read_score_tables([tmp_path / "one", tmp_path / "two"])


def test_a_case_that_could_not_be_read_is_a_failure() -> None:
    rows = table("gmm", (np.nan, 0.6, 0.8))
    assert [failure.name for failure in failures_of(rows)] == ["sub-01_mr, gmm"]


def test_volumes_are_paired_case_by_case() -> None:
    pairs = volume_pairs(pd.concat([table(), table("spgc", (0.9, np.nan, 0.9))]), "muscle")
    assert len(pairs) == 6
    assert (pairs["prediction"] - pairs["reference"]).dropna().eq(10).all()
    assert pairs["prediction"].isna().sum() == 1


def test_agreement_has_three_kinds_of_voxels() -> None:
    grid = Grid((1, 2, 3), np.diag([1.0, 1.0, 1.0, 1.0]))
    tissue = label_set("functional-3")
    found = LabelMap([[[1, 1, 0], [2, 0, 3]]], grid, tissue)
    wanted = LabelMap([[[1, 0, 1], [3, 0, 3]]], grid, tissue)
    assert agreement(found, wanted).voxels.tolist() == [[[1, 3, 2], [2, 0, 1]]]


def test_label_maps_on_two_grids_do_not_agree() -> None:
    grids = Grid((1, 1, 2), np.eye(4)), Grid((1, 1, 3), np.eye(4))
    found, wanted = (LabelMap(np.zeros(grid.shape, np.uint8), grid, label_set("muscle")) for grid in grids)
    with pytest.raises(GeometryError, match="prediction and reference lie on two grids: shapes"):
        agreement(found, wanted)


def test_a_picture_that_cannot_be_drawn_is_a_warning(tmp_path: Path, manifest: Path) -> None:
    write_scores(table(), tmp_path / "scores.csv")
    for case in REFERENCE_ML:  # label maps of other cases that go by the same names
        labels = LabelMap(np.ones((1, 4, 4), np.uint8), Grid((1, 4, 4), np.eye(4)), label_set("muscle"))
        write_labels(labels, tmp_path / "labels" / "gmm" / f"{case}_dseg.nii.gz")
        write_label_table(labels.label_set, tmp_path / "labels" / "gmm" / f"{case}_dseg.tsv")
    result = summarise_scores([tmp_path], tmp_path / "out", manifest=manifest)
    assert sum("prediction and reference lie on two grids" in warning for warning in result.warnings) == 3


def test_the_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    write_scores(table(), tmp_path / "scores.csv")
    (tmp_path / "run.json").write_text(json.dumps({"command": "search", "parameters": {}}))
    with pytest.raises(InputError, match="holds the results of 'musclekit search'"):
        summarise_scores([tmp_path], tmp_path)
    with pytest.raises(InputError, match="holds the results of 'musclekit search'"):
        compare_scores([tmp_path], tmp_path)
