"""Left and right: which voxels of the body belong to which leg."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from musclekit.anatomy.planes import components, erode_plane
from musclekit.errors import LabelError
from musclekit.image import Contrast, Grid, Image, LabelMap
from musclekit.labels import Side

__all__ = ["Leg", "label_sides", "split_legs"]

#: A piece of body smaller than this share of the largest in its slice is no leg of its own.
LEAST_SHARE = 0.15

#: A single piece of body this much wider than it is deep, seen from below, holds two legs.
TWO_LEGS_ASPECT = 1.35

#: What is left of a leg eroded by this much stands for it in the slices next to it.
CORE_MM = 12.0

BONE_HU = 300.0


@dataclass(frozen=True, eq=False)
class Leg:
    """One leg.

    Parameters
    ----------
    side : {"left", "right"} or None
        None where the scan does not tell.
    mask : ndarray of bool, shape (Z, Y, X)
        Its voxels, on the whole grid.
    """

    side: Side | None
    mask: NDArray[np.bool_]


def split_legs(image: Image, body: NDArray[np.bool_]) -> tuple[Leg, ...]:
    """Split the body into legs, also where the thighs touch.

    Parameters
    ----------
    image : Image
        The scan.
    body : ndarray of bool, shape (Z, Y, X)
        As `body_mask` gives it.

    Returns
    -------
    tuple of Leg
        Left and right, by the world position of their centres; or one leg, of unknown side.
    """
    planes = [_pieces(body[z], image.grid) for z in range(len(body))]
    apart = [z for z, pieces in enumerate(planes) if len(pieces) == 2]
    full = [z for z, pieces in enumerate(planes) if pieces]
    joined = [z for z in full if len(planes[z]) == 1 and _is_double(planes[z][0], image, z)]
    if len(apart) + len(joined) < max(1, len(full) // 3):
        return (Leg(None, body.copy()),)
    low, high = np.zeros_like(body), np.zeros_like(body)
    for z in apart:
        low[z], high[z] = planes[z]
    for z in _nearest_first([z for z in full if z not in apart], apart):
        low[z], high[z] = _divide(image, body[z], z, low, high)
    first = _centre_x(image.grid, low)
    second = _centre_x(image.grid, high)
    # RAS+: the patient's left is where x is small.
    legs = sorted(((first, low), (second, high)), key=lambda pair: pair[0])
    return (Leg("left", legs[0][1]), Leg("right", legs[1][1]))


def _centre_x(grid: Grid, mask: NDArray[np.bool_]) -> float:
    where = [float(np.average(np.arange(n), weights=mask.sum(axis=other))) for n, other in _profiles(mask)]
    return float(grid.world(where)[0])


def _profiles(mask: NDArray[np.bool_]) -> list[tuple[int, tuple[int, ...]]]:
    return [(n, tuple(a for a in range(3) if a != axis)) for axis, n in enumerate(mask.shape)]


def _pieces(plane: NDArray[np.bool_], grid: Grid) -> list[NDArray[np.bool_]]:
    """Largest piece, and the second where it is large enough to be a leg; by column."""
    labels, stats, centroids = components(plane)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if areas.size == 0:
        return []
    order = np.argsort(areas)[::-1] + 1
    chosen = [order[0]]
    if len(order) > 1 and areas[order[1] - 1] >= LEAST_SHARE * areas[order[0] - 1]:
        chosen.append(order[1])
    chosen.sort(key=lambda number: centroids[number][0])
    return [labels == number for number in chosen]


def _femurs(image: Image, plane: NDArray[np.bool_], z: int) -> list[float]:
    """Columns of the shafts seen in a CT slice."""
    if image.contrast is not Contrast.CT:
        return []
    _, stats, centroids = components((image.voxels[z] > BONE_HU) & plane)
    pixel = image.grid.spacing[1] * image.grid.spacing[2]
    return [float(c[0]) for s, c in zip(stats[1:], centroids[1:], strict=True) if s[cv2.CC_STAT_AREA] * pixel > 100]


def _is_double(plane: NDArray[np.bool_], image: Image, z: int) -> bool:
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    width = (columns[-1] - columns[0] + 1) * image.grid.spacing[2]
    depth = (rows[-1] - rows[0] + 1) * image.grid.spacing[1]
    if width < TWO_LEGS_ASPECT * depth:
        return False
    shafts = _femurs(image, plane, z)
    if image.contrast is not Contrast.CT:
        return True
    return len(shafts) >= 2 and max(shafts) - min(shafts) > 0.3 * float(np.ptp(columns))


def _nearest_first(slices: Sequence[int], known: Sequence[int]) -> list[int]:
    if not known:
        return list(slices)
    return sorted(slices, key=lambda z: min(abs(z - k) for k in known))


def _divide(
    image: Image, plane: NDArray[np.bool_], z: int, low: NDArray[np.bool_], high: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Divide one slice: by the cores of the legs in the slice next to it, else by the thinnest column."""
    spacing = image.grid.spacing[1:]
    for near in (z - 1, z + 1):
        if 0 <= near < len(low) and low[near].any() and high[near].any():
            cores = [erode_plane(leg[near], CORE_MM, spacing) & plane for leg in (low, high)]
            if all(core.any() for core in cores):
                return _nearer(plane, cores[0], cores[1])
    columns = np.flatnonzero(plane.any(axis=0))
    start, stop = columns[0], columns[-1] + 1
    third = (stop - start) // 3
    middle = start + third + int(np.argmin(plane.sum(axis=0)[start + third : stop - third])) if third else start
    cut = np.zeros_like(plane)
    cut[:, :middle] = True
    return plane & cut, plane & ~cut


def _nearer(
    plane: NDArray[np.bool_], one: NDArray[np.bool_], two: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    from skimage.segmentation import watershed

    depth = cv2.distanceTransform(plane.astype(np.uint8), cv2.DIST_L2, 3)
    markers = one.astype(np.int32) + 2 * (two & ~one)
    parts: NDArray[np.int32] = watershed(-depth, markers, mask=plane)  # type: ignore[no-untyped-call]
    return parts == 1, parts == 2


def label_sides(labels: LabelMap, legs: Sequence[Leg]) -> LabelMap:
    """Return a label map in the sided version of its set.

    Parameters
    ----------
    labels : LabelMap
        In an unsided set.
    legs : sequence of Leg
        Each with a side; labels outside all of them go to the leg whose centre is nearer in world x.

    Raises
    ------
    LabelError
        If a leg's side is not known, or there is no leg.
    """
    if labels.label_set.is_sided:
        return labels
    if not legs or any(leg.side is None for leg in legs):
        raise LabelError("the side of a leg is not known: its labels cannot be told left from right")
    sided = labels.label_set.sided()
    place = _nearest_leg(labels, legs)
    result = np.zeros(labels.grid.shape, np.uint16)
    for number, leg in enumerate(legs):
        table = np.zeros(max(labels.label_set.ids) + 1, np.uint16)
        for label in labels.label_set:
            table[label.id] = sided.ids_of(label.name, leg.side)[0]
        mine = place == number
        result[mine] = table[labels.voxels[mine]]
    return LabelMap(result, labels.grid, sided)


def _nearest_leg(labels: LabelMap, legs: Sequence[Leg]) -> NDArray[np.int8]:
    """Return the number of the leg that holds each voxel; outside all, of the leg whose centre is nearer in x."""
    place = np.full(labels.grid.shape, -1, np.int8)
    for number, leg in enumerate(legs):
        place[leg.mask] = number
    outside = np.argwhere((place < 0) & (labels.voxels != 0))
    if len(outside):
        centres = np.array([_centre_x(labels.grid, leg.mask) for leg in legs])
        nearest = np.abs(labels.grid.world(outside)[:, :1] - centres).argmin(axis=1)
        place[tuple(outside.T)] = nearest
    return place
