"""Muscle by a threshold: a window of Hounsfield units in CT, Otsu's cut in MR. The baseline of every comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from musclekit.anatomy import body_mask
from musclekit.checks import check_cases, check_contrast, check_number, check_voxels
from musclekit.errors import ParameterError, VoxelError
from musclekit.image import Case, Contrast, Image, LabelMap
from musclekit.labels import LabelSet, label_set

__all__ = ["ThresholdSegmenter", "otsu_threshold"]

N_BINS = 1024


def otsu_threshold(values: NDArray[np.float32], mask: NDArray[np.bool_] | None = None) -> float:
    """Grey value that parts the values into two classes with the least variance within them (Otsu 1979).

    Parameters
    ----------
    values : ndarray of float32, of any shape
        Grey values; finite.
    mask : ndarray of bool, of the shape of `values`, optional
        Which of them to use; all when not given.

    Returns
    -------
    float
        The middle of the bin (of 1024) that ends the darker class.

    Raises
    ------
    VoxelError
        If there are no values, or all are alike.
    """
    plane = np.ascontiguousarray(values, dtype=np.float32).reshape(1, -1)
    chosen = None if mask is None else np.ascontiguousarray(mask).reshape(1, -1).view(np.uint8)
    if plane.size == 0 or (chosen is not None and not chosen.any()):
        raise VoxelError("there are no voxels to find a threshold in")
    low, high, _, _ = cv2.minMaxLoc(plane, mask=chosen)
    if not low < high:
        raise VoxelError(f"all voxels have one grey value ({low:g}): no threshold parts them")
    half = 0.5 * (high - low) / (N_BINS - 1)
    counts = cv2.calcHist([plane], [0], chosen, [N_BINS], [low - half, high + half]).ravel().astype(np.float64)
    centres = np.linspace(low, high, N_BINS)
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sum_below = np.cumsum(counts * centres)[:-1]
    difference = sum_below / below - ((counts @ centres) - sum_below) / above
    between = below * above * difference**2
    # Empty bins between the classes all part them alike: the middle one is furthest from both.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float(centres[best[len(best) // 2]])


class ThresholdSegmenter(BaseEstimator):
    """Muscle as what lies in a window of grey values, inside the body.

    CT: between two Hounsfield units. MR: on muscle's side of Otsu's threshold of the body, one for the whole scan:
    below it where fat is bright (T1W, T2W, FAT, and MR of unknown weighting), above it where fat is suppressed
    (WATER, STIR). Bone, vessels, skin and background of like grey value are taken for muscle: this is the baseline.

    Parameters
    ----------
    hu_low, hu_high : float
        Window of a CT, in HU, ends included. The default is lean and fat-infiltrated muscle together.
    """

    def __init__(self, *, hu_low: float = -29.0, hu_high: float = 150.0) -> None:
        self.hu_low = hu_low
        self.hu_high = hu_high

    @property
    def label_set(self) -> LabelSet:
        """The set ``muscle``."""
        return label_set("muscle")

    @property
    def contrasts(self) -> frozenset[Contrast]:
        """Every contrast."""
        return frozenset(Contrast)

    def fit(self, cases: Sequence[Case]) -> Self:
        """Check the parameters and the cases; there is nothing to learn."""
        self._check_parameters()
        check_cases(cases, self.contrasts, "threshold")
        return self

    def segment(self, image: Image) -> LabelMap:
        """Label what lies in the window.

        Raises
        ------
        VoxelError
            If the image is constant.
        SegmentationError
            If there is no body in it.
        """
        self._check_parameters()
        check_contrast(image, self.contrasts, "threshold")
        check_voxels(image)
        body = body_mask(image)
        grey = image.voxels
        if image.contrast is Contrast.CT:
            muscle = (grey >= self.hu_low) & (grey <= self.hu_high)
        else:
            cut = otsu_threshold(grey, body)
            muscle = grey > cut if image.contrast.fat_is_bright is False else grey <= cut
        return LabelMap(muscle & body, image.grid, self.label_set)

    def _check_parameters(self) -> None:
        check_number("hu_low", self.hu_low)
        check_number("hu_high", self.hu_high)
        if not self.hu_low < self.hu_high:
            raise ParameterError(f"hu_low must lie below hu_high, not {self.hu_low:g} and {self.hu_high:g} HU")
