"""The highest channel of each voxel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from musclekit.neural.winners import highest_channel


@given(
    arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=1, max_dims=4, max_side=6),
        # Few values, so that there are ties.
        elements=st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]),
    )
)
def test_it_is_the_argmax(channels: np.ndarray) -> None:
    found = highest_channel(channels)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, channels.argmax(axis=0))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_of_many_channels_and_any_order_in_memory(dtype: type[np.floating]) -> None:
    drawn = np.random.default_rng(3).random((5, 256, 7)).astype(dtype)
    channels = drawn.swapaxes(0, 1)
    np.testing.assert_array_equal(highest_channel(channels), channels.argmax(axis=0))


def test_what_it_is_given_stays_as_it_is() -> None:
    channels = np.array([[0.1, 0.9], [0.9, 0.1]])
    highest_channel(channels)
    np.testing.assert_array_equal(channels, [[0.1, 0.9], [0.9, 0.1]])
