"""Did a translation keep the anatomy? Numbers that say so without knowing the truth.

A generator can move, add or remove what it likes: nothing in its loss forbids it for good. These checks compare what
went in with what came out. They cannot prove a translation right; what they find wrong is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from musclekit.anatomy import body_mask
from musclekit.errors import GeometryError, MusclekitError
from musclekit.image import Image, LabelMap
from musclekit.labels import label_mapping, label_set
from musclekit.metrics import dice, surface_distances

if TYPE_CHECKING:
    from musclekit.neural.windows import Window

__all__ = ["Check", "Safety", "compartment_of", "edge_correlation", "moved_boundary", "safety"]

Mask = NDArray[np.bool_]
Deciles = tuple[Sequence[float], Sequence[float]]

#: Limits. On phantoms an image of the same thigh in another contrast, which a perfect translation would give, has an
#: edge correlation of 0.78 or more, an image shifted by 9 mm one of 0.42 or less. The healthy twin of a severely
#: infiltrated thigh has lost the edges of the fat in its muscles: 0.17 or more, while other people's thighs reach 0.31;
#: so within one contrast it is the compartment that tells most. Bodies agree at 0.98 or more.
LEAST_EDGE_CORRELATION = 0.15
LEAST_EDGE_CORRELATION_ACROSS = 0.6
LEAST_BODY_DICE = 0.97
MOST_AGAINST = 0.05
MOST_OUTSIDE = 0.10
#: How far deciles may lie outside those of the people trained on, as a share of the range. Of hard phantoms that a
#: hard-to-easy network never saw they lie 0.015 outside at most, of healthy ones 0.2 to 0.4, of real scans 0.03 to 0.3.
MOST_UNLIKE = 0.10
#: Dice of the compartment, in one contrast and across contrasts: the rules that find it in CT and in MR are two, and on
#: one phantom they agree at 0.85 to 0.91. So what happened to the boundary and to muscle has limits in one contrast.
LEAST_COMPARTMENT_DICE = 0.95
LEAST_COMPARTMENT_DICE_ACROSS = 0.80
MOST_BOUNDARY_MOVED = 0.10
MOST_MUSCLE_CHANGED = 0.25

#: A voxel moved against the direction if it did by more than this share of the grey values inside the body: less is
#: noise.
TOLERANCE = 0.02
#: The grey values inside the body run from one to the other of these percentiles.
PERCENTILES = (0.5, 99.5)
#: A boundary stands still within so many pixels.
STILL_PX = 2.0


@dataclass(frozen=True)
class Check:
    """One number and what it should be.

    Parameters
    ----------
    name : str
        What was looked at.
    value : float
        What was found; NaN where it does not apply or could not be told.
    limit : float
        What it should be at least or at most; NaN where it is only told.
    is_least : bool
        Whether the limit is the least (and not the most) it should be.
    meaning : str
        What a value beyond the limit says.
    """

    name: str
    value: float
    limit: float
    is_least: bool
    meaning: str

    @property
    def is_met(self) -> bool | None:
        """Whether the value keeps the limit; None where there is no value or no limit."""
        if math.isnan(self.value) or math.isnan(self.limit):
            return None
        return self.value >= self.limit if self.is_least else self.value <= self.limit

    def __str__(self) -> str:
        bound = "at least" if self.is_least else "at most"
        return f"{self.name} is {self.value:.3g}, expected {bound} {self.limit:g}: {self.meaning}"


@dataclass(frozen=True)
class Safety:
    """What a translation kept and what it changed; NaN where something could not be told.

    Parameters
    ----------
    edge_correlation : float
        See `edge_correlation`.
    body_dice : float
        Dice of the body before and after.
    compartment_dice : float
        Dice of the muscle compartment before and after.
    boundary_moved : float
        Share of the compartment's boundary that moved by more than two pixels.
    against_direction : float
        Share of the body's voxels that moved against the direction that the loss allowed.
    muscle_added, muscle_removed : float
        Muscle that appeared and that went, as shares of the muscle before.
    outside_range : float
        Share of the body's voxels that lie outside the fixed window that the network was trained with.
    unlike_training : float
        How far the deciles of the body's grey values lie outside those of the people that the network was trained on,
        at most, as a share of the range.
    changes_contrast : bool
        Whether the translation leads to another contrast.
    infiltrates : bool
        Whether it is meant to turn muscle into fat: then muscle may go and must not come.
    """

    edge_correlation: float
    body_dice: float
    compartment_dice: float
    boundary_moved: float
    against_direction: float
    muscle_added: float
    muscle_removed: float
    outside_range: float
    unlike_training: float
    changes_contrast: bool
    infiltrates: bool

    def checks(self) -> tuple[Check, ...]:
        """Return every number with its limit."""
        across = self.changes_contrast
        least_edges = LEAST_EDGE_CORRELATION_ACROSS if across else LEAST_EDGE_CORRELATION
        least_dice = LEAST_COMPARTMENT_DICE_ACROSS if across else LEAST_COMPARTMENT_DICE
        most_moved = math.nan if across else MOST_BOUNDARY_MOVED
        most_added = MOST_MUSCLE_CHANGED if self.infiltrates else math.nan
        most_removed = math.nan if across or self.infiltrates else MOST_MUSCLE_CHANGED
        return (
            Check("edge correlation", self.edge_correlation, least_edges, True,
                  "edges are no longer where they were"),
            Check("Dice of the body", self.body_dice, LEAST_BODY_DICE, True, "the outline of the body changed"),
            Check("Dice of the compartment", self.compartment_dice, least_dice, True, "the muscle compartment changed"),
            Check("boundary moved", self.boundary_moved, most_moved, False,
                  f"this share of the compartment's boundary moved by more than {STILL_PX:g} pixels"),
            Check("moved against the direction", self.against_direction, MOST_AGAINST, False,
                  "this share of the body changed against the direction that its loss allows"),
            # Adding muscle is what most translations are for.
            Check("muscle added", self.muscle_added, most_added, False,
                  "this much muscle appeared, as a share of what there was"),
            Check("muscle removed", self.muscle_removed, most_removed, False, "this share of the muscle is gone"),
            Check("outside the training range", self.outside_range, MOST_OUTSIDE, False,
                  "this share of the body has grey values that the network never saw"),
            Check("unlike the training", self.unlike_training, MOST_UNLIKE, False,
                  "the grey values of the body are spread otherwise than those of the people it was trained on"),
        )  # fmt: skip

    def warnings(self) -> tuple[str, ...]:
        """Say, one line each, which limits are not kept."""
        return tuple(str(check) for check in self.checks() if check.is_met is False)


def safety(
    source: Image,
    fake: Image,
    *,
    before: LabelMap | None = None,
    after: LabelMap | None = None,
    monotone: str | None = None,
    window: Window | None = None,
    deciles: Deciles | None = None,
) -> Safety:
    """Compare an image with its translation.

    Parameters
    ----------
    source, fake : Image
        What went in and what came out.
    before, after : LabelMap, optional
        Labels of the two by one segmenter, with a label ``muscle`` and a way to the set ``compartment``, as those of
        the tissue segmenter. Without them nothing is said of muscle and compartment.
    monotone : {"darker", "brighter"}, optional
        The direction that the loss let grey values move in.
    window : Window, optional
        Of the network's source. A window of percentiles is found in the image itself: nothing lies outside it but
        what it leaves out by design, and nothing is said.
    deciles : (sequence of float, sequence of float), optional
        Of the grey values that the network was trained on, least and most over people, from -1 to 1 by its window.

    Returns
    -------
    Safety
        Its ``warnings`` are to be shown.

    Raises
    ------
    GeometryError
        If the images or the labels do not share a grid.
    VoxelError, SegmentationError
        If there is nothing to see in the source.
    """
    for what, part in (("translation", fake), ("labels before", before), ("labels after", after)):
        if part is not None and not source.grid.same_as(part.grid):
            raise GeometryError(f"image and {what} lie on different grids: {source.grid.difference(part.grid)}")
    body = body_mask(source)
    across = source.contrast is not fake.contrast
    compartment_dice = moved = added = removed = math.nan
    if before is not None and after is not None:
        compartments = [compartment_of(labels) for labels in (before, after)]
        compartment_dice, moved = dice(*compartments), moved_boundary(*compartments)
        muscle, new = before.mask("muscle"), after.mask("muscle")
        if muscle.any():
            added, removed = (
                float(np.count_nonzero(part) / np.count_nonzero(muscle)) for part in (new & ~muscle, muscle & ~new)
            )
    return Safety(
        edge_correlation=edge_correlation(source, fake, body),
        body_dice=dice(body, _body_or_nothing(fake)),
        compartment_dice=compartment_dice,
        boundary_moved=moved,
        against_direction=_against(source, fake, body, monotone),
        muscle_added=added,
        muscle_removed=removed,
        outside_range=_outside(source, body, window),
        unlike_training=_unlike(source, body, window, deciles),
        changes_contrast=across,
        infiltrates=monotone is not None and not across and source.contrast.fat_is_bright is (monotone == "brighter"),
    )


def _body_or_nothing(image: Image) -> Mask:
    """Body mask; nothing where there is none to be found: that is an answer here."""
    try:
        return body_mask(image)
    except MusclekitError:
        return np.zeros(image.grid.shape, dtype=np.bool_)


def compartment_of(labels: LabelMap) -> Mask:
    """Return the muscle compartment of labels.

    Raises
    ------
    LabelError
        If there is no way from their set to the set ``compartment``.
    """
    mapping = label_mapping(labels.label_set.unsided(), label_set("compartment"))
    return labels.mapped(mapping).mask("compartment")


def edge_correlation(source: Image, fake: Image, body: Mask) -> float:
    """Correlation of the strength of edges in two images of one anatomy.

    Parameters
    ----------
    source, fake : Image
        On one grid.
    body : ndarray of bool, shape (Z, Y, X)
        Where to look; two pixels along its border are left out, for every translation keeps the skin.

    Returns
    -------
    float
        Spearman's, of the magnitudes of the in-plane gradients: contrasts differ in how strong an edge is, less in
        which edges are the strong ones. 0 where one of the two has no edges at all.
    """
    from scipy.stats import spearmanr

    inner = np.stack([cv2.erode(plane.view(np.uint8), np.ones((5, 5), np.uint8)) for plane in body]).astype(np.bool_)
    first, second = (_gradients(image)[inner] for image in (source, fake))
    if not inner.any() or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(spearmanr(first, second).statistic)


def _gradients(image: Image) -> NDArray[np.float32]:
    """Magnitude of the in-plane gradient, of planes smoothed a little: noise has edges everywhere."""
    dy, dx = image.grid.spacing[1:]
    planes = []
    for plane in image.voxels:
        smooth = cv2.GaussianBlur(plane, (0, 0), 1.0)
        y, x = (cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=1, borderType=cv2.BORDER_REPLICATE)
                for order in ((0, 1), (1, 0)))  # fmt: skip
        planes.append(np.hypot(y / dy, x / dx))
    return np.stack(planes)


def moved_boundary(before: Mask, after: Mask) -> float:
    """Share of a mask's boundary, slice by slice, that lies more than two pixels from that of another.

    Parameters
    ----------
    before, after : ndarray of bool, shape (Z, Y, X)
        The masks.

    Returns
    -------
    float
        Of the boundaries of both; NaN where both are empty.
    """
    far = total = 0
    for plane, other in zip(before, after, strict=True):
        distances = surface_distances(plane, other, (1.0, 1.0)).pooled
        far += int(np.count_nonzero(distances > STILL_PX))
        total += distances.size
    return far / total if total else math.nan


def _against(source: Image, fake: Image, body: Mask, monotone: str | None) -> float:
    if monotone is None or source.contrast is not fake.contrast:
        return math.nan
    values = source.voxels[body].astype(np.float64)
    low, high = np.percentile(values, PERCENTILES)
    moved = (fake.voxels[body] - values) * (1 if monotone == "darker" else -1)
    return float(np.count_nonzero(moved > TOLERANCE * (high - low)) / moved.size)


def _outside(source: Image, body: Mask, window: Window | None) -> float:
    if window is None or window.kind == "percentile":
        return math.nan
    values = source.voxels[body]
    return float(np.count_nonzero((values < window.low) | (values > window.high)) / values.size)


def _unlike(source: Image, body: Mask, window: Window | None, deciles: Deciles | None) -> float:
    if window is None or deciles is None:
        return math.nan
    unit = window.scale_of(source, body).to_unit(source.voxels[body])
    seen = unit[unit > -1]
    if not seen.size:
        return math.nan
    least, most = np.array(deciles)
    found = np.quantile(seen, np.arange(1, 10) / 10)
    # From -1 to 1 is a range of 2.
    return float(np.max(np.maximum(least - found, found - most), initial=0.0) / 2)
