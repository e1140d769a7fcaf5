"""Left and right: one leg or two in a scan, taken apart also where the thighs touch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from musclekit.errors import GeometryError, SegmentationError
from musclekit.image import Contrast, Grid, Image
from musclekit.labels import Side

__all__ = ["Leg", "infer_side", "side_by_position", "split_legs"]

#: A leg whose middle lies at least this far from the middle of the scanner lay on one side of it; and the position of a
#: corner that is none.
MIN_FROM_MIDDLE_MM, NO_POSITION_MM = 50.0, 1e-3
#: Shapes of lobes are judged on pixels of this size.
COARSE_MM = 3.0
#: How far a body that the border of the image cuts through is taken to go on.
BEYOND_MM = 36.0
#: Levels of thickness, as shares of the thickest, at which a slice is looked at for lobes.
LEVELS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
#: A lobe is one when the waist is at most this share of its half thickness, and that is at least this.
WAIST = 0.82
MIN_LOBE_MM = 18.0
#: Two shafts of one slice: smallest and largest area, distance apart, and how unlike in size they may be.
SHAFT_HU = 300.0
SHAFT_AREA_MM2 = (180.0, 1600.0)
MIN_SHAFT_DISTANCE_MM = 100.0
MIN_SHAFT_RATIO = 0.5
#: Where each side of the midline holds this share of the slice, a scan shows two legs.
MIN_SECOND_SHARE = 0.33
#: Share of the slices that must show two legs, for a scan to show two.
MIN_TWO_SHARE = 0.2
#: A cut that parts a leg from a piece of the other crosses at most this much flesh.
MAX_CUT_MM = 30.0
#: A single leg's side is told from the other leg where that has this share of its area in as many slices, and lies
#: on the same side in this share of them.
MIN_OTHER_SHARE = 0.02
MIN_OTHER_SLICES = 3
SAME_SIDE_SHARE = 0.9
#: How much dearer bone is to cut than flesh.
BONE_COST = 4.0
#: The cut stays this close to the midline.
CUT_REACH_MM = 45.0
#: Cost of a pixel that far from the midline; flesh costs 1. The midline of a pair is known better.
MIDLINE_PULL = 0.2
PAIR_PULL = 1.0
#: Skin between thighs differs by this from what lies this far beside it: HU, or share of the bright end of MR.
SKIN_HU = 60.0
SKIN_SHARE = 0.25
SKIN_REACH_MM = 6.0
#: A line of skin at the border is this long, costs at most this share of its length, and is seen in as many slices.
MIN_SKIN_MM = 60.0
MAX_SKIN_COST = 0.35
MIN_SKIN_SLICES = 5


@dataclass(frozen=True, eq=False)
class Leg:
    """One leg.

    Parameters
    ----------
    side : {"left", "right"} or None
        Whose it is from the patient's own view; None where the scan shows one leg and the anatomy does not tell.
    mask : ndarray of bool, shape (Z, Y, X)
        Its voxels, on the grid of the image.
    """

    side: Side | None
    mask: NDArray[np.bool_]

    @property
    def cut_slices(self) -> NDArray[np.bool_]:
        """Slices in which the border of the image cuts through the leg; shape (Z,)."""
        rim = np.zeros(self.mask.shape[1:], dtype=np.bool_)
        rim[[0, -1]] = rim[:, [0, -1]] = True
        return cast(NDArray[np.bool_], self.mask[:, rim].any(axis=1))


def split_legs(image: Image, body: NDArray[np.bool_], *, side: Side | None = None) -> tuple[Leg, ...]:
    """Take the body apart into legs.

    Slices in which the body has two lobes side by side, or two femoral shafts (CT), or a line of skin from front to
    back near a border of the image, say where the midline runs; it is interpolated between them. Each slice is then
    cut along the path from front to back, near the midline, that crosses the least body, and there rather the skin
    between the thighs than what lies beside it.

    Parameters
    ----------
    image : Image
        The scan.
    body : ndarray of bool, shape (Z, Y, X)
        Its body mask, see `body_mask`.
    side : {"left", "right"}, optional
        Which leg, where the scan shows one and it is known.

    Returns
    -------
    tuple of Leg
        One leg, or two with the right one first. Of two, world x says which is which; for one see `infer_side`. A
        part of the other leg at the border of the image is no leg, and belongs to none.

    Raises
    ------
    GeometryError
        If image and mask differ in shape.
    SegmentationError
        If the body mask is empty.

    Notes
    -----
    The steps are those of Yang et al. (CT domain adaptation), who leave the rule for touching thighs open: there we
    cut along a path of least cost rather than by the distance to the femurs, which needs no femur in MR and follows
    the skin.
    """
    if body.shape != image.grid.shape:
        raise GeometryError(f"the body mask has shape {body.shape}, the image {image.grid.shape} (z, y, x)")
    if not body.any():
        raise SegmentationError("no leg found: the body mask is empty")
    # Work with columns along the patient's left-right axis, whichever array axis that is.
    across = 2 if abs(image.grid.direction[0, 2]) >= abs(image.grid.direction[0, 1]) else 1
    voxels, spacing = image.voxels, image.grid.spacing
    if across == 1:
        voxels, body, spacing = voxels.swapaxes(1, 2), body.swapaxes(1, 2), (spacing[0], spacing[2], spacing[1])
    masks = _split(voxels, body, spacing, image.contrast is Contrast.CT)
    if across == 1:
        masks = [mask.swapaxes(1, 2) for mask in masks]
    masks = [np.ascontiguousarray(mask) for mask in masks]
    if len(masks) == 1:
        whole = body if across == 2 else body.swapaxes(1, 2)
        return (Leg(side or infer_side(image.grid, whole, masks[0]), masks[0]),)
    x = [float(image.grid.world(_centroid(mask))[0]) for mask in masks]
    right = int(np.argmax(x))
    return Leg("right", masks[right]), Leg("left", masks[1 - right])


def infer_side(grid: Grid, body: NDArray[np.bool_], leg: NDArray[np.bool_]) -> Side | None:
    """Tell the side of a single leg from the part of the other leg beside it.

    A crop round one leg often shows, at its inner border, a part of the other. Where that lies in at least three
    slices, and in nine of ten on the same side, the leg is the one on the other side. Nothing else is used: the femur
    lies in the middle of a cropped thigh as often as not, and a scanner's world x says where the table stood (a guess
    by it is `side_by_position`).

    Parameters
    ----------
    grid : Grid
        Grid of the masks.
    body : ndarray of bool, shape (Z, Y, X)
        See `body_mask`.
    leg : ndarray of bool, shape (Z, Y, X)
        See `split_legs`.

    Returns
    -------
    {"left", "right"} or None
        None where too little of the other leg is in view.

    Raises
    ------
    GeometryError
        If a mask has another shape than the grid.
    """
    for what, mask in (("body", body), ("leg", leg)):
        if mask.shape != grid.shape:
            raise GeometryError(f"the {what} mask has shape {mask.shape}, its grid {grid.shape} (z, y, x)")
    other = body & ~leg
    x_of = grid.affine[0, :3]
    to_the_right = []
    for z in range(len(leg)):
        own_area, other_area = int(leg[z].sum()), int(other[z].sum())
        if own_area and other_area >= MIN_OTHER_SHARE * own_area:
            own_centre, other_centre = _centroid(leg[z : z + 1]), _centroid(other[z : z + 1])
            to_the_right.append(bool((own_centre - other_centre) @ x_of > 0))
    if len(to_the_right) < MIN_OTHER_SLICES:
        return None
    share = float(np.mean(to_the_right))
    return "right" if share >= SAME_SIDE_SHARE else "left" if share <= 1 - SAME_SIDE_SHARE else None


def side_by_position(grid: Grid, leg: NDArray[np.bool_]) -> Side | None:
    """Guess the side of a single leg by where it lay in the scanner.

    People lie in the middle of the table: a leg well to one side of the middle of the scanner is that of this side.
    It is a guess and no more: wrong where somebody lay askew, or a file was cropped without its origin being kept.

    Parameters
    ----------
    grid : Grid
        Grid of the scan.
    leg : ndarray of bool, shape (Z, Y, X)
        See `split_legs`.

    Returns
    -------
    {"left", "right"} or None
        None where the leg lies less than 50 mm from the middle, and where a corner of the grid lies at 0, 0, 0, as
        that of a file does which knows of no position.

    Raises
    ------
    GeometryError
        If the mask has another shape than the grid.
    """
    if leg.shape != grid.shape:
        raise GeometryError(f"the leg mask has shape {leg.shape}, its grid {grid.shape} (z, y, x)")
    if not leg.any() or np.any(np.abs(grid.corners()).max(axis=1) < NO_POSITION_MM):
        return None
    x = float(grid.world(_centroid(leg))[0])
    if abs(x) < MIN_FROM_MIDDLE_MM:
        return None
    return "right" if x > 0 else "left"


def _centroid(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean index (z, y, x) of a mask."""
    rows = mask.sum(axis=2, dtype=np.int64)
    profiles = (rows.sum(axis=1), rows.sum(axis=0), mask.sum(axis=0, dtype=np.int64).sum(axis=0))
    return np.array([np.average(np.arange(len(profile)), weights=profile) for profile in profiles])


def _split(
    voxels: NDArray[np.float32], body: NDArray[np.bool_], spacing: tuple[float, float, float], is_ct: bool
) -> list[NDArray[np.bool_]]:
    slices = np.flatnonzero(body.any(axis=(1, 2)))
    pixel_mm = float(np.sqrt(spacing[1] * spacing[2]))
    middles = np.full(len(body), np.nan)
    for z in slices:
        middle = _middle_of_lobes(body[z].view(np.uint8), pixel_mm)
        if middle is None and is_ct:
            middle = _middle_of_shafts(voxels[z], body[z], pixel_mm)
        if middle is not None:
            middles[z] = middle
    if np.isfinite(middles).sum() < MIN_SKIN_SLICES:
        at_border = _middles_at_border(voxels[slices], body[slices], pixel_mm, is_ct)
        if np.isfinite(at_border).any():
            middles[slices] = at_border
    seen = np.flatnonzero(np.isfinite(middles))
    if not len(seen):
        return [_largest_pieces(body)]
    columns = np.arange(body.shape[2])
    mass = body.sum(axis=1, dtype=np.int32)
    lower = np.array([mass[z][columns < middles[z]].sum() for z in seen]) / mass[seen].sum(axis=1)
    is_pair = np.minimum(lower, 1 - lower) >= MIN_SECOND_SHARE
    two = int(is_pair.sum()) >= max(1, MIN_TWO_SHARE * len(slices))
    if two:
        # Slices with a small second part say nothing of the midline of a pair.
        seen = seen[is_pair]
    track = np.interp(slices, seen, middles[seen])
    cut = _cut(voxels[slices], body[slices], track, pixel_mm, is_ct, pull=PAIR_PULL if two else MIDLINE_PULL)
    below = cut.below
    if two:
        low, high = np.zeros_like(body), np.zeros_like(body)
        low[slices] = body[slices] & below
        high[slices] = body[slices] & ~below
        return [_largest_pieces(low), _largest_pieces(high)]
    # Part of another leg is cut off where the cut is clear, from the slices that showed it outwards.
    is_clear = (cut.flesh_mm <= MAX_CUT_MM) | (cut.flesh_mm <= MAX_SKIN_COST * cut.length_mm)
    chosen = _reached(np.isin(slices, seen), is_clear)
    at = slices[chosen]
    low, high = body[at] & below[chosen], body[at] & ~below[chosen]
    main = body.copy()
    main[at] = low if low.sum() >= high.sum() else high
    return [_largest_pieces(main)]


def _reached(seeds: NDArray[np.bool_], allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which slices belong to a run of allowed ones that holds a seed."""
    count, runs = cv2.connectedComponents(allowed.astype(np.uint8)[:, None], connectivity=4)
    holds = np.zeros(count, dtype=np.bool_)
    holds[runs[:, 0][seeds & allowed]] = True
    holds[0] = False
    return cast(NDArray[np.bool_], holds[runs[:, 0]])


def _largest_pieces(body: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Largest piece of each slice: slivers of another leg and hands are none."""
    result = np.zeros_like(body)
    for z in range(body.shape[0]):
        x, y, width, height = cv2.boundingRect(body[z].view(np.uint8))
        box = (z, slice(y, y + height), slice(x, x + width))
        if width:
            _, pieces, stats, _ = cv2.connectedComponentsWithStats(body[box].view(np.uint8), connectivity=8)
            result[box] = pieces == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return result


def _middle_of_lobes(mask: NDArray[np.uint8], pixel_mm: float) -> float | None:
    """Column between two lobes that lie side by side, or None where there is one.

    Lobes are the parts into which a slice falls when what is thinner than some level is taken away.
    """
    step = max(1, round(COARSE_MM / pixel_mm))
    coarse = mask[step // 2 :: step, step // 2 :: step]
    pad = max(1, round(BEYOND_MM / (step * pixel_mm)))
    # A limb cut by the side of the image goes on there; air all round would make a sliver of every cut leg.
    depth = cv2.distanceTransform(np.pad(np.pad(coarse, pad, mode="edge"), 1), cv2.DIST_L2, 5) * (step * pixel_mm)
    deepest = float(depth.max())
    if deepest < MIN_LOBE_MM:
        return None
    for level in LEVELS:
        waist = level * deepest
        count, parts, stats, centres = cv2.connectedComponentsWithStats(
            (depth > waist).astype(np.uint8), connectivity=4
        )
        if count < 3:
            continue
        thickness = np.zeros(count)
        for i in range(1, count):
            x, y, width, height = (int(n) for n in stats[i, :4])
            window = (slice(y, y + height), slice(x, x + width))
            thickness[i] = depth[window][parts[window] == i].max()
        is_lobe = (thickness * WAIST >= waist) & (thickness >= MIN_LOBE_MM)
        is_lobe[0] = False
        lobes = np.flatnonzero(is_lobe)
        if len(lobes) < 2:
            continue
        first, second = lobes[np.argsort(-thickness[lobes], kind="stable")[:2]]
        dx, dy = centres[second] - centres[first]
        if abs(dx) < abs(dy):
            continue
        # Where circles of these radii touch.
        between = centres[first][0] + dx * thickness[first] / (thickness[first] + thickness[second])
        column = (float(between) - pad - 1) * step + step // 2
        return column if 0 < column < mask.shape[1] - 1 else None
    return None


def _middle_of_shafts(values: NDArray[np.float32], body: NDArray[np.bool_], pixel_mm: float) -> float | None:
    """Column between two femoral shafts, or None where a CT slice does not show exactly one pair."""
    bone = ((values > SHAFT_HU) & body).astype(np.uint8)
    contours, _ = cv2.findContours(bone, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    shafts = []
    for contour in contours:
        area = cv2.contourArea(contour) * pixel_mm**2
        if not SHAFT_AREA_MM2[0] <= area <= SHAFT_AREA_MM2[1]:
            continue
        (x, y), radius = cv2.minEnclosingCircle(contour)
        if area >= 0.6 * np.pi * (radius * pixel_mm) ** 2:
            shafts.append((x, y, area))
    if len(shafts) != 2:
        return None
    (x0, y0, a0), (x1, y1, a1) = shafts
    dx, dy = abs(x1 - x0) * pixel_mm, abs(y1 - y0) * pixel_mm
    if dx < MIN_SHAFT_DISTANCE_MM or dy > 0.5 * dx or min(a0, a1) < MIN_SHAFT_RATIO * max(a0, a1):
        return None
    return float(x0 + x1) / 2


@dataclass(frozen=True, eq=False)
class _Cut:
    """Where columns lie below a cut, shape (Z, Y, X), and for each slice what it costs and its length in the body."""

    below: NDArray[np.bool_]
    flesh_mm: NDArray[np.float64]
    length_mm: NDArray[np.float64]


def _cut(
    voxels: NDArray[np.float32],
    body: NDArray[np.bool_],
    middle: NDArray[np.float64],
    pixel_mm: float,
    is_ct: bool,
    *,
    pull: float,
) -> _Cut:
    """Cut every slice from front to back.

    The cut is the path of least cost from the first row to the last, all slices at once, by dynamic programming.
    Skin between the thighs counts for a fifth of its length.
    """
    planes, rows, columns = body.shape
    reach = max(4.0, CUT_REACH_MM / pixel_mm)
    first = int(max(0, np.floor(middle.min() - reach)))
    last = int(min(columns, np.ceil(middle.max() + reach) + 1))
    x = np.arange(first, last)
    away = np.abs(x - middle[:, None]) / reach
    far = np.where(away > 1, 100.0, pull * away**2).astype(np.float32)
    flesh = np.empty((rows, planes, last - first), dtype=np.float32)
    for z in range(planes):
        values = voxels[z, :, first:last]
        flesh[:, z] = np.where(body[z, :, first:last], 1 - 0.8 * _skin(values, pixel_mm, is_ct), 0)
        if is_ct:
            flesh[:, z][values > SHAFT_HU] *= BONE_COST
    back = np.empty((rows, planes, last - first), dtype=np.int8)
    total = flesh[0] + far
    wall = np.full((planes, 1), np.inf, dtype=np.float32)
    for y in range(1, rows):
        left = np.concatenate([wall, total[:, :-1]], axis=1) + np.float32(0.05)
        right = np.concatenate([total[:, 1:], wall], axis=1) + np.float32(0.05)
        best = np.minimum(left, right)
        back[y] = np.where(total <= best, 0, np.where(left <= right, -1, 1))
        total = np.minimum(total, best) + flesh[y] + far
    path = np.empty((planes, rows), dtype=np.intp)
    path[:, -1] = total.argmin(axis=1)
    every = np.arange(planes)
    for y in range(rows - 1, 0, -1):
        path[:, y - 1] = path[:, y] + back[y, every, path[:, y]]
    at = (np.arange(rows), every[:, None], path)
    below: NDArray[np.bool_] = np.arange(columns) < (path + first)[..., None]
    return _Cut(
        below,
        flesh_mm=flesh[at].sum(axis=1, dtype=np.float64) * pixel_mm,
        length_mm=np.count_nonzero(flesh[at], axis=1) * pixel_mm,
    )


def _skin(values: NDArray[np.float32], pixel_mm: float, is_ct: bool) -> NDArray[np.float32]:
    """How much a slice looks like two skins pressed together, 0 to 1: a bright line in CT, a dark one in MR.

    A line differs from what lies on either side of it; the edge of a muscle differs from one.
    """
    # Skin runs from front to back: averaging along the column takes the noise out and leaves the line.
    smooth = cv2.blur(values, (1, 2 * round(3 / pixel_mm) + 1))
    beside = cv2.blur(smooth, (2 * round(2 / pixel_mm) + 1, 1))
    columns = np.arange(values.shape[1])
    step = max(2, round(SKIN_REACH_MM / pixel_mm))
    left = beside[:, np.maximum(columns - step, 0)]
    right = beside[:, np.minimum(columns + step, len(columns) - 1)]
    line = smooth - np.maximum(left, right) if is_ct else np.minimum(left, right) - smooth
    scale = SKIN_HU if is_ct else max(1e-6, SKIN_SHARE * float(np.percentile(values, 95)))
    return cast(NDArray[np.float32], np.clip(line / scale, 0, 1))


def _middles_at_border(
    voxels: NDArray[np.float32], body: NDArray[np.bool_], pixel_mm: float, is_ct: bool
) -> NDArray[np.float64]:
    """Column of the skin that parts the leg from a piece of another at the border of the image; NaN where none is.

    The outline shows nothing of a contact as high as the image; the line of skin from front to back does.
    """
    planes, _, columns = body.shape
    reach = min(CUT_REACH_MM / pixel_mm, columns / 4)
    middles = np.full(planes, np.nan)
    most = MIN_SKIN_SLICES - 1
    for start in (reach, columns - 1 - reach):
        cut = _cut(voxels, body, np.full(planes, start), pixel_mm, is_ct, pull=0.0)
        found = (cut.length_mm >= MIN_SKIN_MM) & (cut.flesh_mm <= MAX_SKIN_COST * cut.length_mm)
        if found.sum() > most:
            most = int(found.sum())
            path = cut.below.sum(axis=2)
            middles = np.where(found, path.mean(axis=1), np.nan)
    return middles
