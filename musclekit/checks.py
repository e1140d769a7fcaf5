"""What every method asks of an image before it works on it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from musclekit.errors import ModalityError, VoxelError
from musclekit.image import Contrast, Image

__all__ = ["AIR_HU", "check_contrast", "check_voxels", "looks_like_ct"]

#: Below this a CT voxel is air rather than body (Makrogiannis' mid-thigh pipeline).
AIR_HU = -200.0

#: A CT of a leg holds fat, which is negative; MR magnitudes hold next to nothing below zero.
NEGATIVE_SHARE = 0.001


def looks_like_ct(image: Image) -> bool:
    """Whether the grey values can be Hounsfield units: some are fat or air, and none lies below -4096."""
    low = float(image.voxels.min())
    if not -4096 <= low < 0:
        return False
    return bool(np.count_nonzero(image.voxels < -30) >= NEGATIVE_SHARE * image.voxels.size)


def check_contrast(image: Image, accepted: Collection[Contrast], method: str) -> None:
    """Refuse a contrast that a method does not take.

    Parameters
    ----------
    image : Image
        What is to be segmented or translated.
    accepted : collection of Contrast
        What the method takes.
    method : str
        Its name, for the message.

    Raises
    ------
    ModalityError
        If the image's contrast is not among them.
    """
    if image.contrast not in accepted:
        names = ", ".join(sorted(accepted))
        raise ModalityError(f"method '{method}' takes {names}; this image is {image.contrast}")


def check_voxels(image: Image) -> None:
    """Refuse an image there is nothing to see in, or whose values cannot be what its contrast says.

    Raises
    ------
    VoxelError
        If every voxel has the same value, or a CT holds nothing but air.
    ModalityError
        If a CT holds no value below fat, or an MR holds Hounsfield units.
    """
    low, high = float(image.voxels.min()), float(image.voxels.max())
    if low == high:
        raise VoxelError(f"the image is constant: every voxel is {low:g}")
    if image.contrast is Contrast.CT:
        if high < AIR_HU:
            raise VoxelError(f"the image holds nothing but air: no voxel above {AIR_HU:g} HU (highest {high:g})")
        if not looks_like_ct(image):
            raise ModalityError(
                f"given as CT, but the values ({low:g} to {high:g}) are not Hounsfield units: no fat, no air; is it MR?"
            )
    elif low < -500 and looks_like_ct(image):
        raise ModalityError(
            f"given as {image.contrast}, but the values ({low:g} to {high:g}) are Hounsfield units; is it CT?"
        )
