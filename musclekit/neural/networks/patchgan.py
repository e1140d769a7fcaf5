"""The discriminator of CycleGAN: it judges overlapping patches, and thereby texture rather than anatomy.

From Isola et al., Image-to-image translation with conditional adversarial networks (2017).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from musclekit.checks import check_number
from musclekit.errors import GeometryError

__all__ = ["PatchDiscriminator"]

#: Channels grow with every layer up to this many times the width.
MOST_WIDE = 8
#: Of the leaky rectifiers, below zero.
SLOPE = 0.2


class PatchDiscriminator(nn.Module):
    """From images to maps of logits: how real each patch looks.

    Parameters
    ----------
    in_channels : int
        Of an image.
    width : int
        Channels after the first convolution. 64 in the papers.
    layers : int
        Convolutions that halve the resolution. With 3, a patch has 70 x 70 pixels.

    Attributes
    ----------
    least : int
        Rows and columns an image has to have.

    Raises
    ------
    ParameterError
        If a number is out of range.
    """

    def __init__(self, in_channels: int = 1, *, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("width", width), ("layers", layers)):
            check_number(name, value, least=1, whole=True)
        self.least = 3 * 2**layers
        widths = [width * min(2**layer, MOST_WIDE) for layer in range(layers + 1)]
        parts: list[nn.Module] = [
            nn.Conv2d(in_channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(SLOPE, inplace=True),
        ]
        strides = [2] * (layers - 1) + [1]
        for (before, after), stride in zip(pairwise(widths), strides, strict=True):
            parts += [
                nn.Conv2d(before, after, 4, stride=stride, padding=1),
                nn.InstanceNorm2d(after),
                nn.LeakyReLU(SLOPE, inplace=True),
            ]
        self.judge = nn.Sequential(*parts, nn.Conv2d(widths[-1], 1, 4, padding=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Judge images.

        Parameters
        ----------
        images : Tensor, shape (n, in_channels, rows, columns)
            In the range -1 to 1.

        Returns
        -------
        Tensor, shape (n, 1, patches down, patches across)
            Logits, large where a patch looks real; 30 x 30 of them for 256 x 256 pixels and 3 layers.

        Raises
        ------
        GeometryError
            If there are too few rows or columns for a single patch.
        """
        rows, columns = images.shape[-2:]
        if min(rows, columns) < self.least:
            raise GeometryError(
                f"images of {rows} x {columns} pixels are too small for the discriminator: it needs at least "
                f"{self.least} rows and columns, or fewer layers"
            )
        logits: torch.Tensor = self.judge(images)
        return logits
