from __future__ import annotations

import numpy as np
import pytest

from musclekit.anatomy import body_mask
from musclekit.errors import ModalityError, ParameterError
from musclekit.image import Contrast, Image
from musclekit.testing import example_image
from musclekit.translators import N4, bias_field


def shaded(contrast: Contrast = Contrast.T1W) -> tuple[Image, np.ndarray]:
    image = example_image(contrast, shape=(8, 128, 128), spacing=(6, 2, 2))
    x = np.linspace(-1, 1, 128)
    field = np.exp(0.4 * x)[None, None, :] * np.ones((8, 128, 1))
    return image.with_voxels(image.voxels * field), field


def test_n4_takes_a_known_shading_out() -> None:
    image, field = shaded()
    flat = N4().translate(image)
    # Subcutaneous fat: bright, the same everywhere before it was shaded.
    fat = (example_image(Contrast.T1W, shape=(8, 128, 128), spacing=(6, 2, 2)).voxels > 700) & body_mask(image)
    before = image.voxels[fat].std() / image.voxels[fat].mean()
    after = flat.voxels[fat].std() / flat.voxels[fat].mean()
    assert after < 0.4 * before
    found = bias_field(image, body_mask(image))
    assert np.corrcoef(np.log(found[fat]), np.log(field[fat]))[0, 1] > 0.95


def test_n4_works_on_one_plane() -> None:
    image = example_image(Contrast.T1W, shape=(1, 128, 128))
    assert N4(n_iterations=(5,)).translate(image).grid is image.grid


def test_n4_refuses_ct_and_bad_parameters() -> None:
    with pytest.raises(ModalityError, match="method 'n4' takes"):
        N4().translate(example_image(Contrast.CT))
    with pytest.raises(ParameterError, match="spline_mm must be a number above 0, not -1"):
        N4(spline_mm=-1).translate(example_image(Contrast.T1W))
    with pytest.raises(ParameterError, match="n_iterations must be a list of numbers"):
        N4(n_iterations=()).translate(example_image(Contrast.T1W))
