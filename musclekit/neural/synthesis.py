"""Samples that nobody scanned: slices drawn from label maps as a network learns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from musclekit.anatomy import crop_frame
from musclekit.checks import check_number
from musclekit.errors import InputError
from musclekit.image import Contrast, Grid
from musclekit.labels import LabelSet, label_mapping, label_set
from musclekit.neural.drawing import Batch
from musclekit.neural.labelled import LabelledScan, LabelledView, check_shown, class_table
from musclekit.phantom import MUSCLES, LegPlanes, SliceRange, draw_slice

__all__ = ["EXAMPLES", "SyntheticDrawing", "check_leg_classes", "classes_of_context", "synthetic_scan"]

#: Slices of each leg that stand for it where a training needs some that stay the same: to choose an epoch, to be looked
#: at, to know whose training it is.
EXAMPLES = 12


@contextmanager
def _single_threaded_opencv() -> Iterator[None]:
    """Keep OpenCV from starting threads of its own in each of ours."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def classes_of_context(labels: LabelSet) -> NDArray[np.uint8]:
    """Lookup table from the ids of ``thigh-context``, in which slices are drawn, to the classes of a label set.

    Raises
    ------
    LabelError
        If no map leads from ``thigh-context`` to it.
    """
    context = label_set("thigh-context")
    return class_table(labels)[label_mapping(context, labels).table()]


def check_leg_classes(legs: Sequence[LegPlanes], labels: LabelSet, where: str = "the cases to train on") -> None:
    """Refuse legs that lack a class of a label set, as `musclekit.neural.labelled.check_classes` does for scans.

    Raises
    ------
    LabelError
        If a label of the set is in none of them; the message names it.
    """
    table = classes_of_context(labels)
    # What stands round the muscles is put there.
    round_them = range(len(MUSCLES) + 1, len(table))
    shown = {int(n) for leg in legs for n in np.unique(leg.planes)}
    check_shown({int(table[n]) for n in (*shown, *round_them)}, labels, where)


@dataclass(frozen=True, eq=False)
class SyntheticDrawing:
    """Where slices are drawn from, and how; it stands in for `musclekit.neural.drawing.Drawing`.

    Parameters
    ----------
    legs : sequence of LegPlanes
        Whose muscles.
    labels : LabelSet
        That the classes are of.
    how : SliceRange
        What slices look like.
    threads : int
        That draw while the network learns; the slices do not depend on it.

    Raises
    ------
    InputError
        If there is no leg.
    """

    legs: Sequence[LegPlanes]
    labels: LabelSet
    how: SliceRange
    threads: int = 1

    def __post_init__(self) -> None:
        check_number("threads", self.threads, least=1, whole=True)
        if not self.legs:
            raise InputError("there is no leg to draw slices of")

    def steps(self, batch: int) -> int:
        """Batches that show as many slices as there are planes."""
        return -(-sum(len(leg.planes) for leg in self.legs) // batch)

    def epoch(self, steps: int, batch: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Draw batches, each slice by a seed of its own.

        Parameters
        ----------
        steps, batch : int
            How many, and of how many slices.
        rng : numpy.random.Generator
            Where the seeds come from.
        """
        table = classes_of_context(self.labels)
        seeds = rng.integers(0, 2**63, (steps, batch))
        with _single_threaded_opencv(), ThreadPoolExecutor(self.threads) as pool:
            ahead = [pool.map(self._drawn, seeds[0].tolist())]
            for step in range(steps):
                if step + 1 < steps:
                    # The next batch is drawn while the network learns from this one.
                    ahead.append(pool.map(self._drawn, seeds[step + 1].tolist()))
                drawn = list(ahead.pop(0))
                images = np.stack([image for image, _ in drawn])[:, None]
                classes = table[np.stack([classes for _, classes in drawn])].astype(np.int64)
                yield [(torch.from_numpy(images), torch.from_numpy(classes))]

    def _drawn(self, seed: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        found = draw_slice(self.legs, np.random.default_rng(seed), self.how)
        return found.image, found.classes


def synthetic_scan(
    case_id: str, subject: str, legs: Sequence[LegPlanes], labels: LabelSet, how: SliceRange, seed: int
) -> LabelledScan:
    """Draw slices of one person that stay the same.

    Parameters
    ----------
    case_id, subject : str
        Whose.
    legs : sequence of LegPlanes
        The person's.
    labels : LabelSet
        That the classes are of.
    how : SliceRange
        What slices look like.
    seed : int
        Of all of them.

    Returns
    -------
    LabelledScan
        A view for each leg, whose planes are `EXAMPLES` slices of every contrast.
    """
    table = classes_of_context(labels)
    grid = Grid((EXAMPLES, how.size, how.size), np.diag([how.spacing_mm] * 3 + [1.0]))
    views = []
    for n, leg in enumerate(legs):
        content = int.from_bytes(hashlib.sha256(leg.planes.tobytes()).digest()[:8], "little")
        rng = np.random.default_rng([seed, n, content])
        drawn = [draw_slice([leg], rng, how) for _ in range(EXAMPLES)]
        images = np.stack([one.image for one in drawn]).astype(np.float16)
        classes = table[np.stack([one.classes for one in drawn])]
        views.append(LabelledView(images, classes, crop_frame(grid, (0, 0, 0), grid.shape), "right"))
    return LabelledScan(case_id, subject, Contrast.MR, tuple(views))
