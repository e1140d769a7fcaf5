from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from musclekit.anatomy import crop_frame
from musclekit.errors import GeometryError, InputError
from musclekit.image import Grid
from musclekit.neural.drawing import Drawing, stacked
from musclekit.neural.labelled import UNLABELLED, LabelledView
from musclekit.neural.networks.plane_unets import neighbours


def view(shape: tuple[int, int, int], *, offset: float = 0.0, known: slice = slice(None)) -> LabelledView:
    """Every voxel has a grey value of its own, and a class that follows from it."""
    number = np.arange(np.prod(shape)).reshape(shape)
    image = (-0.9 + offset + 1e-3 * (number % 500)).astype(np.float16)
    classes = np.full(shape, UNLABELLED, dtype=np.uint8)
    classes[known] = ((number % 500) % 5)[known]
    grid = Grid.from_spacing(shape, (1, 1, 1))
    return LabelledView(image, classes, crop_frame(grid, (0, 0, 0), shape), None)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("context", [0, 1, 3])
def test_a_slice_comes_with_its_neighbours(context: int) -> None:
    image = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float16)
    for z in range(4):
        shown = stacked(image, z, context)
        assert shown.dtype == np.float32
        assert shown.shape == (2 * context + 1, 5, 6)
        for n, place in enumerate(range(z - context, z + context + 1)):
            np.testing.assert_array_equal(shown[n], image[min(max(place, 0), 3)])


def test_one_pass_shows_every_labelled_slice_once() -> None:
    views = [view((4, 8, 8)), view((3, 8, 8), offset=0.5, known=slice(1, 3))]
    drawing = Drawing(views, "slices", (8, 8))
    assert drawing.items[0].tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 1], [1, 2]]
    assert [drawing.steps(batch) for batch in (1, 2, 4, 6, 7)] == [6, 3, 2, 1, 1]
    seen: Counter[bytes] = Counter()
    for ((images, classes),) in drawing.epoch(3, 2, rng()):
        assert (images.shape, classes.shape) == ((2, 1, 8, 8), (2, 8, 8))
        assert (images.dtype, classes.dtype) == (torch.float32, torch.int64)
        seen.update(image.numpy().tobytes() for image in images)
    expected = [views[n].image[z].astype(np.float32)[None].tobytes() for n, z in drawing.items[0]]
    assert seen == Counter(expected)


def test_more_is_passed_over_again_and_the_last_batch_is_filled_up() -> None:
    drawing = Drawing([view((5, 8, 8))], "slices", (8, 8))
    seen: Counter[bytes] = Counter()
    for ((images, _),) in drawing.epoch(4, 3, rng()):
        assert len(images) == 3
        seen.update(image.numpy().tobytes() for image in images)
    assert sorted(seen.values()) == [2, 2, 2, 3, 3]


def test_slices_without_anything_known_or_seen_are_not_drawn() -> None:
    one = view((4, 6, 6))
    one.image[1] = -1
    one.classes[2] = UNLABELLED
    assert Drawing([one], "slices", (6, 6)).items[0].tolist() == [[0, 0], [0, 3]]
    one.image[:] = -1
    with pytest.raises(InputError, match="there is no labelled slice to draw"):
        Drawing([one], "slices", (6, 6))
    for kind in ("slices", "planes", "blocks"):
        with pytest.raises(InputError, match="there is no labelled slice to draw"):
            Drawing([], kind, (6, 6))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(8, 8), (4, 6), (12, 8), (9, 15), (20, 3)])
def test_what_is_too_small_is_filled_with_air_and_of_what_is_too_large_a_part_is_taken(size: tuple[int, int]) -> None:
    drawing = Drawing([view((2, 8, 8))], "slices", size, context=1)
    for ((images, classes),) in drawing.epoch(10, 2, rng()):
        assert images.shape == (2, 3, *size)
        assert classes.shape == (2, *size)
        for image, wanted in zip(images[:, 1].numpy(), classes.numpy(), strict=True):
            inside = image > -1
            # The middle, where it is filled up; the same voxels of image and classes.
            rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
            for seen, side in ((rows, size[0]), (columns, size[1])):
                assert len(seen) == min(side, 8)
                assert abs(seen[0] - (side - 1 - seen[-1])) <= 1
            number = np.rint((image[inside].astype(np.float64) + 0.9) * 1000)
            # float16 is coarser than a thousandth below -0.5: a class off by rounding is no class of another place.
            expected = np.abs(number[:, None] - np.arange(500)) <= 1
            assert all(wanted[inside][i] in set((np.flatnonzero(row) % 5).tolist()) for i, row in enumerate(expected))
            assert (wanted[~inside] == 0).all()


def test_parts_lie_anywhere() -> None:
    drawing = Drawing([view((1, 10, 10))], "slices", (4, 4))
    first = {float(images[0, 0, 0, 0]) for ((images, _),) in drawing.epoch(300, 1, rng())}
    corners = view((1, 10, 10)).image[0, :7, :7].astype(np.float32)
    assert first == set(corners.ravel().tolist())


def test_three_planes_come_each_with_its_own_slices() -> None:
    views = [view((6, 8, 10)), view((6, 8, 10), offset=0.3, known=slice(2, 5))]
    drawing = Drawing(views, "planes", (6, 8, 10), distance=2)
    assert [len(items) for items in drawing.items] == [6 + 3, 8 + 8, 10 + 10]
    assert drawing.steps(3) == 3
    for batch in drawing.epoch(3, 3, rng()):
        assert len(batch) == 3
        for axis, (images, classes) in enumerate(batch):
            plane = tuple(n for k, n in enumerate((6, 8, 10)) if k != axis)
            assert images.shape == (3, 3, *plane)
            assert classes.shape == (3, *plane)
            for image, wanted in zip(images, classes, strict=True):
                found = [
                    (n, i)
                    for n, one in enumerate(views)
                    for i in range((6, 8, 10)[axis])
                    if torch.equal(neighbours(torch.from_numpy(one.image)[None], axis, torch.tensor([i]), 2)[0], image)
                ]
                assert len(found) == 1
                ((n, i),) = found
                np.testing.assert_array_equal(wanted.numpy(), np.take(views[n].classes, i, axis=axis))


def test_slices_of_three_planes_need_views_of_one_size() -> None:
    with pytest.raises(GeometryError, match="slices of three planes are taken whole: every view has to have one size"):
        Drawing([view((6, 8, 10)), view((6, 8, 8))], "planes", (6, 8, 10))


def test_blocks_are_taken_from_everywhere_half_of_them_round_a_label() -> None:
    one = view((12, 12, 12))
    one.classes[:] = 0
    one.classes[9, 9, 9] = 1
    drawing = Drawing([one, one], "blocks", (4, 4, 4))
    assert drawing.items[0].tolist() == [[0, 0], [1, 0]]
    shown = []
    for ((images, classes),) in drawing.epoch(200, 2, rng()):
        assert (images.shape, classes.shape) == ((2, 1, 4, 4, 4), (2, 4, 4, 4))
        shown += (classes == 1).flatten(1).any(1).tolist()
    # The others show it now and then: of 9 places along each axis 3 or 4 do.
    assert 0.5 < np.mean(shown) < 0.65
    larger = Drawing([one], "blocks", (16, 4, 14))
    ((images, classes),) = next(larger.epoch(1, 1, rng()))
    assert images.shape == (1, 1, 16, 4, 14)
    assert (images[0, 0, :2] == -1).all()
    assert (images[0, 0, -2:] == -1).all()
    assert (images[0, 0, 2:14, :, 1:13] > -1).all()
    assert (classes[0, :2] == 0).all()


def test_what_nothing_is_known_of_is_never_the_middle_of_a_block() -> None:
    one = view((8, 8, 8), known=slice(0, 1))
    one.classes[0] = 0
    one.classes[0, 4, 4] = 2
    shown = [bool((classes == 2).any()) for ((_, classes),) in Drawing([one], "blocks", (1, 1, 1)).epoch(100, 1, rng())]
    assert 0.35 < np.mean(shown) < 0.65


@pytest.mark.parametrize("kind", ["slices", "planes", "blocks"])
def test_samples_follow_from_the_state_of_chance_alone(kind: str) -> None:
    size = (4, 4) if kind == "slices" else (4, 4, 4)
    drawing = Drawing([view((6, 8, 10))], kind, size)  # type: ignore[arg-type]
    chance = rng()
    list(drawing.epoch(2, 2, chance))
    state = chance.bit_generator.state
    later = list(drawing.epoch(2, 2, chance))
    again = rng(5)
    again.bit_generator.state = state
    for one, other in zip(later, drawing.epoch(2, 2, again), strict=True):
        for (image, wanted), (same, too) in zip(one, other, strict=True):
            assert torch.equal(image, same)
            assert torch.equal(wanted, too)


def test_the_size_of_a_part_changes_nothing_that_is_drawn_later() -> None:
    states = []
    for size in ((4, 4), (8, 10), (20, 20)):
        chance = rng()
        list(Drawing([view((6, 8, 10))], "slices", size).epoch(3, 2, chance))
        states.append(chance.bit_generator.state)
    assert states[0] == states[1] == states[2]
