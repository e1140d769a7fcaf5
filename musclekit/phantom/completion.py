"""A whole thigh built round a given label map of its muscles.

Label maps of real people hold the muscles alone. Here the compartment, the femur, vessels, subcutaneous fat and skin
are put where the muscles leave room for them, so that a label map can be infiltrated and scanned like a parametric
thigh.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from musclekit.errors import GeometryError, LabelError, ParameterError
from musclekit.image import Grid, LabelMap
from musclekit.labels import SIDES, Side, label_mapping, label_set
from musclekit.phantom.anatomy import TISSUE_OF_STRUCTURE, Anatomy, Structure, Tissue
from musclekit.phantom.shape import MUSCLES

__all__ = [
    "Surroundings",
    "coarsen",
    "compartment_of",
    "complete_labels",
    "draw_surroundings",
    "femur_room",
    "leg_columns",
    "section",
]

#: Clefts up to twice this wide are inside the compartment; wider ones are notches of its outline.
CLOSING_MM = 22.0

#: The femur is looked for within this distance of vastus intermedius, and its radius lies between these.
NEAR_FEMUR_MM = 14.0
FEMUR_RADIUS_MM = (9.0, 19.0)

#: Between two legs a column holds at most this share of the muscle of the fullest one.
MOST_BETWEEN = 0.2

#: Least area of muscle in a slice for a leg to be built round it.
LEAST_MUSCLE_MM2 = 300.0


@dataclass(frozen=True)
class Surroundings:
    """What is put round the muscles; lengths in mm.

    Parameters
    ----------
    fat_mm : float
        Mean thickness of the subcutaneous fat.
    lopsided, fat_angle : float
        Relative amplitude of its first harmonic, below 1, and the direction in which it is thickest, in radians from
        lateral towards the front.
    skin_mm : float
        Thickness of the skin; a voxel and a half where voxels are larger.
    cortex : float
        Thickness of the cortex relative to the femur's radius.
    vessels : int
        Vessels for each leg.
    """

    fat_mm: float = 11.0
    lopsided: float = 0.3
    fat_angle: float = -1.9
    skin_mm: float = 1.8
    cortex: float = 0.42
    vessels: int = 2


def draw_surroundings(rng: np.random.Generator) -> Surroundings:
    """Draw surroundings: 2 to 35 mm of fat, lopsided, and 0 to 4 vessels."""
    return Surroundings(
        fat_mm=float(np.exp(rng.uniform(np.log(2.0), np.log(35.0)))),
        lopsided=float(rng.uniform(0.0, 0.6)),
        fat_angle=float(rng.uniform(-np.pi, np.pi)),
        skin_mm=float(rng.uniform(1.2, 2.4)),
        cortex=float(rng.uniform(0.25, 0.55)),
        vessels=int(rng.integers(0, 5)),
    )


def complete_labels(labels: LabelMap, surroundings: Surroundings | None = None, *, side: Side | None = None) -> Anatomy:
    """Build a whole thigh round a label map.

    Parameters
    ----------
    labels : LabelMap
        In any set that leads to ``thigh-11``: ``huashan-11``, ``thigh-full``, ``qmritools``, ... sided or not. Only the
        muscles are taken from it.
    surroundings : Surroundings, optional
        What is put round the muscles.
    side : {"left", "right"}, optional
        Which leg it is, when there is one. Else sides come from the labels, and when those have none, a column in the
        world between the two legs parts left from right.

    Returns
    -------
    Anatomy
        Muscles exactly as given; everything else stands where they leave room. Planes without muscle are air.

    Raises
    ------
    LabelError
        If the label set does not lead to ``thigh-11`` or there is no muscle.
    GeometryError
        If rows and columns do not run along A and R.
    """
    around = surroundings or Surroundings()
    if around.fat_mm < 0 or not 0 <= around.lopsided < 1 or not 0 < around.cortex < 1:
        raise ParameterError("fat is not negative, lopsided lies below 1 and cortex between 0 and 1")
    wanted = label_set("thigh-11")
    muscles = labels.mapped(label_mapping(labels.label_set, wanted)).voxels
    if not muscles.any():
        raise LabelError("there is no muscle in the label map")
    axes = labels.grid.direction
    if axes[0, 2] < 0.9 or axes[1, 1] < 0.9:
        raise GeometryError("rows of the label map must grow to the front and its columns to the right (musclekit.io)")

    structure = muscles.astype(np.uint8)
    sides = np.zeros(labels.grid.shape, dtype=np.uint8)
    for name, columns in leg_columns(labels, muscles, side).items():
        sides[:, :, columns] = 1 + SIDES.index(name)
        femur = _femurs(structure[:, :, columns], labels.grid)
        outward = -1.0 if name == "left" else 1.0
        for k, plane in enumerate(structure):
            area = np.count_nonzero(plane[:, columns]) * labels.grid.spacing[1] * labels.grid.spacing[2]
            if area >= LEAST_MUSCLE_MM2:
                plane[:, columns] = section(plane[:, columns], femur[k], labels.grid.spacing[1:], around, outward)
            else:
                plane[:, columns] = 0
    return Anatomy(labels.grid, structure, tissue_fractions(structure), sides)


def tissue_fractions(structure: NDArray[np.uint8], blur: float = 0.5) -> NDArray[np.float32]:
    """Share of each voxel that every tissue fills, for structures known at voxel centres alone.

    Parameters
    ----------
    structure : ndarray of uint8, shape (Z, Y, X)
        `Structure`.
    blur : float
        Standard deviation, in voxels, of the Gaussian that stands for partial volume in the plane; 0 for none.

    Returns
    -------
    ndarray of float32, shape (9, Z, Y, X)
        In the order of `Tissue`; they sum to 1.
    """
    tissue = TISSUE_OF_STRUCTURE[structure]
    fractions = np.empty((len(Tissue), *structure.shape), dtype=np.float32)
    for t in Tissue:
        for k, plane in enumerate(tissue):
            here = (plane == t).astype(np.float32)
            fractions[t, k] = here if blur == 0 else cv2.GaussianBlur(here, (0, 0), blur)
    return fractions


def coarsen(anatomy: Anatomy, factor: tuple[int, int, int]) -> Anatomy:
    """Average an anatomy over blocks of voxels: larger pixels, thicker slices.

    Parameters
    ----------
    anatomy : Anatomy
        Fine.
    factor : tuple of int
        Voxels averaged along (z, y, x); what is left over at the far ends is cut off.

    Returns
    -------
    Anatomy
        Fractions are block means; the structure of a block is that at its middle.

    Raises
    ------
    ParameterError
        If a factor is below 1 or larger than the grid.
    """
    fz, fy, fx = factor
    planes, rows, columns = (n // f if f > 0 else 0 for n, f in zip(anatomy.grid.shape, factor, strict=True))
    if min(planes, rows, columns) < 1:
        raise ParameterError(f"a grid of {anatomy.grid.shape} cannot be averaged over blocks of {factor}")
    cut = (slice(planes * fz), slice(rows * fy), slice(columns * fx))
    blocks = anatomy.fractions[(slice(None), *cut)].reshape(-1, planes, fz, rows, fy, columns, fx)
    middle = (slice(fz // 2, planes * fz, fz), slice(fy // 2, rows * fy, fy), slice(fx // 2, columns * fx, fx))
    affine = anatomy.grid.affine.copy()
    affine[:3, :3] *= np.array(factor)
    affine[:3, 3] = anatomy.grid.world((np.array(factor) - 1) / 2)
    return replace(
        anatomy,
        grid=Grid((planes, rows, columns), affine),
        structure=np.ascontiguousarray(anatomy.structure[middle]),
        fractions=np.ascontiguousarray(blocks.mean(axis=(2, 4, 6), dtype=np.float32)),
        sides=np.ascontiguousarray(anatomy.sides[middle]),
    )


def leg_columns(labels: LabelMap, muscles: NDArray[np.unsignedinteger], side: Side | None) -> dict[Side, slice]:
    """Columns of each leg."""
    every = slice(0, labels.grid.shape[2])
    if side is not None:
        return {side: every}
    if labels.label_set.is_sided:
        columns = {}
        for name in SIDES:
            ids = [label.id for label in labels.label_set if label.side == name]
            seen = np.flatnonzero((np.isin(labels.voxels, ids) & (muscles > 0)).any(axis=(0, 1)))
            if len(seen):
                columns[name] = seen
        if len(columns) == 1:
            return dict.fromkeys(columns, every)
        cut = int(columns["left"][-1] + columns["right"][0]) // 2 + 1
    else:
        mass = (muscles > 0).sum(axis=(0, 1))
        inside = np.flatnonzero(mass)
        first, last = int(inside[0]), int(inside[-1])
        third = max((last - first) // 3, 1)
        low = mass[first + third : last - third + 1]
        if low.min() > MOST_BETWEEN * mass.max():
            raise LabelError(
                "the label map shows one leg, or two that overlap, and does not say which side is which: state the "
                "side, or take a sided label set"
            )
        # The middle of the widest stretch that holds least muscle.
        cut = first + third + int(np.flatnonzero(low == low.min()).mean()) + 1
    return {"left": slice(0, cut), "right": slice(cut, every.stop)}


def femur_room(plane: NDArray[np.uint8], dx: float, dy: float) -> tuple[float, float, float] | None:
    """Return the largest disc in the gap by vastus intermedius: column, row and radius in mm; None where none fits."""
    muscle = plane > 0
    beside = plane == MUSCLES.index("vastus intermedius") + 1
    if not beside.any():
        return None
    gap = compartment_of(muscle, dx, dy) & ~muscle
    room = cv2.distanceTransform(gap.astype(np.uint8), cv2.DIST_L2, 5) * np.float32(dx)
    near = cv2.distanceTransform((~beside).astype(np.uint8), cv2.DIST_L2, 5) * np.float32(dx) < NEAR_FEMUR_MM
    room[~near] = 0
    row, column = np.unravel_index(int(room.argmax()), room.shape)
    radius = float(room[row, column])
    fits = radius >= 0.6 * FEMUR_RADIUS_MM[0]
    return (column * dx, row * dy, radius) if fits else None


def _femurs(structure: NDArray[np.uint8], grid: Grid) -> list[tuple[float, float, float] | None]:
    """Column, row and radius, in mm, of the femur in each plane."""
    _, dy, dx = grid.spacing
    found = [femur_room(plane, dx, dy) for plane in structure]
    known = [f for f in found if f is not None]
    if not known:
        return found
    # Bone does not jump: the radius is the same for the whole shaft, where the gap is wide enough for it.
    typical = float(np.clip(np.median([f[2] for f in known]), *FEMUR_RADIUS_MM))
    return [None if f is None else (f[0], f[1], min(max(f[2], 0.8 * typical), 1.25 * typical)) for f in found]


def compartment_of(muscle: NDArray[np.bool_], dx: float, dy: float) -> NDArray[np.bool_]:
    """Return the region inside the fascia of one leg in one plane: the muscles, closed widely enough for the bone."""
    reach = int(np.ceil(CLOSING_MM / min(dx, dy)))
    padded = np.pad(muscle.astype(np.uint8), reach + 1)
    # Dilation and erosion by distance transforms: the time does not grow with the disc.
    grown = cv2.distanceTransform(1 - padded, cv2.DIST_L2, 5) * np.float32(dx) <= CLOSING_MM
    closed = cv2.distanceTransform(grown.astype(np.uint8), cv2.DIST_L2, 5) * np.float32(dx) > CLOSING_MM
    inner = closed[reach + 1 : -reach - 1, reach + 1 : -reach - 1]
    outline, _ = cv2.findContours((inner | muscle).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(muscle.shape, dtype=np.uint8)
    cv2.drawContours(filled, outline, -1, 1, cv2.FILLED)
    return filled.astype(bool)


def section(
    plane: NDArray[np.uint8],
    femur: tuple[float, float, float] | None,
    spacing: tuple[float, float],
    around: Surroundings,
    outward: float,
) -> NDArray[np.uint8]:
    """Return one plane of one leg with everything put round its muscles.

    Parameters
    ----------
    plane : ndarray of uint8, shape (Y, X)
        `Structure`: muscles, and 0 where none is.
    femur : (float, float, float), optional
        Column, row and radius in mm (`femur_room`).
    spacing : (float, float)
        Of rows and columns, in mm.
    around : Surroundings
        What is put there.
    outward : float
        1 where lateral is towards higher columns, as in a right leg, and -1 where it is not.
    """
    dy, dx = spacing
    muscle = plane > 0
    compartment = compartment_of(muscle, dx, dy)
    if not compartment.any():
        return np.zeros_like(plane)
    outside = cv2.distanceTransform((~compartment).astype(np.uint8), cv2.DIST_L2, 5) * np.float32(dx)
    # Fat fills the notches of the fascia: skin follows the convex hull.
    hull = np.zeros_like(plane)
    outline, _ = cv2.findContours(compartment.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.fillConvexPoly(hull, cv2.convexHull(np.concatenate(outline)), 1)
    beyond = cv2.distanceTransform(1 - hull, cv2.DIST_L2, 5) * np.float32(dx)
    rows, columns = np.nonzero(compartment)
    y = (np.arange(plane.shape[0]) - rows.mean())[:, None] * dy
    x = (np.arange(plane.shape[1]) - columns.mean()) * dx * outward
    thickness = around.fat_mm * (1 + around.lopsided * np.cos(np.arctan2(y, x) - around.fat_angle))
    depth = beyond - thickness
    found = np.zeros_like(plane)
    found[depth < max(around.skin_mm, 1.5 * dx)] = Structure.SKIN
    found[depth < 0] = Structure.SUBCUTANEOUS
    found[(outside > 0) & (outside <= max(dx, 0.9))] = Structure.FASCIA
    found[compartment] = Structure.CLEFT
    free = compartment & ~muscle
    if femur is not None:
        fx, fy, radius = femur
        apart = np.hypot(np.arange(plane.shape[0])[:, None] * dy - fy, np.arange(plane.shape[1]) * dx - fx)
        found[free & (apart < radius)] = Structure.CORTEX
        found[free & (apart < radius * (1 - around.cortex))] = Structure.MARROW
        free &= apart > radius + 2
    for _ in range(around.vessels):
        room = cv2.distanceTransform(free.astype(np.uint8), cv2.DIST_L2, 5) * np.float32(dx)
        row, column = np.unravel_index(int(room.argmax()), room.shape)
        radius = min(float(room[row, column]) * 0.8, 4.0)
        if radius < 1.0:
            break
        apart = np.hypot((np.arange(plane.shape[0])[:, None] - row) * dy, (np.arange(plane.shape[1]) - column) * dx)
        found[free & (apart < radius)] = Structure.VESSEL
        free &= apart > 2 * radius
    found[muscle] = plane[muscle]
    return found
