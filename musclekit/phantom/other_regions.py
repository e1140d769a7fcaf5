"""Sections that are no thigh, by chance: knees, calves, hips, bellies, and limbs like nothing in particular."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from musclekit.phantom.anatomy import Structure
from musclekit.phantom.completion import draw_surroundings, section
from musclekit.phantom.random_shape import smooth_plane

__all__ = ["cells", "other_region", "put_bone", "wobbly_ellipse"]

#: How often each kind is drawn, in the order of `_KINDS`.
SHARES = (0.28, 0.14, 0.30, 0.08, 0.20)
#: By what share of itself every length of a layout varies, and how far every place, in mm.
VARIES, STRAYS_MM = 0.15, 3.5


@dataclass(frozen=True)
class _Part:
    """An ellipse of one structure in a right limb: places in mm to the front and outwards of its middle."""

    front: float
    out: float
    half_front: float
    half_out: float
    what: Structure
    turn_deg: float = 0.0


_MUSCLE, _BONE, _VESSEL = Structure.OTHER_MUSCLE, Structure.OTHER_CORTEX, Structure.VESSEL

# Rough places, from atlases of sections: what matters is that bones are wide, where, and among what.
_KNEE = (
    _Part(-2, -23, 28, 22, _BONE), _Part(-2, 23, 28, 22, _BONE), _Part(10, 0, 18, 34, _BONE),
    _Part(48, 2, 10, 21, _BONE), _Part(-40, -17, 11, 14, _MUSCLE), _Part(-40, 18, 11, 13, _MUSCLE),
    _Part(-24, -48, 12, 5, _MUSCLE), _Part(-36, -42, 4, 4, _MUSCLE), _Part(-42, -33, 3, 3, _MUSCLE),
    _Part(-36, -30, 8, 8, _MUSCLE), _Part(-28, 44, 10, 7, _MUSCLE), _Part(16, -44, 14, 7, _MUSCLE),
    _Part(-31, 0, 5, 5, _VESSEL),
)  # fmt: skip
_CALF = (
    _Part(20, 20, 18, 13, _MUSCLE), _Part(4, 40, 15, 8, _MUSCLE), _Part(-18, 6, 16, 32, _MUSCLE),
    _Part(-38, -18, 13, 21, _MUSCLE), _Part(-37, 22, 12, 19, _MUSCLE), _Part(0, 10, 10, 13, _MUSCLE),
    _Part(15, -13, 21, 17, _BONE, 25), _Part(-4, 32, 7, 7, _BONE), _Part(-6, 14, 3, 3, _VESSEL),
)  # fmt: skip
_HIP = (
    _Part(-62, 25, 24, 52, _MUSCLE, 15), _Part(8, 72, 26, 12, _MUSCLE), _Part(38, 8, 15, 18, _MUSCLE),
    _Part(62, 26, 7, 12, _MUSCLE), _Part(42, 60, 17, 9, _MUSCLE), _Part(48, 40, 11, 12, _MUSCLE),
    _Part(14, -30, 12, 24, _MUSCLE, -25), _Part(-18, -40, 26, 9, _MUSCLE), _Part(-25, 30, 9, 24, _MUSCLE),
    _Part(0, 14, 23, 23, _BONE), _Part(-6, 42, 12, 24, _BONE), _Part(-10, 58, 18, 13, _BONE),
    _Part(-36, -14, 18, 11, _BONE, 30), _Part(26, -50, 8, 24, _BONE, -30), _Part(4, -18, 26, 7, _BONE, 20),
    _Part(50, -6, 6, 6, _VESSEL), _Part(47, -18, 6, 6, _VESSEL),
)  # fmt: skip
_BELLY = (
    _Part(-28, 40, 26, 34, _MUSCLE, -35), _Part(12, 18, 24, 16, _MUSCLE, -35), _Part(-46, -26, 20, 22, _MUSCLE),
    _Part(-4, 32, 46, 6, _BONE, -35), _Part(-34, -60, 26, 28, _BONE), _Part(30, -50, 26, 30, _VESSEL),
    _Part(42, 0, 16, 20, _VESSEL), _Part(62, -30, 7, 50, _MUSCLE),
)  # fmt: skip


def other_region(size_px: int, spacing_mm: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a section that is no thigh.

    Parameters
    ----------
    size_px : int
        Rows and columns.
    spacing_mm : float
        Edge of a pixel.
    rng : numpy.random.Generator
        Source of chance.

    Returns
    -------
    ndarray of uint8, shape (size_px, size_px)
        `Structure`, none of the eleven muscles and no femur among them. Rows grow to the front, columns outwards.
    """
    plane = _KINDS[int(rng.choice(len(_KINDS), p=SHARES))](size_px, spacing_mm, rng)
    return section(plane, None, (spacing_mm, spacing_mm), draw_surroundings(rng), 1.0)


def _laid_out(
    parts: tuple[_Part, ...], radius_mm: float, size_px: int, spacing_mm: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Lay parts out in a limb, each moved, stretched and bent a little."""
    shape = (size_px, size_px)
    grow = float(np.exp(rng.normal(0, 0.12)))
    middle = np.full(2, (size_px - 1) / 2 * spacing_mm) + rng.uniform(-12, 12, 2)
    plane = np.where(
        wobbly_ellipse(shape, spacing_mm, middle, radius_mm * grow, rng), np.uint8(Structure.CLEFT), np.uint8(0)
    )
    limb = plane > 0
    turn = np.deg2rad(rng.uniform(-20, 20))
    at = np.arange(size_px) * spacing_mm
    sway = [3.5 * smooth_plane(rng, shape, rng.uniform(10, 25) / spacing_mm) for _ in range(2)]
    y, x = at[:, None] - middle[0] + sway[0], at[None, :] - middle[1] + sway[1]
    y, x = (np.cos(turn) * y - np.sin(turn) * x) / grow, (np.sin(turn) * y + np.cos(turn) * x) / grow
    for part in parts:
        if rng.random() < 0.08:
            continue
        front, out = np.array([part.front, part.out]) + rng.normal(0, STRAYS_MM, 2)
        half_front, half_out = np.array([part.half_front, part.half_out]) * np.exp(rng.normal(0, VARIES, 2))
        lean = np.deg2rad(part.turn_deg + rng.normal(0, 8))
        dy, dx = y - front, x - out
        along, across = np.cos(lean) * dy - np.sin(lean) * dx, np.sin(lean) * dy + np.cos(lean) * dx
        apart = np.hypot(along / half_front, across / half_out)
        here = limb & (apart < 1)
        plane[here & (plane != Structure.OTHER_MARROW)] = part.what
        if part.what is _BONE:
            rim = rng.uniform(1.0, 4.0) / min(half_front, half_out)
            plane[here & (apart < 1 - min(rim, 0.7))] = Structure.OTHER_MARROW
    return plane


def _knee(size_px: int, spacing_mm: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    return _laid_out(_KNEE, 60, size_px, spacing_mm, rng)


def _calf(size_px: int, spacing_mm: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    return _laid_out(_CALF, 53, size_px, spacing_mm, rng)


def _hip(size_px: int, spacing_mm: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    return _laid_out(_HIP, 92, size_px, spacing_mm, rng)


def _belly(size_px: int, spacing_mm: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    return _laid_out(_BELLY, 90, size_px, spacing_mm, rng)


def _anything(size_px: int, spacing_mm: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a limb with muscles and bones wherever they fall."""
    small = rng.random() < 0.5
    radius = float(rng.uniform(32, 60) if small else rng.uniform(55, 100))
    shape = (size_px, size_px)
    centre = np.full(2, (size_px - 1) / 2 * spacing_mm) + rng.uniform(-10, 10, 2)
    limb = wobbly_ellipse(shape, spacing_mm, centre, radius, rng)
    plane = np.where(limb, np.uint8(Structure.CLEFT), np.uint8(0))
    n = int(rng.integers(2, 9) if small else rng.integers(5, 16))
    plane[limb & cells(shape, spacing_mm, centre, radius, n, 0.35 if small else 0.8, rng)] = Structure.OTHER_MUSCLE
    for _ in range(rng.integers(1, 4)):
        put_bone(plane, limb, spacing_mm, centre, radius, 34 if small else 26, rng)
    return plane


_KINDS: tuple[Callable[[int, float, np.random.Generator], NDArray[np.uint8]], ...] = (
    _knee, _calf, _hip, _belly, _anything,
)  # fmt: skip


def wobbly_ellipse(
    shape: tuple[int, int], spacing_mm: float, centre: NDArray[np.float64], radius: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return a wobbly ellipse; centre and radius in mm."""
    flat = rng.uniform(0.8, 1.25)
    y = (np.arange(shape[0])[:, None] * spacing_mm - centre[0]) / flat
    x = (np.arange(shape[1]) * spacing_mm - centre[1]) * flat
    return np.asarray(np.hypot(y, x) * (1 + 0.08 * smooth_plane(rng, shape, 25 / spacing_mm)) < radius)


def cells(
    shape: tuple[int, int],
    spacing_mm: float,
    centre: NDArray[np.float64],
    radius: float,
    n: int,
    share: float,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Return muscles: some of the cells round n random points, with septa between them."""
    y, x = (np.arange(side) * spacing_mm - middle for side, middle in zip(shape, centre, strict=True))
    seeds = rng.uniform(-1, 1, (n, 2)) * radius
    sway = 5 * smooth_plane(rng, shape, 12 / spacing_mm)
    apart = np.stack([np.hypot(y[:, None] + sway - sy, x + sway - sx) for sy, sx in seeds])
    nearest = np.partition(apart, 1, axis=0)[:2] if n > 1 else np.stack([apart[0], apart[0] + 100])
    found: NDArray[np.bool_] = (nearest[1] - nearest[0] > rng.uniform(0.8, 6.0)) & (rng.random(n) < share)[
        apart.argmin(axis=0)
    ]
    return found


def put_bone(
    plane: NDArray[np.uint8],
    free: NDArray[np.bool_],
    spacing_mm: float,
    centre: NDArray[np.float64],
    radius: float,
    most: float,
    rng: np.random.Generator,
) -> None:
    """Put a bone that is no femur somewhere into the free part of a limb, in place; lengths in mm."""
    middle = centre + rng.uniform(-0.5, 0.5, 2) * radius
    long, short, turn = rng.uniform(9, most), rng.uniform(0.5, 1.0), rng.uniform(0, np.pi)
    y = np.arange(plane.shape[0])[:, None] * spacing_mm - middle[0]
    x = np.arange(plane.shape[1]) * spacing_mm - middle[1]
    away = np.hypot(np.cos(turn) * x + np.sin(turn) * y, (np.cos(turn) * y - np.sin(turn) * x) / short)
    away = away * (1 + 0.1 * smooth_plane(rng, (plane.shape[0], plane.shape[1]), 20 / spacing_mm))
    plane[free & (away < long)] = Structure.OTHER_CORTEX
    plane[free & (away < long - rng.uniform(1.5, 6))] = Structure.OTHER_MARROW
