from __future__ import annotations

import pytest

from musclekit.errors import ParameterError
from musclekit.neural.schedule import decay_factor


@pytest.mark.parametrize(("epoch", "rate"), [(0, 2e-4), (49, 2e-4), (50, 1.9608e-4), (75, 9.80e-5), (99, 3.92e-6)])
def test_the_table_of_50_and_50_epochs(epoch: int, rate: float) -> None:
    assert 2e-4 * decay_factor(epoch, 50, 50) == pytest.approx(rate, rel=1e-3)


def test_it_never_rises_and_never_reaches_zero() -> None:
    factors = [decay_factor(epoch, 100, 100) for epoch in range(200)]
    assert factors == sorted(factors, reverse=True)
    assert factors[99] == 1
    assert factors[100] < 1
    assert factors[-1] == pytest.approx(1 / 101)


def test_either_part_may_be_missing() -> None:
    assert [decay_factor(epoch, 2, 0) for epoch in range(2)] == [1, 1]
    assert decay_factor(0, 0, 1) == 0.5


@pytest.mark.parametrize("epoch", [-1, 5])
def test_an_epoch_that_is_not_there_is_refused(epoch: int) -> None:
    with pytest.raises(
        ParameterError, match=f"epoch must be a whole number of at least 0 and of at most 4, not {epoch}"
    ):
        decay_factor(epoch, 2, 3)
