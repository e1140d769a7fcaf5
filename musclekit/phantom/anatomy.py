"""From shapes to voxels: which structure stands where, and which share of each voxel every tissue fills.

An `Anatomy` is all that infiltration and contrast need to know, and two roads lead to one: `rasterise` samples
parametric thighs (`musclekit.phantom.shape`), `anatomy_of_labels` builds a whole thigh round a given label map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from musclekit.errors import ParameterError
from musclekit.image import Grid, LabelMap
from musclekit.labels import Side, label_set
from musclekit.phantom.shape import MUSCLES, LegProfile, LegShape

__all__ = ["TISSUE_OF_STRUCTURE", "Anatomy", "PlacedLeg", "Structure", "Tissue", "cross_sections", "rasterise"]


class Structure(IntEnum):
    """What a voxel's centre lies in: 1 to 11 are the muscles of `MUSCLES`, these follow."""

    AIR = 0
    CORTEX = 12
    MARROW = 13
    CLEFT = 14
    FASCIA = 15
    VESSEL = 16
    SUBCUTANEOUS = 17
    SKIN = 18
    #: Muscle that is none of the eleven: glutei, short adductors, calf ...
    OTHER_MUSCLE = 19
    #: What does not belong there: a tumour, a haematoma.
    MASS = 20
    #: Bone that is no femur: knee, lower leg, pelvis.
    OTHER_CORTEX = 21
    OTHER_MARROW = 22


class Tissue(IntEnum):
    """What a voxel is made of, as far as grey values go; the channels of `Anatomy.fractions`."""

    AIR = 0
    MUSCLE = 1
    CORTICAL_BONE = 2
    MARROW = 3
    SUBCUTANEOUS_FAT = 4
    INTERMUSCULAR_FAT = 5
    FASCIA = 6
    VESSEL = 7
    SKIN = 8


def _table(**by_structure: int) -> NDArray[np.uint8]:
    """Lookup from structure to something, the muscles given as one."""
    table = np.zeros(max(Structure) + 1, dtype=np.uint8)
    for name, value in by_structure.items():
        if name != "MUSCLE":
            table[Structure[name]] = value
    table[1 : len(MUSCLES) + 1] = by_structure.get("MUSCLE", 0)
    table.flags.writeable = False
    return table


#: Tissue that each structure is made of.
TISSUE_OF_STRUCTURE = _table(
    MUSCLE=Tissue.MUSCLE,
    CORTEX=Tissue.CORTICAL_BONE,
    MARROW=Tissue.MARROW,
    CLEFT=Tissue.INTERMUSCULAR_FAT,
    FASCIA=Tissue.FASCIA,
    VESSEL=Tissue.VESSEL,
    SUBCUTANEOUS=Tissue.SUBCUTANEOUS_FAT,
    SKIN=Tissue.SKIN,
    OTHER_MUSCLE=Tissue.MUSCLE,
    OTHER_CORTEX=Tissue.CORTICAL_BONE,
    OTHER_MARROW=Tissue.MARROW,
    MASS=Tissue.MUSCLE,
)

#: Ids in the label set ``tissue``: what lies inside the fascia and is neither muscle nor bone counts as intermuscular
#: fat, fascia and vessels too, so that muscle and intermuscular fat together are the compartment. Skin is background.
TISSUE_LABEL = _table(
    MUSCLE=1, CORTEX=2, MARROW=3, SUBCUTANEOUS=4, CLEFT=5, FASCIA=5, VESSEL=5, OTHER_MUSCLE=1, OTHER_CORTEX=2,
    OTHER_MARROW=3,
)  # fmt: skip

#: Ids in the label set ``thigh-full``, in which the muscles have the ids that they have here.
FULL_LABEL = _table(
    CORTEX=12, MARROW=12, CLEFT=13, FASCIA=13, VESSEL=13, SUBCUTANEOUS=14, OTHER_MUSCLE=13, OTHER_CORTEX=13,
    OTHER_MARROW=13, MASS=13,
).copy()  # fmt: skip
FULL_LABEL[1 : len(MUSCLES) + 1] = np.arange(1, len(MUSCLES) + 1)
FULL_LABEL.flags.writeable = False

#: Ids in the label set ``thigh-context``, in which the muscles have the ids that they have here.
CONTEXT_LABEL = _table(
    CORTEX=12, MARROW=12, CLEFT=13, FASCIA=13, VESSEL=13, SUBCUTANEOUS=14, OTHER_MUSCLE=15, OTHER_CORTEX=16,
    OTHER_MARROW=16, MASS=13,
).copy()  # fmt: skip
CONTEXT_LABEL[1 : len(MUSCLES) + 1] = np.arange(1, len(MUSCLES) + 1)
CONTEXT_LABEL.flags.writeable = False

#: Fat stands round a vessel out to this many times its radius.
SHEATH = 1.3

#: Distance from the edge of a muscle's ellipse at which the septa beside it begin to widen.
CORNER_MM = 3.0


@dataclass(frozen=True, eq=False)
class PlacedLeg:
    """A leg put into the world.

    Parameters
    ----------
    shape : LegShape
        The leg in its own frame.
    side : {"left", "right"}
        A left leg is the mirror image of a right one of the same shape.
    x, y : float
        World position of its axis, in mm; x is negative on the left.
    z : float
        World height of level 0.5, in mm.
    """

    shape: LegShape
    side: Side
    x: float
    y: float = 0.0
    z: float = 0.0

    def level(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Level t at world heights, in mm."""
        level: NDArray[np.float64] = (z - self.z) / self.shape.length + 0.5
        return level


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Structures and tissues on a grid.

    Parameters
    ----------
    grid : Grid
        Where the voxels lie.
    structure : ndarray of uint8, shape (Z, Y, X)
        `Structure` at the centre of each voxel; 1 to 11 are the muscles.
    fractions : ndarray of float32, shape (9, Z, Y, X)
        Share of the voxel that each `Tissue` fills; they sum to 1.
    sides : ndarray of uint8, shape (Z, Y, X)
        1 in the left leg, 2 in the right one; it means nothing in the air.
    """

    grid: Grid
    structure: NDArray[np.uint8]
    fractions: NDArray[np.float32]
    sides: NDArray[np.uint8]

    @property
    def labels(self) -> LabelMap:
        """The structures in the set ``thigh-full-sided``."""
        full = label_set("thigh-full")
        table = np.zeros((3, len(full) + 1), dtype=np.uint8)
        for label in full:
            table[1:, label.id] = full.sided_ids[label.id]
        return LabelMap(table[self.sides, FULL_LABEL[self.structure]], self.grid, full.sided())

    @property
    def tissue(self) -> LabelMap:
        """The structures in the set ``tissue``; a muscle counts as muscle with all the fat inside it."""
        return LabelMap(TISSUE_LABEL[self.structure], self.grid, label_set("tissue"))

    @property
    def is_muscle(self) -> NDArray[np.bool_]:
        """Whether a voxel's centre lies in a muscle."""
        found: NDArray[np.bool_] = (self.structure > 0) & (self.structure <= len(MUSCLES))
        return found


def rasterise(
    legs: Mapping[Side, PlacedLeg],
    grid: Grid,
    *,
    thickness_mm: float | None = None,
    supersampling: tuple[int, int, int] = (2, 2, 2),
) -> Anatomy:
    """Sample parametric legs on a grid.

    Parameters
    ----------
    legs : mapping of side to PlacedLeg
        One leg or both; each keeps to its own side of the plane x = 0.
    grid : Grid
        Axes along S, A and R, as `Grid.from_spacing` makes them.
    thickness_mm : float, optional
        Height of the slab that a slice averages over; the slice spacing when not given.
    supersampling : tuple of int
        Points a voxel along (z, y, x) from which its fractions are counted. With an odd number along each axis one of
        them is the centre.

    Returns
    -------
    Anatomy
        Structures at the voxel centres and tissue fractions over the voxels.

    Raises
    ------
    ParameterError
        If the grid is not axis-aligned, the slab not positive or a count of points below 1.
    """
    dz, dy, dx = grid.spacing
    if not np.allclose(grid.affine[:3, :3], [[0, 0, dx], [0, dy, 0], [dz, 0, 0]]):
        raise ParameterError("a phantom needs a grid whose axes point to S, A and R (Grid.from_spacing)")
    slab = dz if thickness_mm is None else thickness_mm
    if slab <= 0 or min(supersampling) < 1:
        raise ParameterError("slice thickness and points a voxel must be positive")

    structure = np.zeros(grid.shape, dtype=np.uint8)
    fractions = np.zeros((len(Tissue), *grid.shape), dtype=np.float32)
    fractions[Tissue.AIR] = 1
    sides = np.zeros(grid.shape, dtype=np.uint8)
    nz, ny, nx = supersampling
    _, offsets_y, offsets_x = ((np.arange(n) + 0.5) / n - 0.5 for n in supersampling)
    offsets_z = _staggered(nz, ny * nx)
    for leg in legs.values():
        left = leg.side == "left"
        rows, columns = _window(leg, grid)
        y = grid.origin[1] + dy * np.arange(rows.start, rows.stop) - leg.y
        x = grid.origin[0] + dx * np.arange(columns.start, columns.stop)
        own = x < 0 if left else x >= 0
        columns = slice(columns.start + int(own.argmax()), columns.start + len(own) - int(own[::-1].argmax()))
        x = x[own] - leg.x
        z = grid.origin[2] + dz * np.arange(grid.shape[0])
        outward = -1.0 if left else 1.0
        sides[:, :, columns] = 1 if left else 2

        centre = _Rays(outward * x, y)
        profile = leg.shape.at(leg.level(z))
        for k in range(grid.shape[0]):
            structure[k, rows, columns] = _structures(profile, k, centre)

        rays = [_Rays(outward * x + dx * ox, y + dy * oy) for oy in offsets_y for ox in offsets_x]
        heights = (z[:, None] + slab * offsets_z.ravel()).ravel()
        profile = leg.shape.at(leg.level(heights))
        window = (len(y), len(x))
        place = np.arange(window[0] * window[1])
        for k in range(grid.shape[0]):
            counts = np.zeros((len(Tissue), window[0] * window[1]), dtype=np.float32)
            for j in range(offsets_z.size):
                found = TISSUE_OF_STRUCTURE[_structures(profile, k * offsets_z.size + j, rays[j % len(rays)])]
                counts[found.ravel(), place] += 1
            fractions[:, k, rows, columns] = counts.reshape(-1, *window) / offsets_z.size
    return Anatomy(grid, structure, fractions, sides)


def _staggered(nz: int, in_plane: int) -> NDArray[np.float64]:
    """Heights of the points of a voxel, as shares of the slab about its middle, shape (nz, in_plane).

    No two are alike: a border that leans is smeared over a thick slice rather than seen nz times.
    """
    within = (np.arange(in_plane) + 0.5) / in_plane
    # To and fro, so that no corner of the voxel is only looked at above or below its middle.
    return np.stack([(k + (within if k % 2 == 0 else within[::-1])) / nz - 0.5 for k in range(nz)])


def cross_sections(
    shape: LegShape, level: NDArray[np.float64], u: NDArray[np.float64], v: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Structure at the points of cross-sections of a leg, in its own frame.

    Parameters
    ----------
    shape : LegShape
        The leg.
    level : ndarray of shape (N,)
        Levels of the sections.
    u, v : ndarray of shape (U,), (V,)
        Coordinates of columns and rows, in mm.

    Returns
    -------
    ndarray of uint8, shape (N, V, U)
        `Structure`; 1 to 11 are the muscles.
    """
    rays = _Rays(u, v)
    profile = shape.at(level)
    return np.stack([_structures(profile, k, rays) for k in range(len(level))])


class _Rays:
    """Points on a plane of a leg, with what does not depend on the level worked out once."""

    def __init__(self, u: NDArray[np.float64], v: NDArray[np.float64]) -> None:
        self.u, self.v = np.broadcast_arrays(u[None, :], v[:, None])
        self.radius = np.hypot(self.u, self.v)
        self.wave = (self.u - 1j * self.v) / np.maximum(self.radius, 1e-9)

    def outline(self, series: NDArray[np.complex128]) -> NDArray[np.float64]:
        """Radius of an outline along the ray to each point."""
        value = np.full(self.wave.shape, series[-1])
        for coefficient in series[-2::-1]:
            value *= self.wave
            value += coefficient
        return value.real


def _window(leg: PlacedLeg, grid: Grid) -> tuple[slice, slice]:
    """Rows and columns that the leg can touch, on the grid."""
    z = grid.origin[2] + grid.spacing[0] * (np.arange(grid.shape[0]) + np.array([[-0.5], [0.5]]))
    u0, u1, v0, v1 = leg.shape.at(leg.level(z.ravel())).extent()
    x0, x1 = (leg.x - u1, leg.x - u0) if leg.side == "left" else (leg.x + u0, leg.x + u1)
    _, dy, dx = grid.spacing

    def cut(low: float, high: float, origin: float, step: float, n: int) -> slice:
        first = int(np.floor((low - origin) / step)) - 1
        last = int(np.ceil((high - origin) / step)) + 2
        return slice(min(max(first, 0), n - 1), max(min(last, n), 1))

    rows = cut(leg.y + v0, leg.y + v1, float(grid.origin[1]), dy, grid.shape[1])
    return rows, cut(x0, x1, float(grid.origin[0]), dx, grid.shape[2])


def _structures(profile: LegProfile, k: int, rays: _Rays) -> NDArray[np.uint8]:
    """Structure at each point of a plane, at the k-th level of the profile."""
    shape = profile.shape
    skin = rays.outline(profile.outline[k] + profile.fat[k])
    compartment = rays.outline(profile.outline[k])
    found = np.zeros(rays.radius.shape, dtype=np.uint8)
    found[rays.radius < skin] = Structure.SKIN
    found[rays.radius < skin - shape.skin] = Structure.SUBCUTANEOUS
    found[rays.radius < compartment] = Structure.FASCIA
    inside = rays.radius < compartment - shape.fascia
    found[inside] = _muscles(profile, k, rays.u[inside], rays.v[inside])
    soft = found > 0
    for vu, vv, radius in profile.vessels[k]:
        apart = (rays.u - vu) ** 2 + (rays.v - vv) ** 2
        found[inside & (apart < (SHEATH * radius) ** 2) & (found != Structure.VESSEL)] = Structure.CLEFT
        found[soft & (apart < radius**2)] = Structure.VESSEL
    fu, fv, a, b = profile.femur[k]
    wall = profile.cortex[k]
    u, v = rays.u - fu, rays.v - fv
    found[inside & ((u / a) ** 2 + (v / b) ** 2 < 1)] = Structure.CORTEX
    found[inside & ((u / (a - wall)) ** 2 + (v / (b - wall)) ** 2 < 1)] = Structure.MARROW
    return found


def _muscles(profile: LegProfile, k: int, u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Muscle or cleft at each point inside the fascia: the nearest ellipse wins, and between two runs a septum."""
    shape = profile.shape
    bend_u, bend_v = np.zeros_like(u), np.zeros_like(v)
    for du, dv, ku, kv, kz, phase in shape.warp:
        wave = np.sin(ku * u + kv * v + (kz * profile.height[k] + phase))
        bend_u += du * wave
        bend_v += dv * wave
    u, v = u + bend_u, v + bend_v

    parts = profile.muscles[k]
    there = parts[:, 5] > 0.05
    cu, cv, uu, vv, uv, extent = parts[there].T
    squared = extent**2
    determinant = uu * vv - uv**2
    # The inverse of the second moments, as coefficients of u^2, v^2, uv, u, v and 1.
    a, b, c = vv / (determinant * squared), uu / (determinant * squared), -uv / (determinant * squared)
    forms = np.stack(
        [a, b, 2 * c, -2 * (a * cu + c * cv), -2 * (b * cv + c * cu), a * cu**2 + b * cv**2 + 2 * c * cu * cv], axis=1
    )
    distance = forms @ np.stack([u * u, v * v, u * v, u, v, np.ones_like(u)])
    np.sqrt(np.maximum(distance, 0, out=distance), out=distance)
    # A uniform ellipse has its edge at two standard deviations; its geometric mean radius turns that into millimetres.
    size = 2 * determinant**0.25 * extent
    distance *= (size / 2)[:, None]
    distance -= (size + shape.grow * extent)[:, None]

    muscle = np.array(shape.muscle_of_part)[there]
    starts = np.flatnonzero(np.r_[True, np.diff(muscle) > 0])
    nearest = np.minimum.reduceat(distance, starts, axis=0)
    best = nearest.argmin(axis=0)
    everyone = np.arange(len(u))
    first = nearest[best, everyone]
    nearest[best, everyone] = np.inf
    second = nearest.min(axis=0)
    found: NDArray[np.uint8] = (muscle[starts] + 1).astype(np.uint8)[best]
    # Septa widen towards the corners, far from the middle of either muscle: muscles are round.
    septum = shape.septum * (1 + np.clip((first + CORNER_MM) / CORNER_MM, 0, 2))
    found[(first > profile.cleft[k]) | (second - first < septum)] = Structure.CLEFT
    return found
