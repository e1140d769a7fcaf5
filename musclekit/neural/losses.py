"""What is asked of a translation, one term a function, each a mean over pixels.

They are computed in float32 at least, whatever the precision of the networks.

From Zhu et al., Unpaired image-to-image translation using cycle-consistent adversarial networks (2017); Gadermayr et
al., hard-to-easy translation for the segmentation of thigh muscle, and Yang et al., domain adaptation from MR to CT.
"""

from __future__ import annotations

from typing import Literal, assert_never

import torch
from torch.nn import functional

__all__ = ["Direction", "GanLoss", "adversarial", "cycle", "edge", "monotone", "sobel_edges"]

GanLoss = Literal["lsgan", "vanilla"]
Direction = Literal["darker", "brighter"]

#: Under the root of an edge's strength, so that its slope stays finite where there is no edge.
ROUNDING = 1e-12


def adversarial(logits: torch.Tensor, real: bool, kind: GanLoss = "lsgan") -> torch.Tensor:
    """How far a discriminator is from calling images real, or fake.

    Parameters
    ----------
    logits : Tensor
        What it says.
    real : bool
        What it should say; a generator wants its fakes to be called real.
    kind : {"lsgan", "vanilla"}
        Squared distance from 1 (real) or 0 (fake), or cross-entropy of the logits.

    Notes
    -----
    Yang et al. print ``1 - log D(fake)`` for ``log(1 - D(fake))``. Its maximum is infinite, so it is not offered.
    """
    said = _precise(logits)
    wanted = torch.full_like(said, float(real))
    match kind:
        case "lsgan":
            return functional.mse_loss(said, wanted)
        case "vanilla":
            return functional.binary_cross_entropy_with_logits(said, wanted)
        case _:
            assert_never(kind)


def cycle(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference of two batches of images."""
    return functional.l1_loss(_precise(a), _precise(b))


def monotone(fake: torch.Tensor, source: torch.Tensor, direction: Direction) -> torch.Tensor:
    """How far pixels moved against the direction they may move in: the ReLU loss.

    Parameters
    ----------
    fake, source : Tensor, shape (n, channels, rows, columns)
        A translation, and what it was made of.
    direction : {"darker", "brighter"}
        In T1-weighted MR healthy muscle is darker than infiltrated muscle: what heals a thigh may only darken it.

    References
    ----------
    Gadermayr et al., eq. 3.
    """
    against = {"darker": 1, "brighter": -1}[direction]
    return functional.relu(against * (_precise(fake) - _precise(source))).mean()


def sobel_edges(image: torch.Tensor) -> torch.Tensor:
    """Return the strength of the edges: the length of the central differences across and down, not halved.

    Parameters
    ----------
    image : Tensor, shape (n, channels, rows, columns)
        At the border the last row or column is repeated.

    Returns
    -------
    Tensor, shape (n, channels, rows, columns)

    Notes
    -----
    Yang et al. print the kernels without their minus sign, which would find edges in a constant image.
    """
    padded = functional.pad(_precise(image), (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    return torch.sqrt(across.square() + down.square() + ROUNDING)


def edge(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference of the strengths of edges (Yang et al., eq. 6)."""
    return functional.l1_loss(sobel_edges(a), sobel_edges(b))


def _precise(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
