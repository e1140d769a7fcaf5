"""Tissues of a CT of the thigh: bone, the compartment inside the fascia lata, and the fat on both sides of it.

The border of the compartment is where a disk, rolled from the skin through the fat, is stopped by muscle: it bridges
the seams between muscles and leaves the fat in them inside. Bone is what is dense, uneven and hollow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from musclekit.checks import AIR_HU
from musclekit.image import Image
from musclekit.labels import label_set
from musclekit.segmenters.planes import (
    WorkingPlanes,
    body_box,
    disk,
    inner_distance,
    padded,
    skin_depth,
    skin_seam,
    smoothed,
)

__all__ = ["BONE_HU", "FAT_HU", "METAL_HU", "bone_mask", "compartment_mask", "ct_tissues"]

Mask = NDArray[np.bool_]
Voxels = NDArray[np.float32]
Spacing = tuple[float, float, float]

#: Fat lies below, muscle above: the upper end of the field's window of fat, half way between the two tissues.
FAT_HU = -30.0

#: Bone holds voxels above the first; its spongy part, free of noise by a median, is followed down to the second.
BONE_HU = 300.0
SPONGY_HU = 210.0

#: Denser than any bone: an implant.
METAL_HU = 2200.0

#: Contrast medium fills a vessel or a bowel evenly: (p90 - p50) / p50 of its voxels is smaller, and p90 is no cortex's.
EVENNESS = 0.15
CORTEX_HU = 700.0

#: To fill bone, gaps of its cortex up to twice this are closed; holes up to this area are filled; and a bone that the
#: edge of the picture cuts is closed along that edge over this length.
BONE_GAP_MM = 3.0
BONE_HOLE_MM2 = 4000.0
BONE_CUT_MM = 45.0

#: Less than this is a calcification or noise.
LEAST_BONE_ML = 0.3
LEAST_BONE_MM2 = 30.0

#: Muscle thinner than twice the first is a septum; a piece without a disk of the second a vessel or a fold of skin.
SEPTUM_MM = 2.0
LEAST_MUSCLE_RADIUS_MM = 3.0
LEAST_MUSCLE_MM2 = 30.0

#: What the median filter may have taken off a muscle's edge.
RIM_MM = 1.5

#: Muscle does not reach closer to the skin's surface.
SKIN_AND_FASCIA_MM = 3.0

#: Radius of the disk for a lean leg, and for one whose muscle is mostly fat.
BALL_MM, WIDE_BALL_MM = 3.5, 16.0

#: Share of muscle inside the wide disk's border at which a leg counts as mostly fat, and as lean.
LEAN_SHARES = (0.68, 0.85)

#: In infiltrated muscle, where the two mix in every voxel, what is this much darker still counts as muscle.
INFILTRATED_STEP_HU = 45.0

#: Gas in less than this is noise.
LEAST_GAS_MM2 = 20.0


def ct_tissues(
    image: Image,
    body: Mask,
    legs: NDArray[np.integer[Any]],
    *,
    fat_hu: float = FAT_HU,
    bone_hu: float = BONE_HU,
    metal_hu: float = METAL_HU,
    ball_mm: float = BALL_MM,
    wide_ball_mm: float = WIDE_BALL_MM,
    skin_mm: float = 2.0,
) -> NDArray[np.uint8]:
    """Label muscle, cortical bone, marrow, subcutaneous and intermuscular fat in a CT of the thighs.

    Parameters
    ----------
    image : Image
        CT in HU.
    body : ndarray of bool, shape (Z, Y, X)
        The patient, skin included, without table and pads.
    legs : ndarray of int, shape (Z, Y, X)
        0 outside the legs, one number a leg. Where two legs touch, skin lies between them.
    fat_hu : float
        Fat lies below, muscle above.
    bone_hu : float
        Bone holds voxels above; `SPONGY_HU` is scaled with it.
    metal_hu : float
        Voxels above are an implant and stay without a label.
    ball_mm : float
        Radius of the disk that rolls through the subcutaneous fat: seams narrower than twice this are bridged.
    wide_ball_mm : float
        The same for a leg whose muscle has mostly turned to fat; in between the radius grows with the infiltration.
    skin_mm : float
        Thickness of the skin, which stays without a label.

    Returns
    -------
    ndarray of uint8, shape (Z, Y, X)
        Ids of the set ``tissue``. The compartment is muscle and intermuscular fat together; but for gas and metal it
        is not clipped by HU: vessels, calcifications and tumours inside it are muscle, or fat where they are as dark.
        Subcutaneous fat is all that lies between the skin and the compartment, deep pockets of fat included.

    Notes
    -----
    After the mid-thigh CT pipeline of Makrogiannis et al. (thresholds of body and tissues, median filter, marrow by
    filling, skin by erosion). Where that separates the subcutaneous fat by a geodesic active contour, a rolling disk
    does it here (`musclekit.segmenters.levelset` has the contour): it is several times faster, bridges what muscle
    turned to fat leaves open, and does not count the wide fat of the popliteal or ischiorectal fossa as intermuscular.
    Its price is a lipoma that reaches fat of that kind, which is not counted either. Tissues are cut at fixed HU and
    not by K-means: in a lean leg, which holds next to no intermuscular fat, the means part muscle from muscle.

    Not told from muscle: pelvic organs, scrotum, and bone too spongy for `SPONGY_HU` (osteoporotic knees and hips).
    """
    labels = np.zeros(image.grid.shape, dtype=np.uint8)
    if not body.any():
        return labels
    box = body_box(body)
    hu, inside, leg = image.voxels[box], body[box], legs[box]
    working = WorkingPlanes.of(hu.shape, image.grid.spacing)
    spacing = working.spacing
    fine_hu, fine_inside = working.resampled(hu), working.resampled_mask(inside)
    bone = bone_mask(fine_hu, fine_inside, spacing, bone_hu=bone_hu, metal_hu=metal_hu)
    compartment = compartment_mask(
        fine_hu,
        fine_inside,
        bone,
        spacing,
        seam=working.resampled_mask(skin_seam(leg)),
        fat_hu=fat_hu,
        ball_mm=ball_mm,
        wide_ball_mm=wide_ball_mm,
    )
    depth = np.stack([skin_depth(plane) for plane in fine_inside]) * spacing[1]
    solid, compartment = working.restored(bone) & inside, working.restored(compartment) & inside
    compartment &= ~solid
    ids = {label.name: label.id for label in label_set("tissue")}
    found = labels[box]
    found[working.restored(depth > skin_mm) & inside] = ids["subcutaneous fat"]
    found[compartment] = ids["muscle"]
    found[compartment & (smoothed(hu, 3) < fat_hu)] = ids["intermuscular fat"]
    found[solid] = ids["cortical bone"]
    found[solid & (hu < bone_hu) & _inner(solid)] = ids["marrow"]
    found[_gas(hu, image.grid.spacing) | (hu > metal_hu)] = 0
    return labels


def bone_mask(
    hu: Voxels, body: Mask, spacing: Spacing, *, bone_hu: float = BONE_HU, metal_hu: float = METAL_HU
) -> Mask:
    """Find bone with its marrow.

    Parameters
    ----------
    hu : ndarray of float32, shape (Z, Y, X)
        CT in HU; square pixels.
    body : ndarray of bool, shape (Z, Y, X)
        Where to look.
    spacing : tuple of float
        Millimetres along (z, y, x).
    bone_hu : float
        Bone holds voxels above.
    metal_hu : float
        Voxels above are an implant, not bone.

    Returns
    -------
    ndarray of bool, shape (Z, Y, X)
        Dense voxels and what they enclose in their plane. Evenly dense pieces (contrast medium) and small ones
        (calcifications) are left out.
    """
    dense = (hu > bone_hu) | (smoothed(hu, 5) > bone_hu * SPONGY_HU / BONE_HU)
    dense &= (hu < metal_hu) & body
    found: Mask = np.zeros_like(body)
    if not dense.any():
        return found
    pieces, _ = ndimage.label(dense, np.ones((3, 3, 3), dtype=bool))
    dense = _is_bone(pieces, hu, spacing, bone_hu)[pieces]
    pixel = spacing[1]
    for z in np.flatnonzero(dense.any(axis=(1, 2))):
        plane = _filled(dense[z], pixel) & body[z] & (hu[z] < metal_hu)
        plane &= (hu[z] > bone_hu) | (skin_depth(plane) > 1)
        found[z] = _pieces_with(plane, hu[z] > bone_hu, LEAST_BONE_MM2 / pixel**2)
    return found


def _is_bone(pieces: NDArray[np.integer[Any]], hu: Voxels, spacing: Spacing, bone_hu: float) -> Mask:
    """Whether each piece (by its number, 0 the background) is bone."""
    where = np.flatnonzero(pieces)
    numbers, values = pieces.ravel()[where], hu.ravel()[where]
    order = np.argsort(numbers, kind="stable")
    numbers, values = numbers[order], values[order]
    n = int(numbers[-1])
    ends = np.searchsorted(numbers, np.arange(n + 2))
    large = np.diff(ends) >= LEAST_BONE_ML * 1000 / float(np.prod(spacing))
    # A bone that leaves through the first or the last plane may show little of itself.
    large[np.unique(pieces[[0, -1]])] = True
    large[0] = False
    bone = np.zeros(n + 1, dtype=bool)
    for i in np.flatnonzero(large):
        piece = values[ends[i] : ends[i + 1]]
        if piece.max() > bone_hu:
            middle, high = np.percentile(piece[piece > bone_hu], [50, 90])
            bone[i] = high > CORTEX_HU or high - middle > EVENNESS * middle
    return bone


def _filled(dense: Mask, pixel: float) -> Mask:
    """Bone of one plane with what it encloses."""
    gap = BONE_GAP_MM / pixel
    pad = int(np.ceil(gap)) + 2
    height, width = dense.shape
    inner = (slice(pad, pad + height), slice(pad, pad + width))
    wall = padded(dense, pad).view(np.uint8)
    # Beyond the picture a cut bone is taken to close at once.
    length = int(BONE_CUT_MM / pixel)
    for line in (
        (pad - 1, inner[1]),
        (pad + height, inner[1]),
        (inner[0], pad - 1),
        (inner[0], pad + width),
    ):
        wall[line] = _closed_line(wall[line], length)
    closed = cv2.morphologyEx(wall, cv2.MORPH_CLOSE, disk(gap))
    _, parts, stats, _ = cv2.connectedComponentsWithStats(1 - closed, connectivity=4)
    hole = stats[:, cv2.CC_STAT_AREA] * pixel**2 <= BONE_HOLE_MM2
    hole[0] = False
    hole[np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))] = False
    # The closing also fills hollows of the outline: they are opened again from outside, as far as no wall is met.
    outside = ((closed == 0) & ~hole[parts]).view(np.uint8)
    for _ in range(int(np.ceil(gap))):
        outside = cv2.bitwise_and(cv2.dilate(outside, disk(1)), 1 - wall)
    filled = outside == 0
    return cast(Mask, filled[inner])


def _closed_line(line: NDArray[np.uint8], length: int) -> NDArray[np.uint8]:
    long = np.pad(line, length).reshape(1, -1)
    closed = cv2.morphologyEx(long, cv2.MORPH_CLOSE, np.ones((1, length), dtype=np.uint8))
    return cast(NDArray[np.uint8], closed[0, length:-length])


def compartment_mask(
    hu: Voxels,
    body: Mask,
    bone: Mask,
    spacing: Spacing,
    *,
    seam: Mask | None = None,
    fat_hu: float = FAT_HU,
    ball_mm: float = BALL_MM,
    wide_ball_mm: float = WIDE_BALL_MM,
) -> Mask:
    """Find what lies inside the fascia lata, bone left out.

    Parameters
    ----------
    hu : ndarray of float32, shape (Z, Y, X)
        CT in HU; square pixels.
    body, bone : ndarray of bool, shape (Z, Y, X)
        The patient, and the bones with their marrow.
    spacing : tuple of float
        Millimetres along (z, y, x).
    seam : ndarray of bool, shape (Z, Y, X), optional
        Where the skins of two legs touch.
    fat_hu, ball_mm, wide_ball_mm : float
        See `ct_tissues`.

    Returns
    -------
    ndarray of bool, shape (Z, Y, X)
        Muscles and what fills the seams between them.
    """
    pixel = spacing[1]
    seams = np.zeros_like(body) if seam is None else seam
    smooth, sharp = smoothed(hu, 5), smoothed(hu, 3)
    ground = _Ground.of(body, bone, seams, pixel, pad_mm=max(ball_mm, wide_ball_mm))
    share = _lean_share(ground, smooth >= fat_hu, wide_ball_mm)
    # 0 for a lean leg, 1 for one whose muscle is mostly fat.
    infiltration = float(np.interp(share, LEAN_SHARES, (1, 0)))
    least_hu = fat_hu - infiltration * INFILTRATED_STEP_HU
    radius = (ball_mm + infiltration * max(0.0, wide_ball_mm - ball_mm)) / pixel
    lean = ground.muscle((smooth if infiltration < 0.5 else sharp) >= least_hu)
    centres = np.zeros_like(lean)
    for z, plane in enumerate(lean):
        thick = _thick(plane, (1 - infiltration) * SEPTUM_MM / pixel) | ground.bone[z]
        centres[z] = inner_distance(~thick) > radius if thick.any() else True
    # The disk rolls on through neighbouring planes: the fat of the popliteal fossa and beside the rectum is one with
    # the subcutaneous fat, the fat between two muscles is not.
    parts = ndimage.label(centres)[0]
    rolling = np.zeros(parts.max() + 1, dtype=bool)
    rolling[np.unique(parts[~ground.inside | ground.seam])] = True
    # Fat that the picture cuts is subcutaneous too, as far as the disk fits through the cut.
    for edge in (parts[:, 0], parts[:, -1], parts[:, :, 0], parts[:, :, -1]):
        rolling[np.unique(edge)] = True
    rolling[0] = False
    rolled = rolling[parts]
    found: Mask = np.zeros_like(body)
    inner = ground.inner
    for z in map(int, np.flatnonzero(lean.any(axis=(1, 2)))):
        outside = inner_distance(~rolled[z]) <= radius if rolled[z].any() else rolled[z]
        allowed = ground.allowed[z][inner]
        thick = inner_distance(lean[z]) * pixel >= (1 - infiltration) * LEAST_MUSCLE_RADIUS_MM
        found[z] = _pieces_with(allowed & ~outside[inner], thick[inner], LEAST_MUSCLE_MM2 / pixel**2)
        # The median rounds corners off and moves a thin muscle's edge in: its rim is given back.
        rim = cv2.dilate(found[z].view(np.uint8), disk(RIM_MM / pixel)) > 0
        found[z] |= rim & (sharp[z] >= fat_hu) & allowed
    return found


@dataclass(frozen=True)
class _Ground:
    """What a disk rolls on: planes padded by what they hold at their edge, as a leg that the picture cuts goes on."""

    inside: Mask
    bone: Mask
    seam: Mask
    allowed: Mask
    pixel: float
    pad: int

    @classmethod
    def of(cls, body: Mask, bone: Mask, seam: Mask, pixel: float, pad_mm: float) -> _Ground:
        pad = int(np.ceil(pad_mm / pixel)) + 2
        inside, bones, seams = (np.stack([padded(plane, pad) for plane in mask]) for mask in (body, bone, seam))
        skin = np.stack([skin_depth(plane) for plane in inside]) * pixel <= SKIN_AND_FASCIA_MM
        return cls(inside, bones, seams, inside & ~skin & ~bones, pixel, pad)

    @property
    def inner(self) -> tuple[slice, slice]:
        """Where the picture lies in a padded plane."""
        return slice(self.pad, -self.pad), slice(self.pad, -self.pad)

    def muscle(self, lean: Mask) -> Mask:
        """Pad what may be muscle, and leave out skin, bone and the skin where legs touch."""
        found = np.stack([padded(plane, self.pad) for plane in lean]) & self.allowed
        for z in np.flatnonzero(self.seam.any(axis=(1, 2))):
            found[z] &= inner_distance(~self.seam[z]) * self.pixel > SKIN_AND_FASCIA_MM
        for z in np.flatnonzero(found.any(axis=(1, 2))):
            found[z] = _pieces_with(found[z], found[z], LEAST_MUSCLE_MM2 / self.pixel**2)
        return found


def _lean_share(ground: _Ground, lean: Mask, wide_ball_mm: float) -> float:
    """Share of muscle in what a wide disk leaves inside, the median over the planes."""
    radius = wide_ball_mm / ground.pixel
    shares = []
    for z, plane in enumerate(ground.muscle(lean)):
        if plane.any():
            centres = inner_distance(~(plane | ground.bone[z])) > radius
            outside = inner_distance(~centres) <= radius if centres.any() else centres
            inside = (ground.allowed[z] & ~outside)[ground.inner]
            if inside.any():
                shares.append(np.count_nonzero(plane[ground.inner]) / np.count_nonzero(inside))
    return float(np.median(shares)) if shares else 1.0


def _thick(mask: Mask, radius: float) -> Mask:
    """Leave what a disk of that radius covers, and what lies within a radius of it."""
    opened = cv2.morphologyEx(mask.view(np.uint8), cv2.MORPH_OPEN, disk(radius))
    return (cv2.dilate(opened, disk(radius)) > 0) & mask


def _pieces_with(mask: Mask, core: Mask, least: float) -> Mask:
    """Pieces of a plane that hold some of a core and have at least that many pixels."""
    n, parts, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    keep = np.zeros(n, dtype=bool)
    keep[np.unique(parts[core & mask])] = True
    keep &= stats[:, cv2.CC_STAT_AREA] >= least
    keep[0] = False
    return cast(Mask, keep[parts])


def _inner(bone: Mask) -> Mask:
    """Bone but for the outermost pixels of each plane, which are cortex seen in part."""
    return np.stack([skin_depth(plane) > 1 if plane.any() else plane for plane in bone])


def _gas(hu: Voxels, spacing: Spacing) -> Mask:
    """Air in the bowel or in a wound."""
    gas: Mask = hu < AIR_HU
    for z in np.flatnonzero(gas.any(axis=(1, 2))):
        gas[z] = _pieces_with(gas[z], gas[z], LEAST_GAS_MM2 / (spacing[1] * spacing[2]))
    return gas
