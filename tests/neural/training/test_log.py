from __future__ import annotations

import builtins
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from musclekit.errors import ParameterError
from musclekit.neural.training.log import check_tensorboard, collapse_warnings, not_finite, tensorboard, write_losses


def row(epoch: int, **values: float) -> dict[str, float]:
    return {"epoch": epoch, "discriminator_target": 0.2, "spread_source": 0.5, **values}


def test_losses_are_written_with_every_digit(tmp_path: Path) -> None:
    write_losses([{"epoch": 1, "cycle": 0.1}, {"epoch": 2, "cycle": 1 / 3}], tmp_path / "losses.csv")
    assert (tmp_path / "losses.csv").read_bytes() == b"epoch,cycle\n1,0.1\n2,0.3333333333333333\n"


def test_the_first_value_that_is_no_number_is_named() -> None:
    assert not_finite({"gan": 1.0, "cycle": float("nan"), "edge": float("inf")}) == "cycle is nan"
    assert not_finite({"gan": float("-inf")}) == "gan is -inf"
    assert not_finite({"gan": 0.0}) is None


def test_a_training_that_goes_well_is_not_warned_of() -> None:
    assert collapse_warnings([]) == ()
    assert collapse_warnings([row(1), row(2)]) == ()


def test_a_discriminator_that_has_won_is_warned_of_once() -> None:
    (line,) = collapse_warnings([row(1), *(row(n, discriminator_target=0.009) for n in (2, 3))])
    assert line.startswith("in 2 epochs, first in 2, the discriminator of the target could no longer be deceived")
    (line,) = collapse_warnings([row(1, discriminator_target=0.0)])
    assert line.startswith("in epoch 1 the discriminator")


def test_fakes_that_show_nothing_are_warned_of() -> None:
    (line,) = collapse_warnings([row(1, spread_source=0.019)])
    assert line.startswith("in epoch 1 fakes of the source were nearly constant")


def test_a_loss_of_edges_that_keeps_rising_is_warned_of() -> None:
    steady = [row(n, edge=value) for n, value in enumerate((0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.5, 0.5, 0.6), start=1)]
    assert collapse_warnings(steady) == ()
    (line,) = collapse_warnings([row(n, edge=0.1 * n) for n in range(1, 9)])
    assert line.startswith("the loss of edges rose for 5 epochs on end, up to epoch 6: fakes lose the anatomy")


def test_tensorboard_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("torch.utils.tensorboard"):
            raise ModuleNotFoundError("No module named 'tensorboard'")
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ParameterError) as caught:
        check_tensorboard()
    assert "TensorBoard is not installed (No module named 'tensorboard'): pip install 'musclekit[tensorboard]'" in str(
        caught.value
    )
    with tensorboard(tmp_path, wanted=False, done=0) as board:
        assert board is None
    with pytest.raises(ParameterError, match="not installed"), tensorboard(tmp_path, wanted=True, done=0):
        pass


def test_tensorboard_goes_on_after_the_epochs_that_are_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Writer:
        closed = False

        def __init__(self, folder: str, purge_step: int) -> None:
            self.given = (folder, purge_step)

        def close(self) -> None:
            self.closed = True

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    with tensorboard(tmp_path, wanted=True, done=3) as board:
        assert isinstance(board, Writer)
        assert board.given == (str(tmp_path), 4)
    assert board.closed
