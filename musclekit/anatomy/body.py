"""Body mask: what in a scan is the patient, rather than air, table, calibration phantom or pad."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from musclekit.checks import AIR_HU
from musclekit.errors import SegmentationError, VoxelError
from musclekit.image import Contrast, Image

__all__ = ["body_mask", "mr_thresholds"]

Mask = NDArray[np.uint8]

#: A piece of a slice smaller than this is not a leg (Makrogiannis' mid-thigh pipeline).
MIN_AREA_MM2 = 500.0
#: A piece longer than this many times its width, or filling less than this share of its hull, is a table.
MAX_ASPECT = 4.0
MIN_SOLIDITY = 0.5
#: Half the thickness below which a piece is a board, a rod, a finger or a cable.
MIN_HALF_THICKNESS_MM = 8.0
#: A piece inside the field of view that is thinner than this share of the thickest is a hand or a pad.
MIN_RELATIVE_THICKNESS = 0.4

#: Half the thickness of what is cut off where it hangs on the body: QCT phantoms are 25 to 30 mm thick.
SLAB_HALF_THICKNESS_MM = 16.0
#: Corners of the body within this many times that radius of its thick part stay: a right angle reaches 1.41.
CORNER_REACH = 1.4
#: What hangs on the body is cut off only if it is at least this large and reaches this much further.
MIN_SLAB_AREA_MM2 = 300.0
MIN_SLAB_REACH_MM = 20.0
#: Two ends of one board lie this close to one parabola.
MAX_SLAB_BEND_MM = 3.0
#: Beyond a board there is next to no body, and what a leg hides of it is at most this share of the body.
MAX_BEYOND_SLAB = 0.05
MAX_SLAB_SHARE = 0.25

#: Body in MR is brighter than this share of the bright end (99th percentile) ...
MR_SHARE = 0.1
#: ... or than this one, where everything outside the body has been set to zero.
MASKED_MR_SHARE = 0.02
#: Nor is what lies below so many standard deviations of the noise.
NOISE_SIGMAS = 2.5
#: Noise is told by the darkest tenth of the blocks of so many pixels a side, in about so many slices. Deviation by mean
#: of noise alone is 0.52.
NOISE_BLOCK, NOISE_SLICES, DARKEST = 8, 16, 0.1
RAYLEIGH_RATIO = (0.42, 0.62)
MASKED_ZERO_SHARE = 0.95
#: MR: gaps narrower than twice this are bridged; more where the mask took dark fat with it and muscles stand apart.
CLOSING_MM = 4.0
MASKED_CLOSING_MM = 10.0
#: MR: pieces smaller than this are noise.
MIN_SPECK_MM2 = 12.0
#: MR: ghosts, skin markers and cables thinner than twice this go.
MR_OPENING_MM = 5.0
#: MR: bone cut by the border of the image leaves a notch at most this wide and large, and this convex.
MAX_NOTCH_MM = 35.0
MAX_NOTCH_MM2 = 700.0
MIN_NOTCH_SOLIDITY = 0.88

#: A hole that lies for this share of its area next to outside air is a gap between legs, not the inside of a body.
OPEN_SHARE = 0.5
MIN_GAP_MM2 = 20.0
#: A piece of air smaller than this share of the largest may be gas in a bowel that the border of the image cuts.
MIN_OPEN_SHARE = 0.3
#: Slices further apart than this say nothing of one another's holes.
MAX_GAP_SPACING_MM = 10.0


def body_mask(image: Image) -> NDArray[np.bool_]:
    """Find the patient.

    CT: above -200 HU. MR: above a share of the bright end, see `mr_thresholds`. Then, slice by slice: a 3x3 opening,
    holes filled, pieces under 500 mm2 and pieces shaped like a table or a hand dropped, and boards, phantoms and pads
    that touch the skin cut off. Air between the legs stays outside also where skin closes around it in a slice. Skin
    is part of the body.

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
    Threshold and smallest area are those of Makrogiannis' mid-thigh pipeline; the rules on shape are ours. A crop
    that cuts through the body counts as if the body went on beyond it.
    """
    low, high = float(image.voxels.min()), float(image.voxels.max())
    if low == high:
        raise VoxelError(f"the image is constant: every voxel is {low:g}")
    is_ct = image.contrast is Contrast.CT
    if is_ct and high < AIR_HU:
        raise VoxelError(f"the image holds nothing but air: no voxel above {AIR_HU:g} HU (highest {high:g})")
    thresholds = np.full(image.grid.shape[0], AIR_HU) if is_ct else mr_thresholds(image)
    closing_mm = 0.0 if is_ct else MASKED_CLOSING_MM if _is_masked(image) else CLOSING_MM
    pixel_mm = float(np.sqrt(image.grid.spacing[1] * image.grid.spacing[2]))
    outline = np.zeros(image.grid.shape, dtype=np.uint8)
    filled = np.zeros(image.grid.shape, dtype=np.uint8)
    for z, threshold in enumerate(thresholds):
        raw = (image.voxels[z] > threshold).view(np.uint8)
        if raw.any():
            outline[z], filled[z] = _clean_slice(raw, pixel_mm, closing_mm)
    if image.grid.spacing[0] <= MAX_GAP_SPACING_MM:
        _reopen_gaps(outline, filled, pixel_mm)
    body = filled.view(np.bool_)
    if not body.any():
        raise SegmentationError(
            f"no body found: no piece of a slice above the threshold is {MIN_AREA_MM2:g} mm2 large and shaped like a "
            "limb; check the contrast and the voxel spacing of the image"
        )
    return body


def mr_thresholds(image: Image) -> NDArray[np.float64]:
    """Grey value above which MR is body, one for each slice.

    Otsu's threshold parts fat from muscle as readily as body from air; a share of the bright end does not. It is
    taken per slice, since coils fade towards the ends of a scan, but never below a third of what it is for the whole
    scan, since a slice of air has a bright end too. Where all air has been set to zero the share is smaller. Where
    noise in the air is brighter than that share, what counts is the noise.

    Returns
    -------
    ndarray of float, shape (Z,)
    """
    sample = image.voxels[:, ::2, ::2]
    whole = float(np.percentile(sample, 99))
    share = MASKED_MR_SHARE if _is_masked(image) else MR_SHARE
    per_slice = np.percentile(sample, 99, axis=(1, 2)).astype(np.float64)
    return np.maximum(share * np.clip(per_slice, whole / 3, whole), NOISE_SIGMAS * _noise(image))


def _noise(image: Image) -> float:
    """Tell the standard deviation of the noise of an MR by the air in view; 0 where none is seen.

    Noise alone has a Rayleigh distribution: a mean of 1.25 and a deviation of 0.66 standard deviations. Tissue of any
    use is less noisy for its brightness, so that it is not taken for air where no air is in view.
    """
    rows, columns = (side // NOISE_BLOCK * NOISE_BLOCK for side in image.grid.shape[1:])
    some = image.voxels[:: max(1, len(image.voxels) // NOISE_SLICES), :rows, :columns]
    blocks = some.reshape(len(some), rows // NOISE_BLOCK, NOISE_BLOCK, columns // NOISE_BLOCK, NOISE_BLOCK)
    means, deviations = blocks.mean(axis=(2, 4)).ravel(), blocks.std(axis=(2, 4)).ravel()
    if not means.size:
        return 0.0
    darkest = means <= np.quantile(means, DARKEST)
    level, deviation = float(np.median(means[darkest])), float(np.median(deviations[darkest]))
    is_air = level > 0 and RAYLEIGH_RATIO[0] < deviation / level < RAYLEIGH_RATIO[1]
    return level / float(np.sqrt(np.pi / 2)) if is_air else 0.0


def _is_masked(image: Image) -> bool:
    """Whether the air of an MR has been set to zero."""
    sample = image.voxels[:, ::2, ::2]
    dark = np.count_nonzero(sample < MR_SHARE * np.percentile(sample, 99))
    return bool(np.count_nonzero(sample == 0) > MASKED_ZERO_SHARE * dark)


def _disk(radius_px: float) -> Mask:
    size = 2 * max(1, round(radius_px)) + 1
    return cast(Mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))


def _morph(mask: Mask, operation: int, element: Mask) -> Mask:
    return cast(Mask, cv2.morphologyEx(mask, operation, element))


def _fill_holes(mask: Mask) -> Mask:
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cast(Mask, cv2.drawContours(mask.copy(), contours, -1, 1, cv2.FILLED))


def _half_thickness(mask: Mask) -> NDArray[np.float32]:
    """Distance of each pixel to the nearest one outside, in pixels."""
    return cast(NDArray[np.float32], cv2.distanceTransform(mask, cv2.DIST_L2, 5))


def _clean_slice(raw: Mask, pixel_mm: float, closing_mm: float) -> tuple[Mask, Mask]:
    """Limbs of one slice: as they are, and with their holes filled. Closing 0 stands for CT."""
    # The border is repeated outwards: a limb cut by the field of view goes on beyond it.
    pad = round(2 * SLAB_HALF_THICKNESS_MM / pixel_mm) + 2
    y, x, height, width = _bounding_box(raw)
    inside = (slice(y, y + height), slice(x, x + width))
    # Only sides that lie on the border of the image are repeated; elsewhere there is air.
    at = (y == 0, y + height == raw.shape[0], x == 0, x + width == raw.shape[1])
    # In MR an opening would tear the thin rim of bright fat that alone holds a fat image's dark muscle.
    clean = _without_specks(raw, pixel_mm) if closing_mm > 0 else _morph(raw, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    mask = _pad(clean[inside], pad, at)
    inner = (slice(pad, pad + height), slice(pad, pad + width))
    if closing_mm > 0:
        mask = _morph(mask, cv2.MORPH_CLOSE, _disk(closing_mm / pixel_mm))
        mask[inner] = _fill_notches(mask[inner], pixel_mm, at)
        mask = _pad(_morph(_fill_holes(mask), cv2.MORPH_OPEN, _disk(MR_OPENING_MM / pixel_mm))[inner], pad, at)
    filled = _cut_slabs(_fill_holes(mask), pixel_mm)
    filled[inner] &= _limbs(filled, inner, pixel_mm)
    outlines = np.zeros((2, *raw.shape), dtype=np.uint8)
    outlines[0][inside] = (filled & mask)[inner]
    outlines[1][inside] = filled[inner]
    return outlines[0], outlines[1]


def _without_specks(mask: Mask, pixel_mm: float) -> Mask:
    """Drop the bright specks of noisy air."""
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    is_large: NDArray[np.bool_] = stats[:, cv2.CC_STAT_AREA] * pixel_mm**2 >= MIN_SPECK_MM2
    is_large[0] = False
    return cast(Mask, is_large[pieces].astype(np.uint8))


def _bounding_box(mask: Mask) -> tuple[int, int, int, int]:
    x, y, width, height = cv2.boundingRect(mask)
    return y, x, height, width


def _pad(mask: Mask, pad: int, at_border: tuple[bool, bool, bool, bool]) -> Mask:
    """Surround with air, but go on beyond the sides (top, bottom, left, right) that lie on the image's border."""
    padded = np.pad(mask, pad, mode="edge")
    top, bottom, left, right = at_border
    if not top:
        padded[:pad] = 0
    if not bottom:
        padded[-pad:] = 0
    if not left:
        padded[:, :pad] = 0
    if not right:
        padded[:, -pad:] = 0
    return padded


def _fill_notches(mask: Mask, pixel_mm: float, at_border: tuple[bool, bool, bool, bool]) -> Mask:
    """Fill bone that the border of the image cuts through: dark in MR, so no hole but a notch, small and convex."""
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
    result = mask.copy()
    top, bottom, left, right = at_border
    for i in range(1, count):
        x, y, width, height, area = (int(n) for n in stats[i])
        if max(width, height) * pixel_mm > MAX_NOTCH_MM or area * pixel_mm**2 > MAX_NOTCH_MM2:
            continue
        sides = (y == 0, y + height == mask.shape[0], x == 0, x + width == mask.shape[1])
        # A corner of the image belongs to no bone in particular, and a box of the mask is not the image's border.
        if sum(sides) != 1 or not any(a and b for a, b in zip(sides, (top, bottom, left, right), strict=True)):
            continue
        window = (slice(y, y + height), slice(x, x + width))
        notch = (pieces[window] == i).astype(np.uint8)
        if _solidity(notch) >= MIN_NOTCH_SOLIDITY:
            result[window] |= notch
    return result


def _solidity(mask: Mask) -> float:
    """Share of the convex hull that is filled, counting pixels as squares."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = np.zeros_like(mask)
    cv2.fillConvexPoly(hull, cv2.convexHull(np.concatenate(contours)), 1)
    return float(np.count_nonzero(mask)) / max(1, int(np.count_nonzero(hull)))


def _cut_slabs(mask: Mask, pixel_mm: float) -> Mask:
    """Cut off what is thin, large and reaches far from the thick part of the body it hangs on."""
    radius = SLAB_HALF_THICKNESS_MM / pixel_mm
    core = (_half_thickness(mask) > radius).astype(np.uint8)
    if not core.any():
        return mask
    # An opening, let grow a little further than its disk so that corners of the body stay.
    reach = _half_thickness(1 - core)
    thin = (mask > 0) & (reach > CORNER_REACH * radius)
    if not (thin & (reach >= CORNER_REACH * radius + MIN_SLAB_REACH_MM / pixel_mm)).any():
        return mask
    # A piece with no thick part of its own hangs on nothing: whether it is a limb is asked later.
    count, whole = cv2.connectedComponents(mask, connectivity=8)
    hangs = np.bincount(whole[core > 0], minlength=count) > 0
    thin &= hangs[whole]
    if not thin.any():
        return mask
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(thin.astype(np.uint8), connectivity=8)
    cut = np.zeros(count, dtype=np.bool_)
    for i in range(1, count):
        x, y, width, height, area = (int(n) for n in stats[i])
        if area * pixel_mm**2 < MIN_SLAB_AREA_MM2:
            continue
        window = (slice(y, y + height), slice(x, x + width))
        far = float(reach[window][pieces[window] == i].max()) - CORNER_REACH * radius
        cut[i] = far * pixel_mm >= MIN_SLAB_REACH_MM
    if not cut.any():
        return mask
    slabs = cut[pieces]
    between = _between_ends(slabs, mask > 0, pixel_mm)
    result = mask.copy()
    result[slabs | between] = 0
    # The stumps that the corner rule left beside the ends go with them.
    return _morph(result, cv2.MORPH_OPEN, _disk(MIN_HALF_THICKNESS_MM / pixel_mm)) if between.any() else result


def _between_ends(slabs: NDArray[np.bool_], body: NDArray[np.bool_], pixel_mm: float) -> NDArray[np.bool_]:
    """Find what joins the two free ends of a board that a leg lies on.

    The leg hides the board's upper face where it rests on it. If both ends stick out, a parabola through their
    faces, column by column, tells where the faces run between them.
    """
    nothing = np.zeros_like(slabs)
    columns = np.flatnonzero(slabs.any(axis=0))
    gaps = np.diff(columns)
    if gaps.max(initial=0) < 2:
        return nothing
    top = slabs.argmax(axis=0)[columns]
    bottom = slabs.shape[0] - 1 - slabs[::-1].argmax(axis=0)[columns]
    # The ends of the wings are round or torn: the faces are taken where the board has its full thickness.
    thickness = bottom - top + 1
    whole = thickness >= 0.8 * np.median(thickness)
    if np.median(thickness) * pixel_mm > 2.2 * SLAB_HALF_THICKNESS_MM or np.count_nonzero(whole) < 8:
        return nothing
    every = np.arange(int(columns[0]), int(columns[-1]) + 1)
    upper, lower = (np.polynomial.Polynomial.fit(columns[whole], face[whole], 2) for face in (top, bottom))
    bend = max(float(np.abs(fit(columns) - face)[whole].mean()) for fit, face in ((upper, top), (lower, bottom)))
    y = np.arange(slabs.shape[0])[:, None]
    board = (y >= upper(every) - 0.5) & (y <= lower(every) + 1.5)
    # A board lies on the outside: body on one side of it, air on the other; and it is small beside the body.
    hidden = body[:, every] & ~slabs[:, every]
    above, below = (
        np.count_nonzero(hidden & (y < upper(every) - 0.5)),
        np.count_nonzero(hidden & (y > lower(every) + 1.5)),
    )
    is_outside = min(above, below) <= MAX_BEYOND_SLAB * max(above, below)
    is_small = np.count_nonzero(hidden & board) <= MAX_SLAB_SHARE * np.count_nonzero(body)
    if bend * pixel_mm > MAX_SLAB_BEND_MM or not is_outside or not is_small:
        return nothing
    nothing[:, every] = board
    return nothing


def _limbs(mask: Mask, inner: tuple[slice, slice], pixel_mm: float) -> Mask:
    """Pieces, within the image proper, that are large, thick and compact enough to be a limb."""
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    depth = _half_thickness(mask)
    area_inside = np.bincount(pieces[inner].reshape(-1), minlength=count) * pixel_mm**2
    goes_on = stats[:, cv2.CC_STAT_AREA] * pixel_mm**2 > area_inside + 0.5 * pixel_mm**2
    windows = [
        (slice(y, y + height), slice(x, x + width))
        for x, y, width, height in stats[:, : cv2.CC_STAT_HEIGHT + 1].tolist()
    ]
    thickness = np.array([0.0, *(float(depth[windows[i]][pieces[windows[i]] == i].max()) for i in range(1, count))])
    keep = np.zeros(count, dtype=np.bool_)
    for i in range(1, count):
        if area_inside[i] < MIN_AREA_MM2 or thickness[i] * pixel_mm < MIN_HALF_THICKNESS_MM:
            continue
        if not goes_on[i] and thickness[i] < MIN_RELATIVE_THICKNESS * thickness.max():
            continue
        piece = (pieces[windows[i]] == i).astype(np.uint8)
        contours, _ = cv2.findContours(piece, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        sides = cv2.minAreaRect(np.concatenate(contours))[1]
        keep[i] = max(sides) <= MAX_ASPECT * max(1.0, min(sides)) and _solidity(piece) >= MIN_SOLIDITY
    return cast(Mask, keep[pieces[inner]].astype(np.uint8))


def _reopen_gaps(outline: Mask, filled: Mask, pixel_mm: float) -> None:
    """Take out of `filled`, in place, the holes through which outside air runs on along the limb.

    Where thighs touch in front and behind they close, in one slice, round air that is open in the next. Gas in the
    bowel and dark bone are not.
    """
    planes = len(filled)
    holes = filled & (1 - outline)
    with_holes = holes.reshape(planes, -1).max(axis=1)
    reopened = np.zeros_like(filled)
    for order in (range(1, planes), range(planes - 2, -1, -1)):
        for z in order:
            before = z - order.step
            if not with_holes[z] or not filled[before].any():
                continue
            open_air = _open_air(filled[before]) | reopened[before]
            count, pieces, stats, _ = cv2.connectedComponentsWithStats(holes[z], connectivity=4)
            area = stats[:, cv2.CC_STAT_AREA]
            is_open = np.bincount(pieces[open_air > 0], minlength=count) >= OPEN_SHARE * area
            is_open &= area * pixel_mm**2 >= MIN_GAP_MM2
            is_open[0] = False
            reopened[z] |= is_open[pieces]
            filled[z][is_open[pieces]] = 0


def _open_air(filled: Mask) -> Mask:
    """Air outside the body; not the gas in a bowel that the border of the image cuts through."""
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(1 - filled, connectivity=4)
    area = stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    area[0] = 0
    is_large: NDArray[np.bool_] = area >= MIN_OPEN_SHARE * max(1.0, float(area.max()))
    return cast(Mask, is_large[pieces].astype(np.uint8))
