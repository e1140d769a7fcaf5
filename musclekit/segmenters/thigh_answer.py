"""What is made of the network's answers on a thigh: which slices count, labels, what Dice to expect, what to say."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from musclekit.anatomy import keep_largest
from musclekit.image import Image
from musclekit.labels import SIDES, LabelMapping, Side
from musclekit.segmenters.thigh_decision import stepwise_scores
from musclekit.segmenters.thigh_orientation import upside_down
from musclekit.segmenters.thigh_side import SideGuess
from musclekit.segmenters.thigh_trust import (
    CONTEXT,
    MUSCLE_IDS,
    ThighTrust,
    longest_gain,
    slice_features,
    soft_dice,
)

if TYPE_CHECKING:
    from musclekit.neural.views import View
    from musclekit.segmenters.thigh_look import Answers

__all__ = ["ThighAnswer", "accepted_slices"]

#: Structures of which a leg has one piece: the muscles and the femur.
_WHOLE = (*MUSCLE_IDS, CONTEXT.ids_of("femur")[0])
_REST = CONTEXT.ids_of("other compartment")[0]
#: A muscle of which less Dice is to be expected is told of.
LEAST_DICE = 0.7
#: Standard deviation of the Gaussian over which answers are averaged along the leg: what one thin slice hides its
#: neighbours show. Between thick slices it does nothing. On phantoms in slices of 3 and 8 mm it is worth 0.003 to 0.018
#: of Dice, and more would be worth little more.
ALONG_MM = 5.0


@dataclass(frozen=True, eq=False)
class ThighAnswer:
    """What the network says of a scan, and what is made of it.

    Parameters
    ----------
    image : Image
        The scan.
    answers : tuple of (View, ndarray of float16, shape (17, z, y, x))
        Of each leg.
    sides : tuple of {"left", "right"}
        Of each leg.
    trust : ThighTrust
        Of the network.
    guess : SideGuess or None
        How a side was guessed.
    """

    image: Image
    answers: Answers
    sides: tuple[Side, ...]
    trust: ThighTrust
    guess: SideGuess | None

    @cached_property
    def _along(self) -> list[tuple[View, NDArray[np.float16]]]:
        """The answers averaged along each leg (`ALONG_MM`)."""
        averaged = []
        for view, answer in self.answers:
            sigma = ALONG_MM / view.frame.target.spacing[0]
            result = np.empty_like(answer)
            for n, channel in enumerate(answer):
                # Half precision is too little to sum in.
                result[n] = ndimage.gaussian_filter1d(channel.astype(np.float32), sigma, axis=0, mode="nearest")
            averaged.append((view, result))
        return averaged

    @cached_property
    def classes(self) -> NDArray[np.uint8]:
        """Ids of ``thigh-context`` on the scan, in slices without a thigh too."""
        from musclekit.neural.resampling import most_probable

        found = np.zeros(self.image.grid.shape, dtype=np.uint8)
        for view, answer in self._along:
            found[view.mask] = most_probable(stepwise_scores(answer), view.frame)[view.mask]
        return found

    def planes_in(self, first: int, last: int) -> list[slice]:
        """Return which planes of each view lie in these slices of the scan."""
        at = [np.flatnonzero((planes >= first) & (planes <= last)) for planes in _planes(self.answers)]
        return [slice(int(some[0]), int(some[-1]) + 1) if len(some) else slice(0) for some in at]

    @cached_property
    def accepted(self) -> NDArray[np.bool_]:
        """Which slices of the scan show a thigh."""
        return accepted_slices(self.answers, self.trust, self.image.grid.shape[0])

    def would_be_accepted(self, others: Answers) -> bool:
        """Whether any slice would show a thigh by other answers on the same scan."""
        return bool(accepted_slices(others, self.trust, self.image.grid.shape[0]).any())

    @cached_property
    def confidence(self) -> dict[str, float]:
        """Dice to be expected of each muscle, by its name and side; NaN where it was not found."""
        found: dict[str, float] = {}
        for (_, answer), planes, side in zip(self._along, _planes(self.answers), self.sides, strict=True):
            expected = self.trust.expected_dice(soft_dice(answer, self.accepted[planes]))
            for muscle, value in zip(MUSCLE_IDS, expected, strict=True):
                is_there = CONTEXT.sided_ids[muscle][SIDES.index(side)] in self._present
                found[f"{CONTEXT[muscle].name} {side}"] = float(value) if is_there else math.nan
        return found

    @cached_property
    def _present(self) -> frozenset[int]:
        """Ids of ``thigh-context-sided`` on the scan."""
        return frozenset(np.flatnonzero(np.bincount(self.labelled.ravel())).tolist())

    def is_upside_down(self) -> bool:
        """Whether muscles of the hip lie below those of the knee."""
        grid = self.image.grid
        classes = np.where(self.accepted[:, None, None], self.classes, 0)
        counts = [np.bincount(plane.ravel(), minlength=len(CONTEXT) + 1) for plane in classes]
        areas = np.stack(counts, axis=1).astype(np.float64)
        return upside_down(areas * grid.voxel_volume_mm3 / grid.spacing[0], grid.spacing[0])

    @cached_property
    def labelled(self) -> NDArray[np.uint8]:
        """Ids of ``thigh-context-sided`` on the scan."""
        classes = np.where(self.accepted[:, None, None], self.classes, np.uint8(0))
        result = np.zeros_like(classes)
        for (view, _), side in zip(self.answers, self.sides, strict=True):
            mine = np.where(view.mask, classes, np.uint8(0))
            whole = np.isin(mine, _WHOLE)
            kept = keep_largest(np.where(whole, mine, np.uint8(0)))
            # What lies apart from its muscle is in the compartment all the same.
            mine = np.where(whole, np.where(kept > 0, kept, np.uint8(_REST)), mine)
            table = np.array([0, *(CONTEXT.sided_ids[label.id][SIDES.index(side)] for label in CONTEXT)], np.uint8)
            result[view.mask] = table[mine][view.mask]
        return result

    def channels(self, mapping: LabelMapping) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield probabilities on the scan, and the id of the target that each adds to."""
        from musclekit.neural.resampling import restored

        for (view, answer), side in zip(self._along, self.sides, strict=True):
            seen = view.mask & self.accepted[:, None, None]
            for label in CONTEXT:
                before = mapping.source.ids_of(label.name, side)[0]
                if before in mapping.ids:
                    yield mapping.ids[before], np.where(seen, restored(answer[label.id], view.frame), np.float32(0))

    def notes(self) -> tuple[str, ...]:
        """Say what a reader has to know."""
        notes = []
        if self.guess is not None:
            notes.append(self.guess.note)
        refused = np.flatnonzero(~self.accepted)
        if not self.accepted.any():
            return (
                *notes,
                "no slice looks like a thigh: nothing is labelled (the method 'tissue' takes any slice of a limb)",
            )
        if len(refused):
            first, last = (int(at) for at in np.flatnonzero(self.accepted)[[0, -1]])
            ends = [f"below slice {first}"] * (first > 0) + [f"above slice {last}"] * (last < len(self.accepted) - 1)
            notes.append(
                f"{len(refused)} of {len(self.accepted)} slices do not look like a thigh and have no labels: those "
                f"{' and '.join(ends)}, counted from the feet"
            )
        missing = [name for name, value in self.confidence.items() if math.isnan(value)]
        if missing:
            notes.append(f"not found: {', '.join(missing)}")
        doubtful = [f"{name} ({value:.2f})" for name, value in self.confidence.items() if value < LEAST_DICE]
        if doubtful:
            notes.append(f"look at these, of which no high Dice is to be expected: {', '.join(doubtful)}")
        return tuple(notes)


def accepted_slices(answers: Answers, trust: ThighTrust, slices: int) -> NDArray[np.bool_]:
    """Return which slices of a scan of so many show a thigh; the legs decide together."""
    odds = np.zeros(slices)
    for (view, answer), planes in zip(answers, _planes(answers), strict=True):
        spacing = view.frame.target.spacing
        np.add.at(odds, planes, trust.odds(slice_features(answer, spacing[1] * spacing[2])))
    return longest_gain(odds)


def _planes(answers: Answers) -> list[NDArray[np.intp]]:
    """Return the slice of the scan that each plane of a view is."""
    planes = []
    for view, answer in answers:
        pull = view.frame.pull
        planes.append(np.rint(pull[0, 0] * np.arange(answer.shape[1]) + pull[0, 3]).astype(np.intp))
    return planes
