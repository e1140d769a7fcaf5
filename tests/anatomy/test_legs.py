from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from musclekit.anatomy import Leg, body_mask, infer_side, side_by_position, split_legs
from musclekit.errors import GeometryError, SegmentationError
from musclekit.image import Contrast, Grid, Image

AIR, FLESH, FAT, SKIN, BONE = -1000.0, 50.0, -100.0, 10.0, 900.0
SHAPE = (180, 320)


def disk(y: float, x: float, radius: float, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    rows, columns = np.indices(shape)
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def image_of(planes: list[np.ndarray], contrast: Contrast = Contrast.CT, flip: bool = False) -> Image:
    voxels = np.stack(planes)
    grid = Grid.from_spacing(voxels.shape, (3, 1, 1))
    if flip:
        affine = grid.affine.copy()
        affine[0, 2] *= -1
        grid = Grid(voxels.shape, affine)
    return Image(voxels, grid, contrast)


def thighs(gap: float, radius: float = 60, femurs: bool = True) -> np.ndarray:
    """One slice with two thighs; a negative gap presses them together along a line of skin."""
    plane = np.full(SHAPE, AIR)
    centres = (160 - radius - gap / 2, 160 + radius + gap / 2)
    for x in centres:
        plane[disk(90, x, radius)] = FAT
    for x in centres:
        plane[disk(90, x, radius - 15)] = FLESH
        if femurs:
            plane[disk(90, x, 13)] = BONE
            plane[disk(90, x, 7)] = FLESH
    if gap < 0:
        plane[:, 159:162] = np.where(plane[:, 159:162] > -200, SKIN, plane[:, 159:162])
    return plane


def legs_of(image: Image) -> tuple[Leg, ...]:
    return split_legs(image, body_mask(image))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_sides_follow_the_affine(flip: bool, turned: bool) -> None:
    image = image_of([thighs(20)] * 3, flip=flip)
    if turned:
        # Rows and columns exchanged, affine with them: the same patient.
        affine = image.grid.affine[:, [0, 2, 1, 3]]
        image = Image(image.voxels.swapaxes(1, 2), Grid((3, SHAPE[1], SHAPE[0]), affine), Contrast.CT)
    right, left = legs_of(image)
    assert (right.side, left.side) == ("right", "left")
    for leg, sign in ((right, 1), (left, -1)):
        x = image.grid.world(np.argwhere(leg.mask))[:, 0] - image.grid.world((np.asarray(image.grid.shape) - 1) / 2)[0]
        assert (x * sign > 0).all()


@pytest.mark.parametrize("contrast", [Contrast.CT, Contrast.T1W])
@pytest.mark.parametrize("gap", [0, -4, -12, -24])
def test_touching_thighs_are_parted_between_them(gap: float, contrast: Contrast) -> None:
    plane = thighs(gap)
    flesh = plane > AIR
    if contrast is Contrast.T1W:
        plane = np.select([plane == AIR, plane == FAT, plane == BONE, plane == SKIN], [5, 900, 20, 200], 300.0)
    right, left = legs_of(image_of([plane] * 3, contrast))
    assert not (right.mask & left.mask).any()
    truth = np.zeros(SHAPE, dtype=bool)
    truth[:, :160] = True
    assert dice(left.mask[1], flesh & truth) > 0.98
    assert dice(right.mask[1], flesh & ~truth) > 0.98


def test_two_femurs_part_thighs_without_a_waist() -> None:
    """Thighs pressed flat against one another: the outline alone is that of one body."""
    rows, columns = np.indices(SHAPE)
    outline = (np.abs(rows - 90) / 60) ** 4 + (np.abs(columns - 160) / 125) ** 4 <= 1
    plane = np.where(outline, FLESH, AIR)
    for x in (98, 222):
        plane[disk(90, x, 13)] = BONE
        plane[disk(90, x, 7)] = FLESH
    right, left = legs_of(image_of([plane] * 4))
    assert dice(left.mask[1], outline & (columns < 160)) > 0.97
    assert right.mask[1, 90, 222]


def test_a_split_is_carried_into_slices_where_thighs_fuse() -> None:
    rows, columns = np.indices(SHAPE)
    pelvis = ((rows - 90) / 65) ** 2 + ((columns - 160) / 140) ** 2 <= 1
    image = image_of([thighs(16)] * 6 + [np.where(pelvis, FLESH, AIR)] * 3)
    right, left = legs_of(image)
    assert dice(left.mask[8], pelvis & (columns < 160)) > 0.96
    assert dice(right.mask[8], pelvis & (columns >= 160)) > 0.96


def test_one_leg_is_one_leg() -> None:
    (leg,) = legs_of(image_of([np.where(disk(90, 160, 70), FLESH, AIR)] * 3))
    assert leg.side is None
    assert dice(leg.mask[1], disk(90, 160, 70)) > 0.999
    assert not leg.cut_slices.any()


@pytest.mark.parametrize("touching", [False, True])
def test_a_part_of_the_other_leg_is_no_leg_but_tells_the_side(touching: bool) -> None:
    main, other = disk(90, 110, 75), disk(90, 251 if touching else 262, 68)
    plane = np.where(main | other, FAT, AIR)
    plane[disk(90, 110, 14)] = BONE
    cropped = plane[:, :225]
    (leg,) = legs_of(image_of([cropped] * 5))
    assert leg.side == "left"
    assert dice(leg.mask[2], main[:, :225]) > 0.98
    (flipped,) = legs_of(image_of([cropped] * 5, flip=True))
    assert flipped.side == "right"


@pytest.mark.parametrize("contrast", [Contrast.CT, Contrast.T1W])
def test_a_line_of_skin_parts_legs_where_the_outline_does_not(contrast: Contrast) -> None:
    """Both legs fill the image from front to back; two millimetres of skin stand between them."""
    columns = np.arange(200)
    line = 165 + (6 * np.sin(np.arange(150) / 40)).astype(int)
    plane = np.full((150, 200), FAT)
    plane[disk(75, 80, 55, plane.shape)] = FLESH
    plane[disk(75, 80, 13, plane.shape)] = BONE
    plane[np.abs(columns - line[:, None]) <= 1] = SKIN
    if contrast is Contrast.T1W:
        plane = np.select([plane == FAT, plane == BONE, plane == SKIN], [900, 20, 250], 300.0)
    noise = np.random.default_rng(0).normal(0, 20, (6, *plane.shape))
    (leg,) = legs_of(image_of(list(plane + noise), contrast))
    assert leg.side == "left"
    assert dice(leg.mask[3], np.broadcast_to(columns < line[:, None], plane.shape)) > 0.98
    # The muscle's edge is as long and as sharp, and no line of skin.
    plane[:, 160:] = plane[0, 0]
    (whole,) = legs_of(image_of(list(plane + noise), contrast))
    assert whole.mask[3].mean() > 0.99


def test_a_limb_cut_by_the_border_says_so() -> None:
    inside, cut = disk(90, 100, 60), disk(90, 40, 60)
    (leg,) = legs_of(image_of([np.where(mask, FLESH, AIR) for mask in (inside, cut, inside)]))
    np.testing.assert_array_equal(leg.cut_slices, [False, True, False])


def test_side_takes_three_slices_that_agree() -> None:
    grid = Grid.from_spacing((4, 10, 40), (3, 1, 1))
    leg = np.zeros(grid.shape, dtype=bool)
    leg[:, :, 20:35] = True
    body = leg.copy()
    assert infer_side(grid, body, leg) is None
    body[:2, :, 0:3] = True
    assert infer_side(grid, body, leg) is None
    body[2, :, 0:3] = True
    assert infer_side(grid, body, leg) == "right"
    body[3, :, 38:] = True
    assert infer_side(grid, body, leg) is None
    with pytest.raises(GeometryError, match="the leg mask has shape"):
        infer_side(grid, body, leg[1:])


@pytest.mark.parametrize(("x", "side"), [(60, "right"), (-60, "left"), (40, None), (-40, None)])
@pytest.mark.parametrize("flip", [False, True])
def test_a_leg_well_to_one_side_of_the_scanner_lay_there(x: float, side: str | None, flip: bool) -> None:
    grid = Grid.from_spacing((4, 10, 41), (3, 2, 2), (x - 40, 5, -100))
    if flip:
        affine = grid.affine.copy()
        affine[0, 2], affine[0, 3] = -2, x + 40
        grid = Grid(grid.shape, affine)
    leg = np.zeros(grid.shape, dtype=bool)
    leg[:, 2:8, 10:31] = True
    assert side_by_position(grid, leg) == side
    assert side_by_position(grid, np.zeros_like(leg)) is None
    with pytest.raises(GeometryError, match="the leg mask has shape"):
        side_by_position(grid, leg[1:])


def test_a_grid_that_begins_at_nothing_says_nothing() -> None:
    for sign in (1, -1):
        affine = Grid.from_spacing((4, 10, 100), (3, 2, 2)).affine.copy()
        affine[0] *= sign
        grid = Grid((4, 10, 100), affine)
        assert side_by_position(grid, np.ones(grid.shape, dtype=bool)) is None


def test_an_empty_or_foreign_mask_is_refused() -> None:
    image = image_of([thighs(10)])
    with pytest.raises(SegmentationError, match="the body mask is empty"):
        split_legs(image, np.zeros(image.grid.shape, dtype=bool))
    with pytest.raises(GeometryError, match="the body mask has shape"):
        split_legs(image, np.zeros((1, 2, 3), dtype=bool))


def read(path: Path, contrast: Contrast) -> Image:
    volume = nib.load(path)
    to_sar = nib.orientations.axcodes2ornt(("S", "A", "R"))
    axes = nib.orientations.io_orientation(volume.affine)
    turned = volume.as_reoriented(nib.orientations.ornt_transform(axes, to_sar))
    voxels = np.asarray(turned.dataobj, dtype=np.float32)
    return Image(voxels, Grid(voxels.shape, turned.affine), contrast)


@pytest.mark.slow
def test_real_single_legs_stay_single_and_are_on_their_side(shared_data: Path) -> None:
    """World x of these scans tells the side; where `infer_side` speaks, it agrees in every one."""
    told = 0
    for folder in sorted((shared_data / "sts").glob("STS_*")):
        image = read(folder / "CT_image.nii.gz", Contrast.CT)
        legs = legs_of(image)
        assert len(legs) == 1, folder.name
        x = image.grid.world(np.argwhere(legs[0].mask[::4, ::4, ::4]) * 4)[:, 0].mean()
        if legs[0].side is not None:
            told += 1
            assert legs[0].side == ("right" if x > 0 else "left"), folder.name
            assert side_by_position(image.grid, legs[0].mask) in (None, legs[0].side), folder.name
    assert told >= 15


@pytest.mark.slow
@pytest.mark.parametrize("name", ["huashan/Thigh_001_fat", "huashan/Thigh_003_water", "qmritools/thigh_image"])
def test_real_pairs_are_parted_in_halves(shared_data: Path, name: str) -> None:
    image = read(shared_data / f"{name}.nii.gz", Contrast.WATER if "water" in name else Contrast.FAT)
    right, left = legs_of(image)
    assert right.mask.sum() == pytest.approx(left.mask.sum(), rel=0.15)
    labels = read(shared_data / (name.rsplit("_", 1)[0] + "_dseg.nii.gz"), Contrast.MR).voxels
    if "qmritools" in name:
        # Odd ids are left, even ones right: the label of each muscle voxel names the leg it lies in.
        for leg, parity in ((left, 1), (right, 0)):
            inside = labels[leg.mask & (labels > 0)].astype(int)
            assert (inside % 2 == parity).mean() > 0.99
    assert ((labels > 0) & (right.mask | left.mask)).sum() > 0.99 * (labels > 0).sum()
