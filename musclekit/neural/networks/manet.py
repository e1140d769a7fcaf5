"""MA-Net: a residual encoder, attention between all positions at its bottom, and attention to channels on the way up.

From Fan et al., MA-Net: a multi-scale attention network for liver and tumor segmentation (2020). The encoder is the
ResNet-34 of He et al., Deep residual learning for image recognition (2016); the gates are those of Hu et al.,
Squeeze-and-excitation networks (2018). Kim et al. (thigh muscles in CT) compare with it.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from musclekit.checks import check_number
from musclekit.neural.networks.sizes import check_size

__all__ = ["MANet"]

#: Residual blocks of each stage of ResNet-34.
BLOCKS = (3, 4, 6, 3)
#: A gate squeezes its channels by this, but to no fewer than that.
SQUEEZE, FEWEST = 16, 4


def _normalised(before: int, after: int, size: int, *, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, size, stride=stride, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(after)]


def _rectified(before: int, after: int, size: int, *, stride: int = 1) -> list[nn.Module]:
    return [*_normalised(before, after, size, stride=stride), nn.ReLU()]


class _ResidualBlock(nn.Module):
    """Two convolutions whose result is added to what came in, which is projected where its shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.change = nn.Sequential(*_rectified(before, after, 3, stride=stride), *_normalised(after, after, 3))
        same = before == after and stride == 1
        self.project = nn.Identity() if same else nn.Sequential(*_normalised(before, after, 1, stride=stride))
        self.rectify = nn.ReLU()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = self.rectify(self.project(features) + self.change(features))
        return changed


class _Encoder(nn.Module):
    """ResNet-34 without its classifier: features at a half, a quarter, ..., a 32nd of the resolution."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_rectified(in_channels, width, 7, stride=2))
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = width
        stages: list[nn.Module] = []
        for stage, blocks in enumerate(BLOCKS):
            after = width * 2**stage
            first = _ResidualBlock(channels, after, stride=2 if stage else 1)
            stages.append(nn.Sequential(first, *(_ResidualBlock(after, after, stride=1) for _ in range(blocks - 1))))
            channels = after
        self.stages = nn.ModuleList(stages)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        found = [self.stem(images)]
        features = self.pool(found[0])
        for stage in self.stages:
            features = stage(features)
            found.append(features)
        return found


class _PositionAttention(nn.Module):
    """Position-wise attention block: every position adds up the others, weighed by how alike they are to it."""

    def __init__(self, channels: int, compared: int) -> None:
        super().__init__()
        self.top = nn.Conv2d(channels, compared, 1)
        self.centre = nn.Conv2d(channels, compared, 1)
        self.bottom = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, channels, 3, padding=1)

    def affinities(self, features: torch.Tensor) -> torch.Tensor:
        """Of each position (row) to all of them (columns); a row sums to 1."""
        alike = self.centre(features).flatten(2).transpose(-2, -1) @ self.top(features).flatten(2)
        return torch.softmax(alike, dim=-1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        seen = self.bottom(features).flatten(2) @ self.affinities(features).transpose(-2, -1)
        changed: torch.Tensor = self.out(features + seen.reshape(features.shape))
        return changed


class _Gate(nn.Sequential):
    """Squeeze and excitation: how much of each channel to let through, from the channels' means."""

    def __init__(self, channels: int) -> None:
        squeezed = max(channels // SQUEEZE, FEWEST)
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, channels, 1),
            nn.Sigmoid(),
        )


class _FusionAttention(nn.Module):
    """Multi-scale fusion attention block: what comes from below is gated by itself and by the skip, then joined."""

    def __init__(self, before: int, skipped: int, after: int) -> None:
        super().__init__()
        self.high = nn.Sequential(
            *_rectified(before, before, 3), *_rectified(before, skipped, 1), nn.Upsample(scale_factor=2, mode="nearest")
        )
        self.high_gate = _Gate(skipped)
        self.low_gate = _Gate(skipped)
        self.join = nn.Sequential(*_rectified(2 * skipped, after, 3), *_rectified(after, after, 3))

    def forward(self, features: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        high = self.high(features)
        gated = high * (self.high_gate(high) + self.low_gate(skip))
        joined: torch.Tensor = self.join(torch.cat([gated, skip], dim=1))
        return joined


class MANet(nn.Module):
    """From images to logits.

    Parameters
    ----------
    in_channels, out_channels : int
        Of an image, and classes with background.
    width : int
        Channels of the first stage of the encoder, twice as many in each one below, and of what positions are compared
        by. 64 in ResNet-34.
    decoder_width : int
        Channels of the decoder at full resolution, twice as many in each level below.

    Attributes
    ----------
    multiple, least : int
        Rows and columns have to be multiples of 32, and at least 64, so that batch norms have more than one pixel.

    Raises
    ------
    ParameterError
        If a number is out of range.

    Notes
    -----
    31,777,796 weights for 1 channel and 4 classes, drawn as torch does by default. With 3 channels the encoder has the
    21,284,672 of ResNet-34 without its classifier. The softmax of the position-wise attention runs over each position's
    own affinities; in a widely copied version it runs over all pairs of positions at once, which leaves next to nothing
    of the attention.
    """

    dimensions = 2
    multiple = 32
    least = 64

    def __init__(
        self, in_channels: int = 1, out_channels: int = 2, *, width: int = 64, decoder_width: int = 16
    ) -> None:
        super().__init__()
        for name, value in (
            ("in_channels", in_channels),
            ("out_channels", out_channels),
            ("width", width),
            ("decoder_width", decoder_width),
        ):
            check_number(name, value, least=1, whole=True)
        self.encoder = _Encoder(in_channels, width)
        self.attention = _PositionAttention(8 * width, width)
        skipped = [4 * width, 2 * width, width, width]
        widths = [8 * width, *(decoder_width * 2**level for level in (4, 3, 2, 1))]
        self.fusions = nn.ModuleList(
            _FusionAttention(before, skip, after)
            for (before, after), skip in zip(pairwise(widths), skipped, strict=True)
        )
        self.finest = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="nearest"),
            *_rectified(2 * decoder_width, decoder_width, 3),
            *_rectified(decoder_width, decoder_width, 3),
        )
        self.head = nn.Conv2d(decoder_width, out_channels, 3, padding=1)

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
            If rows or columns are no multiple of 32, or fewer than 64.
        """
        check_size(images, "manet", dimensions=2, multiple=self.multiple, least=self.least)
        *skips, features = self.encoder(images)
        features = self.attention(features)
        for fusion, skip in zip(self.fusions, reversed(skips), strict=True):
            features = fusion(features, skip)
        logits: torch.Tensor = self.head(self.finest(features))
        return logits
