"""The muscle compartment in MR: the closed contour round each leg that best parts fat from what is not."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from musclekit.segmenters.mr_brightness import SKIN_MM
from musclekit.segmenters.mr_planes import Grey, Mask, Spacing, disk_mm, each_plane

__all__ = ["muscle_compartment"]

#: Contour search: rays, their length, and how far the radius may step from a ray to the next.
RAYS = 180
RAY_MM = 150
STEP_MM = 6

#: Price of a step of 1 mm, in mm2 of tissue on the wrong side.
STEP_PRICE = 3.0

#: Share of fat that speaks neither for the inside nor the outside of the fascia.
NEUTRAL_SHARE = 0.8


def muscle_compartment(share: Grey, legs: NDArray[np.integer], body: Mask, depth: Grey, spacing: Spacing) -> Mask:
    """Find what lies inside the fascia lata: muscle, bone, and the fat between and in the muscles.

    One closed contour a leg and plane, star-shaped about the middle of the lean tissue: the one that best parts fat
    outside from lean tissue inside while its radius changes little from ray to ray, found by dynamic programming.

    Parameters
    ----------
    share : ndarray of float32, shape (Z, Y, X)
        As `fat_share` gives it.
    legs : ndarray of int, shape (Z, Y, X)
        As in `mr_tissues`.
    body, depth, spacing
        As in `even_brightness`.

    Returns
    -------
    ndarray of bool, shape (Z, Y, X)
        Empty in a leg and plane that shows less than 3 cm2 of lean tissue.
    """
    dy, dx = spacing[1:]
    skin = depth <= SKIN_MM
    region = np.where(skin, 1, np.clip(share, 0, 1)).astype(np.float32) - NEUTRAL_SHARE
    lean = each_plane(((share < 0.5) & ~skin & (legs > 0)).astype(np.uint8), cv2.MORPH_OPEN, disk_mm(1.5, spacing)) > 0
    angles = np.arange(RAYS) * (2 * np.pi / RAYS)
    radii = np.arange(RAY_MM) + 0.5
    places: list[tuple[int, int, float, float]] = []
    costs = []
    for z in range(len(share)):
        for number in np.unique(legs[z][legs[z] > 0]):
            leg = legs[z] == number
            rows, columns = np.nonzero(lean[z] & leg)
            if len(rows) * dy * dx < 300:
                continue
            y, x = float(rows.mean()), float(columns.mean())
            rays_y = (y + np.sin(angles)[:, None] * radii / dy).astype(np.float32)
            rays_x = (x + np.cos(angles)[:, None] * radii / dx).astype(np.float32)

            # Another leg, and what the field of view leaves out, speak for neither side.
            here = np.where(leg | ~body[z], region[z], 0).astype(np.float32)
            places.append((z, int(number), y, x))
            costs.append(
                np.cumsum(cv2.remap(here, rays_x, rays_y, cv2.INTER_LINEAR) * radii * (2 * np.pi / RAYS), axis=1)
            )
    found = np.zeros(share.shape, dtype=np.bool_)
    if not places:
        return found
    grid_y, grid_x = np.mgrid[: share.shape[1], : share.shape[2]]
    closed = np.append(angles, 2 * np.pi)
    for (z, number, y, x), radius in zip(places, _closed_contours(np.stack(costs)), strict=True):
        off_y, off_x = (grid_y - y) * dy, (grid_x - x) * dx
        limit = np.interp(np.arctan2(off_y, off_x) % (2 * np.pi), closed, np.append(radius, radius[0]) + 1.0)
        found[z] |= (np.hypot(off_y, off_x) <= limit) & (legs[z] == number)
    return found & ~skin


def _closed_contours(costs: NDArray[np.floating]) -> NDArray[np.int64]:
    """Find the radius index of the cheapest closed contour in each of several polar images.

    Parameters
    ----------
    costs : ndarray of shape (N, rays, radii)
        Cost of passing each ray at each radius.

    Returns
    -------
    ndarray of int, shape (N, rays)
        Neighbouring rays, the last and the first too, differ by at most `STEP_MM`. Two turns say where the first ray
        is best passed; a third one that starts and ends there is the cheapest of all that do.
    """
    rays = costs.shape[1]
    costs = costs.astype(np.float32)
    free = _cheapest_path(costs[:, np.arange(2 * rays) % rays])
    pinned = costs[:, np.arange(rays + 1) % rays].copy()
    elsewhere = np.arange(costs.shape[2]) != free[:, rays, None]
    pinned[:, 0][elsewhere] = np.inf
    pinned[:, rays][elsewhere] = np.inf
    return _cheapest_path(pinned)[:, :rays]


def _cheapest_path(costs: NDArray[np.float32]) -> NDArray[np.int64]:
    """Find the radius index at each ray of the cheapest open path from the first ray to the last; shape (N, rays)."""
    count, rays, _ = costs.shape
    price = (STEP_PRICE * np.abs(np.arange(-STEP_MM, STEP_MM + 1))).astype(np.float32)
    total = costs[:, 0]
    steps = []
    for ray in range(1, rays):
        padded = np.pad(total, ((0, 0), (STEP_MM, STEP_MM)), constant_values=np.inf)
        reached = np.lib.stride_tricks.sliding_window_view(padded, 2 * STEP_MM + 1, axis=1) + price
        step = reached.argmin(axis=2)
        steps.append((step - STEP_MM).astype(np.int8))
        total = np.take_along_axis(reached, step[..., None], axis=2)[..., 0] + costs[:, ray]
    path = np.empty((count, rays), dtype=np.int64)
    path[:, -1] = total.argmin(axis=1)
    for ray in range(rays - 2, -1, -1):
        path[:, ray] = path[:, ray + 1] + steps[ray][np.arange(count), path[:, ray + 1]]
    return path
