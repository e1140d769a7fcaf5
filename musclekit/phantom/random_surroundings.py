"""Chance in what stands round the muscles of a plane: other muscles, the hip above and the knee below, masses."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from musclekit.phantom.anatomy import Structure
from musclekit.phantom.completion import compartment_of, draw_surroundings, femur_room, section
from musclekit.phantom.other_regions import cells, put_bone, wobbly_ellipse
from musclekit.phantom.random_shape import smooth_plane

__all__ = ["grow_mass", "lay_scrotum", "packed_plane", "surrounded"]

#: From this share of the leg's height upwards the hip is near: adductors fill the gaps, glutei lie outside.
NEAR_HIP = 0.55
#: Below this share the femur is no shaft any more.
NEAR_KNEE = 0.2
#: How often gaps between the muscles hold other muscles, below and above it.
FILLED = (0.35, 0.85)
#: How often there are muscles outside the eleven, below and above it.
OUTSIDE = (0.04, 0.45)
#: Gluteus maximus lies behind the compartment from this height on, and is hardly ever missing from the next on.
GLUTEUS = (0.5, 0.8)
#: With less muscle than this share of what the leg has elsewhere a plane lies at its end: most that it shows is other.
SPARSE = 0.6
#: What a mass does not grow into.
_SPARED = (
    Structure.AIR, Structure.SKIN, Structure.CORTEX, Structure.MARROW, Structure.OTHER_CORTEX, Structure.OTHER_MARROW,
)  # fmt: skip


def surrounded(
    muscles: NDArray[np.uint8], spacing_mm: float, height: float, fullness: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Build a leg round the muscles of a plane: right one, lateral towards higher columns.

    Parameters
    ----------
    muscles : ndarray of uint8, shape (Y, X)
        1 to 11.
    spacing_mm : float
        Edge of a pixel.
    height, fullness : float
        Of the plane in the leg, and its area of muscle as a share of the leg's usual one (`LegPlanes`).
    rng : numpy.random.Generator
        Source of chance.

    Returns
    -------
    ndarray of uint8, shape (Y, X)
        `Structure`.
    """
    plane = muscles.copy()
    femur = femur_room(plane, spacing_mm, spacing_mm)
    if femur is not None:
        # Towards the knee the femur widens.
        most = 20.0 if height > NEAR_KNEE else 28.0
        femur = (femur[0], femur[1], float(np.clip(femur[2] * rng.uniform(0.75, 1.1), 7.0, most)))
    near = height > NEAR_HIP
    if fullness < SPARSE * rng.uniform(0.8, 1.2):
        _make_end(plane, femur, spacing_mm, near, rng)
    if rng.random() < FILLED[near]:
        _fill_gaps(plane, femur, spacing_mm, rng)
    if rng.random() < OUTSIDE[near]:
        for _ in range(rng.integers(1, 3)):
            _lay_outside(plane, spacing_mm, rng)
    if rng.random() < 0.9 * np.clip((height - GLUTEUS[0]) / (GLUTEUS[1] - GLUTEUS[0]), 0, 1):
        # Behind and outwards, the thicker the higher.
        thick = rng.uniform(8, 15 + 30 * height)
        _lay_arc(plane, spacing_mm, rng.uniform(-1.7, -0.5), rng.uniform(0.6, 1.4), thick, rng)
    return section(plane, femur, (spacing_mm, spacing_mm), draw_surroundings(rng), 1.0)


def packed_plane(plane: NDArray[np.uint8], spacing_mm: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Let the muscles grow into the narrow clefts between them, until thin septa are all that parts them.

    Label maps leave room between muscles that in healthy people touch.

    Parameters
    ----------
    plane : ndarray of uint8, shape (Y, X)
        Muscles.
    spacing_mm : float
        Edge of a pixel.
    rng : numpy.random.Generator
        Source of chance: of how far they grow and where septa can be seen.
    """
    if not plane.any():
        return plane
    room = compartment_of(plane > 0, spacing_mm, spacing_mm)
    femur = femur_room(plane, spacing_mm, spacing_mm)
    if femur is not None:
        room &= _apart_from(femur, plane.shape, spacing_mm) > femur[2] * 0.95
    apart, places = cv2.distanceTransformWithLabels(
        (plane == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    nearest = np.zeros(int(places.max()) + 1, dtype=np.uint8)
    nearest[places[plane > 0]] = plane[plane > 0]
    grown = room & (apart <= rng.uniform(0.8, 4.0) / spacing_mm)
    packed = np.where(grown, nearest[places], plane)
    border = np.zeros(plane.shape, dtype=bool)
    border[1:] |= (packed[1:] != packed[:-1]) & (packed[1:] > 0) & (packed[:-1] > 0)
    border[:, 1:] |= (packed[:, 1:] != packed[:, :-1]) & (packed[:, 1:] > 0) & (packed[:, :-1] > 0)
    seen = smooth_plane(rng, plane.shape, 6 / spacing_mm) > rng.uniform(-2.5, 1.0)
    return np.where(border & seen, np.uint8(0), packed)


def _apart_from(femur: tuple[float, float, float], shape: tuple[int, ...], spacing_mm: float) -> NDArray[np.float64]:
    """Return the distance of each pixel from the middle of the femur, in mm."""
    y = np.arange(shape[0])[:, None] * spacing_mm - femur[1]
    x = np.arange(shape[1]) * spacing_mm - femur[0]
    apart: NDArray[np.float64] = np.hypot(y, x)
    return apart


def _fill_gaps(
    plane: NDArray[np.uint8], femur: tuple[float, float, float] | None, spacing_mm: float, rng: np.random.Generator
) -> None:
    """Put other muscles into the wide gaps of a compartment, in place."""
    gap = compartment_of(plane > 0, spacing_mm, spacing_mm) & (plane == 0)
    if femur is not None:
        gap &= _apart_from(femur, plane.shape, spacing_mm) > femur[2] + rng.uniform(1, 5)
    depth = cv2.distanceTransform(gap.astype(np.uint8), cv2.DIST_L2, 3) * np.float32(spacing_mm)
    core = depth > rng.uniform(2.0, 5.0)
    if not core.any():
        return
    reach = cv2.distanceTransform((~core).astype(np.uint8), cv2.DIST_L2, 3) * np.float32(spacing_mm)
    fill = gap & (reach < rng.uniform(1.0, 3.5)) & (depth > rng.uniform(0.4, 1.6))
    # Septa part what fills a gap into several muscles.
    for _ in range(rng.integers(0, 3)):
        lines = smooth_plane(rng, plane.shape, rng.uniform(8, 20) / spacing_mm)
        fill &= np.abs(lines) > rng.uniform(0.04, 0.14)
    plane[fill] = Structure.OTHER_MUSCLE


def _lay_outside(plane: NDArray[np.uint8], spacing_mm: float, rng: np.random.Generator) -> None:
    """Lay a muscle on the outside of the compartment, in place: a gluteus behind, a tensor fasciae latae outside."""
    if rng.random() < 0.65:
        towards, span, thick = rng.uniform(-2.2, -0.3), rng.uniform(0.7, 1.6), rng.uniform(6, 45)
    else:
        towards, span, thick = rng.uniform(-0.4, 3.0), rng.uniform(0.25, 0.7), rng.uniform(5, 22)
    _lay_arc(plane, spacing_mm, towards, span, thick, rng)


def _lay_arc(
    plane: NDArray[np.uint8], spacing_mm: float, towards: float, span: float, thick: float, rng: np.random.Generator
) -> None:
    """Lay other muscle on the compartment, in place: its middle in a direction (outwards 0, front pi / 2), in mm."""
    compartment = compartment_of(plane > 0, spacing_mm, spacing_mm)
    apart = cv2.distanceTransform((~compartment).astype(np.uint8), cv2.DIST_L2, 5) * np.float32(spacing_mm)
    rows, columns = np.nonzero(compartment)
    y = np.arange(plane.shape[0])[:, None] - rows.mean()
    x = np.arange(plane.shape[1]) - columns.mean()
    angle = np.angle(np.exp(1j * (np.arctan2(y, x) - towards)))
    share = np.clip(1 - (angle / span) ** 2, 0, 1)
    gap = rng.uniform(0.8, 5.0)
    plane[(apart > gap) & (apart < gap + thick * share) & (share > 0)] = Structure.OTHER_MUSCLE


def _make_end(
    plane: NDArray[np.uint8],
    femur: tuple[float, float, float] | None,
    spacing_mm: float,
    hip: bool,
    rng: np.random.Generator,
) -> None:
    """Put what is left of the muscles at an end of the thigh into a limb of a hip's or a knee's size, in place."""
    rows, columns = np.nonzero(plane)
    if not len(rows):
        return
    radius = float(rng.uniform(52, 95) if hip else rng.uniform(38, 62))
    away = rng.normal(0, 0.35 * radius, 2).clip(-0.7 * radius, 0.7 * radius)
    centre = np.array([rows.mean(), columns.mean()]) * spacing_mm + away
    shape = (plane.shape[0], plane.shape[1])
    limb = wobbly_ellipse(shape, spacing_mm, centre, radius, rng)
    room = cv2.distanceTransform((plane == 0).astype(np.uint8), cv2.DIST_L2, 3) * spacing_mm > rng.uniform(0.5, 2.5)
    if femur is not None:
        room &= _apart_from(femur, plane.shape, spacing_mm) > femur[2] + 1.5
    free = limb & room
    plane[limb & (plane == 0)] = Structure.CLEFT
    if femur is not None:
        # The femur is put there with the rest of the section.
        plane[_apart_from(femur, plane.shape, spacing_mm) <= femur[2]] = 0
    n = int(rng.integers(4, 13) if hip else rng.integers(2, 7))
    plane[free & cells(shape, spacing_mm, centre, radius, n, 0.85 if hip else 0.4, rng)] = Structure.OTHER_MUSCLE
    bones = int(rng.integers(0, 3) if hip else rng.integers(femur is None, 3))
    for _ in range(bones):
        put_bone(plane, free, spacing_mm, centre, radius, 26 if hip else 36, rng)


def grow_mass(structure: NDArray[np.uint8], spacing_mm: float, rng: np.random.Generator) -> None:
    """Put a mass into a leg, in place: half of them take the room of what was there, half push it aside.

    Parameters
    ----------
    structure : ndarray of uint8, shape (Y, X)
        `Structure`. Bone and air are spared.
    spacing_mm : float
        Edge of a pixel.
    rng : numpy.random.Generator
        Source of chance.
    """
    rows, columns = np.nonzero((structure > 0) & ~np.isin(structure, _SPARED))
    if not len(rows):
        return
    here = int(rng.integers(len(rows)))
    y = (np.arange(structure.shape[0])[:, None] - rows[here]) * spacing_mm
    x = (np.arange(structure.shape[1]) - columns[here]) * spacing_mm
    wide = rng.uniform(0.6, 1.6)
    apart = np.hypot(y, x * wide) * (1 + 0.2 * smooth_plane(rng, structure.shape, 8 / spacing_mm))
    radius = rng.uniform(30, 85) if rng.random() < 0.4 else rng.uniform(6, 32)
    if rng.random() < 0.5:
        pull = _pulled(apart / radius, rng)
        structure[:] = cv2.remap(
            structure,
            (columns[here] + pull * x / spacing_mm).astype(np.float32),
            (rows[here] + pull * y / spacing_mm).astype(np.float32),
            cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_REPLICATE,
        )
    structure[(apart < radius) & ~np.isin(structure, _SPARED)] = Structure.MASS


def _pulled(apart: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return, as a share of the distance from the middle of a mass, from where tissue came that it pushed aside.

    Distances are in radii of the mass. What was inside becomes a ring round it, so that tissue keeps its area near the
    mass, and is moved the less the farther away it is; a part of it may be lost.
    """
    moved = rng.uniform(0.6, 1.0) * np.exp(-np.maximum(apart - 1, 0) / rng.uniform(0.7, 2.0))
    found: NDArray[np.float64] = np.sqrt(np.maximum(1 - moved / np.square(np.maximum(apart, 1e-3)), 0))
    return found


def lay_scrotum(
    grey: NDArray[np.float32], structure: NDArray[np.uint8], spacing_mm: float, rng: np.random.Generator
) -> None:
    """Lay a scrotum against the inner side of a painted right leg, in place: it is no part of the leg, like skin.

    Parameters
    ----------
    grey : ndarray of float32, shape (Y, X)
        Grey values, of air outside the leg.
    structure : ndarray of uint8, shape (Y, X)
        `Structure`.
    spacing_mm : float
        Edge of a pixel.
    rng : numpy.random.Generator
        Source of chance.
    """
    rows, columns = np.nonzero(structure > 0)
    if not len(rows):
        return
    shape = (structure.shape[0], structure.shape[1])
    radius = rng.uniform(18, 40)
    front = rng.uniform(rows.mean(), rows.max() - 0.2 * np.ptp(rows))
    edge = float(columns[np.abs(rows - front) <= 1].min(initial=int(columns.max())))
    centre = np.array([front * spacing_mm, edge * spacing_mm - radius * rng.uniform(0.7, 1.1)])
    free = structure == 0
    sac = free & wobbly_ellipse(shape, spacing_mm, centre, radius, rng)
    grey[sac] = rng.uniform(0, 1) + 0.05 * smooth_plane(rng, shape, 4 / spacing_mm)[sac]
    for side in (-0.45, 0.45):
        middle = centre + np.array([rng.uniform(-0.2, 0.2), side]) * radius
        testis = sac & wobbly_ellipse(shape, spacing_mm, middle, radius * rng.uniform(0.3, 0.5), rng)
        grey[testis] = rng.uniform(0.1, 1)
    structure[sac] = Structure.SKIN
