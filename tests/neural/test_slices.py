from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musclekit.anatomy import body_mask, leg_frame, leg_image, split_legs
from musclekit.errors import GeometryError, InputError, ModalityError, ParameterError, SegmentationError, VoxelError
from musclekit.image import Case, Contrast, Grid, Image
from musclekit.io import read
from musclekit.neural.slices import (
    SHIFT_PX,
    DomainSlices,
    SliceSpec,
    augment,
    domain_slices,
    resampled_plane,
    slices_of,
    square_shape,
    unpaired,
)
from musclekit.neural.windows import CT_WINDOW, MR_WINDOW, Scale, Window
from musclekit.phantom import make_case
from musclekit.testing import example_image

SPEC = SliceSpec(64, 3.0)


def ct_of(voxels: np.ndarray, spacing: tuple[float, float, float]) -> Image:
    return Image(voxels, Grid.from_spacing(voxels.shape, spacing), Contrast.CT)


def limb(
    spacing: tuple[float, float, float], *, planes: int = 2, field_mm: float = 200.0, shift_mm: float = 0.0
) -> Image:
    """CT of a round limb of fat, 60 mm in radius, with muscle of 40 mm inside."""
    rows, columns = (round(field_mm / step) for step in spacing[1:])
    y, x = ((np.arange(n) + 0.5) * step for n, step in zip((rows, columns), spacing[1:], strict=True))
    radius = np.hypot(y[:, None] - field_mm / 2, x[None] - field_mm / 2 - shift_mm)
    plane = np.where(radius < 40, 55.0, np.where(radius < 60, -100.0, -1000.0))
    return ct_of(np.repeat(plane[None], planes, axis=0), spacing)


def case_of(image: Image, subject: str = "a", id: str | None = None) -> Case:
    return Case(id or f"case-{subject}", subject, {image.contrast: image})


@pytest.mark.parametrize(
    "spacing", [(5.0, 1.0, 1.0), (5.0, 0.5, 0.5), (24.0, 0.78, 0.78), (1.0, 2.5, 2.5), (3.0, 0.6, 2.2), (3.0, 2.0, 0.7)]
)
def test_any_spacing_becomes_one_square_spacing(spacing: tuple[float, float, float]) -> None:
    found = slices_of(limb(spacing), CT_WINDOW, SliceSpec(160, 1.0))
    assert found.slices.shape == (2, 160, 160)
    assert found.slices.dtype == np.float32
    # Fat stands at -0.71 and muscle at -0.27: half way between air and fat, and between fat and muscle.
    limb_px, muscle_px = (np.count_nonzero(found.slices[0] > level) for level in (-0.86, -0.49))
    assert limb_px == pytest.approx(np.pi * 60**2, rel=0.03)
    assert muscle_px == pytest.approx(np.pi * 40**2, rel=0.03)
    for axis in (0, 1):
        profile = np.count_nonzero(found.slices[0] > -0.86, axis=axis)
        assert np.count_nonzero(profile) == pytest.approx(120, abs=2 * max(spacing[1:]))


def test_the_body_stands_in_the_middle_and_air_round_it() -> None:
    found = slices_of(limb((5, 1, 1), shift_mm=35, field_mm=250), CT_WINDOW, SliceSpec(128, 1.0))
    rows, columns = (np.flatnonzero((found.slices[0] > -1).any(axis=axis)) for axis in (1, 0))
    for seen in (rows, columns):
        assert abs((seen[0] + seen[-1]) / 2 - 63.5) <= 1
    assert (found.slices[0, 0] == -1).all()


def test_a_limb_at_the_border_of_the_image_is_moved_into_the_middle() -> None:
    whole = limb((5, 1, 1))
    cut = ct_of(whole.voxels[:, 30:170, 38:162], (5, 1, 1))
    assert np.array_equal(
        slices_of(cut, CT_WINDOW, SliceSpec(160, 1.0)).slices, slices_of(whole, CT_WINDOW, SliceSpec(160, 1.0)).slices
    )


def test_at_its_own_spacing_a_slice_is_copied() -> None:
    image = example_image(Contrast.T1W)
    found = slices_of(image, MR_WINDOW, SliceSpec(96, 2.0))
    body = body_mask(image)
    scale = MR_WINDOW.scale_of(image, body)
    unit = np.where(body, scale.to_unit(image.voxels), -1)
    assert found.scale == scale
    assert np.array_equal(found.slices[:, 10:-10, 10:-10], unit[:, 10:-10, 10:-10])


def test_each_axis_is_resampled_by_itself() -> None:
    plane = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
    result = resampled_plane(plane, (16, 32))
    means = plane.reshape(16, 4, 16).mean(axis=1)
    # Rows are means of four; columns are interpolated between them, and the outermost ones are theirs.
    assert np.allclose(result[:, [0, -1]], means[:, [0, -1]], atol=1e-5)
    assert np.allclose(result[:, 1], 0.75 * means[:, 0] + 0.25 * means[:, 1], atol=1e-5)


def test_a_plane_of_the_right_shape_is_left_alone() -> None:
    plane = np.ones((5, 7), dtype=np.float32)
    assert resampled_plane(plane, (5, 7)) is plane


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.2, 5), st.floats(0.2, 5), st.floats(0.3, 4))
def test_every_plane_can_be_resampled_there_and_back(rows: int, columns: int, dy: float, dx: float, mm: float) -> None:
    grid = Grid.from_spacing((1, rows, columns), (1, dy, dx))
    shape = square_shape(grid, mm)
    there = resampled_plane(np.full((rows, columns), 0.25, dtype=np.float32), shape)
    assert there.shape == shape
    assert np.allclose(resampled_plane(there, (rows, columns)), 0.25)


def test_what_is_not_the_body_becomes_air() -> None:
    image = limb((5, 1, 1))
    voxels = image.voxels.copy()
    voxels[:, 190:194] = 300
    with_table = ct_of(voxels, (5, 1, 1))
    spec = SliceSpec(200, 1.0)
    assert np.array_equal(slices_of(with_table, CT_WINDOW, spec).slices, slices_of(image, CT_WINDOW, spec).slices)


def test_slices_with_little_body_and_slices_that_are_too_large_are_counted() -> None:
    voxels = limb((5, 1, 1), planes=5).voxels.copy()
    voxels[0] = -1000
    rows, columns = np.ogrid[:200, :200]
    voxels[1] = np.where(np.hypot(rows - 100, columns - 100) < 20, 55, -1000)
    image = ct_of(voxels, (5, 1, 1))
    found = slices_of(image, CT_WINDOW, SliceSpec(128, 1.0))
    assert (len(found.slices), found.n_small, found.n_large) == (3, 2, 0)
    found = slices_of(image, CT_WINDOW, SliceSpec(128, 1.0, min_body_mm2=1000))
    assert (len(found.slices), found.n_small, found.n_large) == (4, 1, 0)
    found = slices_of(image, CT_WINDOW, SliceSpec(100, 1.0, min_body_mm2=1000))
    assert (len(found.slices), found.n_small, found.n_large) == (1, 1, 3)
    assert slices_of(image, CT_WINDOW, SliceSpec(120, 1.0)).n_large == 0


def test_a_scan_of_one_slice() -> None:
    assert slices_of(limb((5, 1, 1), planes=1), CT_WINDOW, SliceSpec(128, 1.0)).slices.shape == (1, 128, 128)


@pytest.mark.parametrize("contrast", [Contrast.CT, Contrast.T1W, Contrast.FAT])
def test_each_leg_has_its_slices_and_left_ones_are_mirrored(contrast: Contrast) -> None:
    case = make_case(4, contrasts=(contrast,), shape=(3, 96, 128))
    image = case.image
    window = CT_WINDOW if contrast is Contrast.CT else MR_WINDOW
    pixel = image.grid.spacing[1]
    found = slices_of(image, window, SliceSpec(80, pixel), per_leg=True)
    assert (found.n_small, found.n_large, found.n_sideless) == (0, 0, 0)
    assert len(found.slices) == 6
    # The same legs as anatomy's own windows round them, which are mirrored to one side.
    body = body_mask(image)
    scale = window.scale_of(image, body)
    assert found.scale == scale
    for n, leg in enumerate(split_legs(image, body)):
        frame = leg_frame(leg, image.grid, margin_px=0, mirror_to="right")
        alone = scale.to_unit(leg_image(image, leg, frame).voxels)
        for z in range(3):
            rows, columns = (np.flatnonzero((alone[z] > -1).any(axis=axis)) for axis in (1, 0))
            wanted = alone[z][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            shown = found.slices[3 * n + z]
            rows, columns = (np.flatnonzero((shown > -1).any(axis=axis)) for axis in (1, 0))
            assert np.array_equal(shown[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], wanted)


@pytest.mark.parametrize("leg", ["left", "right"])
def test_a_single_leg_is_not_mirrored_for_nobody_says_its_side_in_use(leg: Literal["left", "right"]) -> None:
    case = make_case(2, legs=leg, shape=(3, 80, 80))
    spec = SliceSpec(96, case.image.grid.spacing[1])
    alone = slices_of(case.image, MR_WINDOW, spec, per_leg=True)
    assert alone.n_sideless == 3
    assert np.array_equal(alone.slices, slices_of(case.image, MR_WINDOW, spec).slices)
    domain = domain_slices([case], MR_WINDOW, spec, name="source", per_leg=True, allow_single_subject=True)
    assert domain.warnings() == ("3 of 3 slices show a leg of unknown side, which was not mirrored",)


def test_deciles_are_those_of_the_people() -> None:
    slices = np.full((3, 4, 4), -1, dtype=np.float32)
    slices[0, 0], slices[1, 0], slices[2, 0] = 0.0, 0.5, 0.25  # two slices of one person, one of another
    domain = DomainSlices(slices, ("a", "a", "b"), Scale(0, 1), Contrast.T1W, SliceSpec(4, 1.0), 0, 0, 0)
    least, most = domain.deciles
    assert least == (0.0,) * 4 + (0.25,) * 5
    assert most == pytest.approx((0.25,) * 4 + (0.25,) + (0.5,) * 4)
    dark = DomainSlices(
        np.full_like(slices, -1), ("a", "a", "b"), Scale(0, 1), Contrast.T1W, SliceSpec(4, 1.0), 0, 0, 0
    )
    assert dark.deciles == ((-1.0,) * 9, (-1.0,) * 9)


def test_a_domain_holds_the_slices_of_all_its_cases() -> None:
    cases = [case_of(example_image(Contrast.T1W, seed=n), f"s{n}") for n in range(3)]
    brighter = cases[1].image.with_voxels(cases[1].image.voxels * 10)
    cases[1] = case_of(brighter, "s1")
    domain = domain_slices(iter(cases), MR_WINDOW, SPEC, name="source")
    assert domain.slices.shape == (18, 64, 64)
    assert domain.subjects == ("s0",) * 6 + ("s1",) * 6 + ("s2",) * 6
    assert domain.contrast is Contrast.T1W
    scales = [MR_WINDOW.scale_of(case.image) for case in cases]
    assert domain.scale == Scale(np.median([s.low for s in scales]), np.median([s.high for s in scales]))
    # Each volume is seen on its own scale: ten times as bright looks the same.
    assert np.abs(domain.slices[6:12].mean() - domain.slices[:6].mean()) < 0.01
    assert domain.warnings() == ()


def test_a_domain_says_what_it_left_out() -> None:
    voxels = limb((5, 1, 1), planes=4).voxels.copy()
    voxels[0] = -1000
    image = ct_of(voxels, (5, 1, 1))
    small = ct_of(limb((5, 1, 1), planes=1).voxels * np.float32(1), (5, 0.5, 0.5))
    cases = [case_of(image, "a"), case_of(small, "b")]
    domain = domain_slices(cases, CT_WINDOW, SliceSpec(100, 1.0), name="target", allow_single_subject=True)
    assert domain.warnings() == (
        "1 of 5 slices left out: less than 2000 mm2 of body",
        "3 of 5 slices left out: a body larger than 100 x 100 pixels of 1 mm",
    )


def test_the_image_of_a_case_can_be_chosen() -> None:
    images = {c: example_image(c) for c in (Contrast.FAT, Contrast.WATER)}
    cases = [Case(f"c{n}", f"s{n}", images) for n in range(2)]
    assert domain_slices(cases, MR_WINDOW, SPEC, name="source", contrast=Contrast.FAT).contrast is Contrast.FAT
    with pytest.raises(InputError, match=r"case 'c0' has several images \(fat, water\); choose one by its contrast"):
        domain_slices(cases, MR_WINDOW, SPEC, name="source")
    with pytest.raises(InputError, match="case 'c0' has no t1w image, only fat, water"):
        domain_slices(cases, MR_WINDOW, SPEC, name="source", contrast=Contrast.T1W)


def test_a_domain_of_one_subject_is_refused_unless_allowed() -> None:
    cases = [case_of(example_image(Contrast.T1W, seed=n), "p1", f"c{n}") for n in range(2)]
    with pytest.raises(
        InputError,
        match=r"the source domain shows one subject, 'p1': .*; add others, or set allow_single_subject = true",
    ):
        domain_slices(cases, MR_WINDOW, SPEC, name="source")
    domain = domain_slices(cases, MR_WINDOW, SPEC, name="source", allow_single_subject=True)
    assert set(domain.subjects) == {"p1"}


def test_a_subject_without_a_slice_does_not_count() -> None:
    thin = ct_of(np.where(limb((5, 1, 1)).voxels > 0, 55, -1000), (5, 0.6, 0.6))
    cases = [case_of(limb((5, 1, 1)), "a"), case_of(thin, "b")]
    with pytest.raises(
        InputError, match=r"the target domain shows one subject, 'a' \(of 1 others no slice is left\): "
    ):
        domain_slices(cases, CT_WINDOW, SliceSpec(128, 1.0), name="target")


def test_an_empty_domain_is_refused() -> None:
    with pytest.raises(InputError, match="the target domain is empty: there is no case in it"):
        domain_slices([], MR_WINDOW, SPEC, name="target")
    cases = [case_of(limb((5, 1, 1)), "a"), case_of(limb((5, 1, 1)), "b")]
    with pytest.raises(
        InputError,
        match="the source domain is empty: of 4 slices 0 show less than 2000 mm2 of body and 4 a body larger than "
        "50 x 50 pixels of 1 mm; take larger pixels or more of them, or take the legs apart",
    ):
        domain_slices(cases, CT_WINDOW, SliceSpec(50, 1.0), name="source")
    with pytest.raises(InputError, match=r"4 show less than 100000 mm2 of body and 0 a .*; look at the scans"):
        domain_slices(cases, CT_WINDOW, SliceSpec(150, 1.0, 1e5), name="source")


def test_mixed_contrasts_are_refused() -> None:
    cases = [case_of(example_image(Contrast.T1W), "a"), case_of(example_image(Contrast.FAT), "b")]
    with pytest.raises(
        InputError, match="the source domain mixes contrasts: case 'case-a' is t1w, case 'case-b' fat; a translator"
    ):
        domain_slices(cases, MR_WINDOW, SPEC, name="source")


def test_a_bad_image_is_named() -> None:
    image = example_image(Contrast.T1W)
    good, holes = case_of(image, "a"), image.voxels.copy()
    holes[0, 0, 0] = np.nan
    with pytest.raises(VoxelError, match="1 of 55296 voxels are NaN or infinite"):
        domain_slices((case_of(v, "b") for v in [image, image.with_voxels(holes)]), MR_WINDOW, SPEC, name="source")
    with pytest.raises(VoxelError, match="case 'case-b': the image is constant: every voxel is 0"):
        domain_slices([good, case_of(image.with_voxels(image.voxels * 0), "b")], MR_WINDOW, SPEC, name="source")
    as_mr = example_image(Contrast.CT).with_voxels(example_image(Contrast.CT).voxels, contrast=Contrast.T1W)
    with pytest.raises(ModalityError, match=r"case 'case-b': given as t1w, but the values .* are Hounsfield units"):
        domain_slices([good, case_of(as_mr, "b")], MR_WINDOW, SPEC, name="source")
    speck = np.zeros((1, 40, 40))
    speck[0, 20, 20] = 1
    bad = Image(speck, Grid.from_spacing((1, 40, 40), (1, 1, 1)), Contrast.T1W)
    with pytest.raises(SegmentationError, match="case 'case-b': no body found"):
        domain_slices([good, case_of(bad, "b")], MR_WINDOW, SPEC, name="source")


def test_a_slice_has_a_size_and_a_spacing() -> None:
    with pytest.raises(ParameterError, match=r"size must be a whole number of at least 1, not 12\.5"):
        SliceSpec(12.5, 1.0)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="spacing_mm must be a number above 0, not 0"):
        SliceSpec(64, 0)
    with pytest.raises(ParameterError, match="min_body_mm2 must be a number above 0, not -1"):
        SliceSpec(64, 1, -1)
    with pytest.raises(ParameterError, match="spacing_mm must be a number above 0, not -1"):
        square_shape(example_image(Contrast.T1W).grid, -1)


def numbered(n: int, size: int = 24) -> np.ndarray:
    """Slices that hold their number."""
    return np.repeat(np.arange(n, dtype=np.float32), size * size).reshape(n, size, size)


def test_augmentation_shifts_and_flips_and_adds_nothing_but_air() -> None:
    size = 32
    slice_ = np.arange(1, size * size + 1, dtype=np.float32).reshape(size, size)
    batch = np.repeat(slice_[None], 400, axis=0)
    moved = augment(batch, np.random.default_rng(0))
    assert moved.shape == batch.shape
    assert moved.dtype == np.float32
    assert np.array_equal(batch, np.repeat(slice_[None], 400, axis=0))
    padded = np.pad(slice_, SHIFT_PX, constant_values=-1)
    seen = set()
    for sample in moved:
        middle = sample[size // 2, size // 2 : size // 2 + 2]
        is_flipped = bool(middle[1] < middle[0])
        upright = sample[:, ::-1] if is_flipped else sample
        (y,), (x,) = np.nonzero(padded == upright[16, 16])
        y, x = int(y) - 16, int(x) - 16
        assert np.array_equal(upright, padded[y : y + size, x : x + size])
        seen.add((y, x, is_flipped))
    assert {y for y, _, _ in seen} == {x for _, x, _ in seen} == set(range(2 * SHIFT_PX + 1))
    assert 150 < sum(bool(m[16, 17] < m[16, 16]) for m in moved) < 250


def test_what_belongs_to_one_slice_is_moved_alike() -> None:
    batch = np.random.default_rng(1).random((5, 1, 20, 20)).astype(np.float32).repeat(2, axis=1)
    moved = augment(batch, np.random.default_rng(2))
    assert moved.shape == (5, 2, 20, 20)
    assert np.array_equal(moved[:, 0], moved[:, 1])


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 12))
def test_an_epoch_is_a_pass_over_the_larger_domain(n: int, m: int, batch: int) -> None:
    source, target = numbered(n, 2), numbered(m, 2)
    pairs = list(unpaired(source, target, batch, np.random.default_rng(3)))
    assert all(len(a) == len(b) == batch for a, b in pairs[:-1])
    assert 1 <= len(pairs[-1][0]) == len(pairs[-1][1]) <= batch
    shown = [np.concatenate(side)[:, 0, 0].astype(int).tolist() for side in zip(*pairs, strict=True)]
    assert len(shown[0]) == max(n, m)
    for numbers, count in zip(shown, (n, m), strict=True):
        if count == max(n, m):
            assert sorted(numbers) == list(range(count))
        assert set(numbers) <= set(range(count))


def test_slices_of_the_two_domains_are_not_bound_to_each_other() -> None:
    rng = np.random.default_rng(4)
    first, second = (next(unpaired(numbered(40, 2), numbered(40, 2), 40, rng)) for _ in range(2))
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], second[0])
    partners = [dict(zip(a[:, 0, 0].tolist(), b[:, 0, 0].tolist(), strict=True)) for a, b in (first, second)]
    assert sum(partners[0][k] == partners[1][k] for k in partners[0]) < 8


def test_chance_comes_from_the_generator_alone() -> None:
    source, target = numbered(9), numbered(5)

    def epoch(rng: np.random.Generator) -> list[np.ndarray]:
        return [augment(part, rng) for pair in unpaired(source, target, 2, rng) for part in pair]

    rng = np.random.default_rng(5)
    epoch(rng)
    state, before = rng.bit_generator.state, np.random.get_state()[1].copy()  # noqa: NPY002
    wanted = epoch(rng)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    resumed = np.random.default_rng(99)
    resumed.bit_generator.state = state
    found = epoch(resumed)
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_an_epoch_is_drawn_before_its_first_batch() -> None:
    rng = np.random.default_rng(6)
    pairs = unpaired(numbered(9, 2), numbered(5, 2), 2, rng)
    state = rng.bit_generator.state
    list(pairs)
    assert rng.bit_generator.state == state


def test_batches_cannot_be_drawn_from_nothing() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="the source domain is empty: there is no slice in it"):
        unpaired(numbered(0), numbered(2), 1, rng)
    with pytest.raises(InputError, match="the target domain is empty: there is no slice in it"):
        unpaired(numbered(2), numbered(0), 1, rng)
    with pytest.raises(
        GeometryError, match=r"slices of the source are \(24, 24\) in shape, those of the target \(8, 8\)"
    ):
        unpaired(numbered(2), numbered(2, 8), 1, rng)
    with pytest.raises(ParameterError, match="batch must be a whole number of at least 1, not 0"):
        unpaired(numbered(2), numbered(2), 0, rng)


@pytest.mark.slow
def test_real_scans_can_be_cut(shared_data: Path) -> None:
    dixon = read(shared_data / "huashan" / "Thigh_001_fat.nii.gz", contrast=Contrast.FAT)
    found = slices_of(dixon, MR_WINDOW, SliceSpec(256, 1.0), per_leg=True)
    assert (len(found.slices), found.n_sideless) == (32, 0)
    ct = read(shared_data / "sts" / "STS_013" / "CT_image.nii.gz", contrast=Contrast.CT)
    assert len(slices_of(ct, CT_WINDOW, SliceSpec(256, 1.0), per_leg=True).slices) > 50


def test_the_window_can_be_any() -> None:
    domain = domain_slices(
        [case_of(limb((5, 1, 1)), "a"), case_of(limb((5, 1, 1)), "b")],
        Window("percentile", 0, 100),
        SliceSpec(128, 1.0),
        name="source",
    )
    assert isinstance(domain, DomainSlices)
    assert domain.scale == Scale(-100, 55)
