"""Slices of thighs that nobody scanned: a plane of real muscles, everything else by chance.

The idea is SynthSeg's (Billot et al. 2023): a network that is shown label maps in grey values of every kind learns the
shapes, and takes scans of any contrast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from musclekit.checks import check_number
from musclekit.errors import GeometryError, InputError
from musclekit.phantom.anatomy import CONTEXT_LABEL, Structure
from musclekit.phantom.leg_planes import LegPlanes
from musclekit.phantom.other_regions import other_region
from musclekit.phantom.random_contrast import draw_appearance, painted
from musclekit.phantom.random_shape import ShapeRange, moved_plane, smooth_plane, wasted_plane
from musclekit.phantom.random_surroundings import grow_mass, lay_scrotum, packed_plane, surrounded

__all__ = ["RandomSlice", "SliceRange", "draw_slice"]

#: Air in a network's range.
AIR = np.float32(-1)
#: Of a leg that edges of the field of view cut, at least this share is seen.
LEAST_LEFT = 0.15
#: How often a leg that is cut is cut by one, two and three edges.
EDGES = (0.5, 0.35, 0.15)
#: How often the noise is that of counts.
COUNTED = 0.15


@dataclass(frozen=True)
class SliceRange:
    """What slices look like, and how far they vary.

    Parameters
    ----------
    size : int
        Rows and columns.
    spacing_mm : float
        Edge of a pixel.
    fine : int
        Pixels are means of so many by so many in which the leg is painted.
    shape : ShapeRange
        Of the muscles.
    other_region, packed, mass, neighbour, scrotum, cropped, metal, streaks, dim : float
        How often the slice is that of no thigh, has muscles that fill the clefts between them, a mass, a piece of the
        other leg or a scrotum beside it, an edge of the field of view across it, metal or streaks, or is darker than
        the rest of its scan.
    noise, bias : float
        Standard deviation of the noise, and of the logarithm of the gain, at most.

    Raises
    ------
    ParameterError
        If a number is out of range.
    """

    size: int = 96
    spacing_mm: float = 2.0
    fine: int = 2
    shape: ShapeRange = field(default_factory=ShapeRange)
    other_region: float = 0.14
    packed: float = 0.5
    mass: float = 0.2
    neighbour: float = 0.25
    scrotum: float = 0.05
    cropped: float = 0.4
    metal: float = 0.02
    streaks: float = 0.1
    dim: float = 0.15
    noise: float = 0.08
    bias: float = 0.35

    def __post_init__(self) -> None:
        check_number("size", self.size, least=8, whole=True)
        check_number("spacing_mm", self.spacing_mm, above=0)
        check_number("fine", self.fine, least=1, whole=True)
        for name in (
            "other_region", "packed", "mass", "neighbour", "scrotum", "cropped", "metal", "streaks", "dim",
        ):  # fmt: skip
            check_number(name, getattr(self, name), least=0, most=1)
        for name in ("noise", "bias"):
            check_number(name, getattr(self, name), least=0)

    @property
    def step_mm(self) -> float:
        """Edge of the pixels in which the leg is painted."""
        return self.spacing_mm / self.fine


@dataclass(frozen=True, eq=False)
class RandomSlice:
    """A slice and what it shows.

    Parameters
    ----------
    image : ndarray of float32, shape (size, size)
        -1 to 1, air outside the leg.
    classes : ndarray of uint8, shape (size, size)
        Ids of ``thigh-context``, 0 outside the leg.
    """

    image: NDArray[np.float32]
    classes: NDArray[np.uint8]


def draw_slice(legs: Sequence[LegPlanes], rng: np.random.Generator, how: SliceRange) -> RandomSlice:
    """Draw a slice.

    Parameters
    ----------
    legs : sequence of LegPlanes
        Whose muscles, in pixels of ``how.step_mm``; each leg is as likely, whatever the number of its planes.
    rng : numpy.random.Generator
        Source of chance.
    how : SliceRange
        What it looks like.

    Raises
    ------
    InputError
        If there is no leg.
    GeometryError
        If its pixels are of another size.
    """
    if not legs:
        raise InputError("there is no leg to draw a slice of")
    leg = legs[int(rng.integers(len(legs)))]
    k = int(rng.integers(len(leg.planes)))
    step = how.step_mm
    if not np.isclose(leg.spacing_mm, step):
        raise GeometryError(f"the leg has pixels of {leg.spacing_mm:g} mm, slices are painted in {step:g} mm")
    size = how.size * how.fine
    if rng.random() < how.other_region:
        structure = other_region(size, step, rng)
    else:
        plane = moved_plane(leg.planes[k], step, size, rng, how.shape)
        if rng.random() < how.packed:
            plane = packed_plane(plane, step, rng)
        plane = wasted_plane(plane, step, rng, how.shape)
        structure = surrounded(plane, step, float(leg.heights[k]), float(leg.fullness[k]), rng)
    if rng.random() < how.mass:
        grow_mass(structure, step, rng)
    grey = painted(structure, step, draw_appearance(rng), rng)
    if rng.random() < how.scrotum:
        lay_scrotum(grey, structure, step, rng)
    grey = _through(grey, step, rng)
    inside = structure > 0
    if rng.random() < how.neighbour:
        _mirror_beside(grey, structure, inside, step, rng)
    inside = _outline(inside, step, rng)
    if rng.random() < how.cropped:
        for _ in range(1 + int(rng.choice(3, p=EDGES))):
            left = inside & ~_beyond_edge(structure > 0, rng)
            if left.sum() > LEAST_LEFT * inside.sum():
                inside = left
        # Views have what is seen in their middle; what is rolled round lies outside of it.
        by = _to_the_middle(inside)
        grey, structure, inside = (
            np.roll(grey, by, (0, 1)), np.roll(structure, by, (0, 1)), np.roll(inside, by, (0, 1))
        )  # fmt: skip
    # Image and classes are taken at the same fine pixels, the image as a mean over one whole pixel round them.
    middle = slice(how.fine // 2, None, how.fine)
    grey = _averaged(grey, how.fine)[middle, middle]
    seen = inside[middle, middle]
    classes = np.where(seen, CONTEXT_LABEL[structure[middle, middle]], np.uint8(0)).astype(np.uint8)
    grey = _acquired(grey, seen, rng, how)
    return RandomSlice(_in_range(grey, seen, rng, how), classes)


def _averaged(grey: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Mean over a square of so many pixels round each; of an even number the outermost count half."""
    kernel = np.full(width | 1, 1 / width, dtype=np.float32)
    if width % 2 == 0:
        kernel = np.pad(kernel[1:-1], 1, constant_values=np.float32(0.5 / width))
    return np.asarray(cv2.sepFilter2D(grey, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE), dtype=np.float32)


def _through(grey: NDArray[np.float32], step: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Blur by the slice's own profile, and by its thickness: a leg tapers and its muscles drift from plane to plane."""
    grey = np.asarray(cv2.GaussianBlur(grey, (0, 0), rng.uniform(0.3, 1.4) / step), dtype=np.float32)
    if rng.random() < 0.5:
        thick = rng.uniform(0, 1) ** 2
        drift, taper = rng.normal(0, 3.0, 2) * thick / step, 1 + 0.04 * thick * rng.uniform(0.2, 1)
        bend = smooth_plane(rng, grey.shape, 20 / step) * np.float32(1.5 * thick / step)
        at = np.arange(len(grey), dtype=np.float32) - np.float32((len(grey) - 1) / 2)
        middle = np.float32((len(grey) - 1) / 2)
        total = grey.copy()
        for sign in (-1, 1):
            y = at[:, None] * np.float32(taper**sign) + sign * (np.float32(drift[0]) + bend) + middle
            x = at[None, :] * np.float32(taper**sign) + sign * (np.float32(drift[1]) + bend) + middle
            moved = cv2.remap(
                grey, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            total += np.asarray(moved, dtype=np.float32)
        grey = total / np.float32(3)
    return grey


def _mirror_beside(
    grey: NDArray[np.float32],
    structure: NDArray[np.uint8],
    inside: NDArray[np.bool_],
    step: float,
    rng: np.random.Generator,
) -> None:
    """Show a piece of the other leg on the inner side, in place: it is the mirror image of this one, and background."""
    columns = np.flatnonzero((structure > 0).any(axis=0))
    if not len(columns):
        return
    # The legs touch, or are pressed flat against each other.
    first = int(columns[0] + rng.uniform(-3, 10) / step)
    # Where they are pressed flat, what this one loses on the inner side is gone.
    reach = max(int(rng.uniform(2, 26) / step), first - int(columns[0]))
    reach = min(reach, first, grey.shape[1] - first)
    if reach < 1:
        return
    beside = slice(first - reach, first)
    of = slice(first, first + reach)
    grey[:, beside] = grey[:, of][:, ::-1]
    inside[:, beside] = inside[:, of][:, ::-1]
    structure[:, beside] = np.where(inside[:, beside], np.uint8(Structure.SKIN), np.uint8(0))


def _outline(inside: NDArray[np.bool_], step: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return what a body mask would keep: a little more or less than the leg."""
    apart = rng.uniform(-2.5, 3.0) / step
    if apart >= 0:
        return np.asarray(cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, 3) <= apart)
    return np.asarray(cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 3) > -apart)


def _beyond_edge(leg: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return what lies beyond an edge of the field of view that cuts a leg."""
    if not leg.any():
        return np.zeros(leg.shape, dtype=bool)
    turn = rng.choice([0.0, 0.5, 1.0, 1.5]) * np.pi + rng.normal(0, 0.05)
    along = np.cos(turn) * np.arange(leg.shape[1]) + np.sin(turn) * np.arange(leg.shape[0])[:, None]
    return np.asarray(along > np.quantile(along[leg], rng.uniform(0.2, 0.98)))


def _to_the_middle(inside: NDArray[np.bool_]) -> tuple[int, int]:
    """Return by how much a plane is to be rolled for what a field of view leaves of a leg to stand in its middle."""
    if not inside.any():
        return 0, 0
    seen = [np.flatnonzero(inside.any(axis=1 - axis)) for axis in (0, 1)]
    down, across = (len(inside) // 2 - (int(at[0]) + int(at[-1])) // 2 for at in seen)
    return down, across


def _acquired(
    grey: NDArray[np.float32], seen: NDArray[np.bool_], rng: np.random.Generator, how: SliceRange
) -> NDArray[np.float32]:
    """Add what scanners do: gain, streaks, metal, noise of some grain."""
    shape = grey.shape
    at = np.linspace(-1, 1, shape[0], dtype=np.float32)
    gain = np.float32(rng.uniform(0, how.bias)) * smooth_plane(rng, shape, rng.uniform(12, 45))
    if rng.random() < 0.4:
        gain += np.float32(rng.uniform(-0.4, 0.4)) * np.exp(-(at[:, None] ** 2 + at**2) / np.float32(0.4))
    grey = grey * np.exp(gain - gain[seen].mean() if seen.any() else gain)
    if rng.random() < how.streaks:
        lines = cv2.GaussianBlur(rng.standard_normal(shape, dtype=np.float32), (0, 0), sigmaX=20, sigmaY=0.7)
        grey += np.float32(rng.uniform(0.01, 0.1)) * lines / max(float(lines.std()), 1e-6)
    if rng.random() < how.metal:
        y, x = rng.uniform(-0.5, 0.5, 2)
        dy, dx = at[:, None] - np.float32(y), at - np.float32(x)
        radius = np.hypot(dy, dx)
        rays = np.cos(rng.integers(3, 9) * np.arctan2(dy, dx) + np.float32(rng.uniform(0, 6)))
        grey += np.float32(rng.uniform(0.1, 0.7)) * rays * np.exp(-radius / np.float32(rng.uniform(0.1, 0.6)))
        grey[radius < rng.uniform(0.03, 0.1)] = rng.choice([-0.2, 1.6])
    deviation = np.float32(how.noise * rng.random() ** 2)
    grain = rng.choice([0.0, 0.0, rng.uniform(0.4, 1.2)])
    if rng.random() < COUNTED:
        counts = max(float(deviation), 0.005) ** -2
        grey = (rng.poisson(np.maximum(grey, 0) * counts) / counts).astype(np.float32)
    grey = grey + smooth_plane(rng, shape, grain) * deviation
    if rng.random() < 0.5:
        grey = np.hypot(grey, smooth_plane(rng, shape, grain) * deviation)
    return grey.astype(np.float32, copy=False)


def _in_range(
    grey: NDArray[np.float32], seen: NDArray[np.bool_], rng: np.random.Generator, how: SliceRange
) -> NDArray[np.float32]:
    """Bring grey values to -1 to 1 by percentiles, as a window does, which sees the other slices too; air outside."""
    if not seen.any():
        return np.full(grey.shape, AIR)
    low, high = np.percentile(grey[seen], (0.5, 99.5))
    span = max(high - low, 1e-3)
    low, high = low - span * rng.uniform(-0.03, 0.12), high + span * rng.uniform(-0.15, 0.35)
    if rng.random() < how.dim:
        high += span * rng.uniform(0.3, 3.0)
    share = np.clip((grey - low) / (high - low), 0, 1)
    share = share ** np.float32(np.exp(rng.normal(0, 0.25)))
    image: NDArray[np.float32] = np.where(seen, 2 * share - 1, AIR).astype(np.float32)
    return image
