"""The five tissues of the thigh in MR, without training data: what `musclekit.segmenters.tissue` does with an MR.

Grey values alone fail on real MR: a surface coil makes the same fat three times brighter at the skin than inside, bone
is as dark as muscle in a fat image, and infiltrated muscle is nearly as bright as fat. So the steps are: even out the
brightness by the tissue that is bright; turn grey values into a share of fat; find the fascia, inside which fat may
belong to muscle; find the femur; and call fat inside the fascia intermuscular only where it is thicker than a streak.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from musclekit.image import Image
from musclekit.labels import label_set
from musclekit.segmenters.threshold import otsu_threshold

__all__ = ["even_brightness", "fat_is_bright", "fat_share", "femur", "mr_tissues", "muscle_compartment", "skin_depth"]

logger = logging.getLogger(__name__)

Spacing = tuple[float, float, float]
T = TypeVar("T", bound=np.generic)
Mask = NDArray[np.bool_]
Grey = NDArray[np.float32]

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

#: Air that reaches into a leg less than this wide is no air: it is bone at the edge of the picture, or a dark shade.
GAP_MM = 20.0

#: Where fat is dark it is at least this much darker than muscle, or brightness does not tell it.
MAX_FAT_LEVEL = 0.6

#: Contour search: rays, their length, and how far the radius may step from a ray to the next.
RAYS = 180
RAY_MM = 150
STEP_MM = 6
#: Price of a step of 1 mm, in mm2 of tissue on the wrong side.
STEP_PRICE = 3.0
#: Share of fat that speaks neither for the inside nor the outside of the fascia.
NEUTRAL_SHARE = 0.8

#: Cross-section of the marrow (fat bright) or of the whole bone (fat dark), from the shaft to the condyles.
BONE_MM2 = (40.0, 5000.0)
#: What a femur must look like at least: roundness times the share of its surroundings that is not fat.
BONE_SCORE = 0.4
#: What one mm of shift between neighbouring planes costs in the same score.
BONE_SHIFT_PRICE = 0.02
MAX_CORTEX_MM = 9.0
#: Cortex is darker than this part of muscle.
DARK_BONE = 0.75

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
        candidates = _each_plane(level, cv2.MORPH_OPEN, _disk(3.0, cell))
        reach = 25.0
    if not where.any():
        where = known
    top = _each_plane(np.where(where, candidates, 0).astype(np.float32), cv2.MORPH_DILATE, _disk(reach, cell))
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
    lean = _each_plane(((share < 0.5) & ~skin & (legs > 0)).astype(np.uint8), cv2.MORPH_OPEN, _disk(1.5, spacing)) > 0
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


def femur(
    share: Grey,
    relative: Grey,
    compartment: Mask,
    legs: NDArray[np.integer],
    spacing: Spacing,
    bright_fat: bool,
    *,
    cortex_mm: float = 5.0,
) -> tuple[Mask, Mask]:
    """Marrow and cortex of the femur.

    Where fat is bright the marrow is a round bright spot that lean tissue surrounds, and the cortex the dark rim about
    it; where fat is dark both are one round dark spot. Of the spots of each plane those are taken that look most like
    it and shift least from plane to plane.

    Parameters
    ----------
    share, relative, compartment, legs, spacing, bright_fat, cortex_mm
        As in `even_brightness`, `fat_share`, `muscle_compartment` and `mr_tissues`.

    Returns
    -------
    marrow, cortex : ndarray of bool, shape (Z, Y, X)
        Exclusive; empty in planes where no spot looks like a femur.
    """
    marrow = np.zeros(share.shape, dtype=np.bool_)
    cortex = np.zeros(share.shape, dtype=np.bool_)
    lean = relative[compartment & (share < 0.3)]
    dark = relative < DARK_BONE * float(np.median(lean)) if lean.size else np.zeros_like(compartment)
    opening = _disk(1.0 if bright_fat else 3.0, spacing)
    for number in np.unique(legs[legs > 0]):
        spots = []
        for z, plane in enumerate(compartment & (legs == number)):
            kinds = [plane & (share[z] > (0.5 if bright_fat else 0.7))]
            if bright_fat:
                # Marrow that is no fat, in the old and the young, is told by the dark cortex around it.
                rim = plane & dark[z]
                kinds.append(ndimage.binary_fill_holes(rim) & ~rim)
            candidates = [cv2.morphologyEx(kind.astype(np.uint8), cv2.MORPH_OPEN, opening) > 0 for kind in kinds]
            spots.append([spot for found in candidates for spot in _spots(found, share[z], plane, spacing)])
        for z, spot in enumerate(_steadiest(spots, spacing)):
            if spot is None:
                continue
            if bright_fat:
                marrow[z] |= spot.mask
                cortex[z] |= _rim(spot.mask, dark[z], compartment[z], spacing, cortex_mm)
            else:
                inner = ndimage.distance_transform_edt(spot.mask, sampling=spacing[1:]) > cortex_mm
                marrow[z] |= inner
                cortex[z] |= spot.mask & ~inner
    return marrow, cortex & ~marrow


@dataclass(frozen=True, eq=False)
class _Spot:
    """Something round in one plane that may be the femur."""

    mask: Mask
    score: float
    y_mm: float
    x_mm: float


def _spots(candidates: Mask, share: Grey, compartment: Mask, spacing: Spacing) -> list[_Spot]:
    """Round spots with little fat around them; the score is roundness times the lean part of the surroundings."""
    dy, dx = spacing[1:]
    count, numbered, stats, centres = cv2.connectedComponentsWithStats(candidates.astype(np.uint8), connectivity=4)
    margin_y, margin_x = int(5 / dy) + 1, int(5 / dx) + 1
    rows, columns = np.nonzero(compartment)
    found = []
    for k in range(1, count):
        left, top, width, height, pixels = (int(n) for n in stats[k])
        if not BONE_MM2[0] <= pixels * dy * dx <= BONE_MM2[1]:
            continue
        window = (
            slice(max(0, top - margin_y), top + height + margin_y),
            slice(max(0, left - margin_x), left + width + margin_x),
        )
        spot = ndimage.binary_fill_holes(np.pad(numbered[window] == k, 1))[1:-1, 1:-1]
        x, y = centres[k]
        spot_y, spot_x = np.nonzero(spot)
        reach = np.hypot((spot_y + window[0].start - y) * dy, (spot_x + window[1].start - x) * dx).max()
        roundness = len(spot_y) * dy * dx / (np.pi * (reach + 0.5 * max(dy, dx)) ** 2)
        outside = ndimage.distance_transform_edt(~spot, sampling=spacing[1:])
        around = (outside > 1.5) & (outside <= 4)
        lean = float(np.mean((share[window] < 0.5)[around] & compartment[window][around])) if around.any() else 0.0
        off_centre = np.hypot((y - rows.mean()) * dy, (x - columns.mean()) * dx)
        central = 1 - 0.5 * min(1.0, float(off_centre) / np.sqrt(len(rows) * dy * dx / np.pi))
        score = roundness * lean**2 * central
        if score >= BONE_SCORE * 0.5:
            mask = np.zeros(candidates.shape, dtype=np.bool_)
            mask[window] = spot
            found.append(_Spot(mask, float(score), float(y * dy), float(x * dx)))
    return found


def _steadiest(spots: list[list[_Spot]], spacing: Spacing) -> list[_Spot | None]:
    """Return one spot a plane, or none: the chain with the best sum of scores less the price of its shifts."""
    best: list[list[float]] = []
    came: list[list[int]] = []
    for z, here in enumerate(spots):
        # The last choice is none; it costs nothing to move from or to it.
        gains = [spot.score - 0.5 * BONE_SCORE for spot in here] + [0.0]
        if z == 0:
            best.append(gains)
            came.append([0] * len(gains))
            continue
        before = spots[z - 1]
        totals, origins = [], []
        for k, gain in enumerate(gains):
            reached = [
                value - (_shift_price(before[j], here[k], spacing) if k < len(here) and j < len(before) else 0.0)
                for j, value in enumerate(best[-1])
            ]
            origin = int(np.argmax(reached))
            totals.append(gain + reached[origin])
            origins.append(origin)
        best.append(totals)
        came.append(origins)
    chain: list[_Spot | None] = []
    k = int(np.argmax(best[-1]))
    for z in range(len(spots) - 1, -1, -1):
        chain.append(spots[z][k] if k < len(spots[z]) else None)
        k = came[z][k]
    return chain[::-1]


def _shift_price(first: _Spot, second: _Spot, spacing: Spacing) -> float:
    """Price of what a shift between neighbouring planes exceeds a tilt of 30 degrees by."""
    shift = float(np.hypot(first.y_mm - second.y_mm, first.x_mm - second.x_mm))
    return BONE_SHIFT_PRICE * max(0.0, shift - 0.6 * spacing[0])


def _rim(marrow: Mask, dark: Mask, compartment: Mask, spacing: Spacing, cortex_mm: float) -> Mask:
    """Return the dark rim about the marrow; where the image does not show it, a rim of `cortex_mm`."""
    outside = ndimage.distance_transform_edt(~marrow, sampling=spacing[1:])
    near = (outside > 0) & (outside <= MAX_CORTEX_MM) & compartment
    dark = near & (dark | (outside <= 1.5))
    numbered, _ = ndimage.label(dark)
    touching = np.unique(numbered[(outside <= 1.5) & dark])
    rim = np.isin(numbered, touching[touching > 0])
    rim = ndimage.binary_opening(rim | marrow, _disk(2.0, spacing)) & near
    inner = np.sqrt(marrow.sum() * spacing[1] * spacing[2] / np.pi)
    outer = np.sqrt((marrow.sum() + rim.sum()) * spacing[1] * spacing[2] / np.pi)
    if outer - inner < 2.0 and inner < 15:
        return near & (outside <= cortex_mm)
    filled: Mask = ndimage.binary_fill_holes(rim | marrow) & ~marrow
    return filled


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


def _disk(radius_mm: float, spacing: Spacing) -> NDArray[np.uint8]:
    """Disk of that radius in the plane, at least the voxel itself."""
    ny, nx = int(radius_mm / spacing[1]), int(radius_mm / spacing[2])
    y, x = np.mgrid[-ny : ny + 1, -nx : nx + 1]
    inside: Mask = np.hypot(y * spacing[1], x * spacing[2]) <= radius_mm * 1.0001
    return inside.astype(np.uint8)


def _each_plane(volume: NDArray[T], operation: int, element: NDArray[np.uint8]) -> NDArray[T]:
    """Grey morphology of each plane."""
    return np.stack([cv2.morphologyEx(plane, operation, element) for plane in volume])


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
    core = _each_plane(pure.astype(np.uint8), cv2.MORPH_OPEN, _disk(streak_mm / 2, spacing))
    near = _each_plane(core, cv2.MORPH_DILATE, _disk(streak_mm, spacing)) > 0
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
    disk = _disk(GAP_MM / 2, spacing)
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
