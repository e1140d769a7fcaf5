from __future__ import annotations

import io

import pytest
import torch

from musclekit.errors import ParameterError
from musclekit.neural.pool import ImagePool


def numbered(first: int, count: int) -> torch.Tensor:
    """Images that are told apart by their value."""
    return torch.arange(first, first + count, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)


def values(images: torch.Tensor) -> list[int]:
    return [int(value) for value in images[:, 0, 0, 0]]


def test_while_there_is_room_new_images_are_given_back() -> None:
    pool = ImagePool(5, seed=0)
    assert values(pool.query(numbered(0, 3))) == [0, 1, 2]
    assert values(pool.query(numbered(3, 2))) == [3, 4]


def test_when_full_half_of_what_is_given_is_old() -> None:
    pool = ImagePool(50, seed=1)
    pool.query(numbered(0, 50))
    given = [values(pool.query(numbered(number, 1)))[0] for number in range(50, 4050)]
    old = [value != number for number, value in enumerate(given, 50)]
    assert sum(old) / len(old) == pytest.approx(0.5, abs=0.05)


def test_an_old_image_is_given_once_and_any_of_them_may_be() -> None:
    pool = ImagePool(10, seed=2)
    given = [value for first in range(0, 2000, 4) for value in values(pool.query(numbered(first, 4)))]
    # The first ten are given back at once and again as old ones; later ones are given once.
    assert len(given) - len(set(given)) <= 10
    assert set(range(10)) <= {value for value in given[10:] if value < 10}


def test_each_image_of_a_batch_is_decided_on_by_itself() -> None:
    pool = ImagePool(50, seed=3)
    pool.query(numbered(0, 50))
    old = [value < 50 for value in values(pool.query(numbered(50, 40)))]
    assert 0 < sum(old) < 40


def test_a_pool_of_no_size_lets_everything_through() -> None:
    pool = ImagePool(0, seed=0)
    for first in range(0, 100, 5):
        assert values(pool.query(numbered(first, 5))) == list(range(first, first + 5))
    assert pool.state_dict()["images"] == []


def test_no_gradient_flows_through() -> None:
    fakes = numbered(0, 2).clone().requires_grad_()
    for size in (0, 5):
        assert not ImagePool(size, seed=0).query(fakes * 2).requires_grad


def test_what_is_kept_is_not_what_was_handed_in() -> None:
    pool = ImagePool(1, seed=0)
    image = numbered(7, 1).clone()
    pool.query(image)
    image.zero_()
    assert values(torch.stack(pool.state_dict()["images"])) == [7]


def test_a_pool_that_was_read_back_goes_on_as_the_first_one() -> None:
    pool = ImagePool(8, seed=4)
    pool.query(numbered(0, 20))
    stream = io.BytesIO()
    torch.save(pool.state_dict(), stream)
    stream.seek(0)
    other = ImagePool(8, seed=99)
    other.load_state_dict(torch.load(stream, weights_only=True))
    for first in range(20, 100, 4):
        assert torch.equal(pool.query(numbered(first, 4)), other.query(numbered(first, 4)))


def test_a_state_does_not_change_as_the_pool_goes_on() -> None:
    pool = ImagePool(4, seed=5)
    pool.query(numbered(0, 4))
    state = pool.state_dict()
    pool.query(numbered(4, 40))
    assert values(torch.stack(state["images"])) == [0, 1, 2, 3]
    again = ImagePool(4, seed=0)
    again.load_state_dict(state)
    again.query(numbered(4, 40))
    assert values(torch.stack(again.state_dict()["images"])) == values(torch.stack(pool.state_dict()["images"]))


def test_chance_is_its_own() -> None:
    def given() -> list[int]:
        pool = ImagePool(3, seed=6)
        return values(pool.query(numbered(0, 30)))

    first = given()
    torch.rand(5)
    assert given() == first


def test_the_state_of_a_pool_of_another_size_is_refused() -> None:
    with pytest.raises(ParameterError, match="that of a pool of 8 images, and this one holds 9"):
        ImagePool(9, seed=0).load_state_dict(ImagePool(8, seed=0).state_dict())


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ParameterError, match="size must be a whole number of at least 0, not -1"):
        ImagePool(-1, seed=0)
