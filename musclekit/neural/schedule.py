"""How the learning rate changes over a training, as in Zhu et al. (CycleGAN)."""

from __future__ import annotations

from musclekit.checks import check_number

__all__ = ["decay_factor"]


def decay_factor(epoch: int, constant: int, decay: int) -> float:
    """Return what the learning rate is multiplied by: 1 for a while, then less along a straight line, never 0.

    Parameters
    ----------
    epoch : int
        Counted from 0.
    constant, decay : int
        Epochs at the full rate, and epochs in which it falls.

    Raises
    ------
    ParameterError
        If there is no such epoch.

    Examples
    --------
    >>> [decay_factor(epoch, 2, 3) for epoch in range(5)]
    [1.0, 1.0, 0.75, 0.5, 0.25]
    """
    check_number("constant", constant, least=0, whole=True)
    check_number("decay", decay, least=0, whole=True)
    check_number("epoch", epoch, least=0, most=constant + decay - 1, whole=True)
    return 1 - max(0, epoch + 1 - constant) / (decay + 1)
