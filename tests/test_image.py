from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from musclekit.errors import GeometryError, InputError, LabelError, ModalityError, UnknownNameError, VoxelError
from musclekit.image import Case, Contrast, Domain, Grid, Image, LabelMap, ProbabilityMap
from musclekit.labels import label_mapping, label_set

GRID = Grid.from_spacing((2, 3, 4), (5.0, 1.5, 2.0), origin=(-7, 20, 100))


def image(contrast: Contrast = Contrast.CT, grid: Grid = GRID, **settings: Any) -> Image:
    return Image(np.arange(np.prod(grid.shape)).reshape(grid.shape), grid, contrast, **settings)


@st.composite
def affines(draw: st.DrawFn) -> NDArray[np.float64]:
    """Rotations with spacing, any handedness, some shear."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    shear = np.eye(3) + np.triu(rng.uniform(-0.3, 0.3, (3, 3)), 1)
    affine = np.eye(4)
    affine[:3, :3] = rotation @ shear @ np.diag(rng.uniform(0.3, 8, 3))
    affine[:3, 3] = rng.uniform(-500, 500, 3)
    return affine


grids = st.builds(Grid, st.tuples(*[st.integers(1, 40)] * 3), affines())


class TestContrast:
    def test_modality(self) -> None:
        assert Contrast.CT.modality == "ct"
        assert {contrast.modality for contrast in Contrast if contrast is not Contrast.CT} == {"mr"}

    def test_fat_is_bright(self) -> None:
        bright = {contrast: contrast.fat_is_bright for contrast in Contrast}
        assert [c for c, answer in bright.items() if answer] == [Contrast.T1W, Contrast.T2W, Contrast.FAT]
        assert [c for c, answer in bright.items() if answer is None] == [Contrast.MR]

    def test_an_unknown_contrast_is_refused_with_those_there_are(self) -> None:
        with pytest.raises(UnknownNameError, match="unknown contrast 't2'; did you mean 't2w'"):
            Contrast("t2")


class TestGrid:
    def test_from_spacing_points_to_s_a_r(self) -> None:
        np.testing.assert_allclose(GRID.world((0, 0, 0)), (-7, 20, 100))
        np.testing.assert_allclose(GRID.world((1, 0, 0)), (-7, 20, 105))
        np.testing.assert_allclose(GRID.world((0, 1, 0)), (-7, 21.5, 100))
        np.testing.assert_allclose(GRID.world((0, 0, 1)), (-5, 20, 100))
        assert GRID.spacing == (5.0, 1.5, 2.0)
        np.testing.assert_allclose(GRID.origin, (-7, 20, 100))
        assert GRID.voxel_volume_mm3 == pytest.approx(15)

    @settings(max_examples=60, deadline=None)
    @given(grids)
    def test_index_is_the_inverse_of_world(self, grid: Grid) -> None:
        index = np.array([[0, 0, 0], [1.5, -2, 7], [30, 3, 0.25]])
        np.testing.assert_allclose(grid.index(grid.world(index)), index, atol=1e-8)

    @settings(max_examples=60, deadline=None)
    @given(grids)
    def test_derived_geometry(self, grid: Grid) -> None:
        steps = grid.world(np.eye(3)) - grid.world((0, 0, 0))
        np.testing.assert_allclose(np.linalg.norm(steps, axis=1), grid.spacing)
        np.testing.assert_allclose(np.linalg.norm(grid.direction, axis=0), 1)
        np.testing.assert_allclose(grid.direction * grid.spacing, grid.affine[:3, :3])
        assert grid.voxel_volume_mm3 == pytest.approx(abs(np.dot(steps[0], np.cross(steps[1], steps[2]))))

    @settings(max_examples=60, deadline=None)
    @given(grids, st.tuples(*[st.integers(0, 20)] * 3))
    def test_a_crop_stays_where_it_is(self, grid: Grid, start: tuple[int, int, int]) -> None:
        stop = [s + 3 for s in start]
        cropped = grid.crop(start, stop)
        assert cropped.shape == (3, 3, 3)
        inside = np.array([[0, 0, 0], [2, 1, 2]])
        np.testing.assert_allclose(cropped.world(inside), grid.world(inside + start), atol=1e-6)

    def test_corners_are_eight_centres(self) -> None:
        corners = GRID.corners()
        assert corners.shape == (8, 3)
        np.testing.assert_allclose(corners.min(axis=0), (-7, 20, 100))
        np.testing.assert_allclose(corners.max(axis=0), (-1, 23, 105))

    @settings(max_examples=60, deadline=None)
    @given(grids)
    def test_rounding_does_not_make_another_grid(self, grid: Grid) -> None:
        single = Grid(grid.shape, grid.affine.astype(np.float32))
        nudged = grid.affine.copy()
        nudged[0, 3] += 0.5e-3 * min(1, *grid.spacing)
        assert grid.same_as(grid)
        assert grid.same_as(Grid(grid.shape, nudged))
        assert grid.difference(Grid(grid.shape, nudged)) == ""
        # Half a digit of a float32 at 500 mm is 3e-5 mm.
        assert grid.same_as(single)

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            (Grid.from_spacing((2, 3, 5), (5, 1.5, 2)), "shapes (2, 3, 4) and (2, 3, 5) (z, y, x) differ"),
            (Grid.from_spacing((2, 3, 4), (5, 1.5, 2), (-7, 20, 102)), "corners lie up to 2 mm apart"),
            (Grid.from_spacing((2, 3, 4), (5, 1.5, 2.02), (-7, 20, 100)), "corners lie up to 0.06 mm apart"),
            (Grid((2, 3, 4), GRID.affine[[1, 0, 2, 3]]), "mm apart"),
        ],
    )
    def test_other_grids_are_told_apart(self, other: Grid, message: str) -> None:
        assert not GRID.same_as(other)
        assert message in GRID.difference(other)

    def test_an_axis_of_one_voxel_still_counts(self) -> None:
        thin, thick = (Grid.from_spacing((1, 3, 4), (dz, 1, 1)) for dz in (3, 5))
        assert not thin.same_as(thick)
        assert thin.difference(thick) == ("voxels of 3 x 1 x 1 and 5 x 1 x 1 mm (z, y, x) differ, or point another way")

    @pytest.mark.parametrize("shape", [(2, 3), (0, 3, 4), (2, 3, 4, 5), (2.5, 3, 4), (-1, 3, 4)])
    def test_a_shape_is_three_positive_numbers(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(GeometryError, match="three positive dimensions"):
            Grid(shape, np.eye(4))  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("affine", "message"),
        [
            (np.eye(3), "an affine is a 4x4 matrix of finite numbers"),
            (np.diag([1, np.nan, 1, 1]), "an affine is a 4x4 matrix of finite numbers"),
            (np.diag([1, 1, 1, 2]), "the last row of an affine is 0 0 0 1"),
            (np.diag([1, 0, 1, 1]), r"the affine is singular \(spacing 1, 0, 1 mm\): voxels have no volume"),
            ([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "the affine is singular"),
        ],
    )
    def test_a_bad_affine_is_refused(self, affine: Any, message: str) -> None:
        with pytest.raises(GeometryError, match=message):
            Grid((2, 3, 4), affine)

    def test_small_voxels_are_not_singular(self) -> None:
        assert Grid((2, 3, 4), np.diag([1e-3, 1e-3, 1e-3, 1])).voxel_volume_mm3 == pytest.approx(1e-9)

    @pytest.mark.parametrize("spacing", [(0, 1, 1), (1, -1, 1)])
    def test_spacing_is_positive(self, spacing: tuple[float, ...]) -> None:
        with pytest.raises(GeometryError, match="spacing must be positive, not"):
            Grid.from_spacing((2, 3, 4), spacing)

    def test_the_affine_cannot_be_changed(self) -> None:
        affine = np.eye(4)
        grid = Grid((2, 3, 4), affine)
        affine[0, 0] = 9
        assert grid.affine[0, 0] == 1
        with pytest.raises(ValueError, match="read-only"):
            grid.affine[0, 0] = 2


class TestImage:
    def test_voxels_are_float32_and_read_only(self) -> None:
        found = image()
        assert found.voxels.dtype == np.float32
        with pytest.raises(ValueError, match="read-only"):
            found.voxels[0] = 1
        assert found.modality == "ct"

    def test_a_contrast_may_be_a_word(self) -> None:
        assert Image(np.zeros(GRID.shape), GRID, "t1w").contrast is Contrast.T1W  # type: ignore[arg-type]

    @pytest.mark.parametrize("bad", [[np.nan], [np.inf], [np.inf, -np.inf], [1e300]])
    def test_voxels_are_finite(self, bad: list[float]) -> None:
        voxels = np.zeros(GRID.shape)
        voxels.flat[: len(bad)] = bad
        with pytest.raises(VoxelError, match=f"{len(bad)} of 24 voxels are NaN or infinite; replace them"):
            Image(voxels, GRID, Contrast.CT)

    def test_large_finite_voxels_are_taken(self) -> None:
        assert Image(np.full(GRID.shape, 3e38), GRID, Contrast.MR).voxels.max() == np.float32(3e38)

    def test_voxels_fit_the_grid(self) -> None:
        with pytest.raises(GeometryError, match=r"the image has shape \(3, 4\), its grid \(2, 3, 4\)"):
            Image(np.zeros((3, 4)), GRID, Contrast.CT)

    def test_with_voxels_keeps_what_is_not_given(self) -> None:
        before = image(Contrast.FAT, domain="hard")
        after = before.with_voxels(before.voxels * 2)
        assert (after.contrast, after.domain, after.grid) == (Contrast.FAT, "hard", GRID)
        changed = before.with_voxels(before.voxels, contrast=Contrast.T1W, domain="easy")
        assert (changed.contrast, changed.domain) == (Contrast.T1W, "easy")


class TestLabelMap:
    @pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.int64, np.uint64])
    def test_ids_are_stored_small(self, dtype: type) -> None:
        labels = LabelMap(np.ones(GRID.shape, dtype), GRID, label_set("muscle"))
        assert labels.voxels.dtype == np.uint8
        assert (labels.voxels == 1).all()
        with pytest.raises(ValueError, match="read-only"):
            labels.voxels[0] = 0

    @pytest.mark.parametrize(
        ("ids", "message"),
        [
            (np.full(GRID.shape, 12), r"label ids \[12\] do not belong to the set 'huashan-11'"),
            (np.full(GRID.shape, -1), "label ids lie between 0 and 65535, found -1 to -1"),
            (np.full(GRID.shape, 70000), "label ids lie between 0 and 65535, found 70000 to 70000"),
            (np.ones(GRID.shape), "label ids are integers, not float64"),
        ],
    )
    def test_strange_ids_are_refused(self, ids: NDArray[Any], message: str) -> None:
        with pytest.raises(LabelError, match=message):
            LabelMap(ids, GRID, label_set("huashan-11"))

    def test_ids_fit_the_grid(self) -> None:
        with pytest.raises(GeometryError, match="the label map has shape"):
            LabelMap(np.ones((2, 3, 5), int), GRID, label_set("muscle"))

    def test_a_mask_is_a_union(self) -> None:
        names = label_set("functional-3-sided")
        labels = LabelMap(np.arange(24).reshape(GRID.shape) % 7, GRID, names)
        extensor = names.ids_of("extensor")
        np.testing.assert_array_equal(labels.mask("extensor"), np.isin(labels.voxels, extensor))
        np.testing.assert_array_equal(labels.mask("extensor", "FLX", "adductor"), labels.voxels > 0)
        np.testing.assert_array_equal(labels.mask(), labels.voxels > 0)
        with pytest.raises(LabelError, match="has no label 'femur'"):
            labels.mask("femur")

    def test_mapped_leads_to_another_set(self) -> None:
        labels = LabelMap(np.arange(24).reshape(GRID.shape) % 12, GRID, label_set("huashan-11"))
        mapped = labels.mapped(label_mapping(labels.label_set, label_set("thigh-4")))
        np.testing.assert_array_equal(mapped.mask("sartorius"), labels.mask("sartorius"))
        np.testing.assert_array_equal(
            mapped.mask("quadriceps femoris"),
            labels.mask("rectus femoris", "vastus lateralis", "vastus intermedius", "vastus medialis"),
        )
        assert not mapped.voxels[labels.mask("adductor magnus")].any()
        with pytest.raises(LabelError, match="the mapping starts from 'thigh-4', the labels are 'huashan-11'"):
            labels.mapped(label_mapping(label_set("thigh-4"), label_set("muscle")))


class TestProbabilityMap:
    def test_the_most_probable_label_wins(self) -> None:
        names = label_set("qmritools-sided")
        voxels = np.zeros((len(names) + 1, *GRID.shape))
        channel = np.arange(24).reshape(GRID.shape) % voxels.shape[0]
        np.put_along_axis(voxels, channel[None], 1, axis=0)
        ids = np.array([0, *(label.id for label in names)])
        found = ProbabilityMap(voxels, GRID, names)
        np.testing.assert_array_equal(found.labels().voxels, ids[channel])
        both = names.ids_of("semimembranosus")
        np.testing.assert_array_equal(found.of("semimembranosus") == 1, np.isin(ids[channel], both))

    def test_bad_probabilities_are_refused(self) -> None:
        muscle = label_set("muscle")
        with pytest.raises(GeometryError, match=r"expected \(2, 2, 3, 4\) \(channel, z, y, x\)"):
            ProbabilityMap(np.zeros((3, *GRID.shape)), GRID, muscle)
        for value in (1.1, -0.1, np.nan):
            with pytest.raises(VoxelError, match="probabilities lie between 0 and 1, found"):
                ProbabilityMap(np.full((2, *GRID.shape), value), GRID, muscle)


class TestDomain:
    def test_a_domain_holds_images_of_its_contrast_and_grade(self) -> None:
        hard = image(Contrast.T1W, domain="hard")
        assert Domain(Contrast.T1W).holds(hard)
        assert Domain(Contrast.T1W, "hard").holds(hard)
        assert not Domain(Contrast.T1W, "easy").holds(hard)
        assert not Domain(Contrast.CT).holds(hard)

    def test_a_domain_may_hold_an_image_whose_grade_is_not_known(self) -> None:
        hard, unknown = image(Contrast.T1W, domain="hard"), image(Contrast.T1W)
        assert Domain(Contrast.T1W, "hard").may_hold(unknown)
        assert Domain(Contrast.T1W, "hard").may_hold(hard)
        assert not Domain(Contrast.T1W, "easy").may_hold(hard)
        assert not Domain(Contrast.CT).may_hold(unknown)


class TestCase:
    def test_a_case_holds_images_on_one_grid(self) -> None:
        reference = LabelMap(np.ones(GRID.shape, int), GRID, label_set("muscle"))
        case = Case("a", "s", {"ct": image()}, reference, side="left", meta={"age": 70})  # type: ignore[dict-item]
        assert case.image is case.images[Contrast.CT]
        with pytest.raises(TypeError):
            case.images[Contrast.T1W] = image()  # type: ignore[index]

    def test_bad_cases_are_refused(self) -> None:
        elsewhere = Grid.from_spacing(GRID.shape, GRID.spacing)
        labels = LabelMap(np.ones(GRID.shape, int), elsewhere, label_set("muscle"))
        with pytest.raises(InputError, match="case 'a' names no subject"):
            Case("a", "", {Contrast.CT: image()})
        with pytest.raises(InputError, match="case 'a' has no image"):
            Case("a", "s", {})
        with pytest.raises(ModalityError, match="case 'a' files a t1w image under ct"):
            Case("a", "s", {Contrast.CT: image(Contrast.T1W)})
        with pytest.raises(GeometryError, match="case 'a': the reference lies on another grid: corners lie up to"):
            Case("a", "s", {Contrast.CT: image()}, labels)
        with pytest.raises(GeometryError, match="case 'a': the water lies on another grid"):
            Case("a", "s", {Contrast.FAT: image(Contrast.FAT), Contrast.WATER: image(Contrast.WATER, elsewhere)})

    def test_several_images_must_be_chosen_from(self) -> None:
        case = Case("a", "s", {c: image(c) for c in (Contrast.FAT, Contrast.WATER)})
        with pytest.raises(InputError, match=r"case 'a' has several images \(fat, water\); choose one"):
            _ = case.image
        assert case.image_of(Contrast.WATER) is case.images[Contrast.WATER]
        with pytest.raises(InputError, match="case 'a' has no t1w image, only fat, water"):
            case.image_of(Contrast.T1W)
        with pytest.raises(InputError, match="case 'a' has several images"):
            case.image_of(None)

    def test_the_only_image_need_not_be_named(self) -> None:
        case = Case("a", "s", {Contrast.CT: image()})
        assert case.image_of(None) is case.image_of(Contrast.CT) is case.image

    def test_a_case_can_be_sent_to_another_process(self) -> None:
        reference = LabelMap(np.ones(GRID.shape, int), GRID, label_set("muscle"))
        case = Case("a", "s", {Contrast.CT: image()}, reference, meta={"age": 70})
        other = pickle.loads(pickle.dumps(case))
        np.testing.assert_array_equal(other.image.voxels, case.image.voxels)
        assert other.image.grid.same_as(GRID)
        assert other.reference.label_set == reference.label_set
        assert other.meta == {"age": 70}
        for array in (other.image.voxels, other.reference.voxels, other.image.grid.affine):
            assert not array.flags.writeable

    def test_what_cannot_change_is_not_copied(self) -> None:
        case = Case("a", "s", {Contrast.CT: image()})
        assert copy.deepcopy(case) is case
        assert copy.deepcopy([case.image])[0] is case.image


def test_what_is_shown_in_a_notebook_is_short() -> None:
    labels = LabelMap(np.ones(GRID.shape, int), GRID, label_set("muscle"))
    probabilities = ProbabilityMap(np.zeros((2, *GRID.shape)), GRID, label_set("muscle"))
    assert repr(image()) == "Image(ct, Grid(2 x 3 x 4 voxels of 5 x 1.5 x 2 mm (z, y, x)))"
    assert repr(labels).startswith("LabelMap(muscle, Grid(")
    assert repr(probabilities).startswith("ProbabilityMap(muscle, Grid(")
    assert repr(label_set("muscle")) == "LabelSet(muscle: 1 muscle)"


def test_what_the_caller_does_later_does_not_reach_the_image() -> None:
    given = np.zeros((2, 3, 4), np.float32)
    grid = Grid.from_spacing(given.shape, (1, 1, 1))
    image = Image(given, grid, Contrast.CT)
    labels_given = np.zeros((2, 3, 4), np.uint8)
    labels = LabelMap(labels_given, grid, label_set("muscle"))
    given[0, 0, 0] = np.nan
    labels_given[0, 0, 0] = 99
    assert image.voxels[0, 0, 0] == 0
    assert labels.voxels[0, 0, 0] == 0
