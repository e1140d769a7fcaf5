from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from musclekit.anatomy import body_mask
from musclekit.errors import MissingFileError, ModalityError, ParameterError
from musclekit.image import Contrast
from musclekit.io import write_image
from musclekit.testing import example_image
from musclekit.translators import HistogramMatch, body_quantiles


def test_quantiles_inside_the_body_become_the_template_s() -> None:
    template = example_image(Contrast.T1W, seed=1)
    image = template.with_voxels(template.voxels**0.8 * 3 + 5)
    matched = HistogramMatch(template=template).translate(image)
    inside = body_mask(image)
    wanted = body_quantiles(template, 21)
    found = np.quantile(matched.voxels[inside], np.linspace(0, 1, 21))
    assert np.abs(found - wanted).max() < 0.02 * np.ptp(wanted)


def test_a_template_matches_itself_to_itself() -> None:
    image = example_image(Contrast.FAT)
    assert np.allclose(HistogramMatch(template=image).translate(image).voxels, image.voxels, atol=1e-2)


def test_the_map_is_monotone() -> None:
    image = example_image(Contrast.T1W, seed=3)
    matched = HistogramMatch(
        template=example_image(Contrast.T2W).with_voxels(example_image(Contrast.T2W).voxels, contrast=Contrast.T1W)
    ).translate(image)
    order = np.argsort(image.voxels.reshape(-1), kind="stable")
    assert (np.diff(matched.voxels.reshape(-1)[order]) >= -1e-2).all()


def test_a_template_can_be_a_file(tmp_path: Path) -> None:
    template = example_image(Contrast.T1W, seed=1)
    write_image(template, tmp_path / "template.nii.gz")
    image = example_image(Contrast.T1W, seed=2)
    from_file = HistogramMatch(template=str(tmp_path / "template.nii.gz")).translate(image)
    assert np.allclose(from_file.voxels, HistogramMatch(template=template).translate(image).voxels, atol=1e-2)


def test_errors_say_what_is_wrong(tmp_path: Path) -> None:
    image = example_image(Contrast.T1W)
    with pytest.raises(ParameterError, match="histogram-match needs a template"):
        HistogramMatch().translate(image)
    with pytest.raises(
        ParameterError, match="n_quantiles must be a whole number of at least 2 and of at most 1048576, not 1"
    ):
        HistogramMatch(template=image, n_quantiles=1).translate(image)
    with pytest.raises(ModalityError, match="the template is fat, the image t1w"):
        HistogramMatch(template=example_image(Contrast.FAT)).translate(image)
    with pytest.raises(MissingFileError, match=r"nowhere\.nii\.gz"):
        HistogramMatch(template=tmp_path / "nowhere.nii.gz").translate(image)
