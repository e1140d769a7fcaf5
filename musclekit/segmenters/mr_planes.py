"""What the steps of the MR tissues share: types, and morphology plane by plane on anisotropic pixels."""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Grey", "Mask", "Spacing", "disk_mm", "each_plane"]

Spacing = tuple[float, float, float]
T = TypeVar("T", bound=np.generic)
Mask = NDArray[np.bool_]
Grey = NDArray[np.float32]


def disk_mm(radius_mm: float, spacing: Spacing) -> NDArray[np.uint8]:
    """Disk of that radius in the plane, at least the voxel itself."""
    ny, nx = int(radius_mm / spacing[1]), int(radius_mm / spacing[2])
    y, x = np.mgrid[-ny : ny + 1, -nx : nx + 1]
    inside: Mask = np.hypot(y * spacing[1], x * spacing[2]) <= radius_mm * 1.0001
    return inside.astype(np.uint8)


def each_plane(volume: NDArray[T], operation: int, element: NDArray[np.uint8]) -> NDArray[T]:
    """Grey morphology of each plane."""
    return np.stack([cv2.morphologyEx(plane, operation, element) for plane in volume])
