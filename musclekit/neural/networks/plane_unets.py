"""Three U-Nets, one for each plane of a volume, that see slices with their neighbours: 2.5-D.

From Haque et al., who segment thigh muscle in CT with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional

from musclekit.checks import check_number
from musclekit.errors import ParameterError
from musclekit.neural.networks.sizes import check_size
from musclekit.neural.networks.unet import Norm, UNet2D

__all__ = ["PLANES", "Fusion", "PlaneUNets", "fused", "neighbours"]

Fusion = Literal["mean", "max", "plurality"]

#: Planes by the axis of a volume (z, y, x) that their slices are numbered along.
PLANES = ("axial", "coronal", "sagittal")
#: Slices that one network is shown: one, and a neighbour on either side.
SHOWN = 3
#: Pixels that go through a network at once where a whole volume does: two slices of 256 x 256. More are slower on a
#: processor.
AT_ONCE = 2 * 256 * 256


def neighbours(volumes: torch.Tensor, axis: int, index: torch.Tensor, distance: int) -> torch.Tensor:
    """Cut slices out of volumes, each with one on either side of it as channels.

    Parameters
    ----------
    volumes : Tensor, shape (n, Z, Y, X)
        Grey values.
    axis : {0, 1, 2}
        Along which slices are numbered: z, y, x.
    index : Tensor of int, shape (slices,)
        Which of them.
    distance : int
        How far off the neighbours lie, in voxels. Beyond the ends of the volume the last slice stands for them.

    Returns
    -------
    Tensor, shape (n * slices, 3, rows, columns)
        All slices of the first volume first.
    """
    shown = index[:, None] + distance * torch.tensor([-1, 0, 1], device=index.device)
    shown = shown.clamp(0, volumes.shape[axis + 1] - 1)
    along = volumes.movedim(axis + 1, 1)
    return along[:, shown].flatten(0, 1)


def fused(answers: torch.Tensor, fusion: Fusion) -> torch.Tensor:
    """Make one probability out of those of several networks.

    Parameters
    ----------
    answers : Tensor, shape (networks, n, classes, ...)
        Probabilities.
    fusion : {"mean", "max", "plurality"}
        Their mean; the largest of each class, scaled to sum to 1; or the share of networks that give a class most,
        and the mean where no class has more than the others.

    Returns
    -------
    Tensor, shape (n, classes, ...)
        Probabilities; the class that wins is the one with the largest.
    """
    mean = answers.mean(dim=0)
    if fusion == "mean":
        return mean
    if fusion == "max":
        most = answers.amax(dim=0)
        return most / most.sum(dim=1, keepdim=True)
    classes = answers.shape[2]
    votes = functional.one_hot(answers.argmax(dim=2), classes).sum(dim=0).movedim(-1, 1)
    leading = votes.topk(min(2, classes), dim=1).values
    tied = (leading[:, :1] == leading[:, -1:]) if classes > 1 else torch.zeros_like(leading, dtype=torch.bool)
    return torch.where(tied, mean, votes.to(mean.dtype) / len(answers))


class PlaneUNets(nn.Module):
    """From volumes to logarithms of the fused probabilities of three U-Nets.

    Parameters
    ----------
    in_channels : int
        Of a volume; 1.
    out_channels : int
        Classes with background.
    width, levels, norm, dropout
        Of each network: see `UNet2D`.
    distance : int
        Voxels between a slice and the neighbours that are shown with it. 2, 4 mm, in the paper.
    fusion : {"mean", "max", "plurality"}
        How three answers become one: see `fused`. The paper says that the winner takes all, and not how it wins.

    Attributes
    ----------
    multiple, least : int
        Of which planes, rows and columns have to be, and how many there have to be.

    Raises
    ------
    ParameterError
        If a number is out of range, or there is no such norm or fusion.

    Notes
    -----
    Each network is trained on slices of its own plane (`plane_logits`); they share nothing.
    """

    dimensions = 3

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        *,
        width: int = 32,
        levels: int = 3,
        norm: Norm = "batch",
        dropout: float = 0.0,
        distance: int = 2,
        fusion: Fusion = "mean",
    ) -> None:
        super().__init__()
        check_number("in_channels", in_channels, least=1, most=1, whole=True)
        check_number("distance", distance, least=1, whole=True)
        if fusion not in get_args(Fusion):
            raise ParameterError(f"fusion is one of {', '.join(get_args(Fusion))}, not '{fusion}'")
        self.distance, self.fusion = distance, fusion
        self.planes = nn.ModuleDict(
            {
                plane: UNet2D(SHOWN, out_channels, width=width, levels=levels, norm=norm, dropout=dropout)
                for plane in PLANES
            }
        )
        self.multiple, self.least = 2 ** (levels - 1), 2**levels

    def plane_logits(self, slices: torch.Tensor, axis: int) -> torch.Tensor:
        """Return the logits of one network.

        Parameters
        ----------
        slices : Tensor, shape (n, 3, rows, columns)
            See `neighbours`.
        axis : {0, 1, 2}
            Which network: axial, coronal, sagittal.
        """
        logits: torch.Tensor = self.planes[PLANES[axis]](slices)
        return logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Run all slices of volumes through the network of their plane, and fuse the answers.

        Parameters
        ----------
        images : Tensor, shape (n, 1, planes, rows, columns)
            In the range -1 to 1.

        Returns
        -------
        Tensor, shape (n, out_channels, planes, rows, columns)
            Logarithms of probabilities, which are logits too.

        Raises
        ------
        GeometryError
            If a side is no multiple of 2 to the power of the skips, or too small for the norms.
        """
        check_size(images, "unet-2.5d", dimensions=3, multiple=self.multiple, least=self.least)
        answers = torch.stack([torch.cat(list(self._of_plane(images[:, 0], axis)), dim=axis + 2) for axis in range(3)])
        return fused(answers, self.fusion).clamp(min=torch.finfo(answers.dtype).tiny).log()

    def _of_plane(self, volumes: torch.Tensor, axis: int) -> Iterator[torch.Tensor]:
        """Probabilities, shape (n, classes, Z, Y, X), of some slices at a time."""
        slices = volumes.shape[axis + 1]
        at_once = max(1, AT_ONCE * slices // volumes[0].numel())
        for index in torch.split(torch.arange(slices, device=volumes.device), at_once):
            logits = self.plane_logits(neighbours(volumes, axis, index, self.distance), axis)
            answers = functional.softmax(logits, dim=1)
            answers = answers.reshape(len(volumes), len(index), *answers.shape[1:])
            # (n, slices, classes, ...) to (n, classes, ...) with the slices where their axis is.
            yield answers.movedim(1, axis + 2)
