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

Mask = NDArray[np.uint8]

#: Above this CT is bone.
BONE_HU = 300.0
#: A shaft, marrow included, has this area and fills this share of the circle round it.
SHAFT_AREA_MM2 = (180.0, 1600.0)
MIN_SHAFT_ROUNDNESS = 0.6
#: The femur ends where its cross-section grows beyond this, or by this factor from one slice to the next.
MAX_AREA_MM2 = 5000.0
MAX_GROWTH = 2.5
#: A marrow as wide as this is still closed where the cortex is broken by noise or a thin wall.
CLOSING_MM = 3.0

#: Share of the femur's length, in its middle, that the axis is fitted to.
MIDDLE_SHARE = 0.6
#: What a femur must show to tell its axis, see `femur_axis`.
MIN_LENGTH_MM = 60.0
MIN_SLICES = 5
MAX_ANGLE_DEG = 35.0
MAX_RESIDUAL_MM = 8.0


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
    doubt : str
        Why the axis should not be used; empty when it can be.
    """

    point_mm: NDArray[np.float64]
    direction: NDArray[np.float64]
    n_slices: int
    length_mm: float
    angle_deg: float
    residual_mm: float
    doubt: str

    @property
    def reliable(self) -> bool:
        """Whether there is nothing to say against the axis."""
        return not self.doubt


def femur_mask(image: Image, leg: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Femur of one leg in CT, marrow included.

    Bone is what lies above 300 HU, closed and filled in each slice. The femur is the longest chain of slices with a
    round shaft, followed upwards and downwards until it joins another bone; where no slice shows a shaft it is the
    largest piece.

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
            closed = cv2.morphologyEx(plane, cv2.MORPH_CLOSE, element)
            outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(plane, outlines, -1, 1, cv2.FILLED)
    window = _window(bone)
    mask = np.zeros(image.grid.shape, dtype=np.bool_)
    mask[window] = _follow_shaft(bone[window], pixel_mm)
    return mask


def _window(mask: Mask) -> tuple[slice, slice, slice]:
    """Bounding box of a mask that is not empty."""
    spans = [np.flatnonzero(mask.max(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    z, y, x = (slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    return z, y, x


def _follow_shaft(bone: Mask, pixel_mm: float) -> NDArray[np.bool_]:
    """Femur among filled bone: the longest chain of shafts, followed to both ends of the bone."""
    planes = len(bone)
    parts: list[NDArray[np.int32]] = []
    areas: list[NDArray[np.float64]] = []
    # Length of the chain of shafts that ends in a piece, and the piece below it in that chain.
    chains: list[dict[int, tuple[int, int]]] = []
    for z in range(planes):
        _, pieces, stats, _ = cv2.connectedComponentsWithStats(bone[z], connectivity=8)
        parts.append(pieces)
        areas.append(stats[:, cv2.CC_STAT_AREA] * pixel_mm**2)
        chain = {}
        for i in _shafts(bone[z], pieces, pixel_mm):
            below: list[int] = np.unique(parts[z - 1][pieces == i]).tolist() if z else []
            length, piece = max(
                ((chains[-1][int(j)][0], int(j)) for j in below if int(j) in chains[-1]), default=(0, 0)
            )
            chain[i] = (length + 1, piece)
        chains.append(chain)
    ends = [(length, z, i) for z, chain in enumerate(chains) for i, (length, _) in chain.items()]
    if not ends:
        return _largest(bone)
    length, top, piece = max(ends)
    found = {top: piece}
    for z in range(top, top - length + 1, -1):
        found[z - 1] = chains[z][found[z]][1]
    for first, last, step in ((top + 1, planes, 1), (top - length, -1, -1)):
        for z in range(first, last, step):
            before = parts[z - step] == found[z - step]
            overlap = np.bincount(parts[z][before], minlength=len(areas[z]))
            overlap[0] = 0
            following = int(overlap.argmax())
            grown = areas[z][following] / areas[z - step][found[z - step]]
            # Hip and knee: where bones join in a slice, the femur cannot be told from its neighbour.
            if overlap[following] == 0 or areas[z][following] > MAX_AREA_MM2 or grown > MAX_GROWTH:
                break
            found[z] = following
    femur = np.zeros(bone.shape, dtype=np.bool_)
    for z, i in found.items():
        femur[z] = parts[z] == i
    return femur


def _largest(bone: Mask) -> NDArray[np.bool_]:
    """Largest piece in 3-D."""
    pieces, _ = ndimage.label(bone, structure=np.ones((3, 3, 3)))
    volume = np.bincount(pieces.reshape(-1))
    volume[0] = 0
    return cast(NDArray[np.bool_], pieces == volume.argmax())


def _shafts(plane: Mask, pieces: NDArray[np.int32], pixel_mm: float) -> list[int]:
    """Pieces of a slice that look like a shaft."""
    found = []
    outlines, _ = cv2.findContours(plane, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for outline in outlines:
        # Half a pixel all round lies between the outline's points and the pixels' outer edges.
        area = (cv2.contourArea(outline) + cv2.arcLength(outline, True) / 2) * pixel_mm**2
        radius = (cv2.minEnclosingCircle(outline)[1] + 0.5) * pixel_mm
        if area >= MIN_SHAFT_ROUNDNESS * np.pi * radius**2 and SHAFT_AREA_MM2[0] <= area <= SHAFT_AREA_MM2[1]:
            x, y = (int(n) for n in outline[0, 0])
            found.append(int(pieces[y, x]))
    return found


def femur_axis(
    bone: NDArray[np.bool_],
    grid: Grid,
    *,
    min_length_mm: float = MIN_LENGTH_MM,
    min_slices: int = MIN_SLICES,
    max_angle_deg: float = MAX_ANGLE_DEG,
) -> FemurAxis:
    """Fit the long axis of a femur.

    First principal direction of the centres of its cross-sections over the middle 60 % of its length.

    Parameters
    ----------
    bone : ndarray of bool, shape (Z, Y, X)
        Mask of one femur, from `femur_mask` or from a segmentation.
    grid : Grid
        Where it lies.
    min_length_mm, min_slices
        A femur seen along less than this, or in fewer slices, does not tell its axis.
    max_angle_deg : float
        An axis that stands further off world z is doubted. With hips bent over a cushion a sound one reaches 45.

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
    Haque et al. (2.5-D U-Net) align thighs to the femur and do not say how the axis is found. What is asked of the
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
    length = float(np.linalg.norm(centres[-1] - centres[0]))
    angle = float(np.degrees(np.arccos(np.clip(direction[2], -1, 1))))
    residual = float(np.sqrt((off**2).sum(axis=1).mean()))
    doubt = ""
    if len(slices) < min_slices or length < min_length_mm:
        doubt = (
            f"the femur is seen along {length:.0f} mm in {len(slices)} slices; its axis takes {min_length_mm:g} mm and "
            f"{min_slices} slices"
        )
    elif angle > max_angle_deg:
        doubt = f"the femur stands {angle:.0f} degrees off the scanner's axis, more than {max_angle_deg:g}"
    elif residual > MAX_RESIDUAL_MM:
        doubt = f"the centres of the bone lie {residual:.0f} mm off a straight line: the mask holds more than the femur"
    return FemurAxis(
        point_mm=cast(NDArray[np.float64], point),
        direction=cast(NDArray[np.float64], direction),
        n_slices=len(slices),
        length_mm=length,
        angle_deg=angle,
        residual_mm=residual,
        doubt=doubt,
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
