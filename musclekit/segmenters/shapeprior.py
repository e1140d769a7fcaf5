"""Muscle by a graph cut that knows where muscle is in other thighs.

Annotated thighs are laid onto the scan (see `musclekit.anatomy.registration`), each by itself; the share of them that
has muscle at a place is the shape prior there. What is dear depends on two images alone and is remembered while a
`musclekit.memory.Memory` is in use: a search over parameters and folds registers every pair of cases once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from musclekit.anatomy.registration import ThighOutlines, register_thighs, resample_planes, thigh_outlines
from musclekit.checks import check_contrast, check_number, check_voxels
from musclekit.errors import InputError, NotFittedError, ParameterError
from musclekit.image import Case, Contrast, Image, LabelMap
from musclekit.labels import LabelSet, label_set
from musclekit.memory import remembered, remembering
from musclekit.metrics import dice
from musclekit.protocols import ProbabilisticSegmenter
from musclekit.segmenters.appearance import AppearanceSegmenter
from musclekit.segmenters.atlas import (
    AtlasCase,
    AtlasLeg,
    Thigh,
    annotated,
    atlas_case,
    atlas_legs,
    registration_of,
    thighs_of,
    warn_of_own_annotation,
)
from musclekit.segmenters.graphcut import Cost, GraphCutSegmenter, LowPass, Pairwise
from musclekit.segmenters.mincut import BinaryProblem, Connectivity, min_cut

__all__ = [
    "PriorCost",
    "ShapePrior",
    "ShapePriorSegmenter",
    "prior_costs",
    "prior_map",
    "refined_prior",
    "with_prior",
]

Mask = NDArray[np.bool_]
PriorCost = Literal["linear", "logodds"]

#: The prior is kept this far from 0 and 1 before its odds are taken.
LEAST_ODDS = 1e-3
#: Further passes end when muscle changes by less than this in Dice; there are at most so many.
LEAST_CHANGE = 1e-3
MOST_PASSES = 3
#: Gaps between muscles narrower than twice this belong to the outline of all muscle.
GAP_MM = 9.0


@dataclass(frozen=True, eq=False)
class ShapePrior:
    """Where muscle is to be expected.

    Parameters
    ----------
    muscle : ndarray of float32, shape (Z, Y, X)
        Share of the atlas cases that show a place which have muscle there; 0 where none shows it.
    coverage : ndarray of uint16, shape (Z, Y, X)
        How many show it.
    """

    muscle: NDArray[np.float32]
    coverage: NDArray[np.uint16]


@remembered()
def _brought(
    image: Image, leg: int, atlas: Image, muscle: LabelMap, atlas_leg: int, mirrored: bool
) -> tuple[NDArray[np.float32], Mask]:
    """Bring the muscle of an atlas's leg to a leg of a scan; and say where the atlas shows anything."""
    own = muscle.mask() & thighs_of(atlas)[atlas_leg].mask
    registration = annotated(registration_of(image, leg, atlas, atlas_leg, mirrored), own)
    return resample_planes(own, atlas.grid, registration, image.grid)


def prior_map(cases: Sequence[AtlasCase], image: Image) -> ShapePrior:
    """Where muscle is to be expected in a scan, judged by annotated ones.

    Each leg is compared with each leg of the atlas that has muscle labelled in it. A left one is mirrored onto a right
    one. Where the side of either is not known both ways are tried, and the one in which the outlines overlap more is
    taken, for all the atlas together.

    Parameters
    ----------
    cases : sequence of AtlasCase
        The atlas. The person to be segmented must not be among them.
    image : Image
        The scan, of any contrast: outlines are registered, not grey values.

    Returns
    -------
    ShapePrior
        On the grid of the image.

    Raises
    ------
    InputError
        If there are no cases.
    SegmentationError
        If there is no leg in an image, or no muscle is labelled in any leg of the atlas.

    Notes
    -----
    The prior is that of Gadermayr et al., the share of training masks at each pixel "after an initial registration".
    Registration is ours: see `musclekit.anatomy.register_thighs`.
    """
    if not cases:
        raise InputError("a shape prior needs annotated cases, and was given none")
    # An atlas case meets each leg of the scan: its own legs are sought once even where nobody searches.
    with remembering():
        return _prior_map(tuple(cases), image)


@remembered()
def _prior_map(cases: tuple[AtlasCase, ...], image: Image) -> ShapePrior:
    def brought(leg: int, pair: AtlasLeg) -> tuple[NDArray[np.float32], Mask]:
        atlas = cases[pair.case]
        return _brought(image, leg, atlas.image, atlas.labels, pair.leg, pair.mirrored)

    thighs = thighs_of(image)
    return _averaged(
        image, thighs, [[brought(leg, pair) for pair in pairs] for leg, pairs in enumerate(atlas_legs(cases, image))]
    )


def _averaged(
    image: Image, thighs: Sequence[Thigh], found: Sequence[Sequence[tuple[NDArray[np.float32], Mask]]]
) -> ShapePrior:
    """Average what the atlas says of each leg, within that leg where there are two."""
    total = np.zeros(image.grid.shape, dtype=np.float32)
    coverage = np.zeros(image.grid.shape, dtype=np.uint16)
    for thigh, brought in zip(thighs, found, strict=True):
        own = thigh.mask if len(thighs) > 1 else np.True_
        for values, covered in brought:
            counted = covered & own
            coverage += counted
            total += values * counted
    np.divide(total, coverage, out=total, where=coverage > 0)
    total.flags.writeable = coverage.flags.writeable = False
    return ShapePrior(np.minimum(total, 1), coverage)


def refined_prior(cases: Sequence[AtlasCase], image: Image, muscle: Mask) -> ShapePrior:
    """Shape prior after a registration by muscle that was found, instead of by the outlines the image shows.

    The outline of all muscle, gaps closed and bone included, stands in the place of the compartment, in the atlas that
    of its annotation.

    Parameters
    ----------
    cases : sequence of AtlasCase
        The atlas.
    image : Image
        The scan.
    muscle : ndarray of bool, shape (Z, Y, X)
        What an earlier pass found.

    Returns
    -------
    ShapePrior
    """
    with remembering():
        return _refined_prior(cases, image, muscle)


def _refined_prior(cases: Sequence[AtlasCase], image: Image, muscle: Mask) -> ShapePrior:
    thighs = thighs_of(image)
    found = []
    for thigh, pairs in zip(thighs, atlas_legs(cases, image), strict=True):
        outlines = _outlines_by_muscle(thigh, muscle, image)
        brought = []
        for pair in pairs:
            atlas = cases[pair.case]
            registration = register_thighs(
                outlines, _outlines_by_reference(atlas.image, atlas.labels)[pair.leg], mirrored=pair.mirrored
            )
            own = atlas.labels.mask() & thighs_of(atlas.image)[pair.leg].mask
            brought.append(resample_planes(own, atlas.image.grid, annotated(registration, own), image.grid))
        found.append(brought)
    return _averaged(image, thighs, found)


@remembered()
def _outlines_by_reference(image: Image, muscle: LabelMap) -> tuple[ThighOutlines, ...]:
    """Outlines of the legs of an atlas case by its annotation."""
    return tuple(_outlines_by_muscle(thigh, muscle.mask(), image) for thigh in thighs_of(image))


def _outlines_by_muscle(thigh: Thigh, muscle: Mask, image: Image) -> ThighOutlines:
    _, dy, dx = image.grid.spacing
    size = (2 * round(GAP_MM / dx) + 1, 2 * round(GAP_MM / dy) + 1)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, size)
    envelope = np.zeros_like(muscle)
    for z, plane in enumerate((muscle & thigh.mask) | thigh.bone):
        closed = cv2.morphologyEx(plane.view(np.uint8), cv2.MORPH_CLOSE, disk)
        contours, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        envelope[z] = cv2.drawContours(closed, contours, -1, 1, cv2.FILLED) > 0
    return thigh_outlines((thigh.mask, envelope & thigh.mask, thigh.bone), image.grid)


def prior_costs(
    prior: ShapePrior, neutral_probability: float, form: PriorCost = "linear"
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    r"""Turn a shape prior into the costs of calling a voxel background, and of calling it muscle.

    With the prior P and the neutral probability p, at which it says nothing:

    - linear: background costs :math:`\max(0, P - p) / (1 - p)`, muscle :math:`\max(0, p - P) / p`, each 0 to 1;
    - logodds: the two differ by :math:`\mathrm{logit}(P) - \mathrm{logit}(p)`, with P kept within 0.001 of 0 and 1.

    Parameters
    ----------
    prior : ShapePrior
        As `prior_map` gives it.
    neutral_probability : float
        Between 0 and 1, neither included.
    form : {"linear", "logodds"}
        Which of the two.

    Returns
    -------
    background_cost, muscle_cost : ndarray of float32, shape (Z, Y, X)
        At most one of them above 0 at any voxel; both 0 where no atlas case shows the place.

    Raises
    ------
    ParameterError
        If the neutral probability is out of range, or the form is none of these.

    Notes
    -----
    Gadermayr et al. name a "neutral probability" and a prior weight but give no formula; both forms are ours.
    """
    check_number("neutral_probability", neutral_probability, above=0, most=1 - LEAST_ODDS)
    if form not in get_args(PriorCost):
        raise ParameterError(f"prior_cost must be one of {', '.join(get_args(PriorCost))}, not {form!r}")
    neutral = np.float32(neutral_probability)
    known = prior.coverage > 0
    if form == "linear":
        preference = prior.muscle - neutral
        scales = (1 - neutral, neutral)
    else:
        clipped = np.clip(prior.muscle, LEAST_ODDS, 1 - LEAST_ODDS)
        preference = np.log(clipped / (1 - clipped)) - np.log(neutral / (1 - neutral))
        scales = (np.float32(1), np.float32(1))
    preference = np.where(known, preference, np.float32(0)).astype(np.float32)
    return np.maximum(preference, 0) / scales[0], np.maximum(-preference, 0) / scales[1]


def with_prior(
    problem: BinaryProblem,
    prior: ShapePrior,
    *,
    prior_weight: float,
    neutral_probability: float,
    prior_cost: PriorCost = "linear",
) -> BinaryProblem:
    """Add a shape prior to the costs of a graph cut.

    Parameters
    ----------
    problem : BinaryProblem
        As `musclekit.segmenters.graphcut.cut_problem` gives it.
    prior : ShapePrior
        As `prior_map` gives it.
    prior_weight : float
        Factor of its costs.
    neutral_probability, prior_cost
        As in `prior_costs`.

    Returns
    -------
    BinaryProblem
    """
    background, muscle = prior_costs(prior, neutral_probability, prior_cost)
    weight = np.float32(prior_weight)
    return replace(
        problem,
        background_cost=problem.background_cost + weight * background,
        muscle_cost=problem.muscle_cost + weight * muscle,
    )


class ShapePriorSegmenter(BaseEstimator):
    r"""Muscle by a graph cut with a shape prior (the "SPGC" of Gadermayr et al.).

    .. math:: E(L) = \sum_x D_x(L_x) + \lambda_s \sum_{(x, y)} w_{xy} [L_x \ne L_y] + \lambda_{sp} \sum_x S_x(L_x)

    The first two terms are those of `GraphCutSegmenter`; the third, see `prior_costs`, pulls towards where the
    annotated cases have muscle once they are laid onto the scan.

    Parameters
    ----------
    unary : ProbabilisticSegmenter, optional
        Gives the probability of muscle; fitted together with the atlas if it learns. The model of grey values learnt
        from the cases, `AppearanceSegmenter`, when not given.
    smoothness : float
        Price of the boundary, as in `GraphCutSegmenter`.
    sigma : float
        Low-pass in pixels, as in `GraphCutSegmenter`.
    prior_weight : float
        How much the prior counts against the probability: 0 is the graph cut alone; above about 1 the result is where
        most of the atlas has muscle, whatever the image shows.
    neutral_probability : float
        The share of the atlas at which the prior is indifferent. Smaller values find more muscle.
    prior_cost : {"linear", "logodds"}
        See `prior_costs`.
    passes : int
        1 to 3. From the second on the atlas is registered anew by the muscle found before, until that changes by less
        than 0.001 in Dice. Such a registration depends on all parameters, so nothing of it is remembered.
    low_pass, neighbourhood, pairwise, cost, exclude_bone
        As in `GraphCutSegmenter`.

    Attributes
    ----------
    unary_ : ProbabilisticSegmenter
        The fitted unary.
    atlas_ : tuple of AtlasCase
        The annotated cases.
    training_subjects_ : tuple of str
        The people they are of.

    Notes
    -----
    With prior weight 0, or where the prior is neutral, this is exactly the graph cut; with smoothness 0 as well, a
    threshold of the probability at one half. Registration, costs and passes are ours where the paper is silent.

    The prior knows the muscles of other people: it bridges what has turned to fat, and it smooths away small muscles
    and gaps that lie elsewhere in this one (as Fig. 4 of the paper shows too).

    A person who stands in the atlas is segmented by their own annotation. Who measures must leave them out; of an image
    that is in the atlas itself a `UserWarning` says so.
    """

    def __init__(
        self,
        *,
        unary: ProbabilisticSegmenter | None = None,
        smoothness: float = 0.1,
        sigma: float = 1.0,
        prior_weight: float = 0.5,
        neutral_probability: float = 0.5,
        prior_cost: PriorCost = "linear",
        passes: int = 1,
        low_pass: LowPass = "probability",
        neighbourhood: Connectivity = 8,
        pairwise: Pairwise = "length",
        cost: Cost = "probability",
        exclude_bone: bool = True,
    ) -> None:
        self.unary = unary
        self.smoothness = smoothness
        self.sigma = sigma
        self.prior_weight = prior_weight
        self.neutral_probability = neutral_probability
        self.prior_cost = prior_cost
        self.passes = passes
        self.low_pass = low_pass
        self.neighbourhood = neighbourhood
        self.pairwise = pairwise
        self.cost = cost
        self.exclude_bone = exclude_bone

    @property
    def label_set(self) -> LabelSet:
        """The set ``muscle``."""
        return label_set("muscle")

    @property
    def contrasts(self) -> frozenset[Contrast]:
        """Those of the unary."""
        return self._graph_cut().contrasts

    def fit(self, cases: Sequence[Case]) -> Self:
        """Fit the unary, and keep the cases as the atlas.

        Raises
        ------
        InputError
            If there are no cases, or one has no annotation or no muscle in it.
        ParameterError
            If a parameter is out of range, or the unary gives no probabilities.
        """
        self._check_parameters()
        if not cases:
            raise InputError("'spgc' needs annotated cases to learn from, and was given none")
        atlas = tuple(atlas_case(case, "spgc", self.label_set) for case in cases)
        self.unary_ = self._graph_cut(fitted=False).fit(cases).unary_
        self.atlas_ = atlas
        self.training_subjects_ = tuple(sorted({case.subject for case in cases}))
        return self

    def segment(self, image: Image) -> LabelMap:
        """Label muscle.

        Raises
        ------
        NotFittedError
            If it was not fitted.
        VoxelError
            If the image is constant.
        SegmentationError
            If there is no body, or the unary fails.
        """
        with remembering():
            muscle = min_cut(self.problem(image))
            for _ in range(1, self.passes):
                before, prior = muscle, refined_prior(self.atlas_, image, muscle)
                muscle = min_cut(self._weighed(image, prior))
                if dice(before, muscle) > 1 - LEAST_CHANGE:
                    break
        return LabelMap(muscle, image.grid, self.label_set)

    def problem(self, image: Image) -> BinaryProblem:
        """Return what the first pass cuts for an image. Errors are those of `segment`."""
        self._check_parameters()
        check_contrast(image, self.contrasts, "spgc")
        check_voxels(image)
        if not hasattr(self, "atlas_"):
            raise NotFittedError(
                "'spgc' learns from annotated cases: call fit(cases) first (on the command line: --cases MANIFEST)"
            )
        warn_of_own_annotation(self.atlas_, image, "spgc")
        return self._weighed(image, prior_map(self.atlas_, image))

    def _weighed(self, image: Image, prior: ShapePrior) -> BinaryProblem:
        return with_prior(
            self._graph_cut().problem(image),
            prior,
            prior_weight=self.prior_weight,
            neutral_probability=self.neutral_probability,
            prior_cost=self.prior_cost,
        )

    def _graph_cut(self, fitted: bool = True) -> GraphCutSegmenter:
        """Return the graph cut that is left when the prior is taken away."""
        unary = AppearanceSegmenter() if self.unary is None else self.unary
        return GraphCutSegmenter(
            unary=self.unary_ if fitted and hasattr(self, "unary_") else unary,
            smoothness=self.smoothness,
            sigma=self.sigma,
            low_pass=self.low_pass,
            neighbourhood=self.neighbourhood,
            pairwise=self.pairwise,
            cost=self.cost,
            exclude_bone=self.exclude_bone,
        )

    def _check_parameters(self) -> None:
        check_number("smoothness", self.smoothness, least=0)
        check_number("sigma", self.sigma, least=0)
        check_number("prior_weight", self.prior_weight, least=0)
        check_number("neutral_probability", self.neutral_probability, above=0, most=1 - LEAST_ODDS)
        check_number("passes", self.passes, least=1, most=MOST_PASSES, whole=True)
        if self.prior_cost not in get_args(PriorCost):
            raise ParameterError(f"prior_cost must be one of {', '.join(get_args(PriorCost))}, not {self.prior_cost!r}")
