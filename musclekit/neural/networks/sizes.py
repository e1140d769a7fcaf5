"""What networks ask of the size of an image, and how they say so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from musclekit.errors import GeometryError, ParameterError

__all__ = ["SizeNeeds", "check_size", "size_needs"]


@dataclass(frozen=True)
class SizeNeeds:
    """What images a network takes.

    Parameters
    ----------
    dimensions : {2, 3}
        Of an image.
    multiple : int
        Of which every side has to be.
    least : int
        What every side has to have.
    """

    dimensions: int
    multiple: int
    least: int

    def fitted(self, sides: Iterable[int]) -> tuple[int, ...]:
        """Return the smallest sides that the network takes and that are not smaller than these."""
        return tuple(-(-max(side, self.least) // self.multiple) * self.multiple for side in sides)


def size_needs(network: nn.Module) -> SizeNeeds:
    """Return what images a network that segments takes.

    Raises
    ------
    ParameterError
        If it does not say so, as those that do not segment.
    """
    stated = [getattr(network, name, None) for name in ("dimensions", "multiple", "least")]
    if not all(isinstance(number, int) for number in stated):
        raise ParameterError(f"{type(network).__name__} does not segment")
    return SizeNeeds(*cast(list[Any], stated))


def check_size(images: torch.Tensor, network: str, *, dimensions: int, multiple: int, least: int) -> None:
    """Refuse images that do not go through a network.

    Parameters
    ----------
    images : Tensor, shape (n, channels, ...)
        What it was given.
    network : str
        Its name, for the message.
    dimensions : {2, 3}
        Of an image.
    multiple : int
        Of which every side has to be.
    least : int
        What every side has to have.

    Raises
    ------
    GeometryError
        If they are of other dimensions or sizes.
    """
    sides = images.shape[2:]
    shown = " x ".join(map(str, sides))
    if len(sides) != dimensions:
        raise GeometryError(f"'{network}' takes images of {dimensions} dimensions, these have {len(sides)} ({shown})")
    if any(side % multiple for side in sides) or min(sides) < least:
        raise GeometryError(
            f"images of {shown} do not suit '{network}': every side must be a multiple of {multiple}, and at least "
            f"{least}"
        )
