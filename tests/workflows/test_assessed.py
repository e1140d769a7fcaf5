"""Scans segmented by a method that knows its limits: what of it stands in the tables, and labels in another set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from musclekit.errors import LabelError
from musclekit.image import Assessment, Contrast, Grid, LabelMap
from musclekit.io import read_labels, write_image
from musclekit.labels import label_set
from musclekit.neural.cards import SegmenterCard
from musclekit.neural.checkpoint import read_card
from musclekit.neural.windows import CT_WINDOW, MR_WINDOW
from musclekit.phantom import make_case
from musclekit.quantify import measure
from musclekit.segmenters.thigh_trust import ThighTrust
from musclekit.workflows import segment_scans
from musclekit.workflows.numbers import assessed_measures
from tests.tiny_segmenter import tiny_segmenter

CASE = make_case(3, contrasts=(Contrast.CT,), shape=(4, 96, 128), reference="thigh-11-sided")


def tiny_thigh(path: Path, *, accepts: bool) -> dict[str, str]:
    """Write a network for `thigh` that takes every slice, or none; return the method."""
    windows = {Contrast.CT: CT_WINDOW, Contrast.FAT: MR_WINDOW}
    tiny_segmenter(path, "unet-2d", label_set=label_set("thigh-context"), windows=windows)
    trust = ThighTrust(np.zeros(6), 2.0 if accepts else -2.0, np.array([0.0, 1]), np.array([0.0, 1]))
    trust.save(path.with_suffix(".trust.json"), read_card(path, SegmenterCard).weights_sha256)
    return {"name": "thigh", "checkpoint": str(path)}


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.nii.gz"
    write_image(CASE.image, path)
    return path


def test_slices_and_structures_say_how_far_they_are_to_be_trusted() -> None:
    labels = CASE.reference
    assert isinstance(labels, LabelMap)
    accepted = np.array([False, True, True, False])
    seen = labels.with_voxels(np.where(accepted[:, None, None], labels.voxels, 0))
    assessment = Assessment(
        seen, accepted, ("left", "right"), {"sartorius left": 0.9, "gracilis right": float("nan")}, ()
    )
    found = assessed_measures(measure(seen, CASE.image), assessment)
    by_slice = found.slices.set_index(["structure", "side", "slice"])
    assert by_slice.loc[("vastus lateralis", "left", 0), "status"] == "not a thigh"
    assert np.isnan(by_slice.loc[("vastus lateralis", "left", 0), "csa_mm2"])
    assert by_slice.loc[("vastus lateralis", "left", 1), "status"] == "ok"
    expected = found.structures.set_index(["structure", "side"])["expected_dice"]
    assert expected["sartorius", "left"] == 0.9
    assert expected.drop(("sartorius", "left")).isna().all()


def test_a_structure_that_reaches_a_slice_without_a_thigh_is_cut() -> None:
    labels = CASE.reference
    assert isinstance(labels, LabelMap)
    accepted = np.array([False, True, True, True])
    voxels = np.where(accepted[:, None, None], labels.voxels, 0)
    # Nothing in the last slice, where the scan itself ends; the sartorius lies inside.
    voxels[3] = 0
    voxels[1][np.isin(voxels[1], [label.id for label in labels.label_set if label.name == "sartorius"])] = 0
    seen = labels.with_voxels(voxels)
    before = measure(seen, CASE.image)
    assert set(before.structures["status"]) == {"ok"}
    found = assessed_measures(before, Assessment(seen, accepted, ("left", "right"), {}, ()))
    status = found.structures.set_index(["structure", "side"])["status"]
    assert status["vastus lateralis", "left"] == "cut"
    assert status["sartorius", "left"] == "ok"
    asymmetry = found.asymmetry.set_index("structure")["status"]
    assert set(asymmetry["vastus lateralis"]) == {"cut"}
    assert set(asymmetry["sartorius"]) == {"ok"}
    assert found.warnings[-1] == (
        "20 structures reach the first or last slice that shows a thigh: their volumes are lower bounds, compare areas "
        "at one level instead"
    )


@pytest.mark.parametrize("label_set_name", [None, "thigh-11"])
def test_the_leg_that_was_seen_is_the_one_in_the_tables(tmp_path: Path, label_set_name: str | None) -> None:
    # Nothing tells its side but what it looks like: the file knows of no position.
    leg = make_case(3, contrasts=(Contrast.CT,), shape=(16, 96, 96), legs="right").image
    image = replace(leg, grid=Grid.from_spacing(leg.grid.shape, leg.grid.spacing))
    write_image(image, tmp_path / "leg.nii.gz")
    method = tiny_thigh(tmp_path / "tiny.pt", accepts=True)
    batch = segment_scans(
        [tmp_path / "leg.nii.gz"], tmp_path / "out", method=method, contrast=Contrast.CT, label_set_name=label_set_name
    )
    (scan,) = batch.scans
    assert scan.measures is not None
    (side,) = set(scan.measures.structures["side"])
    assert f"it looks like a {side} one" in " ".join(scan.warnings)
    there = scan.measures.structures.query("voxels > 0")
    assert there["csa_mean_corrected_mm2"].notna().all()
    assert not any("the side of the leg is not known" in note for note in scan.warnings)
    eleven = there[there["structure"].isin([label.name for label in label_set("thigh-11")])]
    assert len(eleven)
    assert eleven["expected_dice"].notna().all()


@pytest.mark.parametrize("part", [{"name": "translated", "translator": "n4"}, {"name": "refined", "refiner": "smooth"}])
def test_behind_a_translator_and_before_a_refiner_limits_are_known_too(tmp_path: Path, part: dict[str, str]) -> None:
    fat = make_case(3, contrasts=(Contrast.FAT,), shape=(4, 96, 128)).image
    write_image(fat, tmp_path / "fat.nii.gz")
    method = {**part, "segmenter": tiny_thigh(tmp_path / "tiny.pt", accepts=False)}
    batch = segment_scans([tmp_path / "fat.nii.gz"], tmp_path / "out", method=method, contrast=Contrast.FAT)
    measures = batch.scans[0].measures
    assert measures is not None
    assert set(measures.slices["status"]) == {"not a thigh"}
    assert "expected_dice" in measures.structures.columns


def test_a_scan_without_a_thigh_is_done_and_says_so(scan: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "tiny.pt"
    tiny_thigh(checkpoint, accepts=False)
    batch = segment_scans(
        [scan], tmp_path / "out", method={"name": "thigh", "checkpoint": str(checkpoint)}, contrast=Contrast.CT
    )
    assert any("no slice looks like a thigh: nothing is labelled" in note for note in batch.scans[0].warnings)
    measures = batch.scans[0].measures
    assert measures is not None
    assert set(measures.slices["status"]) == {"not a thigh"}
    assert not read_labels(tmp_path / "out" / "scan_dseg.nii.gz", label_set("thigh-context-sided")).voxels.any()


def test_labels_are_written_in_the_set_asked_for(scan: Path, tmp_path: Path) -> None:
    tissue = {"name": "tissue"}
    own = segment_scans([scan], tmp_path / "own", method=tissue, contrast=Contrast.CT)
    asked = segment_scans([scan], tmp_path / "asked", method=tissue, contrast=Contrast.CT, label_set_name="muscle")
    before = read_labels(tmp_path / "own" / "scan_dseg.nii.gz", label_set("tissue"))
    after = read_labels(tmp_path / "asked" / "scan_dseg.nii.gz", label_set("muscle"))
    assert np.array_equal(after.voxels > 0, before.mask("muscle"))
    assert own.scans[0].measures is not None
    assert asked.scans[0].measures is not None
    assert set(asked.scans[0].measures.structures["structure"]) == {"muscle"}
    assert (tmp_path / "asked" / "scan_dseg.tsv").read_text().count("\n") == 2


def test_a_set_that_the_methods_does_not_lead_to_is_refused_before_the_first_scan(scan: Path, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="no map from 'tissue' to 'thigh-11'"):
        segment_scans(
            [scan], tmp_path / "out", method={"name": "tissue"}, contrast=Contrast.CT, label_set_name="thigh-11"
        )
    assert not (tmp_path / "out" / "report.html").exists()
