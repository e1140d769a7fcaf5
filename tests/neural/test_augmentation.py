from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musclekit.errors import ParameterError
from musclekit.labels import label_set
from musclekit.neural.augmentation import Augmentation, augmented, exchanged_classes

HIASA = Augmentation(rotation_deg=10, scale=0.35, shear_deg=22.5, shift=0.25, flip=True)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def squares(n: int = 4, rows: int = 40, columns: int = 56) -> tuple[torch.Tensor, torch.Tensor]:
    """Images that are drawn as their classes: large shapes, off the middle, of unlike size."""
    classes = torch.zeros(n, rows, columns, dtype=torch.int64)
    classes[:, rows // 4 : rows // 2, columns // 5 : columns // 2] = 1
    classes[:, rows // 3 : 2 * rows // 3, columns // 2 : columns // 2 + 12] = 2
    return image_of(classes), classes


def image_of(classes: torch.Tensor) -> torch.Tensor:
    return (0.5 * classes.float() - 1)[:, None]


def test_image_and_classes_move_together() -> None:
    images, classes = squares(24)
    moved, found = augmented(images, classes, HIASA, rng())
    assert (moved.shape, moved.dtype) == (images.shape, torch.float32)
    assert (found.shape, found.dtype) == (classes.shape, torch.int64)
    # Between two classes the image is in between; everywhere else both say the same.
    off = (moved - image_of(found)).abs()
    assert off.max() <= 0.75 + 1e-4  # the nearest of four corners has a quarter of the weight at least
    assert (off > 0.01).float().mean() < 0.08
    assert (off > 0.26).float().mean() < 0.02
    changed = [not torch.equal(one, other) for one, other in zip(found, classes, strict=True)]
    assert all(changed)
    assert len({one.numpy().tobytes() for one in found}) == 24


def test_all_channels_and_planes_of_a_sample_move_alike() -> None:
    images, classes = squares(3)
    alone, found = augmented(images, classes, HIASA, rng())
    channels, _ = augmented(images.repeat(1, 3, 1, 1), classes, HIASA, rng())
    assert torch.equal(channels, alone.repeat(1, 3, 1, 1))
    volume, many = augmented(
        images[:, :, None].repeat(1, 1, 5, 1, 1), classes[:, None].repeat(1, 5, 1, 1), HIASA, rng()
    )
    assert torch.equal(volume, alone[:, :, None].repeat(1, 1, 5, 1, 1))
    assert torch.equal(many, found[:, None].repeat(1, 5, 1, 1))


def test_nothing_moves_where_nothing_may() -> None:
    images, classes = squares()
    chance = rng()
    state = chance.bit_generator.state
    same, too = augmented(images, classes, Augmentation(), chance)
    assert same is images
    assert too is classes
    assert chance.bit_generator.state == state
    assert not Augmentation().moves
    # By so little nothing is to be seen of it.
    barely, found = augmented(images, classes, Augmentation(rotation_deg=1e-6), rng())
    assert torch.allclose(barely, images, atol=1e-4)
    assert torch.equal(found, classes)


def test_a_flip_alone_is_exact_and_meets_half_of_the_samples() -> None:
    images, classes = squares(200)
    images = images + 0.1 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    moved, found = augmented(images, classes, Augmentation(flip=True), rng())
    flipped = [torch.allclose(one, other.flip(-1), atol=1e-5) for one, other in zip(moved, images, strict=True)]
    same = [torch.allclose(one, other, atol=1e-5) for one, other in zip(moved, images, strict=True)]
    assert all(a != b for a, b in zip(flipped, same, strict=True))
    assert 70 < sum(flipped) < 130
    for is_flipped, one, other in zip(flipped, found, classes, strict=True):
        assert torch.equal(one, other.flip(-1) if is_flipped else other)


def test_a_flip_exchanges_left_and_right() -> None:
    labels = label_set("thigh-4-sided")
    exchange = exchanged_classes([(label.name, label.side) for label in labels])
    assert exchange is not None
    names = ["", *(label.full_name for label in labels)]
    for before, after in enumerate(exchange):
        swapped = names[before].replace("left", "LEFT").replace("right", "left").replace("LEFT", "right")
        assert names[after] == swapped
    images, classes = squares(20)
    moved, found = augmented(images, classes, Augmentation(flip=True), rng(), exchange=exchange)
    _, plain = augmented(images, classes, Augmentation(flip=True), rng())
    table = torch.tensor(exchange)
    turned = 0
    for image, before, wanted, one in zip(moved, images, plain, found, strict=True):
        is_flipped = not torch.allclose(image, before, atol=1e-4)
        turned += is_flipped
        assert torch.equal(one, table[wanted] if is_flipped else wanted)
    assert 0 < turned < 20


def test_without_a_flip_sides_stay() -> None:
    images, classes = squares(10)
    how = Augmentation(rotation_deg=30, shear_deg=20, scale=0.3)
    _, found = augmented(images, classes, how, rng(), exchange=[0, 2, 1])
    _, plain = augmented(images, classes, how, rng())
    assert torch.equal(found, plain)


def test_what_nothing_is_known_of_stays_unknown() -> None:
    images, classes = squares(10)
    classes[:] = 255
    _, found = augmented(images, classes, Augmentation(flip=True), rng(), exchange=[0, 2, 1])
    assert (found == 255).all()
    _, found = augmented(images, classes, HIASA, rng())
    assert set(found.unique().tolist()) == {0, 255}


def test_labels_without_sides_have_nothing_to_exchange() -> None:
    assert exchanged_classes([(label.name, label.side) for label in label_set("thigh-4")]) is None
    assert exchanged_classes([("femur", None), ("a", "left"), ("b", "left"), ("a", "right"), ("b", "right")]) == [
        0, 1, 4, 5, 2, 3
    ]  # fmt: skip


def test_what_comes_into_view_is_air_and_background() -> None:
    images, classes = torch.full((30, 1, 20, 20), 0.8), torch.ones(30, 20, 20, dtype=torch.int64)
    moved, found = augmented(images, classes, Augmentation(shift=0.5), rng())
    beyond = found == 0
    assert beyond.any()
    assert float(moved.min()) == -1
    assert (moved[:, 0][beyond] <= 0).all()
    assert float(moved.max()) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("how", "angle", "size"),
    [(Augmentation(rotation_deg=40), 40, 0), (Augmentation(scale=0.3), 0, 0.3)],
)
def test_samples_turn_and_grow_up_to_their_bounds_even_where_they_are_no_squares(
    how: Augmentation, angle: float, size: float
) -> None:
    rows, columns = 60, 90
    y, x = np.mgrid[:rows, :columns] - np.array([rows - 1, columns - 1])[:, None, None] / 2
    bar = (np.abs(x) < 24) & (np.abs(y) < 4)
    classes = torch.from_numpy(bar.astype(np.int64))[None].repeat(60, 1, 1)
    _, found = augmented(image_of(classes), classes, how, rng())
    angles, areas = [], []
    for one in found.numpy() > 0:
        points = np.stack([x[one], y[one]])
        vectors = np.linalg.eigh(np.cov(points))[1]
        angles.append(abs(np.degrees(np.arctan(vectors[1, 1] / vectors[0, 1]))))
        areas.append(one.sum() / bar.sum())
    assert max(angles) <= angle + 1
    assert max(angles) >= 0.9 * angle
    assert max(areas) <= (1 + size) ** 2 * 1.06
    assert min(areas) >= (1 - size) ** 2 * 0.94
    if size:
        assert max(areas) > (1 + 0.9 * size) ** 2
        assert min(areas) < (1 - 0.8 * size) ** 2


@given(
    st.integers(1, 6),
    st.tuples(st.integers(4, 40), st.integers(4, 40)),
    st.floats(0, 90),
    st.floats(0, 0.5),
    st.floats(0, 40),
    st.floats(0, 0.5),
    st.booleans(),
)
def test_the_same_numbers_are_drawn_whatever_the_size(
    n: int, size: tuple[int, int], rotation: float, scale: float, shear: float, shift: float, flip: bool
) -> None:
    how = Augmentation(rotation, scale, shear, shift, flip)
    chance, other = rng(3), rng(3)
    augmented(*squares(n), how, chance)
    images = torch.zeros(n, 1, *size)
    augmented(images, torch.zeros(n, *size, dtype=torch.int64), how, other)
    assert chance.bit_generator.state == other.bit_generator.state


def test_numbers_do_not_depend_on_what_may_move() -> None:
    """Who turns a bound to 0 leaves the other movements as they were."""
    full, _ = HIASA.draw(20, rng())
    matrices, shifts = Augmentation(rotation_deg=10, scale=0.35, shear_deg=22.5, shift=0, flip=True).draw(20, rng())
    np.testing.assert_array_equal(matrices, full)
    assert (shifts == 0).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rotation_deg": -1}, "rotation_deg must be a number of at least 0 and of at most 180, not -1"),
        ({"scale": 1}, r"scale must be a number of at least 0 and of at most 0\.9, not 1"),
        ({"shear_deg": 90}, "shear_deg must be a number of at least 0 and of at most 60, not 90"),
        ({"shift": float("nan")}, "shift must be a number of at least 0 and of at most 1, not nan"),
    ],
)
def test_a_bound_out_of_range_is_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Augmentation(**fields)  # type: ignore[arg-type]
