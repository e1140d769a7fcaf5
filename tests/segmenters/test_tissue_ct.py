from __future__ import annotations

import runpy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from musclekit.anatomy import body_mask, split_legs
from musclekit.errors import ModalityError, ParameterError, SegmentationError, VoxelError
from musclekit.image import Case, Contrast, Grid, Image
from musclekit.labels import label_set
from musclekit.phantom import make_thigh, render
from musclekit.segmenters.tissue import TissueSegmenter
from musclekit.segmenters.tissue_ct import bone_mask, compartment_mask, ct_tissues

IDS = {label.name: label.id for label in label_set("tissue")}
MUSCLE, CORTEX, MARROW = IDS["muscle"], IDS["cortical bone"], IDS["marrow"]
SUBCUTANEOUS, INTERMUSCULAR = IDS["subcutaneous fat"], IDS["intermuscular fat"]


@dataclass
class Leg:
    """A drawn cross-section, in HU without noise, and where things are in it."""

    hu: NDArray[np.float32]
    compartment: NDArray[np.bool_]
    bone: NDArray[np.bool_]
    marrow: NDArray[np.bool_]

    def image(self, spacing: tuple[float, float, float] = (5, 1, 1), noise: float = 15.0, planes: int = 1) -> Image:
        hu = np.repeat(self.hu[None], planes, axis=0)
        hu = hu + np.random.default_rng(0).normal(0, noise, hu.shape)
        return Image(hu, Grid.from_spacing(hu.shape, spacing), Contrast.CT)


def ring(
    shape: tuple[int, int] = (200, 200),
    *,
    pixel: tuple[float, float] = (1.0, 1.0),
    centre: tuple[float, float] = (100.0, 100.0),
    muscle: float = 50.0,
    leg_mm: float = 85.0,
) -> Leg:
    """Skin, fat, muscle with a seam of fat across it, femur with cortex and marrow."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    y, x = y * pixel[0] - centre[0], x * pixel[1] - centre[1]
    r = np.hypot(y, x)
    hu = np.full(shape, -1000.0, dtype=np.float32)
    hu[r < leg_mm] = 10
    hu[r < leg_mm - 2] = -100
    hu[r < 60] = muscle
    hu[(r < 60) & (np.abs(y - 30) < 2)] = -100
    hu[r < 14] = 1200
    hu[r < 7] = -60
    return Leg(hu, (r < 60) & (r >= 14), r < 14, r < 7)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def parts(voxels: NDArray[np.unsignedinteger]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Compartment and bone."""
    return np.isin(voxels, (MUSCLE, INTERMUSCULAR)), np.isin(voxels, (CORTEX, MARROW))


def test_the_tissues_of_a_ring_are_found_and_bone_is_no_compartment() -> None:
    leg = ring()
    found = TissueSegmenter().segment(leg.image()).voxels[0]
    compartment, bone = parts(found)
    assert dice(compartment, leg.compartment) > 0.98
    assert dice(bone, leg.bone) > 0.97
    assert dice(found == MARROW, leg.marrow) > 0.9
    assert not (compartment & leg.bone).any()
    seam = leg.compartment & (leg.hu == -100)
    assert (found[seam] == INTERMUSCULAR).mean() > 0.8
    assert (found[leg.compartment & ~seam] == MUSCLE).mean() > 0.97
    y, x = np.mgrid[:200, :200]
    r = np.hypot(y - 100, x - 100)
    assert (found[(r > 62) & (r < 81)] == SUBCUTANEOUS).all()
    assert not found[r > 84].any(), "skin and air have no label"


@pytest.mark.parametrize("noise", [0, 30, 45])
def test_noise_of_a_low_dose_scan_is_borne(noise: float) -> None:
    leg = ring()
    compartment, bone = parts(TissueSegmenter().segment(leg.image(noise=noise, planes=3)).voxels[1])
    assert dice(compartment, leg.compartment) > 0.97
    assert dice(bone, leg.bone) > 0.95


@pytest.mark.parametrize("pixel", [(0.35, 0.35), (0.7, 1.0), (1.0, 2.0), (3.0, 3.0)])
def test_any_pixel_size_gives_the_same_leg(pixel: tuple[float, float]) -> None:
    shape = (int(200 / pixel[0]), int(200 / pixel[1]))
    leg = ring(shape, pixel=pixel)
    found = TissueSegmenter().segment(leg.image((8.0, *pixel), planes=2))
    compartment, bone = parts(found.voxels[0])
    assert found.voxels.shape == (2, *shape)
    assert dice(compartment, leg.compartment) > (0.97 if max(pixel) <= 1 else 0.93)
    assert dice(bone, leg.bone) > (0.95 if max(pixel) <= 1 else 0.8)


def test_two_legs_that_touch_are_both_found() -> None:
    left, right = ring((200, 360), centre=(100, 90)), ring((200, 360), centre=(100, 261))
    hu = np.maximum(left.hu, right.hu)
    image = Image(np.repeat(hu[None], 4, axis=0), Grid.from_spacing((4, 200, 360), (5, 1, 1)), Contrast.CT)
    compartment, bone = parts(TissueSegmenter().segment(image).voxels[2])
    assert dice(compartment, left.compartment | right.compartment) > 0.98
    assert dice(bone, left.bone | right.bone) > 0.97


def test_skin_between_pressed_legs_is_no_muscle() -> None:
    hu = np.full((1, 120, 240), -100.0, dtype=np.float32)
    hu[:, :, :60] = hu[:, :, 180:] = 50
    hu[:, :, 118:122] = 20
    body = np.ones(hu.shape, dtype=bool)
    legs = np.ones(hu.shape, dtype=np.uint8)
    legs[:, :, 120:] = 2
    image = Image(hu, Grid.from_spacing(hu.shape, (5, 1, 1)), Contrast.CT)
    compartment, _ = parts(ct_tissues(image, body, legs)[0])
    assert not compartment[:, 70:170].any()
    assert compartment[:, :55].all()


@pytest.mark.parametrize("cut", [np.s_[:, 90:], np.s_[:, :110], np.s_[95:, :], np.s_[40:160, 40:160]])
def test_a_leg_cut_by_the_field_of_view_keeps_its_contour_to_the_edge(cut: tuple[slice, slice]) -> None:
    whole = ring()
    leg = Leg(whole.hu[cut], whole.compartment[cut], whole.bone[cut], whole.marrow[cut])
    image = leg.image(planes=2)
    # Cut so tightly there is neither air nor skin: the body is all there is.
    body = image.voxels > -500
    found = ct_tissues(image, body, body.astype(np.uint8))[0]
    compartment, bone = parts(found)
    assert dice(compartment, leg.compartment) > 0.97
    assert dice(bone, leg.bone) > 0.95


def test_marrow_of_a_shaft_cut_in_two_is_marrow() -> None:
    whole = ring()
    image = Leg(whole.hu[:, 100:], whole.compartment, whole.bone, whole.marrow).image()
    found = TissueSegmenter().segment(image).voxels[0]
    assert (found[whole.marrow[:, 100:]] == MARROW).mean() > 0.8


def test_a_deep_pocket_that_opens_to_the_skin_elsewhere_is_subcutaneous_and_a_closed_one_is_not() -> None:
    leg = ring()
    hu = np.repeat(leg.hu[None], 5, axis=0)
    y, x = np.mgrid[:200, :200]
    pocket = np.hypot(y - 60, x - 100) < 12
    open_, closed = hu.copy(), hu.copy()
    open_[:, pocket] = closed[:, pocket] = -100
    open_[0, :60, 88:112][open_[0, :60, 88:112] > 0] = -100
    ids = []
    for voxels in (open_, closed):
        image = Image(voxels, Grid.from_spacing(voxels.shape, (5, 1, 1)), Contrast.CT)
        ids.append(int(TissueSegmenter().segment(image).voxels[3, 60, 100]))
    assert ids == [SUBCUTANEOUS, INTERMUSCULAR]


def test_a_vessel_in_the_fat_is_no_compartment() -> None:
    leg = ring()
    y, x = np.mgrid[:200, :200]
    vessel = np.hypot(y - 100, x - 173) < 2.5
    leg.hu[vessel] = 40
    found = TissueSegmenter().segment(leg.image()).voxels[0]
    assert (found[vessel] == SUBCUTANEOUS).all()


def test_contrast_medium_and_calcifications_are_no_bone_and_stay_in_the_compartment() -> None:
    leg = ring()
    y, x = np.mgrid[:200, :200]
    artery, calcification = np.hypot(y - 140, x - 100) < 6, np.hypot(y - 70, x - 70) < 2.5
    leg.hu[artery], leg.hu[calcification] = 380, 500
    compartment, bone = parts(TissueSegmenter().segment(leg.image(planes=4)).voxels[2])
    assert not bone[artery].any()
    assert not bone[calcification].any()
    assert compartment[artery & leg.compartment].all()


def test_an_implant_has_no_label_and_its_streaks_do_not_spoil_the_leg() -> None:
    leg = ring()
    clean = leg.compartment.copy()
    leg.hu[92:108, 60:72] = 3000
    for row in (88, 112):
        leg.hu[row : row + 2, 20:180] += np.where(leg.hu[row : row + 2, 20:180] > -500, -150, 0)
    leg.hu[98:102, 130:180] += np.where(leg.hu[98:102, 130:180] > -500, 250, 0)
    found = TissueSegmenter().segment(leg.image(planes=3)).voxels[1]
    compartment, bone = parts(found)
    assert not found[93:107, 61:71].any()
    clean[92:108, 60:72] = False
    assert dice(compartment, clean) > 0.93
    assert bone[leg.bone].mean() > 0.95


def test_fat_without_muscle_or_bone_is_subcutaneous() -> None:
    leg = ring()
    leg.hu[leg.hu > 0] = -100
    found = TissueSegmenter().segment(leg.image()).voxels[0]
    assert set(np.unique(found)) == {0, SUBCUTANEOUS}


def test_muscle_to_the_skin_is_compartment() -> None:
    leg = ring(leg_mm=62.0)
    compartment, _ = parts(TissueSegmenter().segment(leg.image()).voxels[0])
    assert dice(compartment, leg.compartment) > 0.97


@pytest.mark.parametrize(("grade", "least"), [("healthy", 0.98), ("moderate", 0.95), ("severe", 0.95)])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_compartment_of_a_phantom_is_found_however_infiltrated(grade: str, least: float, seed: int) -> None:
    phantom = make_thigh(seed, grade=grade, shape=(3, 256, 400), spacing=(10, 1, 1))  # type: ignore[arg-type]
    found = TissueSegmenter().segment(render(phantom, Contrast.CT)).voxels
    truth = phantom.reference("compartment").voxels
    compartment, bone = parts(found)
    assert dice(compartment, truth == 1) >= least
    assert dice(bone, truth == 2) >= 0.9


def test_an_empty_body_gives_no_label() -> None:
    image = ring().image()
    nothing = np.zeros(image.voxels.shape, dtype=bool)
    assert not ct_tissues(image, nothing, nothing.astype(np.uint8)).any()
    assert not bone_mask(image.voxels, nothing, (5, 1, 1)).any()
    assert not compartment_mask(image.voxels, nothing, nothing, (5, 1, 1)).any()


def test_the_image_is_left_alone_and_the_answer_is_the_same_again() -> None:
    image = ring().image(planes=2)
    before = image.voxels.copy()
    method = TissueSegmenter()
    one, two = method.segment(image), method.segment(image)
    np.testing.assert_array_equal(one.voxels, two.voxels)
    np.testing.assert_array_equal(image.voxels, before)
    assert one.grid.same_as(image.grid)
    assert one.label_set.name == "tissue"


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.booleans(), st.booleans())
def test_moving_or_turning_the_leg_moves_the_labels(down: int, right: int, upside: bool, mirrored: bool) -> None:
    leg = ring((180, 180), centre=(90, 90))
    image = leg.image()
    body = image.voxels > -500
    labels = ct_tissues(image, body, body.astype(np.uint8))

    def moved(planes: NDArray[np.generic], fill: float) -> NDArray[np.generic]:
        wide = np.pad(planes, ((0, 0), (down, 30 - down), (right, 30 - right)), constant_values=fill)
        return np.ascontiguousarray(wide[:, :: -1 if upside else 1, :: -1 if mirrored else 1])

    hu = moved(image.voxels, -1000)
    there = Image(hu, Grid.from_spacing(hu.shape, (5, 1, 1)), Contrast.CT)
    outline = moved(body, 0)
    found = ct_tissues(there, outline, outline.astype(np.uint8))
    np.testing.assert_array_equal(found, moved(labels, 0))


def test_bone_is_followed_below_its_threshold_but_its_rim_is_dense() -> None:
    hu = np.full((3, 60, 60), 40.0, dtype=np.float32)
    y, x = np.mgrid[:60, :60]
    r = np.hypot(y - 30, x - 30)
    hu[:, r < 15] = 230
    hu[:, (r < 15) & (r > 13)] = 800
    found = bone_mask(hu, np.ones(hu.shape, dtype=bool), (3, 1, 1))
    np.testing.assert_array_equal(found[1], r < 15)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"fat_hu": 400.0}, "must rise"),
        ({"metal_hu": 200.0}, "must rise"),
        ({"ball_mm": 0.0}, "ball_mm must be positive"),
        ({"ball_mm": 20.0}, "at most wide_ball_mm"),
    ],
)
def test_a_parameter_out_of_range_is_refused(parameters: dict[str, float], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        TissueSegmenter(**parameters).segment(ring().image())
    with pytest.raises(ParameterError, match=words):
        TissueSegmenter(**parameters).fit([])


def test_what_is_no_scan_is_refused() -> None:
    grid = Grid.from_spacing((1, 32, 32), (1, 1, 1))
    with pytest.raises(VoxelError, match="constant"):
        TissueSegmenter().segment(Image(np.zeros((1, 32, 32)), grid, Contrast.CT))
    with pytest.raises(ModalityError, match="is it MR"):
        TissueSegmenter().segment(Image(np.arange(1024).reshape(1, 32, 32), grid, Contrast.CT))
    small = np.full((1, 32, 32), -1000.0)
    small[0, 4:8, 4:8] = 0
    with pytest.raises(SegmentationError, match="no body"):
        TissueSegmenter().segment(Image(small, grid, Contrast.CT))


def test_fitting_checks_the_cases_and_learns_nothing() -> None:
    image = ring().image()
    method = TissueSegmenter()
    assert method.fit([Case(id="a", subject="a", images={Contrast.CT: image})]) is method
    assert not [name for name in vars(method) if name.endswith("_")]


@pytest.mark.slow
@pytest.mark.parametrize("patient", ["STS_006", "STS_023", "STS_036", "STS_048"])
def test_a_real_scan_meets_the_criteria(shared_data: Path, patient: str) -> None:
    benchmark = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "real_ct.py"))
    image, tumour = benchmark["read_patient"](shared_data / "sts" / patient)
    body = body_mask(image)
    labels = TissueSegmenter().segment(image)
    figures = benchmark["criteria"](image, body, labels, tumour, split_legs(image, body))
    assert figures.failed() == ()
