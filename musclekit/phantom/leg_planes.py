"""Label maps of people taken apart into planes of single legs, all made to look like right ones."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from musclekit.checks import check_number
from musclekit.errors import GeometryError, LabelError
from musclekit.image import LabelMap
from musclekit.labels import Side, label_mapping, label_set
from musclekit.phantom.completion import leg_columns
from musclekit.phantom.shape import MUSCLES

__all__ = ["LegPlanes", "leg_planes"]

#: A plane with less muscle is left out.
LEAST_MUSCLE_MM2 = 150.0
#: Room round the muscles, in mm.
MARGIN_MM = 4.0
#: Standard deviation, in pixels of the label map, of the Gaussian that takes the stairs off the borders.
SMOOTH_PX = 0.7


@dataclass(frozen=True, eq=False)
class LegPlanes:
    """The muscles of one leg, plane by plane.

    Parameters
    ----------
    planes : ndarray of uint8, shape (n, Y, X)
        1 to 11 for the muscles of ``thigh-11``; rows grow to the front, columns to the outer side.
    heights : ndarray of float64, shape (n,)
        0 for the lowest plane of the leg that shows muscle, 1 for the highest.
    fullness : ndarray of float64, shape (n,)
        Area of muscle in each plane as a share of the upper quartile over the leg.
    spacing_mm : float
        Edge of a pixel.
    subject : str
        Whose leg.
    """

    planes: NDArray[np.uint8]
    heights: NDArray[np.float64]
    fullness: NDArray[np.float64]
    spacing_mm: float
    subject: str


def leg_planes(
    labels: LabelMap, subject: str, *, spacing_mm: float = 1.0, side: Side | None = None
) -> tuple[LegPlanes, ...]:
    """Take a label map apart into planes of single legs.

    Parameters
    ----------
    labels : LabelMap
        In any set that leads to ``thigh-11``.
    subject : str
        Whose.
    spacing_mm : float
        Edge of the pixels to have; borders are smoothed on the way.
    side : {"left", "right"}, optional
        Which leg it is, when there is one. Else as for `complete_labels`.

    Returns
    -------
    tuple of LegPlanes
        One or two.

    Raises
    ------
    LabelError
        If the label set does not lead to ``thigh-11``, no plane shows muscle, or it cannot be told which leg is which.
    GeometryError
        If planes, rows and columns do not run along S, A and R.
    """
    check_number("spacing_mm", spacing_mm, above=0)
    muscles = labels.mapped(label_mapping(labels.label_set, label_set("thigh-11"))).voxels.astype(np.uint8)
    if not muscles.any():
        raise LabelError("there is no muscle in the label map")
    axes = labels.grid.direction
    if axes[0, 2] < 0.9 or axes[1, 1] < 0.9 or axes[2, 0] <= 0:
        raise GeometryError(
            "planes of the label map must grow upwards, its rows to the front, its columns to the right (musclekit.io)"
        )
    _, dy, dx = labels.grid.spacing
    found = []
    for name, columns in leg_columns(labels, muscles, side).items():
        if labels.label_set.is_sided:
            # Legs may overlap from side to side.
            mine = [label.id for label in labels.label_set if label.side == name]
            leg = np.where(np.isin(labels.voxels, mine), muscles, np.uint8(0))
        else:
            leg = muscles[:, :, columns]
        if name == "left":
            leg = leg[:, :, ::-1]
        shadow = np.logical_or.reduce(leg > 0, axis=0)
        if not shadow.any():
            continue
        rows, cols = np.flatnonzero(shadow.any(axis=1)), np.flatnonzero(shadow.any(axis=0))
        box = (
            slice(max(int(rows[0] - MARGIN_MM / dy), 0), int(rows[-1] + MARGIN_MM / dy) + 2),
            slice(max(int(cols[0] - MARGIN_MM / dx), 0), int(cols[-1] + MARGIN_MM / dx) + 2),
        )
        every = np.stack([_smooth(plane[box], dy / spacing_mm, dx / spacing_mm) for plane in leg])
        area = np.count_nonzero(every, axis=(1, 2))
        kept = np.flatnonzero(area * spacing_mm**2 >= LEAST_MUSCLE_MM2)
        if not len(kept):
            continue
        planes, area = every[kept], area[kept]
        height = (kept - kept[0]) / max(kept[-1] - kept[0], 1)
        fullness = area / max(float(np.quantile(area, 0.75)), 1.0)
        found.append(LegPlanes(planes, height.astype(np.float64), fullness, spacing_mm, subject))
    if not found:
        raise LabelError(f"no plane of the label map shows {LEAST_MUSCLE_MM2:g} mm2 of muscle")
    return tuple(found)


def _smooth(plane: NDArray[np.uint8], grow_y: float, grow_x: float) -> NDArray[np.uint8]:
    """Bring a plane to other pixels: of every structure a smoothed mask, and the largest of them wins."""
    size = (max(round(plane.shape[1] * grow_x), 1), max(round(plane.shape[0] * grow_y), 1))
    best = np.zeros(size[::-1], dtype=np.float32)
    winner = np.zeros(size[::-1], dtype=np.uint8)
    share = np.zeros(size[::-1], dtype=np.float32)
    for n in range(1, len(MUSCLES) + 1):
        mask = (plane == n).astype(np.float32)
        if not mask.any():
            continue
        mask = cv2.resize(cv2.GaussianBlur(mask, (0, 0), SMOOTH_PX), size, interpolation=cv2.INTER_LINEAR)
        share += mask
        better = mask > best
        winner[better], best[better] = n, mask[better]
    winner[share < 0.5] = 0
    return winner
