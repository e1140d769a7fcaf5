from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import numpy as np
import pytest

from musclekit.anatomy import Leg
from musclekit.errors import InputError, LabelError, VoxelError
from musclekit.image import Case, Contrast, Grid, Image, LabelMap
from musclekit.labels import LabelSet, Side, label_set
from musclekit.phantom import make_case
from musclekit.segmenters import TissueSegmenter
from musclekit.translators.domains import MEASURES, Difference, compare_domains, compartment_shapes

SPACING = (5.0, 1.0, 1.0)


class Bright:
    """Calls every voxel above a level compartment."""

    contrasts = frozenset(Contrast)

    def __init__(self, set_name: str = "compartment", level: float = 0.0) -> None:
        self.set_name = set_name
        self.level = level

    @property
    def label_set(self) -> LabelSet:
        return label_set(self.set_name)

    def fit(self, cases: Sequence[Case]) -> Self:
        return self

    def segment(self, image: Image) -> LabelMap:
        return LabelMap((image.voxels > self.level).astype(np.uint8), image.grid, self.label_set)


def ellipse(grid: Grid, y_mm: float, x_mm: float, centre_mm: tuple[float, float]) -> np.ndarray:
    rows, columns = ((np.arange(n) + 0.5) * step for n, step in zip(grid.shape[1:], grid.spacing[1:], strict=True))
    plane = ((rows[:, None] - centre_mm[0]) / y_mm) ** 2 + ((columns[None] - centre_mm[1]) / x_mm) ** 2 < 1
    return np.repeat(plane[None], grid.shape[0], axis=0)


def thigh(
    *,
    radius: float = 50.0,
    squeeze: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
    spacing: tuple[float, float, float] = SPACING,
    planes: int = 2,
) -> Image:
    """CT of one round limb with a compartment of muscle inside."""
    field = 180.0
    grid = Grid.from_spacing((planes, round(field / spacing[1]), round(field / spacing[2])), spacing)
    skin = ellipse(grid, 75, 75, (90, 90))
    muscle = ellipse(grid, radius * squeeze, radius / squeeze, (90 + shift[0], 90 + shift[1]))
    return Image(np.where(muscle, 55, np.where(skin, -100, -1000)), grid, Contrast.CT)


def domain(
    radii: Sequence[float], *, side: Side | None = "right", squeeze: float = 1.0, shift: tuple[float, float] = (0, 0)
) -> list[Case]:
    return [
        Case(f"c{n}", f"s{n}", {Contrast.CT: thigh(radius=r, squeeze=squeeze, shift=shift)}, side=side)
        for n, r in enumerate(radii)
    ]


@pytest.mark.parametrize("spacing", [(5.0, 1.0, 1.0), (5.0, 0.5, 1.5), (5.0, 1.5, 0.6)])
@pytest.mark.parametrize(("side", "sign"), [("right", 1), ("left", -1)])
def test_shapes_of_an_ellipse(spacing: tuple[float, float, float], side: Side, sign: int) -> None:
    grid = Grid.from_spacing((3, round(180 / spacing[1]), round(180 / spacing[2])), spacing)
    leg = Leg(side, ellipse(grid, 75, 75, (90, 90)))
    muscle = ellipse(grid, 40, 60, (95, 87))
    muscle[1] = False
    shapes = compartment_shapes(muscle, leg, grid)
    assert shapes.shape == (2, len(MEASURES))
    area, eccentricity, solidity, forwards, outwards = shapes[0]
    assert area == pytest.approx(np.pi * 40 * 60, rel=0.01)
    assert eccentricity == pytest.approx(math.sqrt(1 - (40 / 60) ** 2), abs=0.01)
    assert 0.96 < solidity <= 1
    assert forwards == pytest.approx(5, abs=0.1)
    # Columns run to the patient's right.
    assert outwards == pytest.approx(-3 * sign, abs=0.1)
    assert np.array_equal(shapes[0], shapes[1])


def test_forwards_and_outwards_do_not_hang_on_the_order_of_the_array() -> None:
    grid = Grid.from_spacing((2, 180, 180), SPACING)
    leg, muscle = Leg("right", ellipse(grid, 75, 75, (90, 90))), ellipse(grid, 40, 60, (95, 87))
    turned = grid.affine.copy()
    turned[:, 1:3] *= -1
    turned[:3, 3] = grid.world((0, 179, 179))
    flipped = Leg("right", leg.mask[:, ::-1, ::-1])
    found = compartment_shapes(muscle[:, ::-1, ::-1], flipped, Grid(grid.shape, turned))
    assert np.allclose(found, compartment_shapes(muscle, leg, grid))


def test_a_leg_of_unknown_side_has_no_outwards() -> None:
    grid = Grid.from_spacing((1, 180, 180), SPACING)
    mask = ellipse(grid, 75, 75, (90, 90))
    shapes = compartment_shapes(ellipse(grid, 40, 40, (90, 90)), Leg(None, mask), grid)
    assert np.isnan(shapes[0]).tolist() == [False, False, False, False, True]


def test_specks_have_no_shape_and_what_lies_outside_the_leg_does_not_count() -> None:
    grid = Grid.from_spacing((1, 180, 180), SPACING)
    leg = Leg("right", ellipse(grid, 75, 75, (90, 90)))
    assert compartment_shapes(ellipse(grid, 5, 5, (90, 90)), leg, grid).shape == (0, len(MEASURES))
    both = ellipse(grid, 20, 20, (90, 90)) | ellipse(grid, 4, 4, (8, 8))
    assert compartment_shapes(both, leg, grid)[0, 0] == pytest.approx(np.pi * 400, rel=0.02)


def test_alike_domains_give_no_warning() -> None:
    radii = (45.0, 50.0, 55.0, 60.0)
    found = compare_domains(domain(radii), domain(radii), Bright())
    assert [one.measure for one in found.differences] == list(MEASURES)
    assert all(one.effect == 0 for one in found.differences)
    assert found.warnings() == ()


def test_a_difference_is_a_warning_with_numbers() -> None:
    found = compare_domains(domain((44.0, 46.0, 48.0)), domain((54.0, 56.0, 58.0, 60.0)), Bright())
    area = found.differences[0]
    source, target = (np.pi * np.square(radii) for radii in ((44, 46, 48), (54, 56, 58, 60)))
    spread = math.sqrt((2 * source.var(ddof=1) + 3 * target.var(ddof=1)) / 5)
    assert area.effect == pytest.approx((target.mean() - source.mean()) / spread, rel=0.02)
    error = math.sqrt(7 / 12 + area.effect**2 / 14)
    assert (area.low, area.high) == pytest.approx((area.effect - 1.96 * error, area.effect + 1.96 * error))
    assert area.source == pytest.approx(np.pi * 46**2, rel=0.01)
    assert area.target == pytest.approx(np.pi * 57**2, rel=0.01)
    (line,) = [line for line in found.warnings() if "area" in line]
    assert line == (
        f"the domains differ: area of the compartment: median {area.source:.0f} mm2 in the source (3 subjects), "
        f"{area.target:.0f} mm2 in the target (4); standardised difference {area.effect:.2f} "
        f"(95 % interval {area.low:.2f} to {area.high:.2f})"
    )


@pytest.mark.parametrize(
    ("measure", "squeeze", "shift"),
    [("eccentricity", 1.2, (0.0, 0.0)), ("place forwards", 1.0, (8.0, 0.0)), ("place outwards", 1.0, (0.0, 8.0))],
)
def test_shape_and_place_are_compared_too(measure: str, squeeze: float, shift: tuple[float, float]) -> None:
    radii = (45.0, 50.0, 55.0)
    found = compare_domains(domain(radii), domain(radii, squeeze=squeeze, shift=shift), Bright())
    large = {one.measure: one for one in found.differences if one.is_large}
    assert measure in large
    assert large[measure].effect > 0
    assert "area" not in large


def test_a_subject_counts_once_however_many_slices_it_has() -> None:
    source = domain((45.0, 50.0, 55.0))
    again = [Case(f"again{n}", "s0", {Contrast.CT: thigh(radius=45.0, planes=6)}, side="right") for n in range(3)]
    target = domain((46.0, 51.0, 56.0))
    once, often = compare_domains(source, target, Bright()), compare_domains([*source, *again], target, Bright())
    assert once.differences == often.differences
    assert (often.n_source, often.n_target) == (3, 3)


def test_subjects_that_are_all_alike_differ_by_infinity_or_by_nothing() -> None:
    found = compare_domains(domain((50.0, 50.0)), domain((55.0, 55.0)), Bright())
    effects = {one.measure: one.effect for one in found.differences}
    assert effects["area"] == math.inf
    assert effects["place forwards"] == 0
    assert any("standardised difference inf (95 % interval inf to inf)" in line for line in found.warnings())


def test_one_subject_each_cannot_be_compared() -> None:
    found = compare_domains(domain((50.0,)), domain((55.0,)), Bright())
    assert all(math.isnan(one.effect) and not one.is_large for one in found.differences)
    assert found.warnings() == ("the domains cannot be compared with 1 subject(s) in the source and 1 in the target",)


def test_unknown_sides_leave_the_rest_to_be_compared() -> None:
    radii = (45.0, 50.0, 55.0)
    found = compare_domains(domain(radii, side=None), domain(radii), Bright())
    assert [one.measure for one in found.differences] == [name for name in MEASURES if name != "place outwards"]


def test_a_case_without_a_compartment_is_named() -> None:
    source = domain((45.0, 50.0, 55.0))
    source[1] = Case("bare", "s1", {Contrast.CT: source[1].image.with_voxels(source[1].image.voxels - 80)})
    found = compare_domains(source, domain((45.0, 50.0, 55.0)), Bright())
    assert found.missing == ("bare",)
    assert found.n_source == 2
    assert "1 case(s) show no muscle compartment: bare" in found.warnings()


def test_errors_say_what_is_wrong() -> None:
    cases = domain((45.0, 50.0))
    with pytest.raises(InputError, match="the target domain is empty: there is no case in it"):
        compare_domains(cases, [], Bright())
    with pytest.raises(InputError, match="the source domain is empty: no slice shows a muscle compartment"):
        compare_domains(cases, cases, Bright(level=1e6))
    with pytest.raises(LabelError, match="no map from 'muscle' to 'compartment'"):
        compare_domains(cases, cases, Bright("muscle"))
    constant = cases[0].image.with_voxels(np.zeros(cases[0].image.grid.shape))
    with pytest.raises(VoxelError, match="case 'flat': the image is constant: every voxel is 0"):
        compare_domains([Case("flat", "s", {Contrast.CT: constant})], cases, Bright(level=-1))
    with pytest.raises(InputError, match=r"^case 'c0' has no t1w image, only ct"):
        compare_domains(cases, cases, Bright(), target_contrast=Contrast.T1W)


def test_numbers_are_written_plainly() -> None:
    assert str(Difference("area", "mm2", 12345.6, 99.94, 3, 4, 1.0, 0.5, 1.5)).startswith(
        "area of the compartment: median 12346 mm2 in the source (3 subjects), 99.9 mm2 in the target (4); "
    )
    assert "median 0.612 in the source" in str(Difference("eccentricity", "", 0.6123, 0.7, 3, 4, 1.0, 0.5, 1.5))


def test_thighs_of_two_grades_are_alike_and_larger_ones_are_not() -> None:
    def cohort(seeds: range, grade: str, pixel: float) -> list[Case]:
        return [
            make_case(seed, grade=grade, legs="right", shape=(2, 96, 96), spacing=(8, pixel, pixel))  # type: ignore[arg-type]
            for seed in seeds
        ]

    healthy = cohort(range(3), "healthy", 2.2)
    same = compare_domains(healthy, cohort(range(3), "severe", 2.2), TissueSegmenter())
    assert abs(same.differences[0].effect) < 0.5
    # The same voxels said to be larger.
    larger = [
        Case(c.id, c.subject, {Contrast.T1W: Image(c.image.voxels, grid, Contrast.T1W)}, side="right")
        for c in healthy
        for grid in [Grid.from_spacing(c.image.grid.shape, (8, 2.8, 2.8))]
    ]
    found = compare_domains(healthy, larger, TissueSegmenter())
    assert any("area of the compartment" in line for line in found.warnings())
