"""Left and right: one leg or two in a scan, taken apart also where the thighs touch."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from musclekit.errors import SegmentationError
from musclekit.image import Image
from musclekit.labels import Side

__all__ = ["Leg", "split_legs"]

#: Two lobes of a piece are two legs when each is this thick, relative to the thickest, and the waist is thinner.
LOBE_DEPTH = 0.7
WAIST_DEPTH = 0.9


@dataclass(frozen=True, eq=False)
class Leg:
    """One leg.

    Parameters
    ----------
    side : {"left", "right"} or None
        Whose it is from the patient's own view; None where the scan shows one leg and the anatomy does not tell.
    mask : ndarray of bool, shape (Z, Y, X)
        Its voxels, on the grid of the image.
    """

    side: Side | None
    mask: NDArray[np.bool_]


def split_legs(image: Image, body: NDArray[np.bool_]) -> tuple[Leg, ...]:
    """Take the body apart into legs.

    Parameters
    ----------
    image : Image
        The scan.
    body : ndarray of bool, shape (Z, Y, X)
        Its body mask, see `body_mask`.

    Returns
    -------
    tuple of Leg
        One, or two with the right leg first. Left and right are decided by world x.

    Raises
    ------
    SegmentationError
        If the body mask is empty.
    """
    if not body.any():
        raise SegmentationError("no leg found: the body mask is empty")
    # Work with columns along the patient's left-right axis, whichever array axis that is.
    across = 2 if abs(image.grid.direction[0, 2]) >= abs(image.grid.direction[0, 1]) else 1
    turned = body if across == 2 else body.swapaxes(1, 2)
    pixel_mm = float(np.sqrt(image.grid.spacing[1] * image.grid.spacing[2]))
    middle = _midline(turned, pixel_mm)
    if middle is None:
        masks = [_main_piece(turned)]
    else:
        masks = list(_cut(turned, middle))
    if across == 1:
        masks = [mask.swapaxes(1, 2) for mask in masks]
    if len(masks) == 1:
        return (Leg(None, np.ascontiguousarray(masks[0])),)
    x = [float(image.grid.world(np.argwhere(mask).mean(axis=0))[0]) for mask in masks]
    right = int(np.argmax(x))
    return (
        Leg("right", np.ascontiguousarray(masks[right])),
        Leg("left", np.ascontiguousarray(masks[1 - right])),
    )


def _main_piece(body: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Largest piece of each slice, and the others that are no sliver of another leg."""
    result = np.zeros_like(body)
    for z in range(body.shape[0]):
        count, pieces, stats, _ = cv2.connectedComponentsWithStats(body[z].view(np.uint8), connectivity=8)
        if count > 1:
            result[z] = pieces == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return result


def _two_centres(mask: NDArray[np.uint8], pixel_mm: float) -> tuple[float, float] | None:
    """Columns of the centres of two legs in a slice, smaller first, or None when it shows one."""
    depth = cv2.distanceTransform(np.pad(mask, 1, mode="edge"), cv2.DIST_L2, 5)[1:-1, 1:-1]
    deepest = float(depth.max())
    if deepest * pixel_mm < 15:
        return None
    # Lobes: what stays apart when everything thinner than the waist is taken away.
    lobes = ((depth > LOBE_DEPTH * 0.999 * deepest) & (mask > 0)).astype(np.uint8)
    count, pieces, stats, centres = cv2.connectedComponentsWithStats(lobes, connectivity=8)
    if count < 3:
        # A waist nearer to the lobes' own depth shows only at a higher level.
        lobes = ((depth > WAIST_DEPTH * deepest) & (mask > 0)).astype(np.uint8)
        count, pieces, stats, centres = cv2.connectedComponentsWithStats(lobes, connectivity=8)
        if count < 3:
            return None
    order = np.argsort(-stats[1:, cv2.CC_STAT_AREA])[:2] + 1
    first, second = sorted(float(centres[i][0]) for i in order)
    if second - first < 1.2 * deepest:
        return None
    return first, second


def _midline(body: NDArray[np.bool_], pixel_mm: float) -> NDArray[np.float64] | None:
    """Column between the legs in each slice, or None when the scan shows one leg."""
    slices = np.flatnonzero(body.any(axis=(1, 2)))
    found = {int(z): _two_centres(body[z].view(np.uint8), pixel_mm) for z in slices}
    two = np.array([z for z in slices if found[int(z)] is not None])
    if len(two) < max(1, 0.25 * len(slices)):
        return None
    centres = np.array([found[int(z)] for z in two])
    every = np.arange(body.shape[0])
    middle: NDArray[np.float64] = np.interp(every, two, centres.mean(axis=1))
    return middle


def _cut(body: NDArray[np.bool_], middle: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Cut every slice along the path from front to back, near the midline, that crosses least body."""
    planes, rows, columns = body.shape
    x = np.arange(columns)
    reach = max(8.0, 0.25 * columns)
    away = np.abs(x - middle[:, None]) / reach
    cost = np.where(away > 1, 1e3, 0.3 * away**2)[:, None, :] + body
    total = cost[:, 0].copy()
    back = np.zeros((rows, planes, columns), dtype=np.int8)
    for y in range(1, rows):
        padded = np.pad(total, ((0, 0), (1, 1)), constant_values=np.inf)
        options = np.stack([padded[:, 1:-1], padded[:, :-2] + 0.1, padded[:, 2:] + 0.1])
        step = options.argmin(axis=0)
        back[y] = np.array([0, -1, 1], dtype=np.int8)[step]
        total = np.take_along_axis(options, step[None], axis=0)[0] + cost[:, y]
    path = np.empty((planes, rows), dtype=np.intp)
    path[:, -1] = total.argmin(axis=1)
    every = np.arange(planes)
    for y in range(rows - 1, 0, -1):
        path[:, y - 1] = path[:, y] + back[y, every, path[:, y]]
    low = body & (x[None, None, :] < path[..., None])
    return low, body & ~low
