"""Body mask: what in a scan is the patient, rather than air, table, calibration phantom or pad."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from musclekit.checks import AIR_HU
from musclekit.errors import SegmentationError, VoxelError
from musclekit.image import Contrast, Image

__all__ = ["body_mask"]

#: A piece of a slice smaller than this is not a leg (Makrogiannis' mid-thigh pipeline).
MIN_AREA_MM2 = 500.0
#: A piece longer than this many times its width, or filling less than this share of its hull, is a table.
MAX_ASPECT = 4.0
MIN_SOLIDITY = 0.5
#: Half the thickness below which a piece is a board, a rod, a finger or a cable.
MIN_HALF_THICKNESS_MM = 8.0
#: Half the thickness of what is cut off where it hangs on the body: QCT phantoms are 25 to 30 mm thick.
SLAB_HALF_THICKNESS_MM = 16.0
#: What hangs on the body is cut off only if it is at least this large and reaches this far.
MIN_SLAB_AREA_MM2 = 300.0
MIN_SLAB_REACH_MM = 20.0
#: The MR threshold, as shares of the 99th percentile of the slice and of the whole scan.
MR_SHARE = 0.1
#: Gaps of MR signal (suppressed fat, cortical bone at the skin) narrower than twice this are bridged.
MR_CLOSING_MM = 4.0


def body_mask(image: Image) -> NDArray[np.bool_]:
    """Find the patient.

    CT: above -200 HU. MR: above a tenth of the bright end of each slice, see `mr_threshold`. Then, slice by slice: a
    3x3 opening, holes filled, pieces under 500 mm2 and pieces shaped like a table dropped, and boards, phantoms and
    pads that touch the skin cut off. Skin is part of the body.

    Parameters
    ----------
    image : Image
        CT or MR of any contrast.

    Returns
    -------
    ndarray of bool, shape (Z, Y, X)
        On the grid of the image.

    Raises
    ------
    VoxelError
        If every voxel has the same value, or a CT holds nothing but air.
    SegmentationError
        If nothing the size and shape of a limb is left.

    Notes
    -----
    Threshold and smallest area are those of Makrogiannis' mid-thigh pipeline. The shape rules are ours.
    """
    low, high = float(image.voxels.min()), float(image.voxels.max())
    if low == high:
        raise VoxelError(f"the image is constant: every voxel is {low:g}")
    if image.contrast is Contrast.CT:
        if high < AIR_HU:
            raise VoxelError(f"the image holds nothing but air: no voxel above {AIR_HU:g} HU (highest {high:g})")
        thresholds = np.full(image.grid.shape[0], AIR_HU)
        closing_mm = 0.0
    else:
        thresholds = mr_threshold(image)
        closing_mm = MR_CLOSING_MM
    pixel_mm = float(np.sqrt(image.grid.spacing[1] * image.grid.spacing[2]))
    body = np.zeros(image.grid.shape, dtype=np.bool_)
    for z, threshold in enumerate(thresholds):
        body[z] = _clean_slice((image.voxels[z] > threshold).view(np.uint8), pixel_mm, closing_mm)
    if not body.any():
        raise SegmentationError(
            f"no body found: no piece of a slice above the threshold is {MIN_AREA_MM2:g} mm2 large and shaped like a "
            "limb; check the contrast and the voxel spacing of the image"
        )
    return body


def mr_threshold(image: Image) -> NDArray[np.float64]:
    """Grey value above which MR is body, one for each slice.

    Otsu's threshold separates fat from muscle as readily as body from air; a share of the bright end does not. It is
    taken per slice, since coils fade towards the ends of a scan, but never below a third of what it is for the whole
    scan, since a slice of air has a bright end too.

    Returns
    -------
    ndarray of float, shape (Z,)
    """
    whole = float(np.percentile(image.voxels[:, ::2, ::2], 99))
    per_slice = np.percentile(image.voxels[:, ::2, ::2], 99, axis=(1, 2))
    limits: NDArray[np.float64] = MR_SHARE * np.clip(per_slice, whole / 3, whole)
    return limits


def _disk(radius_px: float) -> NDArray[np.uint8]:
    size = 2 * max(1, round(radius_px)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), dtype=np.uint8)


def _fill_holes(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(mask.copy(), contours, -1, 1, cv2.FILLED), dtype=np.uint8)


def _clean_slice(raw: NDArray[np.uint8], pixel_mm: float, closing_mm: float) -> NDArray[np.bool_]:
    """One slice: open, close, fill, drop what is no limb."""
    empty = np.zeros(raw.shape, dtype=np.bool_)
    if not raw.any():
        return empty
    # The border is repeated outwards: a limb cut by the field of view goes on beyond it.
    pad = round(2 * SLAB_HALF_THICKNESS_MM / pixel_mm) + 2
    mask = cv2.morphologyEx(raw, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    mask = np.pad(mask, pad, mode="edge")
    if closing_mm > 0:
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _disk(closing_mm / pixel_mm))
    mask = _fill_holes(mask)
    mask = _cut_slabs(mask, pixel_mm)
    inner = (slice(pad, -pad), slice(pad, -pad))
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    keep = np.zeros(count, dtype=np.bool_)
    for i in range(1, count):
        if stats[i, cv2.CC_STAT_AREA] * pixel_mm**2 < MIN_AREA_MM2:
            continue
        keep[i] = _is_limb(pieces == i, pixel_mm)
    body: NDArray[np.bool_] = keep[pieces[inner]]
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(body.view(np.uint8), connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] * pixel_mm**2 >= MIN_AREA_MM2
    large[0] = False
    kept: NDArray[np.bool_] = large[pieces]
    return kept


def _cut_slabs(mask: NDArray[np.uint8], pixel_mm: float) -> NDArray[np.uint8]:
    """Cut off what is thin, large and reaches far from the thick part of the body it hangs on."""
    radius = SLAB_HALF_THICKNESS_MM / pixel_mm
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    core = (distance > radius).astype(np.uint8)
    if not core.any():
        return mask
    # Opening by reconstruction from the core, a little further than the disk, so that corners of the body stay.
    reach = cv2.distanceTransform(1 - core, cv2.DIST_L2, 5)
    thick = (mask > 0) & (reach <= 1.4 * radius)
    thin = ((mask > 0) & ~thick).astype(np.uint8)
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(thin, connectivity=8)
    cut = np.zeros(count, dtype=np.bool_)
    for i in range(1, count):
        x, y, w, h, area = stats[i]
        if area * pixel_mm**2 < MIN_SLAB_AREA_MM2:
            continue
        window = (slice(y, y + h), slice(x, x + w))
        piece = pieces[window] == i
        far = float((reach[window] * piece).max()) - 1.4 * radius
        cut[i] = far * pixel_mm >= MIN_SLAB_REACH_MM
    result = mask.copy()
    result[cut[pieces]] = 0
    return result


def _is_limb(piece: NDArray[np.bool_], pixel_mm: float) -> bool:
    """Whether a piece of a slice is thick and compact enough to be a limb."""
    mask = piece.view(np.uint8)
    if float(cv2.distanceTransform(mask, cv2.DIST_L2, 5).max()) * pixel_mm < MIN_HALF_THICKNESS_MM:
        return False
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outline = max(contours, key=len)
    _, (width, height), _ = cv2.minAreaRect(outline)
    if max(width, height) > MAX_ASPECT * max(1.0, min(width, height)):
        return False
    hull = max(1.0, float(cv2.contourArea(cv2.convexHull(outline))))
    return int(piece.sum()) / hull >= MIN_SOLIDITY
