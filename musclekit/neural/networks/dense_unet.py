"""A U-Net of dense blocks, in which every convolution sees what all those before it in the block have found.

From Huang et al., Densely connected convolutional networks (2017), and Ronneberger et al., U-Net: convolutional
networks for biomedical image segmentation (2015). Kim et al. (thigh muscles in CT) name a Dense U-Net, and of its
layers nothing: this is one of the usual ones.
"""

from __future__ import annotations

import torch
from torch import nn

from musclekit.checks import check_number
from musclekit.neural.networks.sizes import check_size

__all__ = ["DenseUNet"]


def _activated(before: int, after: int, size: int) -> nn.Sequential:
    """Norm and rectifier come first, as each result is used more than once."""
    return nn.Sequential(nn.BatchNorm2d(before), nn.ReLU(), nn.Conv2d(before, after, size, padding=size // 2))


class _DenseBlock(nn.Module):
    """Convolutions of all that came before, and a transition: a 1 x 1 convolution of everything there is by then."""

    def __init__(self, before: int, after: int, layers: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_activated(before + layer * growth, growth, 3) for layer in range(layers))
        self.transition = _activated(before + layers * growth, after, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            features = torch.cat([features, layer(features)], dim=1)
        changed: torch.Tensor = self.transition(features)
        return changed


class DenseUNet(nn.Module):
    """From images to logits.

    Parameters
    ----------
    in_channels, out_channels : int
        Of an image, and classes with background.
    layers : int
        Convolutions of 3 x 3 in a dense block.
    growth : int
        Channels that each of them adds.
    levels : int
        Of resolution, with a dense block each on the way down, and each but the last on the way up.
    width : int
        Channels after the first convolution and after the transition of the first level, twice as many in each one
        below.

    Attributes
    ----------
    multiple, least : int
        Rows and columns have to be multiples of 2 to the power of ``levels - 1``, and at least twice that, as batch
        norms need more than one pixel: multiples of 8, and at least 16, with 4 levels.

    Raises
    ------
    ParameterError
        If a number is out of range.

    Notes
    -----
    Blocks of 5 layers with a growth of 32. Resolution is halved by average pooling, as in DenseNet, and doubled by
    transposed convolutions; the skips of the U-Net leave after the transitions. 3,961,828 weights for 1 channel and 4
    classes, drawn as torch does by default.
    """

    dimensions = 2

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        *,
        layers: int = 5,
        growth: int = 32,
        levels: int = 4,
        width: int = 64,
    ) -> None:
        super().__init__()
        for name, value in (
            ("in_channels", in_channels),
            ("out_channels", out_channels),
            ("layers", layers),
            ("growth", growth),
            ("levels", levels),
            ("width", width),
        ):
            check_number(name, value, least=1, whole=True)
        self.multiple, self.least = 2 ** (levels - 1), 2**levels
        widths = [width * 2**level for level in range(levels)]
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        self.down = nn.ModuleList(
            _DenseBlock(widths[max(level - 1, 0)], widths[level], layers, growth) for level in range(levels)
        )
        self.pool = nn.AvgPool2d(2)
        self.doubling = nn.ModuleList(
            nn.ConvTranspose2d(widths[level + 1], widths[level], 2, stride=2) for level in range(levels - 1)
        )
        self.up = nn.ModuleList(
            _DenseBlock(2 * widths[level], widths[level], layers, growth) for level in range(levels - 1)
        )
        self.head = _activated(width, out_channels, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits.

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
            If a side is no multiple of 2 to the power of ``levels - 1``, or too small for the norms.
        """
        check_size(images, "dense-unet", dimensions=2, multiple=self.multiple, least=self.least)
        features, skips = self.stem(images), []
        for level, down in enumerate(self.down):
            features = down(self.pool(features) if level else features)
            skips.append(features)
        for level in reversed(range(len(self.up))):
            features = self.up[level](torch.cat([self.doubling[level](features), skips[level]], dim=1))
        logits: torch.Tensor = self.head(features)
        return logits
