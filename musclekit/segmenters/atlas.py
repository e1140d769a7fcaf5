"""Annotated scans to compare others with: their legs, and how each lies on a leg of another scan."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from musclekit.anatomy import split_legs
from musclekit.anatomy.registration import PIECE, ThighOutlines, register_thighs, thigh_outlines
from musclekit.errors import InputError, SegmentationError
from musclekit.image import Case, Image, LabelMap
from musclekit.labels import LabelSet, Side, label_mapping
from musclekit.memory import remembered
from musclekit.segmenters.graphcut import body_of
from musclekit.segmenters.tissue import TissueSegmenter

__all__ = [
    "AtlasCase",
    "AtlasLeg",
    "Thigh",
    "annotated",
    "atlas_case",
    "atlas_legs",
    "registration_of",
    "thighs_of",
    "warn_of_own_annotation",
]

Mask = NDArray[np.bool_]

logger = logging.getLogger(__name__)

#: Outlines of a thigh of unknown side overlap those of the atlas better by at least this the right way round.
CLEAR_OVERLAP = 0.02

OVERLAP, WEIGHT = PIECE.index("overlap"), PIECE.index("weight")


@dataclass(frozen=True, eq=False)
class AtlasCase:
    """An annotated scan that others are compared with.

    Parameters
    ----------
    image : Image
        The scan; its outlines are what is registered.
    labels : LabelMap
        Its annotation; a slice of a leg without any counts as not annotated.
    side : {"left", "right"}, optional
        Which leg, where it shows one.
    """

    image: Image
    labels: LabelMap
    side: Side | None


def atlas_case(case: Case, method: str, target: LabelSet) -> AtlasCase:
    """Take from an annotated case what an atlas needs.

    Parameters
    ----------
    case : Case
        With one image, and a reference in any label set that leads to the target.
    method : str
        Its name, for the messages.
    target : LabelSet
        The set the annotation is brought to.

    Raises
    ------
    InputError
        If it has no reference, or nothing of the target is labelled in it.
    LabelError
        If no map leads from the reference's label set to the target.
    """
    if case.reference is None:
        raise InputError(f"'{method}' needs annotated cases: case '{case.id}' has no reference")
    labels = _in_set(case.reference, target)
    if not labels.voxels.any():
        raise InputError(f"'{method}' cannot learn from case '{case.id}': no muscle is labelled in its reference")
    return AtlasCase(case.image, labels, case.side)


def warn_of_own_annotation(cases: Sequence[AtlasCase], image: Image, method: str) -> None:
    """Warn of an image that stands in the atlas itself, by its grey values: its own annotation would be found again."""
    if any(np.array_equal(case.image.voxels, image.voxels) for case in cases):
        warnings.warn(
            f"{method}: this image stands in the atlas with its annotation; the result says nothing of other images",
            UserWarning,
            stacklevel=4,
        )


@remembered()
def _in_set(reference: LabelMap, target: LabelSet) -> LabelMap:
    """Return the reference in another set: the same object each time, so that it is fingerprinted once."""
    return reference.mapped(label_mapping(reference.label_set, target))


@dataclass(frozen=True, eq=False)
class Thigh:
    """One leg of a scan.

    Parameters
    ----------
    side : {"left", "right"}, optional
        Which; None where the scan does not tell.
    mask : ndarray of bool, shape (Z, Y, X)
        Where it is.
    outlines : ThighOutlines
        Of leg, muscle compartment and femur.
    compartment, bone : ndarray of bool, shape (Z, Y, X)
        What lies inside its fascia, bone included; and the femur.
    """

    side: Side | None
    mask: Mask
    outlines: ThighOutlines
    compartment: Mask
    bone: Mask


@remembered()
def thighs_of(image: Image) -> tuple[Thigh, ...]:
    """Return the legs of a scan, with the outlines that `musclekit.segmenters.TissueSegmenter` finds in them."""
    legs = split_legs(image, body_of(image))
    tissues = TissueSegmenter().segment(image)
    bone = tissues.mask("cortical bone", "marrow")
    compartment = tissues.mask("muscle", "intermuscular fat") | bone
    found = []
    for leg in legs:
        parts = (leg.mask, compartment & leg.mask, bone & leg.mask)
        found.append(Thigh(leg.side, leg.mask, thigh_outlines(parts, image.grid), *parts[1:]))
    return tuple(found)


@remembered(lasts=True)
def registration_of(image: Image, leg: int, atlas: Image, atlas_leg: int, mirrored: bool) -> NDArray[np.float64]:
    """Lay a leg of one scan onto a leg of another, by the outlines that their images show."""
    return register_thighs(thighs_of(image)[leg].outlines, thighs_of(atlas)[atlas_leg].outlines, mirrored=mirrored)


@dataclass(frozen=True)
class AtlasLeg:
    """A leg of an atlas case that is laid onto a leg of a scan.

    Parameters
    ----------
    case : int
        Which case of the atlas.
    leg : int
        Which of its legs, in the order of `thighs_of`.
    mirrored : bool
        Whether left and right are exchanged.
    """

    case: int
    leg: int
    mirrored: bool


def annotated(registration: NDArray[np.float64], muscle: Mask) -> NDArray[np.float64]:
    """Return a registration without the atlas slices in which nothing is labelled: they count as not annotated."""
    kept = registration.copy()
    kept[..., WEIGHT] *= np.isin(kept[..., 0], np.flatnonzero(muscle.any(axis=(1, 2))))
    total = kept[..., WEIGHT].sum(axis=1, keepdims=True)
    np.divide(kept[..., WEIGHT], total, out=kept[..., WEIGHT], where=total > 0)
    return kept


def atlas_legs(cases: Sequence[AtlasCase], image: Image) -> list[list[AtlasLeg]]:
    """List, for each leg of a scan, the legs of the atlas that have something labelled in them.

    A left leg is mirrored onto a right one. Where the side of either is not known both ways are tried, and the one in
    which the outlines overlap more is taken, for all the atlas together.

    Raises
    ------
    SegmentationError
        If there is no leg in an image, or nothing is labelled in any leg of the atlas.
    """
    legs: list[tuple[int, int, Side | None]] = []
    for n, case in enumerate(cases):
        thighs = thighs_of(case.image)
        for k, thigh in enumerate(thighs):
            if (case.labels.mask() & thigh.mask).any():
                legs.append((n, k, thigh.side or (case.side if len(thighs) == 1 else None)))
    if not legs:
        raise SegmentationError("the atlas shows no muscle: none is labelled inside the legs found in its images")
    found = []
    for leg, thigh in enumerate(thighs_of(image)):
        if thigh.side is not None and all(side is not None for _, _, side in legs):
            found.append([AtlasLeg(n, k, side != thigh.side) for n, k, side in legs])
            continue
        gains = [_gain_of_mirror(image, leg, cases[n].image, k) for n, k, _ in legs]
        side = thigh.side or _side_that_fits(gains, [side for _, _, side in legs])
        found.append(
            [
                AtlasLeg(n, k, other != side if side and other else gain > 0)
                for (n, k, other), gain in zip(legs, gains, strict=True)
            ]
        )
    return found


def _gain_of_mirror(image: Image, leg: int, atlas: Image, atlas_leg: int) -> float:
    """How much more the outlines overlap, on average over the slices, when left and right are exchanged."""
    overlaps = []
    for mirrored in (True, False):
        registered = registration_of(image, leg, atlas, atlas_leg, mirrored)
        weights = registered[..., WEIGHT]
        overlaps.append(float((weights * registered[..., OVERLAP]).sum() / weights.sum()))
    return overlaps[0] - overlaps[1]


def _side_that_fits(gains: Sequence[float], sides: Sequence[Side | None]) -> Side | None:
    """Return the side of a thigh under which it overlaps best those whose side is known; None where none is known."""
    for_right = [gain if side == "left" else -gain for gain, side in zip(gains, sides, strict=True) if side]
    if not for_right:
        logger.warning("no thigh of the atlas has a known side: each is laid onto the scan as it overlaps better")
        return None
    gain = float(np.mean(for_right))
    say = logger.info if abs(gain) >= CLEAR_OVERLAP else logger.warning
    side: Side = "right" if gain > 0 else "left"
    say("the side of a thigh is not known; %s overlaps the atlas better, by %.3f in Dice", side, abs(gain))
    return side
