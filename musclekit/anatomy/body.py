"""Which voxels of a scan belong to the person: the table, calibration phantoms and pads are not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from musclekit.anatomy.planes import components, dilate_plane, fill_holes, open_plane
from musclekit.checks import AIR_HU
from musclekit.errors import SegmentationError
from musclekit.image import Contrast, Image

__all__ = ["body_mask"]

#: Smaller pieces of a slice are not a leg (Makrogiannis' mid-thigh pipeline).
LEAST_AREA_MM2 = 500.0

#: A table, or a pad, is long and thin (bounding box) or hollow and bent (share of its bounding ellipse).
TABLE_ASPECT = 4.0

#: Opening that lets go of a table the leg lies on, and of skin folds; given back by dilation inside the first mask.
CONTACT_MM = 3.0

#: MR: body is brighter than this share of the 99th percentile.
MR_SHARE = 0.10

#: A calibration phantom holds next to no fat.
FAT_HU = (-190.0, -30.0)
LEAST_FAT_SHARE = 0.01


def body_mask(image: Image) -> NDArray[np.bool_]:
    """Return the voxels of the person.

    Parameters
    ----------
    image : Image
        CT or MR.

    Returns
    -------
    ndarray of bool, shape (Z, Y, X)
        Body, skin included, without holes in any slice.

    Raises
    ------
    SegmentationError
        If there is no body in the picture.
    """
    bright = _bright(image)
    mask = np.zeros_like(bright)
    for z in range(len(bright)):
        if bright[z].any():
            mask[z] = _body_of_plane(bright[z], image, z)
    if not mask.any():
        raise SegmentationError("no body was found in the image: nothing larger than 500 mm2 stands out from the air")
    return mask


def _bright(image: Image) -> NDArray[np.bool_]:
    voxels = image.voxels
    if image.contrast is Contrast.CT:
        return voxels > AIR_HU
    high = float(np.percentile(voxels[:: max(1, len(voxels) // 20), ::2, ::2], 99))
    return voxels > MR_SHARE * high


def _body_of_plane(bright: NDArray[np.bool_], image: Image, z: int) -> NDArray[np.bool_]:
    spacing = image.grid.spacing[1:]
    pixel_mm2 = spacing[0] * spacing[1]
    opened = open_plane(bright, CONTACT_MM, spacing)
    labels, stats, _ = components(opened)
    kept = np.zeros_like(bright)
    for number, (_, _, width, height, area) in enumerate(stats[1:], start=1):
        long, short = sorted((width * spacing[1], height * spacing[0]), reverse=True)
        if area * pixel_mm2 < LEAST_AREA_MM2 or long / short > TABLE_ASPECT:
            continue
        part = labels == number
        if image.contrast is Contrast.CT and _is_phantom(image.voxels[z][part]):
            continue
        kept |= part
    if not kept.any():
        return kept
    return fill_holes(dilate_plane(kept, CONTACT_MM, spacing) & bright)


def _is_phantom(values: NDArray[np.float32]) -> bool:
    fat = np.count_nonzero((values >= FAT_HU[0]) & (values <= FAT_HU[1]))
    return bool(fat < LEAST_FAT_SHARE * values.size)
