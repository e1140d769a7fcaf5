from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from musclekit.anatomy import Frame, crop_frame, femur_frame, mirror_frame, resample_frame
from musclekit.anatomy.femur import FemurAxis
from musclekit.errors import GeometryError
from musclekit.image import Grid, ProbabilityMap
from musclekit.labels import Label, LabelSet
from musclekit.neural import resampling
from musclekit.neural.resampling import most_probable, restored

GRID = Grid.from_spacing((6, 20, 24), (4, 1.5, 1.5))


def plain_labels(channels: int) -> LabelSet:
    """Labels without sides: a mirrored frame leaves their channels where they are."""
    return LabelSet("plain", tuple(Label(n, f"part {n}", f"P{n}", "#808080") for n in range(1, channels)), {})


def probabilities(channels: int, shape: tuple[int, ...], seed: int = 0, smooth: float = 1.5) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).normal(size=(channels, *shape))
    values = np.exp(6 * ndimage.gaussian_filter(values, (0, smooth, smooth, smooth)))
    normed: NDArray[np.float32] = (values / values.sum(axis=0)).astype(np.float32)
    return normed


def tilted(grid: Grid, degrees: float, shape: tuple[int, int, int] = (14, 12, 12), spacing: float = 2.0) -> Frame:
    """A frame as `femur_frame` makes it, smaller; it mirrors as well."""
    angle = np.deg2rad(degrees)
    middle = grid.world((np.asarray(grid.shape) - 1) / 2)
    direction = np.array([np.sin(angle) * 0.6, np.sin(angle) * 0.8, np.cos(angle)])
    axis = FemurAxis(middle, direction, grid.shape[0], 100.0, degrees, 1.0, "")
    field = (shape[0] * spacing, shape[1] * spacing, shape[2] * spacing)
    leg = np.ones(grid.shape, dtype=np.bool_)
    return femur_frame(grid, axis, leg, "left", field_mm=field, spacing_mm=spacing)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    shape = tuple(draw(st.integers(1, 12)) for _ in range(3))
    grid = Grid.from_spacing(shape, [draw(st.floats(0.5, 5)) for _ in range(3)], (-31.7, 12.3, 250.1))
    kinds = draw(st.lists(st.sampled_from(("crop", "resample", "mirror")), min_size=1, max_size=3))
    frame = crop_frame(grid, (0, 0, 0), shape)
    for kind in kinds:
        size = frame.target.shape
        if kind == "crop":
            start = [draw(st.integers(-2, n - 1)) for n in size]
            stop = [draw(st.integers(max(a + 1, 1), n + 2)) for a, n in zip(start, size, strict=True)]
            frame = frame.then(crop_frame(frame.target, start, stop))
        elif kind == "mirror":
            frame = frame.then(mirror_frame)
        else:
            frame = frame.then(resample_frame(frame.target, [draw(st.floats(0.5, 5)) for _ in range(3)]))
    if draw(st.booleans()):
        frame = frame.then(tilted(frame.target, draw(st.floats(0, 35)), (8, 7, 7)))
    return frame


def on_a_face(frame: Frame) -> NDArray[np.bool_]:
    """Voxels whose centres lie on an outer face of the target: whether they are inside is up to rounding."""
    index = np.stack(np.indices(frame.source.shape), axis=-1)
    position = frame.target.index(frame.source.world(index) @ frame.world[:3, :3].T + frame.world[:3, 3])
    faces = (position + 0.5, position - (np.asarray(frame.target.shape) - 0.5))
    on_one: NDArray[np.bool_] = np.any([np.abs(face) < 1e-6 for face in faces], axis=(0, -1))
    return on_one


def check(frame: Frame, channels: NDArray[np.floating]) -> None:
    """Compare with the full computation; labels differ at most where the two highest are equal but for rounding."""
    given_map = ProbabilityMap(channels.astype(np.float32), frame.target, plain_labels(len(channels)))
    full = frame.restore_probabilities(given_map).voxels
    found = most_probable(channels, frame)
    assert found.dtype == np.uint8
    assert found.shape == frame.source.shape
    differ = (found != full.argmax(axis=0)) & ~on_a_face(frame)
    top = np.sort(full, axis=0)[-2:]
    assert (top[1] - top[0])[differ].max(initial=0) < 1e-5


@settings(max_examples=150, deadline=None)
@given(frames(), st.sampled_from((2, 5, 12)), st.sampled_from((0.0, 1.0, 2.0)), st.integers(0, 10**6))
def test_it_is_the_full_computation(frame: Frame, channels: int, smooth: float, seed: int) -> None:
    check(frame, probabilities(channels, frame.target.shape, seed, smooth))


@settings(max_examples=60, deadline=None)
@given(frames(), st.integers(0, 10**6))
def test_a_map_is_interpolated_as_the_frame_does(frame: Frame, seed: int) -> None:
    values = np.random.default_rng(seed).random(frame.target.shape, dtype=np.float32)
    expected = frame.inverse()._sample(values, order=1, fill=-3.0)
    found = restored(values, frame, fill=-3.0)
    assert found.dtype == np.float32
    inner = ~on_a_face(frame)
    np.testing.assert_allclose(found[inner], expected[inner], atol=1e-5)


@pytest.mark.parametrize("channels", [2, 12])
@pytest.mark.parametrize(
    "frame",
    [
        resample_frame(GRID, (4, 3, 3)),
        resample_frame(GRID, (8, 3, 3)),
        resample_frame(GRID, (1.3, 0.7, 0.9)),
        crop_frame(GRID, (1, 3, 5), (4, 17, 22)).then(mirror_frame),
        crop_frame(GRID, (-2, -3, 5), (9, 17, 30)).then(lambda grid: resample_frame(grid, (3, 2, 2))),
        tilted(GRID, 20),
        tilted(GRID, 35),
    ],
    ids=["upsampled in the plane", "upsampled", "downsampled", "cut and mirrored", "padded", "tilted 20", "tilted 35"],
)
def test_frames_of_every_kind(frame: Frame, channels: int) -> None:
    found = probabilities(channels, frame.target.shape)
    check(frame, found)
    assert len(np.unique(most_probable(found, frame))) > 1


def test_half_precision_is_its_value_in_single_precision() -> None:
    frame = resample_frame(GRID, (7, 3, 3))
    half = probabilities(6, frame.target.shape).astype(np.float16)
    np.testing.assert_array_equal(most_probable(half, frame), most_probable(half.astype(np.float32), frame))
    np.testing.assert_array_equal(restored(half[0], frame), restored(half[0].astype(np.float32), frame))


@pytest.mark.parametrize("frame", [crop_frame(GRID, (1, 4, 5), (3, 9, 11)), tilted(GRID, 30, (3, 4, 4))])
def test_beyond_the_target_there_is_background_and_the_fill(frame: Frame) -> None:
    sure = np.zeros((3, *frame.target.shape), dtype=np.float32)
    sure[2] = 1
    outside = frame.inverse()._sample(sure[2], order=1, fill=0.0) == 0
    assert outside.any()
    assert not outside.all()
    np.testing.assert_array_equal(most_probable(sure, frame), np.where(outside, 0, 2))
    np.testing.assert_array_equal(restored(sure[2], frame, fill=-1.0), np.where(outside, -1, 1))


def test_a_target_that_the_scan_does_not_meet_gives_background() -> None:
    frame = crop_frame(GRID, (10, 40, 40), (12, 50, 50))
    sure = np.ones((2, *frame.target.shape), dtype=np.float32) * np.float32([[[[0]]], [[[1]]]])
    assert not most_probable(sure, frame).any()
    assert (restored(sure[1], frame, fill=4.0) == 4).all()


@pytest.mark.parametrize("shape", [(1, 16, 20), (5, 1, 20), (1, 1, 1)])
def test_volumes_of_one_plane(shape: tuple[int, int, int]) -> None:
    grid = Grid.from_spacing(shape, (5, 1, 1))
    for spacing in ((5, 2, 2), (5, 0.6, 0.7), (2, 1.5, 1.5)):
        frame = resample_frame(grid, spacing).then(mirror_frame)
        check(frame, probabilities(4, frame.target.shape, smooth=1))


def test_views_and_read_only_arrays_are_as_good_as_copies() -> None:
    frame = resample_frame(GRID, (4, 3, 3))
    copy = probabilities(5, frame.target.shape)
    expected = most_probable(copy, frame)
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(copy, 0, -1)), -1, 0)
    flipped = np.ascontiguousarray(copy[:, ::-1, :, ::-1])[:, ::-1, :, ::-1]
    for view in (last, flipped):
        view.flags.writeable = False
        np.testing.assert_array_equal(most_probable(view, frame), expected)
        np.testing.assert_array_equal(restored(view[1], frame), restored(copy[1], frame))


@pytest.mark.parametrize("frame", [resample_frame(GRID, (7, 3, 3)), tilted(GRID, 25)])
def test_the_size_of_the_blocks_changes_nothing(frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    channels = probabilities(7, frame.target.shape, smooth=0.5)
    whole, one = most_probable(channels, frame), restored(channels[1], frame)
    for block in (1, 1000):
        monkeypatch.setattr(resampling, "BLOCK", block)
        np.testing.assert_array_equal(most_probable(channels, frame), whole)
        np.testing.assert_array_equal(restored(channels[1], frame), one)


def test_the_first_of_equals_wins() -> None:
    frame = resample_frame(GRID, (4, 3, 3))
    equal = np.full((4, *frame.target.shape), 0.25, dtype=np.float32)
    assert not most_probable(equal, frame).any()
    equal[0] = 0
    assert (most_probable(equal, frame) == 1).all()


def test_a_class_that_is_highest_at_no_neighbour_can_be_highest_between_them() -> None:
    grid = Grid.from_spacing((1, 1, 3), (1, 1, 1))
    frame = Frame(grid, Grid.from_spacing((1, 1, 2), (1, 1, 2)), np.eye(4))
    channels = np.float32([[0.55, 0], [0, 0.55], [0.45, 0.45]])[:, None, None, :]
    np.testing.assert_array_equal(most_probable(channels, frame), [[[0, 2, 1]]])


def test_whole_voxels_are_copied_bit_by_bit() -> None:
    frame = crop_frame(GRID, (0, 2, 3), (6, 18, 20)).then(mirror_frame)
    values = np.random.default_rng(0).normal(size=frame.target.shape).astype(np.float32)
    np.testing.assert_array_equal(restored(values, frame)[:, 2:18, 3:20], values[:, :, ::-1])


def test_more_channels_than_are_numbered_are_refused() -> None:
    frame = crop_frame(GRID, (0, 0, 0), (1, 2, 2))
    most = np.zeros((255, 1, 2, 2), dtype=np.float32)
    most[254] = 1
    assert most_probable(most, frame)[0, 0, 0] == 254
    for channels in (0, 256):
        with pytest.raises(GeometryError) as error:
            most_probable(np.zeros((channels, 1, 2, 2), dtype=np.float32), frame)
        assert str(error.value) == f"probabilities have 1 to 255 channels, not {channels}"


def test_arrays_that_do_not_lie_on_the_target_are_refused() -> None:
    frame = resample_frame(GRID, (4, 3, 3))
    with pytest.raises(GeometryError) as error:
        most_probable(np.zeros((3, *GRID.shape), dtype=np.float32), frame)
    assert str(error.value) == (
        "the probabilities have shape (6, 20, 24), the grid that the frame leads to (6, 10, 12) (z, y, x)"
    )
    with pytest.raises(GeometryError, match=r"the values have shape \(10, 12\)"):
        restored(np.zeros((10, 12), dtype=np.float32), frame)
