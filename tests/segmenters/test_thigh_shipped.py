"""The weights that ship: phantoms, what is no thigh, headers that lie, and real scans where they are at hand."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from musclekit import registry
from musclekit.image import Case, Contrast, Grid, Image, LabelMap
from musclekit.io import read, read_labels, write_image
from musclekit.labels import label_mapping, label_set
from musclekit.metrics import dice
from musclekit.phantom import SliceRange, draw_slice, leg_planes, make_case, make_thigh, other_regions
from musclekit.phantom.other_regions import SHARES
from musclekit.segmenters.thigh import ThighSegmenter

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

ELEVEN = label_set("thigh-11")


def phantom(contrast: Contrast, legs: str = "both", **settings: object) -> Case:
    """A thigh of which 20 cm are seen."""
    sided = "thigh-11-sided" if legs == "both" else "thigh-11"
    given = {"shape": (20, 150, 224 if legs == "both" else 120), "spacing": (10.0, 1.8, 1.8), "reference": sided}
    return make_case(40, contrasts=(contrast,), legs=legs, **{**given, **settings})  # type: ignore[arg-type]


def mean_dice(found: LabelMap, truth: LabelMap) -> float:
    return float(np.mean([dice(found.mask(muscle.name), truth.mask(muscle.name)) for muscle in ELEVEN]))


@pytest.mark.parametrize(
    "contrast", [Contrast.T1W, Contrast.T2W, Contrast.STIR, Contrast.FAT, Contrast.WATER, Contrast.CT]
)
def test_muscles_are_found_in_every_contrast(contrast: Contrast) -> None:
    case = phantom(contrast)
    found = ThighSegmenter().assess(case.image)
    assert isinstance(case.reference, LabelMap)
    assert found.accepted.mean() > 0.8
    assert mean_dice(found.labels, case.reference) > 0.75
    assert not any("seem" in note for note in found.notes)


def test_a_file_with_other_axes_gets_the_same_labels(tmp_path: Path) -> None:
    image = phantom(Contrast.T1W).image
    write_image(image, tmp_path / "ras.nii.gz")
    there = nib.load(tmp_path / "ras.nii.gz")
    turned = nib.as_closest_canonical(there).as_reoriented(nib.orientations.axcodes2ornt(("S", "P", "L")))
    nib.save(turned, tmp_path / "spl.nii.gz")
    one, other = (
        ThighSegmenter().segment(read(tmp_path / f"{name}.nii.gz", contrast=Contrast.T1W)) for name in ("ras", "spl")
    )
    assert np.array_equal(one.voxels, other.voxels)


def test_a_scan_on_its_head_is_told_of() -> None:
    image = phantom(Contrast.T1W).image
    found = ThighSegmenter().assess(image.with_voxels(image.voxels[::-1]))
    assert any("stand on its head" in note for note in found.notes)


@pytest.mark.parametrize("legs", ["both", "left"])
def test_a_scan_on_its_belly_is_told_of(legs: str) -> None:
    image = phantom(Contrast.T1W, legs=legs).image
    found = ThighSegmenter().assess(image.with_voxels(image.voxels[:, ::-1]))
    assert any("front and back seem to be exchanged" in note for note in found.notes)


def test_the_side_of_a_leg_is_seen() -> None:
    image = phantom(Contrast.CT, legs="right").image
    alone = ThighSegmenter().assess(image)
    assert set(np.unique(alone.labels.voxels)) <= {0, *range(2, 33, 2)}
    wrong = ThighSegmenter(side="left").assess(image)
    assert any("looks more like a right one" in note for note in wrong.notes)


@pytest.mark.parametrize("kind", range(len(SHARES)), ids=["knee", "calf", "hip", "belly", "anything"])
def test_what_is_no_thigh_has_no_labels(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Drawn as in training: of real knees, calves and hips docs/results_any_contrast.md tells.
    monkeypatch.setattr(other_regions, "SHARES", np.eye(len(SHARES))[kind])
    legs = leg_planes(make_thigh(2, shape=(6, 160, 160)).labels, "p")
    rng = np.random.default_rng(11)
    how = SliceRange(size=112, other_region=1, mass=0, cropped=0, neighbour=0, metal=0)
    accepted = []
    for _ in range(4):
        plane = draw_slice(legs, rng, how).image
        image = Image(np.stack([plane] * 5) + 1, Grid.from_spacing((5, 112, 112), (8.0, 2.0, 2.0)), Contrast.MR)
        accepted.append(ThighSegmenter(side="right").assess(image).accepted.mean())
    assert np.mean(accepted) < 0.3


def test_any_translator_and_refiner_can_stand_beside_it() -> None:
    case = phantom(Contrast.T1W)
    translated = registry.build(
        "translated", translator="n4", segmenter={"name": "refined", "segmenter": "thigh", "refiner": "smooth"}
    )
    cut = registry.build("graphcut", unary={"name": "thigh", "labels": "muscle"})
    assert isinstance(case.reference, LabelMap)
    assert mean_dice(translated.segment(case.image), case.reference) > 0.7
    assert dice(cut.segment(case.image).mask(), case.reference.mask()) > 0.8


@pytest.mark.parametrize(
    ("person", "contrast", "least"), [("001", "fat", 0.82), ("003", "fat", 0.88), ("003", "water", 0.88)]
)
def test_muscle_of_real_people_is_found(shared_data: Path, person: str, contrast: str, least: float) -> None:
    image = read(shared_data / "huashan" / f"Thigh_{person}_{contrast}.nii.gz", contrast=Contrast(contrast))
    truth = read_labels(shared_data / "huashan" / f"Thigh_{person}_dseg.nii.gz", label_set("huashan-11"))
    found = ThighSegmenter(labels="huashan-11").segment(image)
    mapping = label_mapping(truth.label_set, found.label_set)
    mine, theirs = found.mask(), truth.mapped(mapping).mask()
    shown = np.flatnonzero(theirs.any(axis=(1, 2)))
    assert np.median([dice(mine[z], theirs[z]) for z in shown]) > least


def test_the_pelvis_of_a_real_person_has_no_labels(shared_data: Path) -> None:
    image = read(shared_data / "qmritools" / "station_7.nii.gz", contrast=Contrast.MR)
    found = ThighSegmenter().assess(image)
    assert not found.accepted[14:].any()
    assert found.accepted[:4].all()
