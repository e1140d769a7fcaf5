"""Plane-by-plane morphology on boolean volumes, in millimetres."""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["close_plane", "components", "dilate_plane", "disk", "erode_plane", "fill_holes", "open_plane"]

Plane = NDArray[np.bool_]


def disk(radius_mm: float, spacing: tuple[float, float]) -> NDArray[np.uint8]:
    """Return a disk of a radius in millimetres as a structuring element on (row, column) spacing."""
    ry, rx = (int(radius_mm / s) for s in spacing)
    y, x = np.mgrid[-ry : ry + 1, -rx : rx + 1]
    inside: NDArray[np.uint8] = ((y * spacing[0]) ** 2 + (x * spacing[1]) ** 2 <= radius_mm**2).astype(np.uint8)
    return inside


def _morph(plane: Plane, operation: int, radius_mm: float, spacing: tuple[float, float]) -> Plane:
    element = disk(radius_mm, spacing)
    done: NDArray[Any] = cv2.morphologyEx(plane.astype(np.uint8), operation, element, borderType=cv2.BORDER_REPLICATE)
    return cast(Plane, done.astype(np.bool_))


def open_plane(plane: Plane, radius_mm: float, spacing: tuple[float, float]) -> Plane:
    """Open by a disk: what is thinner than the disk goes."""
    return _morph(plane, cv2.MORPH_OPEN, radius_mm, spacing)


def close_plane(plane: Plane, radius_mm: float, spacing: tuple[float, float]) -> Plane:
    """Close by a disk: gaps narrower than the disk are bridged."""
    return _morph(plane, cv2.MORPH_CLOSE, radius_mm, spacing)


def dilate_plane(plane: Plane, radius_mm: float, spacing: tuple[float, float]) -> Plane:
    """Dilate by a disk."""
    return _morph(plane, cv2.MORPH_DILATE, radius_mm, spacing)


def erode_plane(plane: Plane, radius_mm: float, spacing: tuple[float, float]) -> Plane:
    """Erode by a disk; the border of the plane does not erode."""
    return _morph(plane, cv2.MORPH_ERODE, radius_mm, spacing)


def fill_holes(plane: Plane) -> Plane:
    """Fill what the border of the plane cannot reach (4-connected)."""
    padded = np.zeros((plane.shape[0] + 2, plane.shape[1] + 2), np.uint8)
    padded[1:-1, 1:-1] = plane
    cv2.floodFill(padded, None, (0, 0), 2, flags=4)
    return cast(Plane, padded[1:-1, 1:-1] != 2)


def components(plane: Plane) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """Return 8-connected components: label plane, statistics (left, top, width, height, area), centroids (x, y).

    Row 0 of statistics and centroids is the background.
    """
    _, labels, stats, centroids = cv2.connectedComponentsWithStats(plane.astype(np.uint8), connectivity=8)
    return cast(NDArray[np.int32], labels), cast(NDArray[np.int32], stats), cast(NDArray[np.float64], centroids)
