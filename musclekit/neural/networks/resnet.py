"""The generator of CycleGAN: down by a factor of 4, residual blocks, and up again.

From Johnson et al., Perceptual losses for real-time style transfer and super-resolution (2016), as used by Zhu et al.,
Unpaired image-to-image translation using cycle-consistent adversarial networks (2017), and by Gadermayr et al. and Yang
et al. on thighs.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

from musclekit.checks import check_number
from musclekit.errors import GeometryError, ParameterError

__all__ = ["ResNetGenerator"]

Upsampling = Literal["transposed", "resize"]


def _normalised(convolution: nn.Module, channels: int) -> list[nn.Module]:
    return [convolution, nn.InstanceNorm2d(channels), nn.ReLU(inplace=True)]


def _doubling(channels: int, out_channels: int, upsampling: Upsampling) -> nn.Module:
    if upsampling == "transposed":
        return nn.ConvTranspose2d(channels, out_channels, 3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(channels, out_channels, 3, padding=1, padding_mode="reflect"),
    )


class _ResidualBlock(nn.Module):
    """Two convolutions whose result is added to what came in; nothing follows the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            *_normalised(nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"), channels),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = self.change(features)
        return features + changed


class ResNetGenerator(nn.Module):
    """From images to images of the same size, in the range -1 to 1.

    Parameters
    ----------
    in_channels, out_channels : int
        Of an image and of its translation.
    width : int
        Channels at full resolution; there are four times as many in the residual blocks. 64 in the papers.
    blocks : int
        Residual blocks: 9 for 256 pixels and more, 6 for less in CycleGAN.
    upsampling : {"transposed", "resize"}
        How the size is doubled on the way up: by a transposed convolution, as in CycleGAN, or by repeating pixels
        before a convolution, which leaves no chequered pattern (Odena et al., Deconvolution and checkerboard artifacts,
        2016). Both have as many weights.

    Attributes
    ----------
    multiple : int
        Of which the rows and columns of an image have to be.
    least : int
        Rows and columns there have to be.

    Raises
    ------
    ParameterError
        If a number is out of range, or there is no such way to double the size.
    """

    multiple = 4
    least = 8

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        width: int = 64,
        blocks: int = 9,
        upsampling: Upsampling = "transposed",
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("width", width)):
            check_number(name, value, least=1, whole=True)
        check_number("blocks", blocks, least=0, whole=True)
        if upsampling not in get_args(Upsampling):
            raise ParameterError(f"upsampling is one of {', '.join(get_args(Upsampling))}, not '{upsampling}'")
        self.down = nn.Sequential(
            *_normalised(nn.Conv2d(in_channels, width, 7, padding=3, padding_mode="reflect"), width),
            *_normalised(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), 2 * width),
            *_normalised(nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1), 4 * width),
        )
        self.blocks = nn.Sequential(*(_ResidualBlock(4 * width) for _ in range(blocks)))
        self.up = nn.Sequential(
            *_normalised(_doubling(4 * width, 2 * width, upsampling), 2 * width),
            *_normalised(_doubling(2 * width, width, upsampling), width),
            nn.Conv2d(width, out_channels, 7, padding=3, padding_mode="reflect"),
            nn.Tanh(),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Translate images.

        Parameters
        ----------
        images : Tensor, shape (n, in_channels, rows, columns)
            In the range -1 to 1.

        Returns
        -------
        Tensor, shape (n, out_channels, rows, columns)

        Raises
        ------
        GeometryError
            If rows or columns are no multiple of 4, or fewer than 8.
        """
        rows, columns = images.shape[-2:]
        if rows % self.multiple or columns % self.multiple or min(rows, columns) < self.least:
            raise GeometryError(
                f"images of {rows} x {columns} pixels do not suit the generator: rows and columns must be multiples of "
                f"{self.multiple}, and at least {self.least}"
            )
        translated: torch.Tensor = self.up(self.blocks(self.down(images)))
        return translated
