"""Steps that are worked out once."""

from __future__ import annotations

import numpy as np
import pytest

from musclekit.image import Case, Contrast, Grid, Image
from musclekit.memory import Memory, fingerprint, remembered, remembering
from musclekit.segmenters.threshold import ThresholdSegmenter
from musclekit.testing import example_image


@remembered()
def doubled(values: np.ndarray, factor: float = 2.0) -> np.ndarray:
    return values * factor


@remembered(lasts=True)
def shift(image: Image) -> np.ndarray:
    return np.array([image.voxels.mean(), 1.0])


def test_a_step_is_worked_out_once_for_equal_content():
    values = np.arange(4.0)
    with remembering(Memory()) as memory:
        first = doubled(values)
        second = doubled(values.copy())
        other = doubled(values, 3.0)
    assert first is second
    np.testing.assert_array_equal(other, [0, 3, 6, 9])
    assert sum(memory.computed.values()) == 2


def test_without_a_memory_every_call_works_and_results_are_read_only_too():
    first, second = doubled(np.ones(2)), doubled(np.ones(2))
    assert first is not second
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 5


def test_a_memory_is_left_behind_with_its_block():
    with remembering(Memory()) as memory:
        doubled(np.ones(2))
    doubled(np.ones(3))
    assert sum(memory.computed.values()) == 1


def test_a_block_without_a_memory_of_its_own_uses_the_one_there_is():
    with remembering() as own:
        doubled(np.ones(2))
        doubled(np.ones(2))
    assert sum(own.computed.values()) == 1
    with remembering(Memory()) as outer, remembering() as inner:
        assert inner is outer


def test_the_oldest_results_are_forgotten_first():
    size = np.ones(100).nbytes
    with remembering(Memory(max_bytes=2 * size)) as memory:
        for factor in (1.0, 2.0, 1.0, 3.0):
            doubled(np.ones(100), factor)
        doubled(np.ones(100), 1.0)
        assert sum(memory.computed.values()) == 3
        doubled(np.ones(100), 2.0)
        assert sum(memory.computed.values()) == 4


def test_what_is_too_large_is_not_kept():
    with remembering(Memory(max_bytes=10)) as memory:
        doubled(np.ones(100))
        doubled(np.ones(100))
    assert sum(memory.computed.values()) == 2


def test_lasting_results_serve_another_memory():
    image = example_image(Contrast.T1W)
    with remembering(Memory(max_bytes=0)) as first:
        wanted = shift(image)
        shift(image)
    assert sum(first.computed.values()) == 1
    with remembering(Memory(lasting=first.lasting)) as second:
        np.testing.assert_array_equal(shift(image), wanted)
    assert not second.computed


def test_fingerprints_follow_content():
    image = example_image(Contrast.T1W)
    again = image.with_voxels(image.voxels.copy())
    other = image.with_voxels(image.voxels + 1)
    assert fingerprint(image) == fingerprint(again) != fingerprint(other)
    assert fingerprint(ThresholdSegmenter()) == fingerprint(ThresholdSegmenter())
    assert fingerprint(ThresholdSegmenter()) != fingerprint(ThresholdSegmenter(hu_low=-20.0))
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint((1, 2)) != fingerprint((2, 1))
    assert fingerprint(1) != fingerprint(1.0) != fingerprint("1.0")
    assert fingerprint(np.zeros((2, 3))) != fingerprint(np.zeros((3, 2)))
    assert fingerprint(np.zeros(2)) != fingerprint(np.zeros(2, np.float32))


def test_the_fingerprint_of_a_case_tells_cases_apart():
    grid = Grid.from_spacing((1, 2, 2), (1, 1, 1))
    image = Image(np.zeros((1, 2, 2)), grid, Contrast.CT)
    one, two = (Case(id=name, subject="s", images={Contrast.CT: image}) for name in ("a", "b"))
    assert fingerprint(one) != fingerprint(two)


def test_what_has_no_fingerprint_is_refused():
    with pytest.raises(TypeError, match="a object has no fingerprint"):
        fingerprint(object())
    with pytest.raises(TypeError, match="array of objects"):
        fingerprint(np.array([object()]))
