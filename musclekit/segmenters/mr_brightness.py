"""How bright fat is in each place of an MR, and from that the share of fat of each voxel.

A surface coil makes the same fat three times brighter at the skin than inside: the brightness is evened out by the
tissue that is bright, the ring of subcutaneous fat first.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from musclekit.segmenters.mr_planes import Grey, Mask, Spacing, disk_mm, each_plane
from musclekit.segmenters.threshold import otsu_threshold

__all__ = ["CALM_VARIATION", "SKIN_MM", "even_brightness", "fat_is_bright", "fat_share", "skin_depth"]

#: Thickness of skin with its partial volume.
SKIN_MM = 3.0

#: Depth under the skin down to which subcutaneous fat is sought to see how bright fat is.
RING_MM = 12.0

#: Scales of the brightness field, in plane and across planes, and the cells it is worked out on.
FIELD_SCALES_MM = (80.0, 40.0, 20.0, 10.0)
FIELD_SCALE_Z_MM = 8.0
FIELD_CELL_MM = 3.0
FIELD_PASSES = 8

#: Tissue whose grey varies more than this around its mean, within some mm, is mottled, and no measure of the field.
CALM_VARIATION = 0.1
CALM_SCALE_MM = 4.0

#: Fat is bright when the ring's median exceeds the interior's lower quartile this many times. On 34 real scans the
#: ratio lay at 1.8 to 7.6 where fat is bright, and at 0.6 to 1.3 where it is not.
BRIGHT_RATIO = 1.5

#: Where fat is dark it is at least this much darker than muscle, or brightness does not tell it.
MAX_FAT_LEVEL = 0.6


def skin_depth(body: Mask, spacing: Spacing) -> Grey:
    """Distance of each voxel of the body from the skin, in its own plane, in mm.

    The edge of the field of view is no skin: a leg that it cuts is taken to go on. A plane that the body fills has no
    skin at all, and every depth in it is infinite.
    """
    depth = np.zeros(body.shape, dtype=np.float32)
    for z, plane in enumerate(body):
        if plane.all():
            depth[z] = np.inf
        elif plane.any():
            padded = np.pad(plane, 1, mode="edge")
            depth[z] = ndimage.distance_transform_edt(padded, sampling=spacing[1:])[1:-1, 1:-1]
    return depth


def fat_is_bright(grey: Grey, body: Mask, depth: Grey) -> bool:
    """Whether fat is brighter than muscle, judged by the ring under the skin, which is subcutaneous fat.

    Parameters
    ----------
    grey : ndarray of float32, shape (Z, Y, X)
        MR of unknown weighting.
    body : ndarray of bool, shape (Z, Y, X)
        The body.
    depth : ndarray of float32, shape (Z, Y, X)
        As `skin_depth` gives it.

    Returns
    -------
    bool
        True if the median of the ring is 1.5 times the lower quartile of the interior, which is muscle, or more.
    """
    ring = body & (depth > SKIN_MM) & (depth < 2 * SKIN_MM)
    interior = body & (depth > 5 * SKIN_MM)
    if not (ring.any() and interior.any()):
        ring = interior = body
    return bool(np.median(grey[ring]) > BRIGHT_RATIO * np.quantile(grey[interior], 0.25))


def even_brightness(grey: Grey, body: Mask, depth: Grey, spacing: Spacing, bright_fat: bool) -> Grey:
    """Grey values relative to what the bright tissue has at the same place.

    A coil's sensitivity varies smoothly, so it can be read off the tissue that is bright everywhere: subcutaneous fat
    where fat is bright, muscle elsewhere. The field is fitted to that tissue at several scales, the fine ones where it
    is near, the coarse ones where it is far, and then once more to all that agrees with it.

    Parameters
    ----------
    grey, body, depth
        As in `fat_is_bright`.
    spacing : (float, float, float)
        In mm, along (z, y, x).
    bright_fat : bool
        Whether fat is brighter than muscle.

    Returns
    -------
    ndarray of float32, shape (Z, Y, X)
        About 1 in the bright tissue; 0 outside the body.
    """
    steps = [max(1, round(FIELD_CELL_MM / s)) for s in spacing[1:]]
    cell: Spacing = (spacing[0], spacing[1] * steps[0], spacing[2] * steps[1])
    filled = _cells(body.astype(np.float32), steps)
    level = _cells(grey * body, steps) / np.maximum(filled, 1e-3)
    deep = _cells(np.minimum(depth, 1e3), steps)
    known = (filled > 0.7) & (level > 0)
    calm = _is_calm(grey * body, (level * filled).astype(np.float32), filled, steps, cell)
    if bright_fat:
        where = known & (deep > SKIN_MM - 1) & (deep < RING_MM)
        candidates, reach = level, 9.0
    else:
        # Vessels, brighter than muscle and thin, are opened away; muscle is further from muscle than fat from fat.
        where = known & (deep > 2 * SKIN_MM)
        candidates = each_plane(level, cv2.MORPH_OPEN, disk_mm(3.0, cell))
        reach = 25.0
    if not where.any():
        where = known
    top = each_plane(np.where(where, candidates, 0).astype(np.float32), cv2.MORPH_DILATE, disk_mm(reach, cell))
    seeds = where & (candidates > 0.85 * top)
    log_level = np.log(np.maximum(level, 1e-4 * float(level.max())))
    # Where there is no bright tissue at all, the brightest of the dark stands far below the field around it.
    seeds &= log_level - _smooth_field(log_level, seeds, cell, FIELD_SCALES_MM[:1]) > -0.9
    field = _smooth_field(log_level, seeds, cell, FIELD_SCALES_MM)
    ring = known & (deep > SKIN_MM) & (deep < RING_MM)
    for _ in range(FIELD_PASSES):
        offset = log_level - field
        sure = seeds | (known & (deep > SKIN_MM - 1) & calm & (np.abs(offset) < 0.12))
        target = log_level
        if not bright_fat:
            # Subcutaneous fat is dim here, but as even as muscle, and it shows the field where muscle is gone.
            dim = ring & ~sure & (offset < -0.3)
            if dim.any():
                fat_offset = float(np.median(offset[dim]))
                dim &= np.abs(offset - fat_offset) < 0.3
                sure |= dim
                target = np.where(dim, log_level - fat_offset, log_level)
        field = _smooth_field(target, sure, cell, FIELD_SCALES_MM)
    height, width = grey.shape[1:]
    full = [
        cv2.resize(plane, (plane.shape[1] * steps[1], plane.shape[0] * steps[0]), interpolation=cv2.INTER_LINEAR)
        for plane in field
    ]
    relative = np.zeros_like(grey)
    np.divide(grey, np.exp(np.stack(full)[:, :height, :width]), out=relative, where=body)
    return relative


def fat_share(relative: Grey, body: Mask, depth: Grey, bright_fat: bool) -> Grey:
    """Share of fat in each voxel, from grey values of even brightness.

    Parameters
    ----------
    relative : ndarray of float32, shape (Z, Y, X)
        As `even_brightness` gives it.
    body, depth, bright_fat
        As in `even_brightness`.

    Returns
    -------
    ndarray of float32, shape (Z, Y, X)
        0 at the level of muscle, 1 at that of subcutaneous fat; bone and vessels lie beyond these. 1 outside the body.
    """
    inner = body & (depth > SKIN_MM)
    if not inner.any():
        inner = body
    cut = otsu_threshold(relative, inner)
    dark = relative < cut
    if bright_fat:
        below = inner & (depth > 2.5 * SKIN_MM) & dark
        level = float(np.median(relative[below])) if below.any() else 0.0
        share = (relative - level) / (1 - level)
    else:
        ring = inner & (depth < 2 * SKIN_MM) & dark
        level = min(float(np.median(relative[ring])), MAX_FAT_LEVEL) if ring.any() else 0.0
        share = (1 - relative) / (1 - level)
    return np.where(body, share, 1).astype(np.float32)


def _cells(volume: Grey, steps: list[int]) -> Grey:
    """Mean over blocks of `steps` rows and columns; the last rows and columns are repeated to fill a block."""
    planes, height, width = volume.shape
    padded = np.pad(volume, ((0, 0), (0, -height % steps[0]), (0, -width % steps[1])), mode="edge")
    blocks = padded.reshape(planes, padded.shape[1] // steps[0], steps[0], padded.shape[2] // steps[1], steps[1])
    means: Grey = blocks.mean(axis=(2, 4), dtype=np.float32)
    return means


def _is_calm(grey: Grey, level: Grey, filled: Grey, steps: list[int], cell: Spacing) -> Mask:
    """Whether grey varies little around each cell, as in fat and healthy muscle; infiltrated muscle is mottled."""
    sigma = (0.0, CALM_SCALE_MM / cell[1], CALM_SCALE_MM / cell[2])
    weight = np.maximum(ndimage.gaussian_filter(filled, sigma), 1e-3)
    mean = ndimage.gaussian_filter(level, sigma) / weight
    square = ndimage.gaussian_filter(_cells(grey**2, steps), sigma) / weight
    calm: Mask = square - mean**2 < (CALM_VARIATION * mean) ** 2
    return calm


def _smooth_field(log_level: Grey, seeds: Mask, cell: Spacing, scales: tuple[float, ...]) -> Grey:
    """Smooth the seeds' values at each scale, coarse to fine; a finer scale counts where it has seeds enough."""
    weight = seeds.astype(np.float32)
    mean = float(log_level[seeds].mean()) if seeds.any() else 0.0
    field: NDArray[np.float64] = np.full(log_level.shape, mean)
    for scale in scales:
        sigma = (FIELD_SCALE_Z_MM / cell[0], scale / cell[1], scale / cell[2])
        density = ndimage.gaussian_filter(weight, sigma, mode="constant")
        summed = ndimage.gaussian_filter(weight * (log_level - mean), sigma, mode="constant")
        # The coarsest takes what there is; the finer ones want seeds in a twentieth of their window.
        enough = 1e-6 if scale == scales[0] else 0.05
        sure = density / (density + enough)
        field = sure * (mean + summed / np.maximum(density, 1e-12)) + (1 - sure) * field
    return field.astype(np.float32)
