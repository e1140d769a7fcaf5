"""The U-Net of CycleGAN and pix2pix, which Yang et al. (CT domain adaptation) segment thighs with.

From Isola et al., Image-to-image translation with conditional adversarial networks (2017).
"""

from __future__ import annotations

import torch
from torch import nn

from musclekit.checks import check_number
from musclekit.neural.networks.dropout import MonteCarloDropout
from musclekit.neural.networks.first_weights import initialise
from musclekit.neural.networks.sizes import check_size

__all__ = ["UNet256"]

#: Channels grow with every level up to this many times the width.
MOST_WIDE = 8
#: Of the leaky rectifiers, below zero.
SLOPE = 0.2
#: Levels above the deepest one whose way up has dropout, where there is any.
DROPPED = 3


class UNet256(nn.Module):
    """From images to logits, by convolutions of stride 2 down to a single pixel and up again.

    Parameters
    ----------
    in_channels, out_channels : int
        Of an image, and classes with background.
    width : int
        Channels after the first convolution. 64 in the paper.
    levels : int
        Times that the size is halved: 8 for 256 pixels.
    dropout : float
        Of the three levels above the deepest one; 0 in the paper.

    Attributes
    ----------
    multiple, least : int
        Rows and columns have to be multiples of 2 to the power of the levels: 256.

    Raises
    ------
    ParameterError
        If a number is out of range.

    Notes
    -----
    The released code ends in a tanh, which the paper does not mention and which holds logits within -1 to 1; here the
    last layer is linear. Its first weights are drawn from N(0, 0.02), as theirs. 54,411,653 weights for 1 channel and 5
    classes.
    """

    dimensions = 2

    def __init__(
        self, in_channels: int = 1, out_channels: int = 2, *, width: int = 64, levels: int = 8, dropout: float = 0.0
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("width", width)):
            check_number(name, value, least=1, whole=True)
        check_number("levels", levels, least=2, whole=True)
        check_number("dropout", dropout, least=0, most=0.99)
        self.multiple = self.least = 2**levels
        widths = [width * min(2**level, MOST_WIDE) for level in range(levels)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, channels in enumerate(widths):
            before = widths[level - 1] if level else in_channels
            parts: list[nn.Module] = [nn.LeakyReLU(SLOPE)] if level else []
            parts.append(nn.Conv2d(before, channels, 4, stride=2, padding=1))
            # The outermost level keeps the grey values, and a single pixel has nothing to be normalised by.
            if 0 < level < levels - 1:
                parts.append(nn.InstanceNorm2d(channels))
            self.down.append(nn.Sequential(*parts))
            after = widths[level - 1] if level else out_channels
            joined = channels if level == levels - 1 else 2 * channels
            parts = [nn.ReLU(), nn.ConvTranspose2d(joined, after, 4, stride=2, padding=1)]
            if level:
                parts.append(nn.InstanceNorm2d(after))
            if dropout and levels - 1 - DROPPED <= level < levels - 1:
                parts.append(MonteCarloDropout(dropout))
            self.up.append(nn.Sequential(*parts))
        initialise(self, torch.default_generator)

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
            If rows or columns are no multiple of 2 to the power of the levels.
        """
        check_size(images, "unet-256", dimensions=2, multiple=self.multiple, least=self.least)
        features, skips = images, []
        for down in self.down:
            features = down(features)
            skips.append(features)
        for level in reversed(range(len(self.up))):
            if level < len(self.up) - 1:
                features = torch.cat([skips[level], features], dim=1)
            features = self.up[level](features)
        return features
