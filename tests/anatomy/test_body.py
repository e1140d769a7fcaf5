from __future__ import annotations

from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import pytest

from musclekit.anatomy import body_mask, mr_thresholds
from musclekit.errors import SegmentationError, VoxelError
from musclekit.image import Contrast, Grid, Image
from musclekit.phantom import Scanner, make_case

SHAPE = (200, 320)
AIR, FLESH = -1000.0, 50.0


def disk(y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.indices(SHAPE)
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def box(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def ct(*masks: np.ndarray, planes: int = 3, noise: float = 15.0) -> Image:
    """Slices in which each mask is flesh; one mm a pixel."""
    flesh = np.zeros(SHAPE, dtype=bool)
    for mask in masks:
        flesh |= mask
    rng = np.random.default_rng(0)
    voxels = np.where(flesh, FLESH, AIR) + rng.normal(0, noise, (planes, *SHAPE))
    return Image(voxels, Grid.from_spacing(voxels.shape, (3, 1, 1)), Contrast.CT)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


LEG = disk(90, 90, 65)
OTHER = disk(90, 235, 60)


def test_two_legs_are_the_body_to_the_pixel() -> None:
    body = body_mask(ct(LEG, OTHER))
    for plane in body:
        # A 3x3 opening takes single pixels off a disk's poles.
        assert np.count_nonzero(plane ^ (LEG | OTHER)) < 20


def test_table_bar_is_removed_and_small_pieces_too() -> None:
    crumb = disk(20, 160, 12)  # 452 mm2
    table = box(175, 183, 10, 310)
    body = body_mask(ct(LEG, OTHER, table, crumb))
    assert dice(body[1], LEG | OTHER) > 0.999
    assert not body[1][crumb | table].any()


def test_curved_table_is_removed() -> None:
    table = disk(-400, 160, 590) & ~disk(-400, 160, 582)
    assert not body_mask(ct(LEG, OTHER, table))[1][table].any()


def test_table_that_touches_the_skin_is_cut_off() -> None:
    table = box(152, 160, 0, 320)  # the leg reaches to row 155
    body = body_mask(ct(LEG, OTHER, table))
    assert dice(body[1], LEG | OTHER) > 0.985
    assert np.count_nonzero(body[1] & table & ~LEG & ~OTHER) < 0.1 * table.sum()


def test_phantom_slab_under_the_leg_is_cut_off() -> None:
    """A calibration phantom with five rods, 28 mm thick; the leg has sunk 6 mm into its cushion."""
    leg = disk(90, 160, 65)
    slab = box(149, 177, 40, 280)
    image = ct(leg, slab)
    voxels = image.voxels.copy()
    for x in (70, 115, 160, 205, 250):
        voxels[:, disk(163, x, 9)] = 200
    body = body_mask(image.with_voxels(voxels))
    assert dice(body[1], leg) > 0.98
    assert np.count_nonzero(body[1] & slab & ~leg) < 0.03 * slab.sum()


def test_pad_between_the_legs_is_cut_off() -> None:
    first, second = disk(90, 80, 65), disk(90, 240, 65)
    pad = box(20, 160, 148, 172)  # 24 mm wide, 3 mm into each leg
    pad &= ~(first | second)
    body = body_mask(ct(first, second, pad))
    assert dice(body[1], first | second) > 0.98
    # What is left of it is where both legs pin it down.
    assert np.count_nonzero(body[1] & pad) < 0.35 * pad.sum()


def test_hand_beside_the_thigh_is_removed() -> None:
    hand = disk(100, 300, 17)
    body = body_mask(ct(LEG, hand))
    assert not body[1][hand].any()
    assert dice(body[1], LEG) > 0.999


def test_leg_cut_by_the_border_stays_whole() -> None:
    cut = disk(90, -20, 65)
    corner = disk(195, 300, 80)
    body = body_mask(ct(cut, corner))
    assert dice(body[1], cut | corner) > 0.995


def test_gas_is_filled_and_the_gap_between_legs_is_not() -> None:
    first, second = disk(90, 100, 70), disk(90, 215, 70)
    gas = disk(80, 80, 20)
    bridge = box(45, 60, 120, 190) | box(120, 135, 120, 190)
    image = ct((first | second) & ~gas)
    closed = ct((first | second | bridge) & ~gas & ~box(62, 118, 155, 160))
    voxels = image.voxels.copy()
    voxels[1] = closed.voxels[1]
    # In the middle slice the gap is closed in front and behind; outside air runs on above and below.
    voxels[0][:, 155:160] = AIR
    voxels[2][:, 155:160] = AIR
    body = body_mask(image.with_voxels(voxels))
    assert body[1][gas].all()
    assert not body[1][box(70, 110, 156, 159)].any()


def test_nothing_found_says_so() -> None:
    with pytest.raises(VoxelError, match="every voxel is 3"):
        body_mask(Image(np.full((1, 20, 20), 3.0), Grid.from_spacing((1, 20, 20), (1, 1, 1)), Contrast.T1W))
    with pytest.raises(VoxelError, match="nothing but air"):
        body_mask(ct(np.zeros(SHAPE, dtype=bool)))
    with pytest.raises(SegmentationError, match="no body found: no piece of a slice"):
        body_mask(ct(disk(50, 50, 8)))


def mr(contrast: Contrast, *, shading: float = 0.0, noise: float = 0.02, planes: int = 4) -> tuple[Image, np.ndarray]:
    """Two thighs with fat, muscle and a dark bone ring, Rician noise, and a coil that fades along z and x."""
    fat = LEG | OTHER
    muscle = disk(90, 90, 50) | disk(90, 235, 46)
    bone = disk(90, 90, 12) | disk(90, 235, 12)
    marrow = disk(90, 90, 7) | disk(90, 235, 7)
    bright, dull = (0.25, 0.9) if contrast is Contrast.WATER else (1.0, 0.35)
    plane = np.select([marrow, bone, muscle, fat], [bright, 0.02, dull, bright], 0.0)
    gain = np.linspace(1, 1 - shading, SHAPE[1]) * np.linspace(1, 1 - shading, planes)[:, None, None]
    rng = np.random.default_rng(1)
    real = plane * gain + rng.normal(0, noise, (planes, *SHAPE))
    voxels = 1000 * np.hypot(real, rng.normal(0, noise, (planes, *SHAPE)))
    return Image(voxels, Grid.from_spacing(voxels.shape, (24, 1, 1)), contrast), fat


@pytest.mark.parametrize("contrast", [Contrast.T1W, Contrast.FAT, Contrast.WATER, Contrast.MR])
@pytest.mark.parametrize("shading", [0.0, 0.5])
def test_mr_body_holds_fat_muscle_and_bone(contrast: Contrast, shading: float) -> None:
    image, truth = mr(contrast, shading=shading)
    body = body_mask(image)
    for plane in body:
        assert dice(plane, truth) > 0.98


def test_thin_rim_of_fat_holds_the_dark_muscle_of_a_fat_image() -> None:
    rim = (LEG & ~disk(90, 90, 63)) | (OTHER & ~disk(90, 235, 58))
    marrow = disk(90, 90, 9) | disk(90, 235, 9)
    rng = np.random.default_rng(2)
    voxels = 1000 * np.hypot(np.where(rim | marrow, 1.0, 0.03) + rng.normal(0, 0.02, (3, *SHAPE)), 0.02)
    body = body_mask(Image(voxels, Grid.from_spacing(voxels.shape, (5, 1, 1)), Contrast.FAT))
    assert dice(body[1], LEG | OTHER) > 0.98


def test_mr_whose_air_was_set_to_zero_keeps_its_dark_parts() -> None:
    image, truth = mr(Contrast.MR, shading=0.45, noise=0.005)
    masked = image.with_voxels(np.where(truth, image.voxels, 0))
    assert (mr_thresholds(masked) < 0.5 * mr_thresholds(image)).all()
    for plane in body_mask(masked):
        assert dice(plane, truth) > 0.97


def test_bone_cut_by_the_border_belongs_to_mr_body() -> None:
    image, _ = mr(Contrast.T1W)
    cropped = Image(image.voxels[:, :, 90:], Grid.from_spacing((4, 200, 230), (3, 1, 1)), Contrast.T1W)
    body = body_mask(cropped)
    assert body[1, 80:100, 0].all()


def test_skin_marker_and_ghost_are_no_body() -> None:
    image, truth = mr(Contrast.T1W)
    voxels = image.voxels.copy()
    marker, ghost = disk(16, 90, 4), box(0, 30, 230, 233)
    voxels[:, marker] = 900
    voxels[:, ghost] = 300
    body = body_mask(image.with_voxels(voxels))[1]
    assert not body[ghost & ~truth][:60].any()
    assert np.count_nonzero(body[marker & ~truth]) < 0.5 * marker.sum()


def test_body_is_found_again_at_another_resolution() -> None:
    image = ct(LEG, OTHER, box(175, 183, 10, 310), planes=1)
    coarse = cv2.resize(image.voxels[0], (107, 67), interpolation=cv2.INTER_AREA)[None]
    grid = Grid.from_spacing(coarse.shape, (3, 200 / 67, 320 / 107))
    area = body_mask(Image(coarse, grid, Contrast.CT)).sum() * grid.voxel_volume_mm3
    assert area == pytest.approx(body_mask(image).sum() * image.grid.voxel_volume_mm3, rel=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("patient", ["STS_004", "STS_013", "STS_038"])
def test_real_ct_bodies_hold_the_flesh_and_no_table(shared_data: Path, patient: str) -> None:
    volume = nib.load(shared_data / "sts" / patient / "CT_image.nii.gz")
    to_sar = nib.orientations.axcodes2ornt(("S", "A", "R"))
    turned = volume.as_reoriented(
        nib.orientations.ornt_transform(nib.orientations.io_orientation(volume.affine), to_sar)
    )
    voxels = np.asarray(turned.dataobj, dtype=np.float32)
    image = Image(voxels, Grid(voxels.shape, turned.affine), Contrast.CT)
    body = body_mask(image)
    above = image.voxels > -200
    # Little above -200 HU is left out (tables, markers), and next to nothing below it is let in.
    assert (body & above).sum() > 0.93 * above.sum()
    assert (body & ~above).sum() < 0.01 * body.sum()


# Fat lies just above such noise in a water image, and in more of it below.
@pytest.mark.parametrize(
    ("contrast", "noise"),
    [
        (Contrast.T1W, 20.0),
        (Contrast.T1W, 100.0),
        (Contrast.T1W, 150.0),
        (Contrast.WATER, 20.0),
        (Contrast.WATER, 100.0),
    ],
)
def test_noise_in_the_air_is_no_body(contrast: Contrast, noise: float) -> None:
    given = {"contrasts": (contrast,), "shape": (3, 140, 200), "spacing": (10.0, 2.0, 2.0)}
    clear, noisy = (make_case(4, scanner=Scanner(noise=level), **given).image for level in (0.0, noise))  # type: ignore[arg-type]
    wanted, found = body_mask(clear), body_mask(noisy)
    assert 2 * np.count_nonzero(wanted & found) / (np.count_nonzero(wanted) + np.count_nonzero(found)) > 0.97


def test_tissue_is_not_taken_for_noise_where_no_air_is_in_view() -> None:
    tissue = 300 + np.random.default_rng(0).normal(0, 60, (3, 64, 64))
    image = Image(tissue.astype(np.float32), Grid.from_spacing((3, 64, 64), (5.0, 2.0, 2.0)), Contrast.MR)
    assert body_mask(image).all()
