"""The discriminator of entropy maps: it judges how sure a segmenter is, and where.

That of Vu et al. (ADVENT, 2019), which Pan et al. (unsupervised intra-domain adaptation, 2020) use between easy and
hard images; Yang et al. say that they have one, and not what it is.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from musclekit.checks import check_number
from musclekit.errors import GeometryError

__all__ = ["EntropyDiscriminator"]

#: Convolutions, each of which halves the resolution; the last one gives the logits.
LAYERS = 5
#: Of the leaky rectifiers, below zero.
SLOPE = 0.2


class EntropyDiscriminator(nn.Module):
    """From maps of self-information to maps of logits: how much each part looks like that of a hard image.

    Parameters
    ----------
    in_channels : int
        Classes of the segmenter.
    width : int
        Channels after the first convolution; twice as many after each of the next three. There is no normalisation.

    Attributes
    ----------
    least : int
        Rows and columns a map has to have.

    Raises
    ------
    ParameterError
        If a number is out of range.
    """

    def __init__(self, in_channels: int, *, width: int = 64) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("width", width)):
            check_number(name, value, least=1, whole=True)
        self.least = 2**LAYERS
        widths = [in_channels, *(width * 2**layer for layer in range(LAYERS - 1)), 1]
        parts: list[nn.Module] = []
        for before, after in pairwise(widths):
            parts += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE, inplace=True)]
        self.judge = nn.Sequential(*parts[:-1])

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Judge maps.

        Parameters
        ----------
        maps : Tensor, shape (n, in_channels, rows, columns)
            Self-information of each class.

        Returns
        -------
        Tensor, shape (n, 1, rows / 32, columns / 32)
            Logits; 8 x 8 of them for 256 x 256 pixels.

        Raises
        ------
        GeometryError
            If there are too few rows or columns for a single logit.
        """
        rows, columns = maps.shape[-2:]
        if min(rows, columns) < self.least:
            raise GeometryError(
                f"maps of {rows} x {columns} pixels are too small for the discriminator of entropy: it needs at least "
                f"{self.least} rows and columns"
            )
        logits: torch.Tensor = self.judge(maps)
        return logits
