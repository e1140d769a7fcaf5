"""Plain U-Nets in two and three dimensions, and the simplified ones of Haque et al. (2.5-D U-Net) among them.

From Ronneberger et al., U-Net: convolutional networks for biomedical image segmentation (2015), and Cicek et al., 3D
U-Net (2016).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

from musclekit.checks import check_number
from musclekit.errors import ParameterError
from musclekit.neural.networks.dropout import MonteCarloDropout
from musclekit.neural.networks.sizes import check_size

__all__ = ["UNet2D", "UNet3D"]

Norm = Literal["batch", "instance"]

CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
DOUBLING = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
POOLING = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
NORM = {("batch", 2): nn.BatchNorm2d, ("batch", 3): nn.BatchNorm3d,
        ("instance", 2): nn.InstanceNorm2d, ("instance", 3): nn.InstanceNorm3d}  # fmt: skip


class _UNet(nn.Module):
    """U-Net of a number of dimensions that its subclass says, under the name that it goes by."""

    dimensions: int
    name: str

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        *,
        width: int = 32,
        levels: int = 3,
        norm: Norm = "batch",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("width", width)):
            check_number(name, value, least=1, whole=True)
        check_number("levels", levels, least=1, whole=True)
        if norm not in get_args(Norm):
            raise ParameterError(f"norm is one of {', '.join(get_args(Norm))}, not '{norm}'")
        # Norms need more than one pixel at the deepest level.
        self.multiple, self.least = 2 ** (levels - 1), 2**levels
        widths = [width * 2**level for level in range(levels)]
        n = self.dimensions

        def block(before: int, after: int) -> nn.Sequential:
            parts: list[nn.Module] = []
            for channels in (before, after):
                parts += [CONVOLUTION[n](channels, after, 3, padding=1), NORM[norm, n](after), nn.ReLU()]
            return nn.Sequential(*parts, *([MonteCarloDropout(dropout)] if dropout else []))

        self.down = nn.ModuleList(
            block(widths[level - 1] if level else in_channels, widths[level]) for level in range(levels)
        )
        self.pool = POOLING[n](2)
        self.doubling = nn.ModuleList(
            DOUBLING[n](widths[level + 1], widths[level], 2, stride=2) for level in range(levels - 1)
        )
        self.up = nn.ModuleList(block(2 * widths[level], widths[level]) for level in range(levels - 1))
        self.head = CONVOLUTION[n](width, out_channels, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits.

        Parameters
        ----------
        images : Tensor, shape (n, in_channels, ...)
            In the range -1 to 1.

        Returns
        -------
        Tensor, shape (n, out_channels, ...)

        Raises
        ------
        GeometryError
            If a side is no multiple of 2 to the power of the skips, or too small for the norms.
        """
        check_size(images, self.name, dimensions=self.dimensions, multiple=self.multiple, least=self.least)
        features, skips = images, []
        for level, down in enumerate(self.down):
            features = down(self.pool(features) if level else features)
            skips.append(features)
        for level in reversed(range(len(self.up))):
            features = self.up[level](torch.cat([self.doubling[level](features), skips[level]], dim=1))
        logits: torch.Tensor = self.head(features)
        return logits


class UNet2D(_UNet):
    """U-Net on slices; neighbouring slices may come as further channels.

    Parameters
    ----------
    in_channels, out_channels : int
        Of an image, and classes with background.
    width : int
        Channels of the first level, twice as many in each one below.
    levels : int
        Of resolution. 3, with two skips, in Haque et al.
    norm : {"batch", "instance"}
        What follows each convolution. Instance norms see the slice alone, and suit batches of a few slices.
    dropout : float
        After every block, to be sampled; 0 in Haque et al.

    Attributes
    ----------
    multiple, least : int
        Of which rows and columns have to be, and how many there have to be.

    Raises
    ------
    ParameterError
        If a number is out of range, or there is no such norm.

    Notes
    -----
    Haque et al. state two skips and no widths; 32, 64 and 128 channels give 468,139 weights for 3 channels and 11
    classes.
    """

    dimensions = 2
    name = "unet-2d"


class UNet3D(_UNet):
    """U-Net on volumes: `UNet2D` with every convolution and pool in three dimensions.

    Parameters
    ----------
    in_channels, out_channels, width, levels, norm, dropout
        As of `UNet2D`.

    Attributes
    ----------
    multiple, least : int
        Of which planes, rows and columns have to be, and how many there have to be.
    """

    dimensions = 3
    name = "unet-3d"
