"""The Bayesian U-Net of Hiasa et al.: a U-Net with dropout after every block, which is sampled."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

from musclekit.checks import check_number
from musclekit.errors import ParameterError
from musclekit.neural.networks.dropout import MonteCarloDropout
from musclekit.neural.networks.sizes import check_size

__all__ = ["BayesianUNet"]

Placement = Literal["block", "paper"]


def _normalised(convolution: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()]


def _block(before: int, after: int) -> list[nn.Module]:
    """Two convolutions, their weights drawn as He et al. (2015) do."""
    parts: list[nn.Module] = []
    for channels in (before, after):
        convolution = nn.Conv2d(channels, after, 3, padding=1)
        nn.init.kaiming_normal_(convolution.weight)
        _without_bias(convolution)
        parts += _normalised(convolution)
    return parts


def _doubling(channels: int) -> nn.ConvTranspose2d:
    """Transposed convolution that interpolates before it has learnt anything."""
    convolution = nn.ConvTranspose2d(channels, channels, 3, stride=2)
    line = torch.tensor([0.5, 1.0, 0.5])
    with torch.no_grad():
        convolution.weight.zero_()
        each = torch.arange(channels)
        convolution.weight[each, each] = torch.outer(line, line)
    _without_bias(convolution)
    return convolution


def _without_bias(convolution: nn.Conv2d | nn.ConvTranspose2d) -> None:
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


class BayesianUNet(nn.Module):
    """From images to logits.

    Parameters
    ----------
    in_channels, out_channels : int
        Of an image, and classes with background.
    width : int
        Channels of the first level, twice as many in each one below. 32 in the paper.
    depth : int
        Levels of resolution. 5 in the paper.
    dropout : float
        Share of the activations that are dropped.
    placement : {"block", "paper"}
        Where: after every block on the way down, its skip included, and on the way up, as in the code of the authors;
        or before every pooling and after every transposed convolution, as the paper says.

    Attributes
    ----------
    multiple, least : int
        Any size of at least 2 to the power of the depth goes through.

    Raises
    ------
    ParameterError
        If a number is out of range, or there is no such placement.

    Notes
    -----
    10,994,903 weights for 1 channel and 23 classes. Transposed convolutions are one pixel larger than what they are
    joined with; their last rows and columns are cut off.
    """

    dimensions = 2
    multiple = 1

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        *,
        width: int = 32,
        depth: int = 5,
        dropout: float = 0.5,
        placement: Placement = "block",
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("width", width)):
            check_number(name, value, least=1, whole=True)
        check_number("depth", depth, least=2, whole=True)
        if placement not in get_args(Placement):
            raise ParameterError(f"placement is one of {', '.join(get_args(Placement))}, not '{placement}'")
        self.least = 2**depth
        widths = [width * 2**level for level in range(depth)]
        after_block = placement == "block"

        def block(before: int, after: int) -> nn.Sequential:
            return nn.Sequential(*_block(before, after), *([MonteCarloDropout(dropout)] if after_block else []))

        def elsewhere() -> nn.Module:
            return nn.Identity() if after_block else MonteCarloDropout(dropout)

        self.down = nn.ModuleList(
            block(widths[level - 1] if level else in_channels, widths[level]) for level in range(depth)
        )
        self.pool = nn.ModuleList(nn.Sequential(elsewhere(), nn.MaxPool2d(2)) for _ in range(depth - 1))
        self.doubling = nn.ModuleList(
            nn.Sequential(*_normalised(_doubling(widths[level + 1])), elsewhere()) for level in range(depth - 1)
        )
        self.up = nn.ModuleList(block(widths[level + 1] + widths[level], widths[level]) for level in range(depth - 1))
        self.head = nn.Conv2d(width, out_channels, 3, padding=1)

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
            If there are fewer rows or columns than 2 to the power of the depth.
        """
        check_size(images, "bayesian-unet", dimensions=2, multiple=self.multiple, least=self.least)
        features, skips = images, []
        for level, down in enumerate(self.down):
            features = down(self.pool[level - 1](features) if level else features)
            skips.append(features)
        for level in reversed(range(len(self.up))):
            rows, columns = skips[level].shape[-2:]
            larger = self.doubling[level](features)[..., :rows, :columns]
            features = self.up[level](torch.cat([larger, skips[level]], dim=1))
        logits: torch.Tensor = self.head(features)
        return logits
