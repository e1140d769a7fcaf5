"""FCN-8s: the convolutions of VGG-16, and three resolutions of logits that are doubled and summed.

From Long et al., Fully convolutional networks for semantic segmentation (2015), on Simonyan and Zisserman, Very deep
convolutional networks for large-scale image recognition (2015). Hiasa et al. (Bayesian U-Net) compare with it.
"""

from __future__ import annotations

import torch
from torch import nn

from musclekit.checks import check_number
from musclekit.neural.networks.dropout import MonteCarloDropout
from musclekit.neural.networks.sizes import check_size

__all__ = ["FCN8s"]

#: Convolutions of each stage of VGG-16, and its channels in units of the width.
STAGES = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))
#: Channels of the two layers that are fully connected in VGG-16, in units of the width.
CONNECTED = 64


def _rectified(before: int, after: int, size: int) -> list[nn.Module]:
    """Convolution that keeps the size, its weights drawn as He et al. (2015) do."""
    convolution = nn.Conv2d(before, after, size, padding=size // 2)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return [convolution, nn.ReLU(inplace=True)]


def _enlarging(channels: int, factor: int) -> nn.ConvTranspose2d:
    """Transposed convolution that interpolates before it has learnt anything."""
    convolution = nn.ConvTranspose2d(channels, channels, 2 * factor, stride=factor, padding=factor // 2, bias=False)
    distances = (torch.arange(2 * factor) - (factor - 0.5)).abs()
    line = 1 - distances / factor
    with torch.no_grad():
        convolution.weight.copy_(torch.eye(channels)[:, :, None, None] * torch.outer(line, line))
    return convolution


class FCN8s(nn.Module):
    """From images to logits, of which the finest are worked out at an eighth of the resolution.

    Parameters
    ----------
    in_channels, out_channels : int
        Of an image, and classes with background.
    width : int
        Channels of the first stage; the other layers follow. 64 in the paper.
    dropout : float
        After each of the two layers that are fully connected in VGG-16. 0.5 in the paper.

    Attributes
    ----------
    multiple, least : int
        Rows and columns have to be multiples of 32, and at least 32.

    Raises
    ------
    ParameterError
        If a number is out of range.

    Notes
    -----
    134,489,759 weights for 3 channels and 21 classes. Convolutions are padded so that sizes stay, where the authors pad
    the image by 100 pixels and crop; all three transposed convolutions are learnt, where theirs keep interpolating.
    Training begins from He-normal weights rather than from VGG-16 after ImageNet. Like VGG-16 it has no norms.
    """

    dimensions = 2
    multiple = 32
    least = 32

    def __init__(self, in_channels: int = 1, out_channels: int = 2, *, width: int = 64, dropout: float = 0.5) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("width", width)):
            check_number(name, value, least=1, whole=True)
        channels = in_channels
        stages: list[nn.Module] = []
        for convolutions, times in STAGES:
            parts: list[nn.Module] = []
            for _ in range(convolutions):
                parts += _rectified(channels, times * width, 3)
                channels = times * width
            stages.append(nn.Sequential(*parts, nn.MaxPool2d(2)))
        self.stages = nn.ModuleList(stages)
        self.connected = nn.Sequential(
            *_rectified(channels, CONNECTED * width, 7),
            MonteCarloDropout(dropout),
            *_rectified(CONNECTED * width, CONNECTED * width, 1),
            MonteCarloDropout(dropout),
        )
        self.scores = nn.ModuleList(
            nn.Conv2d(times * width, out_channels, 1) for times in (STAGES[2][1], STAGES[3][1], CONNECTED)
        )
        self.enlarging = nn.ModuleList(_enlarging(out_channels, factor) for factor in (8, 2, 2))

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
            If rows or columns are no multiple of 32.
        """
        check_size(images, "fcn-8s", dimensions=2, multiple=self.multiple, least=self.least)
        features, pooled = images, []
        for stage in self.stages:
            features = stage(features)
            pooled.append(features)
        third, fourth, last = self.scores
        by_8, by_2, from_last = self.enlarging
        coarse = from_last(last(self.connected(features))) + fourth(pooled[3])
        logits: torch.Tensor = by_8(by_2(coarse) + third(pooled[2]))
        return logits
