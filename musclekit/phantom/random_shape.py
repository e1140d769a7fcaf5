"""Chance in the shape of a plane of muscles: moved, bent, swollen and wasted."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from musclekit.checks import check_number
from musclekit.phantom.shape import MUSCLES

__all__ = ["ShapeRange", "moved_plane", "smooth_plane", "wasted_plane"]


@dataclass(frozen=True)
class ShapeRange:
    """How far shapes vary.

    Parameters
    ----------
    rotation_deg : float
        In the plane, either way.
    size : float
        Largest factor by which a leg grows, and its inverse the least.
    aspect, shear : float
        Share by which one axis grows while the other shrinks, and by which the leg leans.
    sway_mm, sway_scale_mm : float
        Largest amplitude and least scale of the smooth displacement.
    shift_mm : float
        Of the middle of the leg from that of the picture.
    waste, swell : float
        Chance that some muscles are wasted, and that some are swollen.
    change_mm : float
        By how much at most.

    Raises
    ------
    ParameterError
        If a number is out of range.
    """

    rotation_deg: float = 20.0
    size: float = 1.3
    aspect: float = 0.12
    shear: float = 0.10
    sway_mm: float = 5.0
    sway_scale_mm: float = 14.0
    shift_mm: float = 10.0
    waste: float = 0.35
    swell: float = 0.2
    change_mm: float = 6.0

    def __post_init__(self) -> None:
        check_number("rotation_deg", self.rotation_deg, least=0, most=180)
        check_number("size", self.size, least=1, most=4)
        for name in ("aspect", "shear", "waste", "swell"):
            check_number(name, getattr(self, name), least=0, most=1)
        check_number("sway_scale_mm", self.sway_scale_mm, above=0)
        for name in ("sway_mm", "shift_mm", "change_mm"):
            check_number(name, getattr(self, name), least=0)


def smooth_plane(rng: np.random.Generator, shape: tuple[int, int], scale_px: float) -> NDArray[np.float32]:
    """Return Gaussian noise of deviation 1, smooth over so many pixels.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of chance.
    shape : (int, int)
        Rows and columns.
    scale_px : float
        Standard deviation of the Gaussian that smooths it.
    """
    step = max(1, int(scale_px / 1.5))
    small = (shape[0] // step + 4, shape[1] // step + 4)
    noise: MatLike = rng.standard_normal(small, dtype=np.float32)
    if scale_px / step > 0.3:
        noise = cv2.GaussianBlur(noise, (0, 0), scale_px / step, borderType=cv2.BORDER_REFLECT)
    if step > 1:
        noise = cv2.resize(noise, (small[1] * step, small[0] * step), interpolation=cv2.INTER_CUBIC)
    noise = noise[: shape[0], : shape[1]]
    result: NDArray[np.float32] = (noise - noise.mean()) / np.float32(max(float(noise.std()), 1e-6))
    return result


def moved_plane(
    plane: NDArray[np.uint8], spacing_mm: float, size_px: int, rng: np.random.Generator, how: ShapeRange
) -> NDArray[np.uint8]:
    """Put a plane into the middle of a square picture of equal pixels, turned, stretched and bent by chance.

    Parameters
    ----------
    plane : ndarray of uint8, shape (Y, X)
        Muscles.
    spacing_mm : float
        Edge of a pixel, before and after.
    size_px : int
        Rows and columns of the picture.
    rng : numpy.random.Generator
        Source of chance.
    how : ShapeRange
        How far.

    Returns
    -------
    ndarray of uint8, shape (size_px, size_px)
    """
    turn = np.deg2rad(rng.uniform(-how.rotation_deg, how.rotation_deg))
    # Legs of adults in the label maps are on the small side.
    grow = np.exp(rng.uniform(-0.7, 1) * np.log(how.size))
    stretch = 1 + rng.uniform(-how.aspect, how.aspect)
    lean = rng.uniform(-how.shear, how.shear)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    pull = np.linalg.inv(grow * rotation @ np.array([[stretch, lean], [0, 1 / stretch]]))
    rows, columns = np.nonzero(plane)
    middle = np.array([rows.mean(), columns.mean()])
    shift = rng.uniform(-how.shift_mm, how.shift_mm, 2) / spacing_mm
    at = np.arange(size_px, dtype=np.float32) - np.float32((size_px - 1) / 2)
    y, x = at[:, None] - np.float32(shift[0]), at[None, :] - np.float32(shift[1])
    scale = np.exp(rng.uniform(np.log(how.sway_scale_mm), np.log(4 * how.sway_scale_mm))) / spacing_mm
    sway = rng.uniform(0, how.sway_mm) / spacing_mm * 0.5
    bend = [np.float32(sway) * smooth_plane(rng, (size_px, size_px), scale) for _ in range(2)]
    y, x = y + bend[0], x + bend[1]
    from_y = (pull[0, 0] * y + pull[0, 1] * x + middle[0]).astype(np.float32)
    from_x = (pull[1, 0] * y + pull[1, 1] * x + middle[1]).astype(np.float32)
    moved = cv2.remap(plane, from_x, from_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    return moved.astype(np.uint8, copy=False)


def wasted_plane(
    plane: NDArray[np.uint8], spacing_mm: float, rng: np.random.Generator, how: ShapeRange
) -> NDArray[np.uint8]:
    """Waste some muscles, so that fat has their room, and swell others into the room beside them.

    Parameters
    ----------
    plane : ndarray of uint8, shape (Y, X)
        Muscles; others stay as they are.
    spacing_mm : float
        Edge of a pixel.
    rng : numpy.random.Generator
        Source of chance.
    how : ShapeRange
        How often and how far.
    """
    result = plane.copy()
    present = np.unique(plane)
    present = present[(present > 0) & (present <= len(MUSCLES))]
    # Septa are of any width, all over the leg.
    parts = present if rng.random() < 0.3 else present[:0]
    widen = rng.uniform(0.3, 1.2)
    for n in parts:
        _shrink(result, plane == n, widen / spacing_mm)
    if rng.random() < how.waste:
        for n in rng.permutation(present)[: rng.integers(1, 5)]:
            _shrink(result, result == n, rng.uniform(0.5, how.change_mm) / spacing_mm)
    if rng.random() < how.swell:
        for n in rng.permutation(present)[: rng.integers(1, 3)]:
            mask = (result == n).astype(np.uint8)
            apart = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 3)
            result[(apart <= rng.uniform(0.5, how.change_mm / 2) / spacing_mm) & (result == 0)] = n
    return result


def _shrink(plane: NDArray[np.uint8], mask: NDArray[np.bool_], by_px: float) -> None:
    """Take the rim of a muscle away, in place; one that is thinner than that keeps its core."""
    depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
    plane[mask & (depth <= min(by_px, 0.6 * float(depth.max())))] = 0
