"""The femur in CT and its long axis, to which thighs are aligned and by which cross-sections are corrected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from musclekit.errors import GeometryError, ModalityError, SegmentationError
from musclekit.image import Contrast, Grid, Image

__all__ = ["BONE_HU", "FemurAxis", "femur_axis", "femur_mask", "obliquity_cosine"]

#: Above this CT is bone.
BONE_HU = 300.0
#: A shaft, marrow included, has this area and fills this share of the circle round it.
SHAFT_AREA_MM2 = (180.0, 1600.0)
MIN_SHAFT_ROUNDNESS = 0.6
#: A marrow as wide as this is still closed where the cortex is broken by noise or a thin wall.
CLOSING_MM = 3.0

#: Share of the femur's length, in its middle, that the axis is fitted to.
MIDDLE_SHARE = 0.6
#: A femur seen along less than this, in fewer slices, or steeper than this does not tell its axis.
MIN_LENGTH_MM = 60.0
MIN_SLICES = 5
MAX_ANGLE_DEG = 35.0


@dataclass(frozen=True, eq=False)
class FemurAxis:
    """Long axis of a femur.

    Parameters
    ----------
    point_mm : ndarray of float, shape (3,)
        World (x, y, z) of the mean of the centres that the axis was fitted to.
    direction : ndarray of float, shape (3,)
        Unit vector along the axis, towards the head.
    n_slices : int
        Slices that show the femur.
    length_mm : float
        Distance between the femur's centres in the first and the last of them.
    angle_deg : float
        Angle between the axis and world z.
    residual_mm : float
        Root mean square distance of the centres from the axis; the bow of the femur makes 1 to 4 mm.
    """

    point_mm: NDArray[np.float64]
    direction: NDArray[np.float64]
    n_slices: int
    length_mm: float
    angle_deg: float
    residual_mm: float

    @property
    def doubt(self) -> str:
        """Why the axis should not be used; empty when it can be."""
        if self.n_slices < MIN_SLICES or self.length_mm < MIN_LENGTH_MM:
            return (
                f"the femur is seen along {self.length_mm:.0f} mm in {self.n_slices} slices; its axis takes "
                f"{MIN_LENGTH_MM:g} mm and {MIN_SLICES} slices"
            )
        if self.angle_deg > MAX_ANGLE_DEG:
            return f"the femur stands {self.angle_deg:.0f} degrees off the scanner's axis, more than {MAX_ANGLE_DEG:g}"
        return ""

    @property
    def reliable(self) -> bool:
        """Whether the axis rests on enough femur and stands within 35 degrees of world z."""
        return not self.doubt


def femur_mask(image: Image, leg: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Femur of one leg in CT, marrow included.

    Bone is what lies above 300 HU, closed and filled in each slice. Of its connected pieces in 3-D the femur is the
    one that looks like a shaft in most slices; where none does, the largest.

    Parameters
    ----------
    image : Image
        CT.
    leg : ndarray of bool, shape (Z, Y, X)
        Mask of the leg, see `split_legs`.

    Returns
    -------
    ndarray of bool, shape (Z, Y, X)

    Raises
    ------
    ModalityError
        If the image is no CT.
    GeometryError
        If image and mask differ in shape.
    SegmentationError
        If no voxel of the leg is bone.
    """
    if image.contrast is not Contrast.CT:
        raise ModalityError(f"the femur is found by its Hounsfield units; this image is {image.contrast}, not ct")
    if leg.shape != image.grid.shape:
        raise GeometryError(f"the leg mask has shape {leg.shape}, the image {image.grid.shape} (z, y, x)")
    bone = ((image.voxels > BONE_HU) & leg).view(np.uint8)
    if not bone.any():
        raise SegmentationError(f"no femur found: no voxel of the leg lies above {BONE_HU:g} HU")
    pixel_mm = float(np.sqrt(image.grid.spacing[1] * image.grid.spacing[2]))
    size = 2 * max(1, round(CLOSING_MM / 2 / pixel_mm)) + 1
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    for plane in bone:
        if plane.any():
            outlines, _ = cv2.findContours(
                cv2.morphologyEx(plane, cv2.MORPH_CLOSE, element), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
            )
            cv2.drawContours(plane, outlines, -1, 1, cv2.FILLED)
    window = _window(bone)
    pieces, count = ndimage.label(bone[window], structure=np.ones((3, 3, 3)))
    shafts = np.zeros(count + 1)
    for z, plane in enumerate(bone[window]):
        for i in _shafts(plane, pieces[z], pixel_mm):
            shafts[i] += 1
    volume = np.bincount(pieces.reshape(-1), minlength=count + 1).astype(np.float64)
    volume[0] = 0
    # Volume breaks ties, and decides where no piece has a shaft.
    femur = int(np.argmax(shafts + volume / (1 + volume.max())))
    mask = np.zeros(image.grid.shape, dtype=np.bool_)
    mask[window] = pieces == femur
    return mask


def _window(mask: NDArray[np.uint8]) -> tuple[slice, slice, slice]:
    """Bounding box of a mask that is not empty."""
    spans = [np.flatnonzero(mask.max(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    z, y, x = (slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    return z, y, x


def _shafts(plane: NDArray[np.uint8], pieces: NDArray[np.int32], pixel_mm: float) -> set[int]:
    """Pieces that show a shaft in this slice."""
    found = set()
    outlines, _ = cv2.findContours(plane, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for outline in outlines:
        area = cv2.contourArea(outline) * pixel_mm**2
        _, radius = cv2.minEnclosingCircle(outline)
        is_round = area >= MIN_SHAFT_ROUNDNESS * np.pi * (radius * pixel_mm) ** 2
        if is_round and SHAFT_AREA_MM2[0] <= area <= SHAFT_AREA_MM2[1]:
            x, y = (int(n) for n in outline[0, 0])
            found.add(int(pieces[y, x]))
    return found


def femur_axis(bone: NDArray[np.bool_], grid: Grid) -> FemurAxis:
    """Fit the long axis of a femur.

    First principal direction of the centres of its cross-sections over the middle 60 % of its length.

    Parameters
    ----------
    bone : ndarray of bool, shape (Z, Y, X)
        Mask of one femur, from `femur_mask` or from a segmentation.
    grid : Grid
        Where it lies.

    Returns
    -------
    FemurAxis
        Look at its ``reliable`` before using it: an axis is fitted to as little as two slices, and where one slice
        alone shows bone it is world z.

    Raises
    ------
    GeometryError
        If mask and grid differ in shape.
    SegmentationError
        If no slice shows bone.

    Notes
    -----
    Ghosh et al. (2.5-D U-Net) align thighs to the femur and do not say how the axis is found. What is asked of the
    femur's length is stated in mm, so that thick slices count for what they span.
    """
    if bone.shape != grid.shape:
        raise GeometryError(f"the bone mask has shape {bone.shape}, its grid {grid.shape} (z, y, x)")
    area = bone.sum(axis=(1, 2), dtype=np.int64)
    slices = np.flatnonzero(area)
    if not len(slices):
        raise SegmentationError("no femur axis: the bone mask is empty")
    rows = bone.sum(axis=2, dtype=np.int64) @ np.arange(bone.shape[1])
    columns = bone.sum(axis=1, dtype=np.int64) @ np.arange(bone.shape[2])
    centres = grid.world(np.stack([slices, rows[slices] / area[slices], columns[slices] / area[slices]], axis=1))
    cut = int((1 - MIDDLE_SHARE) / 2 * len(slices))
    middle = centres[cut : len(slices) - cut]
    point = middle.mean(axis=0)
    if len(middle) > 1:
        _, _, directions = np.linalg.svd(middle - point, full_matrices=False)
        direction = directions[0]
    else:
        direction = np.array([0.0, 0.0, 1.0])
    # Towards the head; a femur that lies flat points to wherever its slices run.
    if (direction[2] or direction @ (centres[-1] - centres[0])) < 0:
        direction = -direction
    off = (middle - point) - np.outer((middle - point) @ direction, direction)
    return FemurAxis(
        point_mm=cast(NDArray[np.float64], point),
        direction=cast(NDArray[np.float64], direction),
        n_slices=len(slices),
        length_mm=float(np.linalg.norm(centres[-1] - centres[0])),
        angle_deg=float(np.degrees(np.arccos(np.clip(direction[2], -1, 1)))),
        residual_mm=float(np.sqrt((off**2).sum(axis=1).mean())),
    )


def obliquity_cosine(axis: FemurAxis, grid: Grid) -> float:
    """Cosine of the angle between the femur and the normal of the slices.

    A slice that cuts the thigh obliquely shows its area divided by this cosine; the area times the cosine is the
    cross-section at a right angle to the femur.

    Returns
    -------
    float
        Between 0 and 1.
    """
    normal = np.cross(grid.direction[:, 1], grid.direction[:, 2])
    return float(abs(normal @ axis.direction) / np.linalg.norm(normal))
