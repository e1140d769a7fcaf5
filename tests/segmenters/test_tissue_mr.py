from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from musclekit.anatomy import body_mask, split_legs
from musclekit.image import Contrast, Grid, Image
from musclekit.labels import label_set
from musclekit.phantom import make_case
from musclekit.segmenters.mr_brightness import even_brightness, fat_is_bright, fat_share, skin_depth
from musclekit.segmenters.mr_fascia import STEP_MM, STEP_PRICE, _closed_contours, muscle_compartment
from musclekit.segmenters.tissue import TissueSegmenter
from musclekit.segmenters.tissue_mr import mr_tissues

IDS = {label.name: label.id for label in label_set("tissue")}

#: Grey value of air, skin, fat, muscle, cortex.
GREY = {
    Contrast.T1W: (5, 300, 900, 300, 60),
    Contrast.T2W: (5, 200, 800, 280, 50),
    Contrast.FAT: (5, 100, 900, 60, 30),
    Contrast.WATER: (5, 200, 250, 900, 30),
    Contrast.STIR: (5, 150, 80, 700, 20),
}


@dataclass
class Thigh:
    """A drawn thigh with its truth."""

    image: Image
    truth: NDArray[np.uint8]
    body: NDArray[np.bool_]
    legs: NDArray[np.uint8]


def thigh(
    contrast: Contrast = Contrast.T1W,
    *,
    infiltration: float = 0.0,
    shade: float = 0.0,
    centres: tuple[float, ...] = (0.0,),
    planes: int = 3,
    spacing: tuple[float, float, float] = (8.0, 1.2, 1.2),
    named: Contrast | None = None,
    seed: int = 0,
) -> Thigh:
    """Draw legs of 75 mm radius: skin, 15 mm of fat, muscle with a 6 mm seam of fat, a femur.

    The rear half of the muscle holds `infiltration` as mottled fat; a coil at the front shades by exp(-shade * depth).
    """
    rng = np.random.default_rng(seed)
    half_y, half_x = 90.0, 90.0 + max(abs(c) for c in centres)
    y = np.arange(-half_y, half_y, spacing[1])[:, None]
    x = np.arange(-half_x, half_x, spacing[2])[None, :]
    shape = (planes, y.size, x.size)
    air, skin, fat, muscle, cortex = GREY[contrast]
    truth = np.zeros(shape, dtype=np.uint8)
    grey = np.full(shape, float(air))
    legs = np.zeros(shape, dtype=np.uint8)
    mottled = ndimage.gaussian_filter(rng.normal(size=shape), (0, 1.2 / spacing[1], 1.2 / spacing[2]))
    mottled = mottled / mottled.std()
    for number, centre in enumerate(centres, start=1):
        r = np.broadcast_to(np.hypot(y, x - centre), shape)
        bone = np.broadcast_to(np.hypot(y - 10, x - centre), shape)
        inside = r < 60
        seam = inside & np.broadcast_to(np.abs(x - centre + 30) < 3, shape)
        ill = inside & np.broadcast_to(y < -15, shape)
        share = np.where(ill, np.clip(infiltration * (1 + 0.35 * mottled), 0, 1), 0.0) if infiltration else 0.0
        grey = np.where(r < 75, skin, grey)
        grey = np.where(r < 73, fat, grey)
        grey = np.where(inside, muscle + (fat - muscle) * share, grey)
        grey = np.where(seam, fat, grey)
        grey = np.where(bone < 14, cortex, grey)
        grey = np.where(bone < 8, fat, grey)
        truth[(r < 73)] = IDS["subcutaneous fat"]
        truth[inside] = IDS["muscle"]
        truth[seam] = IDS["intermuscular fat"]
        truth[bone < 14] = IDS["cortical bone"]
        truth[bone < 8] = IDS["marrow"]
        legs[r < 75] = number
    grey = ndimage.gaussian_filter(grey, (0, 0.8 / spacing[1], 0.8 / spacing[2]))
    grey = np.abs(grey + rng.normal(0, 15, shape)) * np.exp(-shade * (half_y - y) / half_y)
    image = Image(grey.astype(np.float32), Grid.from_spacing(shape, spacing), named or contrast)
    return Thigh(image, truth, legs > 0, legs)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def scores(found: NDArray[np.uint8], truth: NDArray[np.uint8]) -> dict[str, float]:
    return {name: dice(found == number, truth == number) for name, number in IDS.items()}


@pytest.mark.parametrize("contrast", [Contrast.T1W, Contrast.T2W, Contrast.WATER, Contrast.STIR])
def test_every_tissue_of_a_healthy_thigh(contrast: Contrast) -> None:
    drawn = thigh(contrast)
    found = scores(mr_tissues(drawn.image, drawn.body, drawn.legs), drawn.truth)
    assert found["muscle"] > 0.96
    assert found["subcutaneous fat"] > 0.9
    assert found["intermuscular fat"] > 0.75
    assert found["marrow"] > 0.8
    assert found["cortical bone"] > 0.7


def test_a_fat_image_in_which_bone_is_as_dark_as_muscle() -> None:
    drawn = thigh(Contrast.FAT)
    found = scores(mr_tissues(drawn.image, drawn.body, drawn.legs), drawn.truth)
    assert found["muscle"] > 0.95
    assert found["marrow"] > 0.8


@pytest.mark.parametrize("contrast", [Contrast.T1W, Contrast.FAT])
def test_infiltrated_muscle_is_muscle(contrast: Contrast) -> None:
    drawn = thigh(contrast, infiltration=0.55)
    ill = (drawn.truth == IDS["muscle"]) & (np.arange(drawn.truth.shape[1])[:, None] * 1.2 - 90 < -20)
    found = mr_tissues(drawn.image, drawn.body, drawn.legs) == IDS["muscle"]
    assert found[ill].mean() > 0.75
    # A threshold half way between muscle and fat loses a third of it or more.
    muscle, fat = GREY[contrast][3], GREY[contrast][2]
    assert (drawn.image.voxels < (muscle + fat) / 2)[ill].mean() < 0.67


@pytest.mark.parametrize("contrast", [Contrast.T1W, Contrast.FAT, Contrast.WATER])
def test_a_coil_on_one_side_costs_little(contrast: Contrast) -> None:
    even, shaded = thigh(contrast), thigh(contrast, shade=0.7)
    assert shaded.image.voxels[:, :40].mean() < 0.5 * even.image.voxels[:, :40].mean()
    without = dice(mr_tissues(even.image, even.body, even.legs) == IDS["muscle"], even.truth == IDS["muscle"])
    with_it = dice(mr_tissues(shaded.image, shaded.body, shaded.legs) == IDS["muscle"], shaded.truth == IDS["muscle"])
    assert with_it > without - 0.03


def test_brightness_is_made_even() -> None:
    drawn = thigh(Contrast.T1W, shade=0.7)
    spacing = drawn.image.grid.spacing
    depth = skin_depth(drawn.body, spacing)
    relative = even_brightness(drawn.image.voxels, drawn.body, depth, spacing, True)
    fat = (drawn.truth == IDS["subcutaneous fat"]) & (depth > 3)
    before = drawn.image.voxels[fat]
    assert before.std() / before.mean() > 0.3
    assert relative[fat].std() < 0.08
    assert relative[fat].mean() == pytest.approx(1, abs=0.05)
    share = fat_share(relative, drawn.body, depth, True)
    assert np.median(share[fat]) == pytest.approx(1, abs=0.05)
    assert np.median(share[drawn.truth == IDS["muscle"]]) == pytest.approx(0, abs=0.08)


@pytest.mark.parametrize("contrast", list(GREY))
def test_whether_fat_is_bright_is_seen(contrast: Contrast, caplog: pytest.LogCaptureFixture) -> None:
    drawn = thigh(contrast, shade=0.5, named=Contrast.MR)
    depth = skin_depth(drawn.body, drawn.image.grid.spacing)
    assert fat_is_bright(drawn.image.voxels, drawn.body, depth) is contrast.fat_is_bright
    known = thigh(contrast, shade=0.5)
    with caplog.at_level(logging.INFO):
        unknown_weighting = mr_tissues(drawn.image, drawn.body, drawn.legs)
    assert "fat looks" in caplog.text
    assert np.array_equal(unknown_weighting, mr_tissues(known.image, known.body, known.legs))


def test_two_legs_and_the_masks_of_anatomy() -> None:
    drawn = thigh(Contrast.T1W, centres=(-80.0, 80.0))
    body = body_mask(drawn.image)
    legs = np.zeros(body.shape, dtype=np.uint8)
    for number, leg in enumerate(split_legs(drawn.image, body), start=1):
        legs[leg.mask] = number
    found = mr_tissues(drawn.image, body, legs)
    assert scores(found, drawn.truth)["muscle"] > 0.95
    # One femur each.
    assert ndimage.label(found[1] == IDS["marrow"])[1] == 2


def test_a_leg_cut_by_the_field_of_view() -> None:
    drawn = thigh(Contrast.T1W)
    cut = (slice(None), slice(None), slice(0, 90))
    image = Image(drawn.image.voxels[cut], drawn.image.grid.crop((0, 0, 0), (3, 150, 90)), Contrast.T1W)
    found = mr_tissues(image, drawn.body[cut], drawn.legs[cut])
    assert scores(found, drawn.truth[cut])["muscle"] > 0.95


def test_bone_at_the_edge_of_the_picture_is_no_air() -> None:
    drawn = thigh(Contrast.T1W)
    cut = (slice(None), slice(None), slice(0, 80))
    image = Image(drawn.image.voxels[cut], drawn.image.grid.crop((0, 0, 0), (3, 150, 80)), Contrast.T1W)
    holed = drawn.body[cut] & (drawn.truth[cut] != IDS["cortical bone"])
    legs = holed.astype(np.uint8)
    found = mr_tissues(image, holed, legs)
    assert scores(found, drawn.truth[cut])["muscle"] > 0.95


@pytest.mark.parametrize("spacing", [(8.0, 0.8, 1.6), (1.0, 1.5, 1.5), (30.0, 2.5, 2.5)])
def test_any_spacing(spacing: tuple[float, float, float]) -> None:
    drawn = thigh(Contrast.T1W, spacing=spacing)
    assert scores(mr_tissues(drawn.image, drawn.body, drawn.legs), drawn.truth)["muscle"] > 0.93


@pytest.mark.parametrize("contrast", [*GREY, Contrast.MR])
def test_one_plane(contrast: Contrast) -> None:
    drawn = thigh(Contrast.T1W if contrast is Contrast.MR else contrast, planes=1, named=contrast)
    assert scores(mr_tissues(drawn.image, drawn.body, drawn.legs), drawn.truth)["muscle"] > 0.94


@pytest.mark.parametrize("contrast", list(GREY))
def test_nonsense_degrades_and_does_not_crash(contrast: Contrast) -> None:
    rng = np.random.default_rng(3)
    grid = Grid.from_spacing((2, 24, 20), (5, 3, 3))
    noise = Image(rng.random((2, 24, 20), dtype=np.float32), grid, contrast)
    everywhere = np.ones(grid.shape, dtype=np.bool_)
    nowhere = np.zeros(grid.shape, dtype=np.bool_)
    small = nowhere.copy()
    small[0, 4:9, 4:9] = True
    for body in (everywhere, nowhere, small):
        for legs in (body.astype(np.uint8), np.zeros(grid.shape, dtype=np.uint8)):
            found = mr_tissues(noise, body, legs)
            assert found.dtype == np.uint8
            assert not found[legs == 0].any()


def test_it_is_pure() -> None:
    drawn = thigh(Contrast.T1W, infiltration=0.4)
    before = drawn.image.voxels.copy(), drawn.body.copy(), drawn.legs.copy()
    first = mr_tissues(drawn.image, drawn.body, drawn.legs)
    assert np.array_equal(first, mr_tissues(drawn.image, drawn.body, drawn.legs))
    for kept, now in zip(before, (drawn.image.voxels, drawn.body, drawn.legs), strict=True):
        assert np.array_equal(kept, now)


@settings(max_examples=10, deadline=None)
@given(gain=st.floats(0.01, 100))
def test_the_unit_of_grey_does_not_matter(gain: float) -> None:
    drawn = thigh(Contrast.T1W, planes=1, spacing=(8.0, 2.0, 2.0))
    scaled = drawn.image.with_voxels(drawn.image.voxels * gain)
    one = mr_tissues(drawn.image, drawn.body, drawn.legs)
    other = mr_tissues(scaled, drawn.body, drawn.legs)
    assert (one != other).mean() < 1e-3  # float32 rounding may tip a voxel


@pytest.mark.parametrize("flip", [(1,), (2,), (1, 2)])
def test_mirrored_pictures_have_mirrored_labels(flip: tuple[int, ...]) -> None:
    drawn = thigh(Contrast.T1W, infiltration=0.4)
    turned = drawn.image.with_voxels(np.flip(drawn.image.voxels, flip))
    one = mr_tissues(drawn.image, drawn.body, drawn.legs)
    other = mr_tissues(turned, np.flip(drawn.body, flip), np.flip(drawn.legs, flip))
    assert dice(np.flip(other, flip) == IDS["muscle"], one == IDS["muscle"]) > 0.99


def test_the_edge_of_the_picture_is_no_skin() -> None:
    body = np.zeros((2, 9, 9), dtype=np.bool_)
    body[0, :, :5] = True
    body[1] = True
    depth = skin_depth(body, (5, 2, 3))
    assert depth[0, 4].tolist() == [15, 12, 9, 6, 3, 0, 0, 0, 0]
    assert np.isinf(depth[1]).all()


def test_seams_thinner_than_a_streak_belong_to_the_muscle() -> None:
    drawn = thigh(Contrast.T1W)
    seam = drawn.truth == IDS["intermuscular fat"]
    assert (mr_tissues(drawn.image, drawn.body, drawn.legs)[seam] == IDS["muscle"]).mean() < 0.15
    thin = mr_tissues(drawn.image, drawn.body, drawn.legs, streak_mm=10.0)
    assert (thin[seam] == IDS["muscle"]).mean() > 0.7


def test_the_contour_is_closed_and_the_cheapest_of_those_that_start_where_it_does() -> None:
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(30):
        costs = rng.random((1, 5, 3)) * 12

        def price(contour: Sequence[int], costs: NDArray[np.float64] = costs) -> float:
            steps = np.abs(np.diff([*contour, contour[0]]))
            return float(sum(costs[0, k, r] for k, r in enumerate(contour)) + STEP_PRICE * steps.sum())

        found = [int(r) for r in _closed_contours(costs)[0]]
        every = list(itertools.product(range(3), repeat=5))
        assert price(found) == pytest.approx(min(price(c) for c in every if c[0] == found[0]), rel=1e-5)
        gaps.append(price(found) - min(price(c) for c in every))
    # Of all contours it is the best as a rule, and never far from it.
    assert np.median(gaps) < 1e-5
    assert max(gaps) < 3.0


def test_neighbouring_radii_differ_by_at_most_the_step_also_where_the_contour_closes() -> None:
    costs = np.random.default_rng(1).random((4, 40, 60)) * 100
    found = _closed_contours(costs)
    around = np.concatenate([found, found[:, :1]], axis=1)
    assert np.abs(np.diff(around, axis=1)).max() <= STEP_MM


def test_the_compartment_bridges_a_gap_in_the_lean_tissue() -> None:
    drawn = thigh(Contrast.T1W)
    # A wedge of the muscle is gone entirely: the contour goes on round it, for a star-shaped outline is cheaper.
    share = np.where(drawn.truth == IDS["muscle"], 0.0, 1.0).astype(np.float32)
    y, x = np.mgrid[-75:75, -75:75] * 1.2
    share[:, (np.abs(np.arctan2(y, x)) < 0.12) & (np.hypot(y, x) < 60)] = 0.85
    depth = skin_depth(drawn.body, drawn.image.grid.spacing)
    found = muscle_compartment(share, drawn.legs, drawn.body, depth, drawn.image.grid.spacing)
    inside = np.isin(drawn.truth, [IDS[n] for n in ("muscle", "intermuscular fat", "marrow", "cortical bone")])
    assert dice(found, inside) > 0.96


@pytest.mark.slow
@pytest.mark.parametrize(("patient", "least"), [("001", 0.75), ("003", 0.85)])
def test_agreement_on_real_dixon_fat_images(shared_data: Path, patient: str, least: float) -> None:
    """Agreement with another network's labels of eleven muscles: median slice Dice over the labelled slices."""
    fat = nibabel.as_closest_canonical(nibabel.load(shared_data / "huashan" / f"Thigh_{patient}_fat.nii.gz"))
    reference = nibabel.as_closest_canonical(nibabel.load(shared_data / "huashan" / f"Thigh_{patient}_dseg.nii.gz"))
    affine = fat.affine[:, [2, 1, 0, 3]]
    voxels = np.asarray(fat.dataobj, dtype=np.float32).transpose(2, 1, 0)
    muscles = np.asarray(reference.dataobj).transpose(2, 1, 0) > 0.5
    image = Image(voxels, Grid(voxels.shape, affine), Contrast.FAT)
    body = body_mask(image)
    legs = np.zeros(body.shape, dtype=np.uint8)
    for number, leg in enumerate(split_legs(image, body), start=1):
        legs[leg.mask] = number
    found = mr_tissues(image, body, legs) == IDS["muscle"]
    agreement = [dice(found[z], muscles[z]) for z in range(len(muscles)) if muscles[z].any()]
    assert np.median(agreement) >= least


def test_nothing_outside_the_body_is_labelled() -> None:
    case = make_case(8, legs="right", shape=(3, 160, 160), spacing=(10.0, 1.4, 1.4))
    image = case.images[Contrast.T1W]
    body = body_mask(image)
    labels = TissueSegmenter().segment(image)
    assert not (labels.mask() & ~body).any()
