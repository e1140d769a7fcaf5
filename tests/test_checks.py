from __future__ import annotations

import numpy as np
import pytest

from musclekit.checks import check_cases, check_contrast, check_number, check_voxels, looks_like_ct
from musclekit.errors import ModalityError, ParameterError, VoxelError
from musclekit.image import Case, Contrast, Grid, Image

GRID = Grid.from_spacing((2, 20, 20), (3.0, 1.0, 1.0))


def image(contrast: Contrast, low: float, high: float, share_low: float = 0.5) -> Image:
    voxels = np.full(GRID.shape, high)
    voxels.flat[: int(share_low * voxels.size)] = low
    return Image(voxels, GRID, contrast)


@pytest.mark.parametrize(
    ("low", "high", "share", "answer"),
    [
        (-1000, 60, 0.5, True),
        (-100, 60, 0.05, True),  # a crop inside the leg: fat, no air
        (-3024, 1500, 0.2, True),  # a scanner's padding
        (0, 800, 0.5, False),
        (-2, 800, 0.5, False),  # interpolation makes MR slightly negative
        (-100, 800, 0.0005, False),
        (-30000, 800, 0.5, False),
    ],
)
def test_hounsfield_units_are_recognised(low: float, high: float, share: float, answer: bool) -> None:
    assert looks_like_ct(image(Contrast.CT, low, high, share)) is answer


def test_a_contrast_that_a_method_does_not_take_is_refused() -> None:
    check_contrast(image(Contrast.FAT, 0, 1), {Contrast.FAT}, "n4")
    with pytest.raises(ModalityError, match=r"method 'n4' takes fat, t1w; this image is ct$"):
        check_contrast(image(Contrast.CT, -1000, 60), {Contrast.T1W, Contrast.FAT}, "n4")
    with pytest.raises(ModalityError, match="takes t1w; this image is mr, its weighting not known: name it"):
        check_contrast(image(Contrast.MR, 0, 1), {Contrast.T1W}, "spgc")
    with pytest.raises(ModalityError, match=r"takes ct; this image is mr$"):
        check_contrast(image(Contrast.MR, 0, 1), {Contrast.CT}, "spgc")


@pytest.mark.parametrize(("contrast", "low"), [(Contrast.CT, -1000), (Contrast.MR, 0), (Contrast.T1W, -3)])
def test_good_images_pass(contrast: Contrast, low: float) -> None:
    check_voxels(image(contrast, low, 900))


@pytest.mark.parametrize("contrast", list(Contrast))
def test_a_constant_image_is_refused(contrast: Contrast) -> None:
    with pytest.raises(VoxelError, match=r"the image is constant: every voxel is 7\.5"):
        check_voxels(image(contrast, 7.5, 7.5))


def test_a_ct_of_air_is_refused() -> None:
    with pytest.raises(VoxelError, match=r"nothing but air: no voxel above -200 HU \(highest -900\)"):
        check_voxels(image(Contrast.CT, -1000, -900))


def test_an_mr_given_as_ct_is_refused() -> None:
    with pytest.raises(
        ModalityError, match=r"given as CT, but the values \(0 to 900\) are not Hounsfield .* is it MR\?"
    ):
        check_voxels(image(Contrast.CT, 0, 900))


@pytest.mark.parametrize("contrast", [contrast for contrast in Contrast if contrast is not Contrast.CT])
def test_a_ct_given_as_mr_is_refused(contrast: Contrast) -> None:
    with pytest.raises(ModalityError, match=rf"given as {contrast}, but .* are Hounsfield units; is it CT\?"):
        check_voxels(image(contrast, -1000, 900))


def test_cases_of_another_contrast_are_refused() -> None:
    image = Image(np.zeros((1, 2, 2)), Grid.from_spacing((1, 2, 2), (1, 1, 1)), Contrast.FAT)
    case = Case("a", "somebody", {Contrast.FAT: image})
    check_cases([case], {Contrast.FAT}, "tried")
    with pytest.raises(ModalityError, match="method 'tried' takes ct; this image is fat"):
        check_cases([case], {Contrast.CT}, "tried")


@pytest.mark.parametrize("value", [0, 2.5, np.float32(1), np.int64(3)])
def test_a_number_in_its_range_passes(value: float) -> None:
    check_number("sigma_mm", value, least=0, most=3)


@pytest.mark.parametrize(
    ("value", "limits", "words"),
    [
        ("3", {}, "sigma_mm must be a number, not '3'"),
        (True, {}, "sigma_mm must be a number, not True"),
        (float("nan"), {}, "must be a number, not nan"),
        (-1, {"least": 0}, "must be a number of at least 0, not -1"),
        (0, {"above": 0}, "must be a number above 0, not 0"),
        (5, {"least": 0, "most": 1}, "must be a number of at least 0 and of at most 1, not 5"),
        (2.0, {"whole": True}, "must be a whole number, not 2.0"),
    ],
)
def test_a_number_out_of_its_range_is_refused(value: object, limits: dict[str, float], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        check_number("sigma_mm", value, **limits)  # type: ignore[arg-type]
