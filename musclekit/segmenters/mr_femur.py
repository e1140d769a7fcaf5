"""The femur in MR: the round spot near the middle of the compartment that moves least from plane to plane."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from musclekit.segmenters.mr_planes import Grey, Mask, Spacing, disk_mm

__all__ = ["femur"]

#: Cross-section of the marrow (fat bright) or of the whole bone (fat dark), from the shaft to the condyles.
BONE_MM2 = (40.0, 5000.0)

#: What a femur must look like at least: roundness times the share of its surroundings that is not fat.
BONE_SCORE = 0.4

#: What one mm of shift between neighbouring planes costs in the same score.
BONE_SHIFT_PRICE = 0.02
MAX_CORTEX_MM = 9.0

#: Cortex is darker than this part of muscle.
DARK_BONE = 0.75


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
    opening = disk_mm(1.0 if bright_fat else 3.0, spacing)
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
    rim = ndimage.binary_opening(rim | marrow, disk_mm(2.0, spacing)) & near
    inner = np.sqrt(marrow.sum() * spacing[1] * spacing[2] / np.pi)
    outer = np.sqrt((marrow.sum() + rim.sum()) * spacing[1] * spacing[2] / np.pi)
    if outer - inner < 2.0 and inner < 15:
        return near & (outside <= cortex_mm)
    filled: Mask = ndimage.binary_fill_holes(rim | marrow) & ~marrow
    return filled
