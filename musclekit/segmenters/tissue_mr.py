"""The five tissues of the thigh in MR, without training data: what `musclekit.segmenters.tissue` does with an MR.

Grey values alone fail on real MR: a surface coil makes the same fat three times brighter at the skin than inside, bone
is as dark as muscle in a fat image, and infiltrated muscle is nearly as bright as fat. So the steps are: even out the
brightness by the tissue that is bright; turn grey values into a share of fat; find the fascia, inside which fat may
belong to muscle; find the femur; and call fat inside the fascia intermuscular only where it is thicker than a streak.
"""

from __future__ import annotations

import logging

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from musclekit.image import Image
from musclekit.labels import label_set
from musclekit.segmenters.mr_brightness import (
    CALM_VARIATION,
    SKIN_MM,
    even_brightness,
    fat_is_bright,
    fat_share,
    skin_depth,
)
from musclekit.segmenters.mr_fascia import muscle_compartment
from musclekit.segmenters.mr_femur import femur
from musclekit.segmenters.mr_planes import Grey, Mask, Spacing, disk_mm, each_plane

__all__ = ["mr_tissues"]

logger = logging.getLogger(__name__)

#: Air that reaches into a leg less than this wide is no air: it is bone at the edge of the picture, or a dark shade.
GAP_MM = 20.0

#: Share of fat at the edge between fat and muscle, and the smoothing under which pure fat is told from infiltration.
EDGE_SHARE = 0.6
SMOOTH_MM = 1.0

#: Surroundings that hold more fat than this have turned to fat; and the scale that mottling is judged on.
ILL_SHARE = 0.5
ILL_SCALE_MM = 20.0
MOTTLE_SCALE_MM = 3.0

#: Muscle in smaller pieces is a vessel or a nerve.
LEAST_MUSCLE_MM2 = 20.0


def mr_tissues(
    image: Image,
    body: Mask,
    legs: NDArray[np.integer],
    *,
    infiltrated_share: float = 0.8,
    streak_mm: float = 4.0,
    cortex_mm: float = 5.0,
) -> NDArray[np.uint8]:
    """Label muscle, cortical bone, marrow, subcutaneous and intermuscular fat in an MR of the thighs.

    Parameters
    ----------
    image : Image
        Any MR contrast. Of an image of unknown weighting (`Contrast.MR`) it is found out whether fat is bright.
    body : ndarray of bool, shape (Z, Y, X)
        The body, skin included.
    legs : ndarray of int, shape (Z, Y, X)
        0 outside the legs, one number a leg; a leg has the same number in every plane.
    infiltrated_share : float
        Muscle holds less fat than this, intermuscular fat more.
    streak_mm : float
        Fat inside the fascia that is thinner than this is a streak, and belongs to the muscle it lies in.
    cortex_mm : float
        Thickness of the femur's cortex where the image does not show it.

    Returns
    -------
    ndarray of uint8, shape (Z, Y, X)
        Ids of the label set ``tissue``. Muscle includes the fat inside it, and vessels and nerves inside the fascia;
        tumours that are not fat come out as muscle.

    Notes
    -----
    Our own method, no paper's: the order of the steps follows the CT pipeline of Makrogiannis et al., its level set
    replaced by a shortest path around the leg, which also finds the fascia where muscle has turned to fat.
    """
    labels = np.zeros(image.grid.shape, dtype=np.uint8)
    if not body.any():
        return labels
    spacing = image.grid.spacing
    box = _box_with_room(body, spacing)
    grey = image.voxels[box]
    leg = _without_gaps(legs[box], spacing)
    inside = body[box] | (leg > 0)
    depth = skin_depth(inside, spacing)
    bright = image.contrast.fat_is_bright
    if bright is None:
        bright = fat_is_bright(grey, inside, depth)
        logger.info("MR of unknown weighting: fat looks %s than muscle", "brighter" if bright else "no brighter")
    relative = even_brightness(grey, inside, depth, spacing, bright)
    share = fat_share(relative, inside, depth, bright)
    compartment = muscle_compartment(share, leg, inside, depth, spacing)
    marrow, cortex = femur(share, relative, compartment, leg, spacing, bright, cortex_mm=cortex_mm)
    bone = marrow | cortex
    room = compartment & ~bone
    fat = _intermuscular_fat(share, room, infiltrated_share, streak_mm, spacing)
    muscle = _without_specks(room & ~fat, LEAST_MUSCLE_MM2, spacing)
    ids = {label.name: label.id for label in label_set("tissue")}
    found = labels[box]
    found[(leg > 0) & (depth > SKIN_MM)] = ids["subcutaneous fat"]
    found[compartment] = ids["intermuscular fat"]
    found[muscle] = ids["muscle"]
    found[cortex] = ids["cortical bone"]
    found[marrow] = ids["marrow"]
    return labels


def _intermuscular_fat(share: Grey, room: Mask, infiltrated_share: float, streak_mm: float, spacing: Spacing) -> Mask:
    """Return fat that is no infiltration: pure and thick in its middle, and from there out to its edge.

    Where the tissue around has mostly turned to fat, pure is not enough: mottled fat was muscle, fat tissue is even.
    """
    within = np.clip(share, 0, 1.2)
    pure = _blurred(within, SMOOTH_MM, spacing) >= infiltrated_share
    weight = room.astype(np.float32)
    around = _blurred(np.clip(share, 0, 1) * weight, ILL_SCALE_MM, spacing)
    ill = around > ILL_SHARE * _blurred(weight, ILL_SCALE_MM, spacing)
    pure &= ~ill | (_mottling(within, spacing) < CALM_VARIATION)
    core = each_plane(pure.astype(np.uint8), cv2.MORPH_OPEN, disk_mm(streak_mm / 2, spacing))
    near = each_plane(core, cv2.MORPH_DILATE, disk_mm(streak_mm, spacing)) > 0
    fat: Mask = room & near & (share >= min(EDGE_SHARE, infiltrated_share))
    return fat


def _mottling(share: Grey, spacing: Spacing) -> Grey:
    """Return the local standard deviation of the share of fat, lean tissue left out so that borders do not count."""
    fatty = (share > 0.4).astype(np.float32)
    count = np.maximum(_blurred(fatty, MOTTLE_SCALE_MM, spacing), 0.05)
    mean = _blurred(share * fatty, MOTTLE_SCALE_MM, spacing) / count
    square = _blurred(share**2 * fatty, MOTTLE_SCALE_MM, spacing) / count
    deviation: Grey = np.sqrt(np.maximum(square - mean**2, 0))
    return deviation


def _blurred(volume: Grey, sigma_mm: float, spacing: Spacing) -> Grey:
    """Gaussian low-pass of each plane."""
    sigma_y, sigma_x = sigma_mm / spacing[1], sigma_mm / spacing[2]
    return np.stack([cv2.GaussianBlur(plane, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y) for plane in volume])


def _box_with_room(body: Mask, spacing: Spacing) -> tuple[slice, slice, slice]:
    """Return the box of the body with air around it: only the edge of the picture may look like an edge."""
    planes, rows, columns = ndimage.find_objects(body.astype(np.uint8))[0]
    room = [int(np.ceil(GAP_MM / step)) + 1 for step in spacing[1:]]
    rows, columns = (slice(max(0, at.start - n), at.stop + n) for at, n in zip((rows, columns), room, strict=True))
    return planes, rows, columns


def _without_gaps(legs: NDArray[np.integer], spacing: Spacing) -> NDArray[np.integer]:
    """Close each leg over gaps narrower than `GAP_MM`, also where they open to the edge of the picture."""
    closed = legs.copy()
    disk = disk_mm(GAP_MM / 2, spacing)
    edge = max(disk.shape)
    for number in np.unique(legs[legs > 0]):
        for z, plane in enumerate(legs == number):
            if plane.any():
                padded = cv2.morphologyEx(np.pad(plane.astype(np.uint8), edge, mode="edge"), cv2.MORPH_CLOSE, disk)
                whole = ndimage.binary_fill_holes(padded)[edge:-edge, edge:-edge]
                closed[z][whole & (closed[z] == 0)] = number
    return closed


def _without_specks(mask: Mask, least_mm2: float, spacing: Spacing) -> Mask:
    """Drop what is smaller in its plane."""
    kept = np.zeros_like(mask)
    for z, plane in enumerate(mask):
        _, numbered, stats, _ = cv2.connectedComponentsWithStats(plane.astype(np.uint8), connectivity=4)
        large = stats[:, cv2.CC_STAT_AREA] * spacing[1] * spacing[2] >= least_mm2
        large[0] = False
        kept[z] = large[numbered]
    return kept
