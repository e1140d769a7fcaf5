"""Muscle by a graph cut: a probability at each voxel, and a price on the length of the boundary.

The probabilities come from any method that gives some. The steps that a search over parameters meets again and again
(body, bone, low-pass, probabilities) are remembered while a `musclekit.memory.Memory` is in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone

from musclekit.anatomy import body_mask, split_legs
from musclekit.checks import check_contrast, check_number, check_voxels
from musclekit.errors import ParameterError
from musclekit.image import Case, Contrast, Image, LabelMap, ProbabilityMap
from musclekit.labels import LabelSet, label_mapping, label_set
from musclekit.memory import remembered
from musclekit.protocols import ProbabilisticSegmenter
from musclekit.segmenters.mincut import (
    BACKGROUND,
    FREE,
    BinaryProblem,
    Connectivity,
    mean_squared_difference,
    min_cut,
    neighbourhood,
)
from musclekit.segmenters.mixture import MixtureSegmenter, smooth_inside
from musclekit.segmenters.planes import WorkingPlanes, body_box, numbered_legs
from musclekit.segmenters.tissue_ct import bone_mask
from musclekit.segmenters.tissue_mr import mr_tissues

__all__ = [
    "Cost",
    "GraphCutSegmenter",
    "LowPass",
    "Pairwise",
    "body_of",
    "bone_of",
    "cut_problem",
    "fixed_labels",
    "muscle_probability",
    "smoothed_image",
    "smoothed_probability",
    "unary_costs",
]

Cost = Literal["probability", "nll"]
LowPass = Literal["probability", "image"]
Pairwise = Literal["length", "contrast"]

#: Probabilities are kept this far from 0 and 1 before their logarithm is taken.
LEAST_PROBABILITY = 1e-6


@remembered()
def body_of(image: Image) -> NDArray[np.bool_]:
    """Body mask of an image, as `musclekit.anatomy.body_mask` finds it; shape (Z, Y, X)."""
    return body_mask(image)


@remembered()
def bone_of(image: Image) -> NDArray[np.bool_]:
    """Bone with its marrow: every bone in CT, the femur in MR, as ``tissue`` finds them.

    Parameters
    ----------
    image : Image
        CT or MR.

    Returns
    -------
    ndarray of bool, shape (Z, Y, X)
        Empty where no bone is recognised.

    Raises
    ------
    SegmentationError
        If there is no body.
    """
    body = body_of(image)
    if image.contrast is not Contrast.CT:
        tissues = mr_tissues(image, body, numbered_legs(split_legs(image, body), image.grid.shape))
        ids = label_set("tissue").ids_of
        return np.isin(tissues, ids("cortical bone") + ids("marrow"))
    box = body_box(body)
    working = WorkingPlanes.of(body[box].shape, image.grid.spacing)
    found = bone_mask(working.resampled(image.voxels[box]), working.resampled_mask(body[box]), working.spacing)
    bone = np.zeros_like(body)
    bone[box] = working.restored(found) & body[box]
    return bone


@remembered()
def smoothed_image(image: Image, sigma: float) -> Image:
    """Gaussian low-pass of each plane inside the body; what lies outside stays as it is.

    Parameters
    ----------
    image : Image
        CT or MR.
    sigma : float
        Standard deviation in pixels; 0 returns the image itself.

    Returns
    -------
    Image
        On the same grid.
    """
    if sigma == 0:
        return image
    body = body_of(image)
    return image.with_voxels(np.where(body, _low_pass(image.voxels, body, sigma), image.voxels))


def _low_pass(values: NDArray[np.float32], inside: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    planes = zip(values, inside, strict=True)
    return np.stack([smooth_inside(plane, within, (sigma, sigma)) for plane, within in planes])


@remembered()
def muscle_probability(unary: ProbabilisticSegmenter, image: Image) -> NDArray[np.float32]:
    """Probability of muscle according to a method: the sum over its labels that are muscle.

    Parameters
    ----------
    unary : ProbabilisticSegmenter
        Fitted, if it needs fitting.
    image : Image
        What it is asked about.

    Returns
    -------
    ndarray of float32, shape (Z, Y, X)

    Raises
    ------
    LabelError
        If no map leads from its label set to ``muscle``.
    """
    return _muscle_of(unary.probabilities(image))


@remembered()
def smoothed_probability(
    unary: ProbabilisticSegmenter, image: Image, sigma: float, inside: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Probability of muscle, low-passed in each plane within a mask.

    Parameters
    ----------
    unary, image
        As in `muscle_probability`.
    sigma : float
        Standard deviation in pixels of the plane; 0 for none.
    inside : ndarray of bool, shape (Z, Y, X)
        Where probabilities count, such as where `fixed_labels` leaves the label free.

    Returns
    -------
    ndarray of float32, shape (Z, Y, X)
        Zero outside the mask, unless sigma is 0.
    """
    probability = muscle_probability(unary, image)
    if sigma == 0:
        return probability
    # A weighted mean of probabilities may leave their range by a rounding.
    return np.clip(_low_pass(probability, inside, sigma), 0, 1)


def _muscle_of(found: ProbabilityMap) -> NDArray[np.float32]:
    ways = label_mapping(found.label_set, label_set("muscle")).ids
    channels = [c for c, label in enumerate(found.label_set, start=1) if label.id in ways]
    summed: NDArray[np.float32] = found.voxels[channels].sum(axis=0)
    return summed


def unary_costs(
    probability: NDArray[np.float32], cost: Cost = "probability"
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Turn probabilities into the costs of calling a voxel background, and of calling it muscle.

    Parameters
    ----------
    probability : ndarray of float32, shape (Z, Y, X)
        Of muscle.
    cost : {"probability", "nll"}
        The probability of the other label, or the negative logarithm of that of the label itself, which trusts extreme
        probabilities far more; they are kept within 1e-6 of 0 and 1.

    Returns
    -------
    background_cost, muscle_cost : ndarray of float32, shape (Z, Y, X)
    """
    if cost == "probability":
        return probability, 1 - probability
    clipped = np.clip(probability, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY, dtype=np.float64)
    return -np.log1p(-clipped).astype(np.float32), -np.log(clipped).astype(np.float32)


def fixed_labels(image: Image, exclude_bone: bool = True) -> NDArray[np.int8]:
    """Labels that are given: background outside the body and, if asked for, in bone.

    Returns
    -------
    ndarray of int8, shape (Z, Y, X)
        As `BinaryProblem.fixed`.
    """
    free = body_of(image)
    if exclude_bone:
        free = free & ~bone_of(image)
    return np.where(free, np.int8(FREE), np.int8(BACKGROUND))


def cut_problem(
    probability: NDArray[np.float32],
    image: Image,
    fixed: NDArray[np.int8],
    *,
    smoothness: float,
    connectivity: Connectivity = 8,
    pairwise: Pairwise = "length",
    cost: Cost = "probability",
) -> BinaryProblem:
    """Put probabilities, constraints and the price of the boundary together.

    Parameters
    ----------
    probability : ndarray of float32, shape (Z, Y, X)
        Of muscle.
    image : Image
        Its spacing weighs the neighbours; its grey values those of the contrast term.
    fixed : ndarray of int8, shape (Z, Y, X)
        As `fixed_labels` gives them.
    smoothness : float
        Factor of the pairwise weights.
    connectivity : {4, 8, 6, 18, 26}
        As in `musclekit.segmenters.mincut.neighbourhood`.
    pairwise : {"length", "contrast"}
        Contrast: the boundary is cheaper where grey values change, by their mean squared difference between free
        neighbours.
    cost : {"probability", "nll"}
        As in `unary_costs`.

    Returns
    -------
    BinaryProblem
        For `min_cut` and `cut_energy`. A prior is added to its two costs with `dataclasses.replace`.
    """
    background, muscle = unary_costs(probability, cost)
    pairs = neighbourhood(connectivity, image.grid.spacing)
    problem = BinaryProblem(background, muscle, pairs, smoothness, fixed)
    if pairwise == "length":
        return problem
    variance = mean_squared_difference(image.voxels, pairs, fixed == FREE)
    # Where all free neighbours are alike there is no contrast to follow.
    return replace(problem, guide=image.voxels, guide_variance=variance) if variance > 0 else problem


class GraphCutSegmenter(BaseEstimator):
    r"""Muscle by the minimum cut of probabilities and boundary length (the graph cut of Gadermayr et al.).

    .. math:: E(L) = \sum_x D_x(L_x) + \lambda \sum_{(x, y)} w_{xy} [L_x \ne L_y]

    with :math:`D_x` from the probability of muscle and :math:`w_{xy}` from the distance of neighbours. Outside the
    body and in bone the label is background.

    Parameters
    ----------
    unary : ProbabilisticSegmenter, optional
        Gives the probability of muscle; fitted together with the cut if it learns. The mixture when not given, which
        needs no annotation; ``AppearanceSegmenter()`` is the one learnt from annotated cases.
    smoothness : float
        Price :math:`\lambda` of the boundary. Near 0 single voxels speak for themselves; at 0.5 what is less than a
        few pixels wide disappears.
    sigma : float
        Standard deviation of the Gaussian low-pass inside the body, in pixels of the plane.
    low_pass : {"probability", "image"}
        What is low-passed: the probabilities that the unary finds in the image as it is, or the image that the unary
        is fitted on and asked about. The contrast term always sees the low-passed image.
    neighbourhood : {4, 8, 6, 18, 26}
        4 and 8 cut each slice for itself, 6, 18 and 26 the volume; weighted by the spacing.
    pairwise : {"length", "contrast"}
        Contrast also multiplies each weight by :math:`\exp(-(I_x - I_y)^2 / 2 \beta^2)`, :math:`\beta^2` being the
        mean squared difference, so that the boundary follows edges.
    cost : {"probability", "nll"}
        :math:`D_x` as probability of the other label, or negative log-likelihood.
    exclude_bone : bool
        Whether bone, where it is recognised, is background for certain.

    Attributes
    ----------
    unary_ : ProbabilisticSegmenter
        The fitted unary.
    training_subjects_ : tuple of str
        The people the unary was learnt from; there only where it learns.

    Notes
    -----
    The paper names the method and its parameters but gives no formula; energy, weights and the exponent are those of
    Boykov and Jolly (2001) and Boykov and Kolmogorov (2003). It speaks of a weight of the low-pass without saying what
    passes through it. Where the image does, tissues mix along every border and fat in infiltrated muscle turns into an
    even grey, so that the mixture loses its dark component and grey values tell less; where the probabilities do, each
    voxel hears what its neighbours were found to be. That is why the latter is the default.

    With a translator the contrast term can come from either image::

        Translated(translator=t, segmenter=GraphCutSegmenter(pairwise="contrast"))             # from the translated
        GraphCutSegmenter(unary=Translated(translator=t, segmenter=gmm), pairwise="contrast")  # from the original

    Body and bone, too, come from the image that the cut is given.

    A cut gives labels, not probabilities; those of the unary are `muscle_probability`.
    """

    def __init__(
        self,
        *,
        unary: ProbabilisticSegmenter | None = None,
        smoothness: float = 0.1,
        sigma: float = 1.0,
        low_pass: LowPass = "probability",
        neighbourhood: Connectivity = 8,
        pairwise: Pairwise = "length",
        cost: Cost = "probability",
        exclude_bone: bool = True,
    ) -> None:
        self.unary = unary
        self.smoothness = smoothness
        self.sigma = sigma
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
        return self._chosen_unary().contrasts

    def fit(self, cases: Sequence[Case]) -> Self:
        """Fit the unary on the cases, low-passed if it is images that are.

        Raises
        ------
        ParameterError
            If a parameter is out of range, or the unary gives no probabilities.
        InputError
            What the unary raises: it may need annotated cases.
        """
        self._check_parameters()
        unary = MixtureSegmenter() if self.unary is None else clone(self.unary)
        self.unary_ = unary.fit([self._smoothed(case) for case in cases] if self.low_pass == "image" else cases)
        if hasattr(self.unary_, "training_subjects_"):
            self.training_subjects_ = self.unary_.training_subjects_
        return self

    def segment(self, image: Image) -> LabelMap:
        """Label muscle.

        Raises
        ------
        NotFittedError
            If the unary learns and was not fitted.
        VoxelError
            If the image is constant.
        SegmentationError
            If there is no body, or the unary fails.
        """
        return LabelMap(min_cut(self.problem(image)), image.grid, self.label_set)

    def problem(self, image: Image) -> BinaryProblem:
        """Return what is cut for an image: see `cut_problem`. Errors are those of `segment`."""
        self._check_parameters()
        check_contrast(image, self.contrasts, "graphcut")
        check_voxels(image)
        unary = self._chosen_unary()
        fixed = fixed_labels(image, self.exclude_bone)
        if self.low_pass == "image":
            probability = muscle_probability(unary, smoothed_image(image, self.sigma))
        else:
            probability = smoothed_probability(unary, image, self.sigma, fixed == FREE)
        return cut_problem(
            probability,
            image if self.pairwise == "length" else smoothed_image(image, self.sigma),
            fixed,
            smoothness=self.smoothness,
            connectivity=self.neighbourhood,
            pairwise=self.pairwise,
            cost=self.cost,
        )

    def _chosen_unary(self) -> ProbabilisticSegmenter:
        """Return the fitted unary, or the one there is."""
        if hasattr(self, "unary_"):
            return self.unary_
        return MixtureSegmenter() if self.unary is None else self.unary

    def _smoothed(self, case: Case) -> Case:
        images = {contrast: smoothed_image(image, self.sigma) for contrast, image in case.images.items()}
        return replace(case, images=images)

    def _check_parameters(self) -> None:
        check_number("smoothness", self.smoothness, least=0)
        check_number("sigma", self.sigma, least=0)
        choices = {"low_pass": LowPass, "neighbourhood": Connectivity, "pairwise": Pairwise, "cost": Cost}
        for name, allowed in choices.items():
            if getattr(self, name) not in get_args(allowed):
                known = ", ".join(str(value) for value in get_args(allowed))
                raise ParameterError(f"{name} must be one of {known}, not {getattr(self, name)!r}")
        if not isinstance(self.exclude_bone, bool):
            raise ParameterError(f"exclude_bone must be true or false, not {self.exclude_bone!r}")
        if self.unary is not None and not isinstance(self.unary, ProbabilisticSegmenter):
            raise ParameterError(
                "unary must be a method that gives probabilities, such as gmm or appearance; "
                f"{type(self.unary).__name__} gives none"
            )
