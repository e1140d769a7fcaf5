"""Turned, stretched, sheared, shifted and mirrored samples: image and classes alike, by one resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from musclekit.checks import check_number

__all__ = ["Augmentation", "augmented", "exchanged_classes"]


@dataclass(frozen=True)
class Augmentation:
    """How far a sample may be moved, each way up to its bound and as likely either way.

    Parameters
    ----------
    rotation_deg : float
        In the plane.
    scale : float
        Share by which it grows or shrinks.
    shear_deg : float
        Angle by which it leans.
    shift : float
        Share of the sample's size, across and down.
    flip : bool
        Whether half of the samples are mirrored left to right; labels with a side then change it. Sagittal slices
        show no left and right, and are not mirrored in training.

    Raises
    ------
    ParameterError
        If a bound is out of range.

    Notes
    -----
    Hiasa et al. (Bayesian U-Net): 10 degrees, 0.35, 22.5 degrees, 0.25 and flips. Haque et al. (2.5-D U-Net): 20
    degrees, 0.1, none, 10 of 128 pixels.
    """

    rotation_deg: float = 0.0
    scale: float = 0.0
    shear_deg: float = 0.0
    shift: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        for name, most in (("rotation_deg", 180), ("scale", 0.9), ("shear_deg", 60), ("shift", 1)):
            check_number(name, getattr(self, name), least=0, most=most)

    @property
    def moves(self) -> bool:
        """Whether anything is changed."""
        return bool(self.rotation_deg or self.scale or self.shear_deg or self.shift or self.flip)

    def draw(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Draw what happens to each of n samples.

        Returns
        -------
        ndarray of shape (n, 2, 2)
            Takes a place of the result, in pixels (y, x) from its middle, to that of the sample it shows.
        ndarray of shape (n, 2)
            Shift (y, x) in shares of the size.
        """
        turn, grow, lean = (rng.uniform(-1, 1, n) for _ in range(3))
        shift = rng.uniform(-self.shift, self.shift, (n, 2))
        flips = rng.random(n) < 0.5
        angle, shear = np.radians(turn * self.rotation_deg), np.tan(np.radians(lean * self.shear_deg))
        size = 1 + grow * self.scale
        one, none = np.ones(n), np.zeros(n)
        rotation = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(n, 2, 2)
        leaning = np.stack([one, none, shear, one], axis=1).reshape(n, 2, 2)
        mirror = np.where(flips & self.flip, -1.0, 1.0)
        across = np.stack([one, none, none, mirror], axis=1).reshape(n, 2, 2)
        return across @ rotation @ leaning / size[:, None, None], shift


def augmented(
    images: torch.Tensor,
    classes: torch.Tensor,
    how: Augmentation,
    rng: np.random.Generator,
    *,
    exchange: Sequence[int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move each sample by chance: image and classes alike.

    Parameters
    ----------
    images : Tensor, shape (n, channels, ..., rows, columns)
        In the range -1 to 1; all channels and planes of a sample are moved alike.
    classes : Tensor of int64, shape (n, ..., rows, columns)
        Of the same sizes.
    how : Augmentation
        How far.
    rng : numpy.random.Generator
        Where chance comes from; the same numbers are drawn whatever the size of the samples.
    exchange : sequence of int, optional
        Class that each class becomes where left and right change places.

    Returns
    -------
    Tensor, Tensor
        In the same shapes: images interpolated, classes of the nearest pixel; what comes into view is air and
        background.
    """
    if not how.moves:
        return images, classes
    matrices, shifts = how.draw(len(images), rng)
    rows, columns = images.shape[-2:]
    half = np.array([rows, columns]) / 2
    # From pixels (y, x) to the (x, y) in -1..1 that torch samples by.
    scaled = matrices * (half[None, None, :] / half[None, :, None])
    theta = np.zeros((len(images), 2, 3))
    theta[:, :, :2] = scaled[:, ::-1, ::-1]
    theta[:, :, 2] = 2 * shifts[:, ::-1]
    grid = functional.affine_grid(
        torch.from_numpy(theta).to(images.device, images.dtype), [len(images), 1, rows, columns], align_corners=False
    )
    flat = (images + 1).reshape(len(images), -1, rows, columns)
    moved = functional.grid_sample(flat, grid, mode="bilinear", padding_mode="zeros", align_corners=False) - 1
    labels = classes.to(images.dtype).reshape(len(images), -1, rows, columns)
    followed = functional.grid_sample(labels, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    found = followed.round().to(classes.dtype).reshape(classes.shape)
    if exchange is not None:
        table = torch.arange(256, device=classes.device)
        table[: len(exchange)] = torch.tensor(exchange, device=classes.device)
        flipped = torch.from_numpy(np.linalg.det(matrices) < 0).to(classes.device)
        found = torch.where(flipped.reshape(-1, *[1] * (found.ndim - 1)), table[found], found)
    return moved.reshape(images.shape), found


def exchanged_classes(sides: Sequence[tuple[str, str | None]]) -> list[int] | None:
    """Return the class that each class becomes in a mirror, background first; None where no label has a side.

    Parameters
    ----------
    sides : sequence of (str, str or None)
        Name and side of each label, in the order of the classes.
    """
    if not any(side for _, side in sides):
        return None
    other = {"left": "right", "right": "left", None: None}
    return [0, *(1 + sides.index((name, other[side])) for name, side in sides)]
