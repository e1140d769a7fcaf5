from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musclekit.anatomy import Frame, crop_frame, femur_axis, femur_frame, femur_mask, mirror_frame, resample_frame
from musclekit.anatomy.frames import rotation_between
from musclekit.errors import GeometryError, SegmentationError
from musclekit.image import Contrast, Grid, Image, LabelMap, ProbabilityMap
from musclekit.labels import label_set

MUSCLES = label_set("thigh-4")
SIDED = label_set("thigh-4-sided")


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    shape = tuple(draw(st.integers(1, 12)) for _ in range(3))
    spacing = np.array([draw(st.floats(0.5, 6)) for _ in range(3)])
    angles = [draw(st.floats(-0.6, 0.6)) for _ in range(3)]
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = np.cos(angle), np.sin(angle)
        i, j = [(1, 2), (0, 2), (0, 1)][axis]
        step = np.eye(3)
        step[i, i], step[i, j], step[j, i], step[j, j] = c, -s, s, c
        turn = step @ turn
    signs = np.array([draw(st.sampled_from((-1, 1))) for _ in range(3)])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.eye(3)[::-1] * spacing * signs
    affine[:3, 3] = [draw(st.floats(-200, 200)) for _ in range(3)]
    return Grid(shape, affine)


def labels_on(grid: Grid, seed: int) -> LabelMap:
    return LabelMap(np.random.default_rng(seed).integers(0, 9, grid.shape), grid, SIDED)


@settings(max_examples=60, deadline=None)
@given(grids(), st.integers(0, 10**6), st.data())
def test_crop_and_mirror_come_back_voxel_for_voxel(grid: Grid, seed: int, data: st.DataObject) -> None:
    start = [data.draw(st.integers(-3, n - 1)) for n in grid.shape]
    stop = [data.draw(st.integers(max(a + 1, 1), n + 3)) for a, n in zip(start, grid.shape, strict=True)]
    frame = crop_frame(grid, start, stop).then(mirror_frame)
    labels = labels_on(grid, seed)
    back = frame.restore_labels(frame.apply_labels(labels))
    inside = np.zeros(grid.shape, dtype=bool)
    inside[tuple(slice(max(a, 0), b) for a, b in zip(start, stop, strict=True))] = True
    assert back.grid.same_as(grid)
    np.testing.assert_array_equal(back.voxels, np.where(inside, labels.voxels, 0))


@settings(max_examples=60, deadline=None)
@given(grids(), st.data())
def test_what_a_frame_shows_lies_at_the_same_place(grid: Grid, data: st.DataObject) -> None:
    """A voxel's world position, taken through the frame, lies within half a voxel of where its label comes out."""
    spacing = [data.draw(st.floats(0.4, 3)) for _ in range(3)]
    frame = resample_frame(grid, spacing)
    ids = np.arange(1, 1 + int(np.prod(grid.shape))).reshape(grid.shape)
    shown = frame._sample(ids.astype(np.int32), order=0, fill=0)
    where = np.argwhere(shown > 0)
    assert len(where)
    source = np.stack(np.unravel_index(shown[tuple(where.T)] - 1, grid.shape), axis=1)
    apart = grid.index(frame.target.world(where)) - source
    assert np.abs(apart).max() <= 0.5 + 1e-6


@settings(max_examples=40, deadline=None)
@given(grids(), st.integers(0, 10**6))
def test_chaining_is_applying_one_after_the_other(grid: Grid, seed: int) -> None:
    first = crop_frame(grid, (0, -1, 0), (grid.shape[0], grid.shape[1], grid.shape[2] + 2))
    second = mirror_frame(first.target)
    labels = labels_on(grid, seed)
    chained = first.then(second)
    np.testing.assert_array_equal(
        chained.apply_labels(labels).voxels, second.apply_labels(first.apply_labels(labels)).voxels
    )
    np.testing.assert_allclose(chained.inverse().then(chained).world, np.eye(4), atol=1e-9)


def test_mirroring_exchanges_left_and_right() -> None:
    grid = Grid.from_spacing((1, 2, 6), (5, 1, 1))
    voxels = np.zeros(grid.shape, dtype=int)
    voxels[..., :2] = SIDED.ids_of("sartorius", "left")[0]
    mirrored = mirror_frame(grid).apply_labels(LabelMap(voxels, grid, SIDED))
    assert set(np.unique(mirrored.voxels[..., 4:])) == {SIDED.ids_of("sartorius", "right")[0]}
    assert not mirrored.voxels[..., :4].any()
    plain = mirror_frame(grid).apply_labels(LabelMap(np.where(voxels > 0, 2, 0), grid, MUSCLES))
    assert set(np.unique(plain.voxels[..., 4:])) == {2}


def test_probabilities_mirror_with_their_sides() -> None:
    grid = Grid.from_spacing((1, 2, 6), (5, 1, 1))
    voxels = np.zeros((9, *grid.shape), dtype=np.float32)
    left = [label.id for label in SIDED].index(SIDED.ids_of("gracilis", "left")[0]) + 1
    voxels[0], voxels[left, ..., :2], voxels[0, ..., :2] = 1, 1, 0
    before = ProbabilityMap(voxels, grid, SIDED)
    frame = mirror_frame(grid)
    after = frame.apply_probabilities(before)
    assert set(np.unique(after.labels().voxels[..., 4:])) == {SIDED.ids_of("gracilis", "right")[0]}
    np.testing.assert_array_equal(frame.restore_probabilities(after).voxels, before.voxels)


def test_nothing_is_air_or_background() -> None:
    grid = Grid.from_spacing((2, 4, 4), (1, 1, 1))
    frame = crop_frame(grid, (0, -2, 0), (2, 4, 4))
    for contrast, fill in ((Contrast.CT, -1024), (Contrast.T1W, 0)):
        padded = frame.apply_image(Image(np.full(grid.shape, 7.0), grid, contrast))
        assert (padded.voxels[:, :2] == fill).all()
        assert (padded.voxels[:, 2:] == 7).all()
    certain = np.zeros((5, *grid.shape), dtype=np.float32)
    certain[2] = 1
    probabilities = frame.apply_probabilities(ProbabilityMap(certain, grid, MUSCLES))
    assert (probabilities.voxels[0, :, :2] == 1).all()
    assert (probabilities.voxels[2, :, 2:] == 1).all()


def test_resampling_is_linear_and_keeps_the_extent() -> None:
    grid = Grid.from_spacing((6, 20, 20), (5, 1, 2), (10, 20, 30))
    frame = resample_frame(grid, (2.5, 0.5, 1))
    assert frame.target.shape == (12, 40, 40)
    x = grid.world(np.stack(np.indices(grid.shape), axis=-1))
    ramp = Image(x @ [1, 2, 3], grid, Contrast.MR)
    there = frame.apply_image(ramp).voxels[1:-1, 1:-1, 1:-1]
    wanted = frame.target.world(np.stack(np.indices(frame.target.shape), axis=-1)) @ [1, 2, 3]
    np.testing.assert_allclose(there, wanted[1:-1, 1:-1, 1:-1], rtol=1e-4)
    assert frame.restore_image(frame.apply_image(ramp)).grid.same_as(grid)


def test_one_plane_goes_through_a_resampling() -> None:
    grid = Grid.from_spacing((1, 30, 30), (10, 1, 1))
    frame = resample_frame(grid, (10, 2, 2))
    labels = LabelMap(np.where(np.hypot(*(np.indices((30, 30)) - 14.5)) < 10, 1, 0)[None], grid, MUSCLES)
    back = frame.restore_labels(frame.apply_labels(labels))
    assert dice(back.voxels > 0, labels.voxels > 0) > 0.93


def tilted_leg(degrees: float, side: int, planes: int = 110) -> tuple[Image, LabelMap]:
    """Hollow bone and four off-centre muscles along a tilted axis, the first one lateral."""
    grid = Grid.from_spacing((planes, 150, 170), (3, 1.5, 1.5), (-127 + 100 * side, -112, 0))
    angle = np.radians(degrees)
    direction = np.array([np.sin(angle), 0, np.cos(angle)])
    centre = grid.world((np.asarray(grid.shape) - 1) / 2)
    points = grid.world(np.stack(np.indices(grid.shape), axis=-1)) - centre
    along = points @ direction
    off = points - along[..., None] * direction
    radius = np.linalg.norm(off, axis=-1)
    voxels = np.select([radius < 6, radius < 14, radius < 60], [-50.0, 900.0, 50.0], -1000.0)
    ids = np.zeros(grid.shape, dtype=int)
    for i, (dx, dy) in enumerate(((35 * side, 0), (0, 35), (-35 * side, 0), (0, -35)), start=1):
        ids[(np.hypot(off[..., 0] - dx, off[..., 1] - dy) < 22) & (np.abs(along) < 140)] = i
    return Image(voxels, grid, Contrast.CT), LabelMap(ids, grid, MUSCLES)


@pytest.mark.parametrize("side", ["right", "left"])
def test_femur_frame_stands_the_thigh_upright_and_brings_labels_back(side: str) -> None:
    image, labels = tilted_leg(15, 1 if side == "right" else -1)
    leg = image.voxels > -200
    axis = femur_axis(femur_mask(image, leg), image.grid)
    frame = femur_frame(image.grid, axis, leg, side)
    assert frame.target.shape == (180, 128, 128)
    assert frame.target.spacing == (2, 2, 2)
    assert frame.is_mirrored == (side == "left")
    assert frame.is_truncated  # 330 mm of scan in a field of 360
    upright = frame.apply_image(image)
    residual = femur_axis(femur_mask(upright, upright.voxels > -200), upright.grid)
    assert residual.angle_deg < 1
    # All legs look like right ones: the first muscle lies lateral, where x is large.
    there = frame.apply_labels(labels)
    assert (there.voxels[90, :, 70:] == 1).sum() > 0.95 * (there.voxels[90] == 1).sum()
    back = frame.restore_labels(there)
    assert back.grid.same_as(image.grid)
    for i in range(1, 5):
        assert dice(back.voxels == i, labels.voxels == i) > 0.97


def test_probabilities_come_back_better_than_labels() -> None:
    image, labels = tilted_leg(15, 1, planes=30)
    leg = image.voxels > -200
    frame = femur_frame(image.grid, femur_axis(femur_mask(image, leg), image.grid), leg, "right")
    certain = np.stack([labels.voxels == i for i in range(5)]).astype(np.float32)
    there = frame.apply_probabilities(ProbabilityMap(certain, image.grid, MUSCLES))
    from_probabilities = frame.restore_probabilities(there).labels()
    from_labels = frame.restore_labels(there.labels())
    truth = labels.voxels > 0
    assert dice(from_probabilities.voxels > 0, truth) > dice(from_labels.voxels > 0, truth)


def test_an_axis_that_is_not_reliable_turns_nothing() -> None:
    image, _ = tilted_leg(50, 1, planes=30)
    leg = image.voxels > -200
    axis = femur_axis(image.voxels > 300, image.grid)
    assert not axis.reliable
    np.testing.assert_array_equal(femur_frame(image.grid, axis, leg, "right").world, np.eye(4))
    with pytest.raises(SegmentationError, match="no leg to align"):
        femur_frame(image.grid, axis, np.zeros_like(leg), None)
    with pytest.raises(GeometryError, match="the leg mask has shape"):
        femur_frame(image.grid, axis, leg[1:], None)


def test_a_long_scan_is_not_truncated() -> None:
    grid = Grid.from_spacing((130, 20, 20), (3, 10, 10))
    bone = np.zeros(grid.shape, dtype=bool)
    bone[:, 9:11, 9:11] = True
    leg = np.zeros(grid.shape, dtype=bool)
    leg[:, 4:16, 4:16] = True
    assert not femur_frame(grid, femur_axis(bone, grid), leg, None).is_truncated


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3).filter(lambda v: np.linalg.norm(v) > 0.1))
def test_rotation_is_one_and_is_the_smallest(vector: list[float]) -> None:
    unit = np.asarray(vector) / np.linalg.norm(vector)
    if unit[2] < -0.999:
        return
    rotation = rotation_between(vector, (0, 0, 1))
    np.testing.assert_allclose(rotation @ unit, (0, 0, 1), atol=1e-9)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1)
    # Its angle is that between the two, no more.
    assert (np.trace(rotation) - 1) / 2 == pytest.approx(unit[2], abs=1e-9)


def test_errors_say_what_is_wrong() -> None:
    grid = Grid.from_spacing((2, 4, 4), (1, 1, 1))
    other = Grid.from_spacing((2, 4, 5), (1, 1, 1))
    frame = mirror_frame(grid)
    with pytest.raises(GeometryError, match=r"the image does not lie on the frame's grid: shapes"):
        frame.apply_image(Image(np.zeros(other.shape), other, Contrast.MR))
    with pytest.raises(GeometryError, match="the label map does not lie"):
        frame.restore_labels(LabelMap(np.zeros(other.shape, int), other, MUSCLES))
    with pytest.raises(GeometryError, match="frames do not chain"):
        frame.then(mirror_frame(other))
    with pytest.raises(GeometryError, match="can be inverted"):
        Frame(grid, grid, np.zeros((4, 4)))
    with pytest.raises(GeometryError, match="three positive numbers"):
        resample_frame(grid, (1, 0, 1))
    with pytest.raises(GeometryError, match="opposite"):
        rotation_between((0, 0, -1), (0, 0, 1))
