from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from musclekit.anatomy import Frame, body_mask, mirror_frame, resample_frame
from musclekit.errors import GeometryError, ModalityError, ParameterError, SegmentationError, VoxelError
from musclekit.image import Case, Contrast, Grid, Image, LabelMap
from musclekit.metrics import dice
from musclekit.neural.views import AIR, View, ViewSpec, labels_in, unit_image, views_of
from musclekit.neural.windows import CT_WINDOW, Scale
from musclekit.phantom import make_case, make_thigh, render

#: Both thighs of 208 mm, hips apart, in voxels of 4 x 2.2 x 2.2 mm.
LEGS = make_case(1, shape=(52, 100, 176), spacing=(4, 2.2, 2.2), contrasts=(Contrast.CT,), reference="thigh-4")
SCALE = Scale(CT_WINDOW.low, CT_WINDOW.high)
SPECS = {
    "whole": ViewSpec("whole", 2.0, (64, 64)),
    "leg": ViewSpec("leg", 2.0, (64, 64)),
    "femur": ViewSpec("femur", 2.0, (128, 128, 128)),
}


def tilted(case: Case, degrees: float) -> tuple[Image, LabelMap]:
    """A person who lies with bent hips: the scan's grid turned about world x."""
    assert case.reference is not None
    angle, turn, grid = np.radians(degrees), np.eye(4), case.image.grid
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turned = Grid(grid.shape, turn @ grid.affine)
    labels = LabelMap(case.reference.voxels, turned, case.reference.label_set)
    return Image(case.image.voxels, turned, Contrast.CT), labels


def brought_back(labels: LabelMap, views: tuple[View, ...]) -> np.ndarray:
    back = np.zeros(labels.grid.shape, dtype=labels.voxels.dtype)
    for view in views:
        back[view.mask] = view.frame.restore_labels(labels_in(labels, view)).voxels[view.mask]
    return back


@pytest.mark.parametrize("kind", ["whole", "leg", "femur"])
def test_labels_of_a_bent_leg_come_back_from_every_view(kind: str) -> None:
    image, labels = tilted(LEGS, 15)
    views = views_of(image, SPECS[kind])
    assert [view.side for view in views] == ([None] if kind == "whole" else ["right", "left"])
    assert not any("upright" in line or "side" in line for view in views for line in view.warnings)
    for spacing, least in ((2.0, 0.97), (3.0, 0.85)):
        size = (90, 90, 90) if kind == "femur" else (64, 64)
        spec = SPECS[kind] if spacing == 2.0 else ViewSpec(kind, spacing, size)  # type: ignore[arg-type]
        back = brought_back(labels, views_of(image, spec))
        for label in labels.label_set:
            assert dice(back == label.id, labels.voxels == label.id) > least


def test_the_view_of_a_femur_does_not_tell_how_its_owner_lay() -> None:
    views = []
    for degrees in (0, 15):
        image, labels = tilted(LEGS, degrees)
        views.append([(view, labels_in(labels, view), unit_image(image, view, SCALE))
                      for view in views_of(image, SPECS["femur"])])  # fmt: skip
    for (view, straight, unit), (_, bent, other) in zip(*views, strict=True):
        grid = view.frame.target
        assert (grid.shape, grid.spacing) == ((128, 128, 128), (2.0, 2.0, 2.0))
        np.testing.assert_allclose(grid.direction, np.eye(3)[:, ::-1], atol=1e-9)
        for label in straight.label_set:
            assert dice(straight.voxels == label.id, bent.voxels == label.id) > 0.93
        assert np.corrcoef(unit.ravel(), other.ravel())[0, 1] > 0.97


def test_voxels_of_a_femur_view_are_filled_up_to_multiples() -> None:
    view = views_of(LEGS.image, ViewSpec("femur", 4.0, (45, 61, 64)), multiple=8)[0]
    assert view.frame.target.shape == (48, 64, 64)


def test_a_view_can_be_centred_on_the_bone() -> None:
    """Where the shaft ends below the top of the scan the view moves down with it."""
    voxels = LEGS.image.voxels.copy()
    voxels[-16:][voxels[-16:] > 250] = 60
    image = LEGS.image.with_voxels(voxels)
    scan, bone = (
        views_of(image, ViewSpec("femur", 4.0, (40, 64, 64), z_range=kind))[0].frame.target.origin[2]
        for kind in ("scan", "bone")
    )
    assert scan - bone == pytest.approx(8 * 4, abs=6)


def test_a_left_leg_is_made_to_look_like_a_right_one() -> None:
    phantom = make_thigh(2, shape=(24, 72, 128), spacing=(8, 3, 3), asymmetry=0)
    image, labels = render(phantom, Contrast.CT), phantom.reference("thigh-10")
    for spec in (ViewSpec("leg", 3.0, (64, 64)), ViewSpec("femur", 4.0, (48, 48, 48))):
        right, left = views_of(image, spec)
        assert (right.side, left.side) == ("right", "left")
        assert (right.frame.is_mirrored, left.frame.is_mirrored) == (False, True)
        there = [labels_in(labels, view).voxels for view in (right, left)]
        shape = tuple(min(sizes) for sizes in zip(*(voxels.shape for voxels in there), strict=True))
        first, second = (voxels[tuple(slice(0, n) for n in shape)] for voxels in there)
        # Windows lie to half a pixel; unmirrored even the largest muscles hardly overlap.
        assert dice(first > 0, second > 0) > 0.9
        agreeing = np.mean((first == second)[(first > 0) & (second > 0)])
        mirrored = np.mean((first == second[..., ::-1])[(first > 0) & (second[..., ::-1] > 0)])
        assert agreeing > 0.85 > 0.6 > mirrored


def test_a_mirrored_view_exchanges_the_sides_of_sided_labels() -> None:
    case = make_case(1, shape=(4, 48, 80), contrasts=(Contrast.CT,))
    assert case.reference is not None
    left = views_of(case.image, ViewSpec("leg", 5.0, (48, 48)))[1]
    seen = labels_in(case.reference, left)
    sides = {case.reference.label_set[int(i)].side for i in np.unique(seen.voxels) if i}
    assert sides == {"right"}


# The window round what is seen.


def ellipse(grid: Grid, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
    """An ellipsoid; centre and radii in shares of the grid."""
    parts = [
        ((np.arange(n) + 0.5) / n - middle) / radius
        for n, middle, radius in zip(grid.shape, centre, radii, strict=True)
    ]
    far = parts[0][:, None, None] ** 2 + parts[1][None, :, None] ** 2 + parts[2][None, None, :] ** 2
    mask: np.ndarray = far <= 1
    mask[tuple(int(n * share) for n, share in zip(grid.shape, centre, strict=True))] = True
    return mask


def body_of(mask: np.ndarray, grid: Grid) -> Image:
    return Image(np.where(mask, 50.0, -1000.0), grid, Contrast.CT)


shares = st.tuples(*[st.floats(0.1, 0.9)] * 3)
radii = st.tuples(*[st.floats(0.05, 0.6)] * 3)


@given(
    st.tuples(st.integers(1, 6), st.integers(8, 40), st.integers(8, 40)),
    st.tuples(st.floats(1, 8), st.floats(0.5, 4), st.floats(0.5, 4)),
    shares,
    radii,
    st.floats(0.6, 5),
    st.tuples(st.integers(1, 80), st.integers(1, 80)),
    st.integers(1, 32),
)
def test_the_window_holds_the_body_and_suits_the_network(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    centre: tuple[float, float, float],
    radius: tuple[float, float, float],
    spacing_mm: float,
    size: tuple[int, int],
    multiple: int,
) -> None:
    grid = Grid.from_spacing(shape, spacing)
    mask = ellipse(grid, centre, radius)
    (view,) = views_of(body_of(mask, grid), ViewSpec("whole", spacing_mm, size), multiple=multiple, body=mask)
    target = view.frame.target
    planes = np.flatnonzero(mask.any(axis=(1, 2)))
    assert target.shape[0] == planes[-1] - planes[0] + 1
    assert target.spacing == pytest.approx((spacing[0], spacing_mm, spacing_mm))
    assert all(side % multiple == 0 for side in target.shape[1:])
    assert all(side >= least for side, least in zip(target.shape[1:], size, strict=True))
    # Every voxel of the body, edges included, lies inside, in the middle, and with room to spare.
    seen = np.argwhere(mask)
    ends = [np.append(np.linalg.inv(view.frame.pull)[:3] @ [*end, 1], 1) for end in (seen.min(0), seen.max(0))]
    for axis in (1, 2):
        half = spacing[axis] / spacing_mm / 2
        first, last = ends[0][axis] - half, ends[1][axis] + half
        assert first >= 0.9
        assert last <= target.shape[axis] - 1.9
        assert abs(first + last - (target.shape[axis] - 1)) <= 1.01
    assert ends[0][0] == pytest.approx(0)
    # No larger than it has to be.
    longest = max(size[0], (seen[:, 1].max() - seen[:, 1].min() + 1) * spacing[1] / spacing_mm + 5)
    assert target.shape[1] < longest + multiple


def test_at_its_own_spacing_a_scan_is_copied() -> None:
    image = LEGS.image
    (view,) = views_of(image, ViewSpec("whole", 2.2, (64, 64)))
    unit = unit_image(image, view, SCALE)
    wanted = np.where(view.mask, SCALE.to_unit(image.voxels), AIR)
    rows, columns = (np.flatnonzero((unit > AIR).any(axis=axes)) for axes in ((0, 2), (0, 1)))
    there = unit[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    rows, columns = (np.flatnonzero((wanted > AIR).any(axis=axes)) for axes in ((0, 2), (0, 1)))
    # Air is subtracted and added again.
    np.testing.assert_allclose(
        there, wanted[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], rtol=0, atol=2e-7
    )


@pytest.mark.parametrize("kind", ["whole", "leg", "femur"])
def test_outside_what_is_seen_there_is_air(kind: str) -> None:
    image = tilted(LEGS, 10)[0]
    spec = SPECS[kind]
    for view in views_of(image, spec):
        unit = unit_image(image, view, SCALE)
        assert unit.dtype == np.float32
        assert unit.shape == view.frame.target.shape
        assert unit.min() == AIR
        assert unit.max() <= 1
        # The grids are of much the same spacing: interpolation reaches a voxel or two.
        reached = ndimage.binary_dilation(view.frame.apply_mask(view.mask), iterations=3)
        assert (unit[~reached] == AIR).all()
        # Fat and muscle stand well above air.
        assert np.quantile(unit[view.frame.apply_mask(view.mask)], 0.1) > -0.95


def test_what_voxels_are_merged_into_is_their_mean() -> None:
    grid = Grid.from_spacing((3, 64, 64), (5, 1, 1))
    rng = np.random.default_rng(0)
    mask = ellipse(grid, (0.5, 0.5, 0.5), (9, 0.4, 0.35))
    image = Image(np.where(mask, rng.uniform(-100, 200, grid.shape), -1000), grid, Contrast.CT)
    fine = np.where(mask, SCALE.to_unit(image.voxels), AIR)
    for spacing in (1.5, 2.0, 4.0):
        (view,) = views_of(image, ViewSpec("whole", spacing, (8, 8)), body=mask)
        coarse = unit_image(image, view, SCALE)
        assert (coarse + 1).sum() * spacing**2 == pytest.approx((fine + 1).sum(), rel=0.02)
        # As a box of the new size does, the blur leaves of the noise's variance a share.
        inner = ndimage.binary_erosion(view.frame.apply_mask(mask), np.ones((1, 3, 3)), iterations=3)
        if spacing == 4.0:
            assert coarse[inner].std() < 0.4 * fine[mask].std()


def test_a_chequered_scan_becomes_grey_and_not_a_pattern() -> None:
    grid = Grid.from_spacing((2, 60, 60), (5, 1, 1))
    mask = np.ones(grid.shape, dtype=bool)
    image = Image(np.where(np.indices(grid.shape).sum(axis=0) % 2, 300.0, -100.0), grid, Contrast.CT)
    (view,) = views_of(image, ViewSpec("whole", 3.0, (8, 8)), body=mask)
    inner = unit_image(image, view, SCALE)[:, 6:-6, 6:-6]
    assert np.ptp(inner) < 0.02
    assert inner.mean() == pytest.approx(SCALE.to_unit(100.0), abs=0.01)


# What is said and refused.


def test_a_single_leg_is_mirrored_only_where_its_side_is_known() -> None:
    image = make_case(2, legs="left", shape=(4, 48, 48), contrasts=(Contrast.CT,)).image
    spec = ViewSpec("leg", 5.0, (48, 48))
    (unknown,) = views_of(image, spec)
    assert unknown.side is None
    assert not unknown.frame.is_mirrored
    assert unknown.warnings == ("a leg of unknown side was not mirrored: say which it is (side)",)
    (left,), (right,) = views_of(image, spec, side="left"), views_of(image, spec, side="right")
    assert (left.frame.is_mirrored, right.frame.is_mirrored) == (True, False)
    assert left.warnings == right.warnings == ()


def test_a_femur_without_an_axis_is_told_of() -> None:
    image = make_case(2, legs="left", shape=(6, 64, 64), spacing=(5, 3.5, 3.5), contrasts=(Contrast.CT,)).image
    (view,) = views_of(image, ViewSpec("femur", 4.0, (16, 64, 64)), side="left")
    assert len(view.warnings) == 2
    assert view.warnings[0].startswith("the left thigh was not turned upright: ")
    assert view.warnings[1] == (
        "the scan of the left leg is shorter than the 64 mm that the network sees, to which the rest is air"
    )
    assert len(view.warnings[0]) > len("the left thigh was not turned upright: ") + 10
    (view,) = views_of(image, ViewSpec("femur", 4.0, (16, 64, 64)))
    assert view.warnings[1].startswith("the single thigh was not turned upright: ")


def test_what_cannot_be_seen_is_refused() -> None:
    image = LEGS.image
    with pytest.raises(VoxelError, match="the image is constant"):
        views_of(image.with_voxels(image.voxels * 0), SPECS["whole"])
    with pytest.raises(SegmentationError, match="there is nothing to look at: the mask is empty"):
        views_of(image, SPECS["whole"], body=np.zeros(image.grid.shape, dtype=bool))
    mr = make_case(1, shape=(4, 48, 80))
    with pytest.raises(ModalityError, match="the femur is found by its Hounsfield units; this image is t1w, not ct"):
        views_of(mr.image, SPECS["femur"])
    (view,) = views_of(image, SPECS["whole"])
    with pytest.raises(GeometryError, match=r"the view is of a scan of \(52, 100, 176\), the image has \(4, 48, 80\)"):
        unit_image(mr.image, view, SCALE)
    assert mr.reference is not None
    with pytest.raises(GeometryError, match=r"of a scan of \(52, 100, 176\), the labels have \(4, 48, 80\)"):
        labels_in(mr.reference, view)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "side"}, "a view is one of whole, leg, femur, not 'side'"),
        ({"spacing_mm": 0}, "spacing_mm must be a number above 0, not 0"),
        ({"size": (64,)}, r"the size of a 'whole' view is 2 numbers \(rows and columns\), not \(64,\)"),
        (
            {"kind": "femur"},
            r"the size of a 'femur' view is 3 numbers \(planes, rows and columns\), not \(256, 256\)",
        ),
        ({"size": (64, 0)}, "size must be a whole number of at least 1, not 0"),
        ({"z_range": "knee"}, "z_range is scan or bone, not 'knee'"),
        ({"z_range": "bone"}, "z_range = \"bone\" goes with the femur's view, not with 'whole'"),
    ],
)
def test_a_view_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        ViewSpec(**fields)


def test_a_spec_is_plain_data_and_comes_back() -> None:
    for spec in (*SPECS.values(), replace(SPECS["femur"], z_range="bone")):
        assert isinstance(spec.as_data()["size"], list)
        assert ViewSpec.from_data(spec.as_data()) == spec


# Frame.apply_mask, by which views tell what is theirs.


def test_a_mask_goes_through_a_frame_as_labels_do() -> None:
    grid = Grid.from_spacing((4, 30, 34), (5, 1.3, 1.1))
    mask = ellipse(grid, (0.5, 0.4, 0.6), (0.4, 0.3, 0.2))
    labels = LabelMap(mask.astype(int), grid, LEGS.reference.label_set)  # type: ignore[union-attr]
    for frame in (resample_frame(grid, (5, 2, 2)), mirror_frame(grid), resample_frame(grid, (3, 1, 1))):
        moved = frame.apply_mask(mask)
        assert moved.dtype == np.bool_
        np.testing.assert_array_equal(moved, frame.apply_labels(labels).voxels > 0)
    with pytest.raises(GeometryError, match=r"the mask has shape \(3, 3, 3\), the frame starts from \(4, 30, 34\)"):
        resample_frame(grid, (5, 2, 2)).apply_mask(np.ones((3, 3, 3), dtype=bool))


def test_beyond_the_scan_a_mask_is_false() -> None:
    grid = Grid.from_spacing((2, 10, 10), (5, 1, 1))
    wide = Frame(grid, grid.crop((0, -3, -3), (2, 13, 13)), np.eye(4))
    moved = wide.apply_mask(np.ones(grid.shape, dtype=bool))
    assert moved.sum() == 200
    assert moved[:, 3:13, 3:13].all()


def test_the_body_of_a_view_is_that_of_the_scan() -> None:
    (view,) = views_of(LEGS.image, SPECS["whole"])
    np.testing.assert_array_equal(view.mask, body_mask(LEGS.image))
    legs = views_of(LEGS.image, SPECS["leg"])
    assert not (legs[0].mask & legs[1].mask).any()
    assert not ((legs[0].mask | legs[1].mask) & ~view.mask).any()
