"""One leg at a time: run a function on each leg of a scan, and give labels the side of the leg they lie in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from musclekit.anatomy.body import body_mask
from musclekit.anatomy.frames import Frame, crop_frame, mirror_frame
from musclekit.anatomy.legs import Leg, split_legs
from musclekit.errors import GeometryError, InputError, LabelError
from musclekit.image import Contrast, Grid, Image, LabelMap
from musclekit.labels import SIDES, Side

__all__ = ["label_sides", "leg_frame", "leg_image", "per_leg"]

#: What CT shows outside the leg.
OUTSIDE_HU = -1000.0


def leg_frame(
    leg: Leg, grid: Grid, *, margin_px: int = 2, size: tuple[int, int] | None = None, mirror_to: Side | None = None
) -> Frame:
    """Frame of the window round one leg.

    Parameters
    ----------
    leg : Leg
        Which leg.
    grid : Grid
        Grid of its mask.
    margin_px : int
        Pixels left free round its bounding box in the plane.
    size : (int, int), optional
        Rows and columns of a window centred on the bounding box; without it the window is as large as needed.
    mirror_to : {"left", "right"}, optional
        The side that the leg shall look like.

    Returns
    -------
    Frame
        From the grid to the window, in the slices that show the leg.

    Raises
    ------
    GeometryError
        If mask and grid differ in shape, or the leg with its margin is larger than the window.
    InputError
        If the mask is empty, or a leg of unknown side is to be mirrored.

    Notes
    -----
    Margin and centred window are those of Yang et al. (CT domain adaptation), whose window has 256 x 256 pixels.
    """
    if leg.mask.shape != grid.shape:
        raise GeometryError(f"the leg mask has shape {leg.mask.shape}, its grid {grid.shape} (z, y, x)")
    spans = [np.flatnonzero(leg.mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not len(spans[0]):
        raise InputError("the mask of the leg is empty")
    start = np.array([int(span[0]) for span in spans])
    stop = np.array([int(span[-1]) + 1 for span in spans])
    start[1:] -= margin_px
    stop[1:] += margin_px
    if size is not None:
        needed = stop[1:] - start[1:]
        if (needed > size).any():
            raise GeometryError(
                f"the {leg.side or 'single'} thigh is larger than the window: with a margin of {margin_px} pixels it "
                f"takes {needed[0]} x {needed[1]} of {size[0]} x {size[1]} pixels; resample the image to larger pixels"
            )
        start[1:] = (start[1:] + stop[1:] - np.asarray(size)) // 2
        stop[1:] = start[1:] + size
    frame = crop_frame(grid, start, stop)
    if mirror_to is None or leg.side == mirror_to:
        return frame
    if leg.side is None:
        raise InputError(f"cannot make a leg of unknown side look like a {mirror_to} one: say which side it is")
    return frame.then(mirror_frame)


def leg_image(image: Image, leg: Leg, frame: Frame) -> Image:
    """Image of one leg alone: the other leg, the table and the air set to -1000 HU (MR: 0).

    Raises
    ------
    GeometryError
        If image, leg and frame do not share a grid.
    """
    if leg.mask.shape != image.grid.shape:
        raise GeometryError(f"the leg mask has shape {leg.mask.shape}, the image {image.grid.shape} (z, y, x)")
    outside = np.float32(OUTSIDE_HU if image.contrast is Contrast.CT else 0.0)
    alone = frame.apply_image(image.with_voxels(np.where(leg.mask, image.voxels, outside)))
    # Where a window reaches beyond the scan there is no more body than outside the leg.
    return alone.with_voxels(np.maximum(alone.voxels, outside)) if image.contrast is Contrast.CT else alone


def per_leg(
    image: Image,
    function: Callable[[Image], LabelMap],
    *,
    margin_px: int = 2,
    mirror_to: Side | None = None,
    size: tuple[int, int] | None = None,
    side: Side | None = None,
) -> LabelMap:
    """Label each leg by itself, and put the labels together.

    Parameters
    ----------
    image : Image
        One thigh or two.
    function : callable
        Takes the image of one leg, everything else blanked, and returns its labels on the same grid
        (``segmenter.segment``).
    margin_px, mirror_to, size
        See `leg_frame`.
    side : {"left", "right"}, optional
        Which leg, where the scan shows one; needed to mirror it.

    Returns
    -------
    LabelMap
        On the grid of the image, in the label set of the function; labels outside the legs are dropped.

    Raises
    ------
    GeometryError
        If a leg is larger than the window, or the labels do not lie on the grid of the leg.
    LabelError
        If the function answers in different label sets.
    InputError
        If a leg of unknown side is to be mirrored.
    SegmentationError
        If there is no body in the image.
    """
    legs = split_legs(image, body_mask(image), side=side)
    answers = []
    for leg in legs:
        frame = leg_frame(leg, image.grid, margin_px=margin_px, size=size, mirror_to=mirror_to)
        answers.append(frame.restore_labels(function(leg_image(image, leg, frame))))
    names = list(dict.fromkeys(labels.label_set.name for labels in answers))
    if len(names) > 1:
        raise LabelError(f"one leg is labelled as '{names[0]}', the other as '{names[1]}'")
    voxels = np.zeros(image.grid.shape, dtype=np.uint16)
    for leg, labels in zip(legs, answers, strict=True):
        voxels[leg.mask] = labels.voxels[leg.mask]
    return answers[0].with_voxels(voxels)


def label_sides(labels: LabelMap, legs: Sequence[Leg]) -> LabelMap:
    """Tell the left from the right structures of an unsided label map.

    Parameters
    ----------
    labels : LabelMap
        In a set without sides; a sided map is returned as it is.
    legs : sequence of Leg
        One or two, see `split_legs`, each of known side: ask ``all(leg.side for leg in legs)`` first.

    Returns
    -------
    LabelMap
        In the sided version of the set. A label outside every leg goes to the leg whose middle is nearest in world x.

    Raises
    ------
    LabelError
        If a leg's side is unknown, no leg is given, or two legs are of one side.
    GeometryError
        If a leg's mask has another shape.
    """
    if labels.label_set.is_sided:
        return labels
    sides = [leg.side for leg in legs]
    if not sides or None in sides:
        raise LabelError("cannot tell left from right: the side of a leg is not known; name it or keep unsided labels")
    if len(set(sides)) != len(sides):
        raise LabelError(f"cannot tell left from right: two legs are {sides[0]}")
    voxels = np.zeros(labels.grid.shape, dtype=np.uint16)
    owner = _owners(labels, legs)
    for i, side in enumerate(sides):
        table = np.zeros(max(labels.label_set.ids) + 1, dtype=np.uint16)
        for label in labels.label_set:
            table[label.id] = labels.label_set.sided_ids[label.id][SIDES.index(side)] if side else 0
        voxels = np.where(owner == i, table[labels.voxels], voxels)
    return LabelMap(voxels, labels.grid, labels.label_set.sided())


def _owners(labels: LabelMap, legs: Sequence[Leg]) -> NDArray[np.uint8]:
    """Which leg each voxel belongs to."""
    for leg in legs:
        if leg.mask.shape != labels.grid.shape:
            raise GeometryError(f"a leg mask has shape {leg.mask.shape}, the labels {labels.grid.shape} (z, y, x)")
    if len(legs) == 1:
        return np.zeros(labels.grid.shape, dtype=np.uint8)
    owner = np.full(labels.grid.shape, 255, dtype=np.uint8)
    for i, leg in enumerate(legs):
        owner[leg.mask] = i
    stray = np.argwhere((owner == 255) & (labels.voxels > 0))
    if len(stray):
        x = labels.grid.world(stray)[:, 0]
        middles = np.array([labels.grid.world(np.argwhere(leg.mask)).mean(axis=0)[0] for leg in legs])
        owner[tuple(stray.T)] = np.abs(x[:, None] - middles).argmin(axis=1)
    return owner
