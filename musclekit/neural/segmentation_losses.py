"""What is asked of a segmentation: cross-entropy and soft Dice.

They are computed in float32 at least, whatever the precision of the network. Voxels of which nothing is known take no
part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch.nn import functional

from musclekit.checks import check_number
from musclekit.errors import ParameterError
from musclekit.neural.labelled import UNLABELLED

__all__ = ["Reduction", "SegmentationLoss", "cross_entropy", "soft_dice"]

Reduction = Literal["pixels", "weights"]

#: Beside the sums of Dice, so that a class that is nowhere leads to no division by zero.
SMOOTH = 1e-6


def cross_entropy(
    logits: torch.Tensor,
    classes: torch.Tensor,
    weights: torch.Tensor | None = None,
    *,
    reduction: Reduction = "pixels",
) -> torch.Tensor:
    """Cross-entropy of the softmax, each class with its weight.

    Parameters
    ----------
    logits : Tensor, shape (n, classes, ...)
        What the network says.
    classes : Tensor of int64, shape (n, ...)
        What it should say; 255 where nothing is known.
    weights : Tensor, shape (classes,), optional
        Of each class; all 1 if left out.
    reduction : {"pixels", "weights"}
        What the weighted sum is divided by: the number of voxels, as in the code of SynSeg-Net, or the sum of their
        weights, as torch does. Without weights both are the same.

    Returns
    -------
    Tensor
        One number; 0 where nothing is known of any voxel.
    """
    each = functional.cross_entropy(_precise(logits), classes, weights, ignore_index=UNLABELLED, reduction="sum")
    known = classes != UNLABELLED
    if reduction == "weights" and weights is not None:
        return each / weights[classes[known]].sum().clamp(min=SMOOTH)
    return each / known.sum().clamp(min=1)


def soft_dice(logits: torch.Tensor, classes: torch.Tensor, *, background: bool = True) -> torch.Tensor:
    """One minus the mean Dice of the probabilities of each class, over all voxels of a batch together.

    Parameters
    ----------
    logits : Tensor, shape (n, classes, ...)
        What the network says.
    classes : Tensor of int64, shape (n, ...)
        What it should say; 255 where nothing is known.
    background : bool
        Whether class 0 counts, as it does in Haque et al.

    Returns
    -------
    Tensor
        One number between 0 and 1.
    """
    known = (classes != UNLABELLED).unsqueeze(1)
    probabilities = functional.softmax(_precise(logits), dim=1) * known
    wanted = torch.zeros_like(probabilities)
    wanted.scatter_(1, torch.where(known, classes.unsqueeze(1), 0), known.to(wanted.dtype))
    over = [axis for axis in range(logits.ndim) if axis != 1]
    common = (probabilities * wanted).sum(over)
    dice = (2 * common + SMOOTH) / (probabilities.sum(over) + wanted.sum(over) + SMOOTH)
    return 1 - (dice if background else dice[1:]).mean()


@dataclass(frozen=True)
class SegmentationLoss:
    """Weights of the terms, and what they mean.

    Parameters
    ----------
    cross_entropy, dice : float
        Weight of each term; one of weight 0 is not computed.
    class_weights : tuple of float
        Of each class in the cross-entropy, background first; none for 1 each.
    reduction : {"pixels", "weights"}
        See `cross_entropy`.
    dice_background : bool
        Whether background counts in the Dice.

    Raises
    ------
    ParameterError
        If a weight is negative, all are 0, or there is no such reduction.
    """

    cross_entropy: float = 1.0
    dice: float = 1.0
    class_weights: tuple[float, ...] = ()
    reduction: Reduction = "pixels"
    dice_background: bool = True

    def __post_init__(self) -> None:
        for name in ("cross_entropy", "dice"):
            check_number(name, getattr(self, name), least=0)
        for weight in self.class_weights:
            check_number("class_weights", weight, least=0)
        if not self.weights:
            raise ParameterError("cross_entropy and dice both weigh 0: there is nothing to learn by")
        if self.class_weights and not any(self.class_weights):
            raise ParameterError("all class_weights are 0: there is nothing to learn by")
        if self.reduction not in get_args(Reduction):
            raise ParameterError(f"reduction is one of {', '.join(get_args(Reduction))}, not '{self.reduction}'")

    @property
    def weights(self) -> dict[str, float]:
        """Terms that are computed, with their weights."""
        return {name: value for name in ("cross_entropy", "dice") if (value := getattr(self, name)) > 0}

    def terms(self, logits: torch.Tensor, classes: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return every term that is computed, without its weight."""
        terms: dict[str, torch.Tensor] = {}
        if self.cross_entropy:
            weights = None
            if self.class_weights:  # whole numbers in a plan
                weights = torch.tensor(self.class_weights, dtype=torch.float32, device=logits.device)
            terms["cross_entropy"] = cross_entropy(logits, classes, weights, reduction=self.reduction)
        if self.dice:
            terms["dice"] = soft_dice(logits, classes, background=self.dice_background)
        return terms

    def total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the weighted sum of the terms."""
        return torch.stack([weight * terms[name] for name, weight in self.weights.items()]).sum()


def _precise(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
