from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from musclekit.anatomy import body_mask
from musclekit.errors import GeometryError, ParameterError, SchemaError, SegmentationError, VoxelError
from musclekit.image import Contrast, Grid, Image
from musclekit.neural.windows import CT_WINDOW, MR_WINDOW, Scale, Window
from musclekit.testing import example_image

FINITE = st.floats(-1e6, 1e6, width=32)


@given(low=FINITE, width=st.floats(1e-3, 1e6), shares=hnp.arrays(np.float64, (3, 5), elements=st.floats(0, 1)))
def test_what_lies_inside_the_window_comes_back(low: float, width: float, shares: np.ndarray) -> None:
    scale = Scale(low, low + width)
    voxels = np.clip((low + shares * width).astype(np.float32), np.float32(low), None)
    voxels = np.where((voxels >= scale.low) & (voxels <= scale.high), voxels, np.float32(low))
    unit = scale.to_unit(voxels)
    assert unit.dtype == np.float32
    assert np.abs(unit).max() <= 1
    assert np.abs(scale.from_unit(unit).astype(np.float64) - voxels).max() <= 1e-5 * width


@given(hnp.arrays(np.float64, 7, elements=st.floats(-1, 1)), FINITE, st.floats(1, 1e6))
def test_the_way_there_undoes_the_way_back(values: np.ndarray, low: float, width: float) -> None:
    scale = Scale(low, low + width)
    # float32 keeps 24 binary digits of a grey value, however far the window lies from 0.
    rounding = 2 * np.spacing(np.float32(max(abs(low), abs(low + width)))) / width
    assert np.abs(scale.to_unit(scale.from_unit(values)) - values).max() <= 1e-6 + rounding


def test_the_ends_become_minus_one_and_one_and_what_lies_beyond_is_clipped() -> None:
    unit = Scale(-200, 500).to_unit([-1000, -200, 150, 500, 3000])
    assert unit.tolist() == [-1, -1, 0, 1, 1]


def test_eight_bits_leave_256_values_half_a_step_off_at_most() -> None:
    grey = np.linspace(-300, 500, 10_000)
    window = Window("fixed", -150, 350, quantize_bits=8)
    scale = window.scale_of(example_image(Contrast.CT))
    rounded = scale.to_unit(grey)
    assert np.array_equal(np.unique(rounded), (2 * (np.arange(256) / 255) - 1).astype(np.float32))
    assert np.abs(rounded - Scale(-150, 350).to_unit(grey)).max() <= 1 / 255 + 1e-6
    assert Window.from_data(window.as_data()) == window
    assert window.as_data()["quantize_bits"] == 8
    for bits in (0, 17, 2.5):
        with pytest.raises(ParameterError, match="quantize_bits"):
            Window("fixed", -150, 350, quantize_bits=bits)  # type: ignore[arg-type]


def test_the_way_back_does_not_clip() -> None:
    assert Scale(0, 100).from_unit([-1.5, 1, 2]).tolist() == [-25, 100, 150]


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint16, np.float32, np.float64])
def test_whole_numbers_and_floats_give_the_same(dtype: type) -> None:
    grey = np.array([0, 1, 100, 1000, 32767])
    scale = Scale(0, 32767)
    assert np.array_equal(scale.to_unit(grey.astype(dtype)), scale.to_unit(grey))


def test_signed_16_bit_does_not_overflow() -> None:
    grey = np.array([-32768, 0, 32767], dtype=np.int16)
    assert np.allclose(Scale(-32768, 32767).to_unit(grey), [-1, 0, 1], atol=1e-4)


def test_a_constant_image_becomes_minus_one_and_comes_back() -> None:
    image = Image(np.full((2, 4, 4), 37.5), Grid.from_spacing((2, 4, 4), (1, 1, 1)), Contrast.T1W)
    for window in (CT_WINDOW, MR_WINDOW):
        scale = window.scale_of(image)
        unit = scale.to_unit(image.voxels)
        assert (unit == -1).all()
        assert np.array_equal(scale.from_unit(unit), image.voxels)


def test_the_fixed_window_is_the_same_for_every_scan() -> None:
    assert CT_WINDOW.scale_of(example_image(Contrast.CT)) == Scale(-200, 500)


@pytest.mark.parametrize("window", [CT_WINDOW, MR_WINDOW])
def test_an_inverted_window_turns_bright_into_dark(window: Window) -> None:
    image = example_image(Contrast.CT if window is CT_WINDOW else Contrast.T1W)
    plain, inverted = (replace(window, inverted=turned).scale_of(image) for turned in (False, True))
    assert inverted.ends == plain.ends == (plain.low, plain.high)
    unit = inverted.to_unit(image.voxels)
    np.testing.assert_allclose(unit, -plain.to_unit(image.voxels), atol=1e-6)
    np.testing.assert_allclose(inverted.from_unit(unit), np.clip(image.voxels, *plain.ends), atol=1e-2)


def test_percentiles_are_those_of_the_body_in_the_whole_volume() -> None:
    image = example_image(Contrast.T1W)
    low, high = np.percentile(image.voxels[body_mask(image)], (0.5, 99.5))
    scale = MR_WINDOW.scale_of(image)
    assert (scale.low, scale.high) == pytest.approx((low, high))
    # A slice at half the brightness stays darker than the others: it is not stretched by itself.
    voxels = image.voxels.copy()
    voxels[0] *= 0.5
    dimmed = image.with_voxels(voxels)
    unit = MR_WINDOW.scale_of(dimmed).to_unit(voxels)
    assert unit[0].max() < 0.2 < unit[1].max()


def test_air_takes_no_part_in_percentiles() -> None:
    image = example_image(Contrast.T1W, shape=(3, 64, 64))
    wide = np.zeros((3, 192, 192), dtype=np.float32)
    wide[:, 64:128, 64:128] = image.voxels
    padded = Image(wide, Grid.from_spacing(wide.shape, image.grid.spacing), image.contrast)
    scale = MR_WINDOW.scale_of(padded, np.pad(body_mask(image), ((0, 0), (64, 64), (64, 64))))
    alone = MR_WINDOW.scale_of(image)
    assert (scale.low, scale.high) == pytest.approx((alone.low, alone.high))


def test_data_and_back() -> None:
    for window in (CT_WINDOW, MR_WINDOW, Window("fixed", 0, 1), Window("percentile", 1, 99, inverted=True)):
        assert Window.from_data(window.as_data()) == window
    # As cards were written before there was such a thing.
    assert set(MR_WINDOW.as_data()) == {"kind", "low", "high"}


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(VoxelError, match="1 of 3 grey values are NaN or infinite"):
        Scale(0, 1).to_unit([0, np.nan, 1])
    with pytest.raises(VoxelError, match="2 of 2 values of the network are NaN or infinite"):
        Scale(0, 1).from_unit([np.inf, -np.inf])
    with pytest.raises(ParameterError, match="low must be a number, not nan"):
        Scale(float("nan"), 1)
    with pytest.raises(ParameterError, match="a window is one of fixed, percentile, not 'minmax'"):
        Window("minmax", 0, 1)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="high must be a number above 5, not 5"):
        Window("fixed", 5, 5)
    with pytest.raises(ParameterError, match=r"high must be a number above 0\.5 and of at most 100, not 101"):
        Window("percentile", 0.5, 101)
    with pytest.raises(ParameterError, match="low must be a number of at least 0 and of at most 100, not -1"):
        Window("percentile", -1, 99)
    with pytest.raises(SchemaError, match="fields kind, low, high and perhaps inverted and quantize_bits, not high"):
        Window.from_data({"low": 0, "high": 1})
    with pytest.raises(SchemaError, match="not none"):
        Window.from_data({})
    image = example_image(Contrast.T1W)
    with pytest.raises(GeometryError, match=r"the body mask has shape \(1, 2, 3\), the image \(6, 96, 96\)"):
        MR_WINDOW.scale_of(image, np.ones((1, 2, 3), dtype=bool))
    with pytest.raises(VoxelError, match="percentiles of an empty body mask"):
        MR_WINDOW.scale_of(image, np.zeros(image.grid.shape, dtype=bool))
    speck = np.zeros((1, 40, 40))
    speck[0, 20, 20] = 1
    with pytest.raises(SegmentationError, match="no body found"):
        MR_WINDOW.scale_of(Image(speck, Grid.from_spacing((1, 40, 40), (1, 1, 1)), Contrast.T1W))
