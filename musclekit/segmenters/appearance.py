"""How muscle looks: densities of grey values learnt from annotated cases, on a scale that every image brings along.

MR grey values mean nothing by themselves. The mixture of each image says where its muscle and its fat lie; on the scale
from one to the other the cases can be added up, and a new image be read.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple, Self, cast, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.base import BaseEstimator

from musclekit.anatomy import body_mask
from musclekit.checks import check_cases, check_contrast, check_number, check_voxels
from musclekit.errors import InputError, ModalityError, NotFittedError, ParameterError, SegmentationError, VoxelError
from musclekit.image import Case, Contrast, Image, LabelMap, ProbabilityMap
from musclekit.labels import LabelSet, label_mapping, label_set
from musclekit.memory import remembered
from musclekit.segmenters.mixture import Mixture, MixtureSegmenter, Per

__all__ = ["AppearanceSegmenter", "appearance_counts", "class_densities", "muscle_posterior", "standardised"]

#: The scale is cut off here: muscle is 0, fat 1, so this is as far beyond either as they lie apart.
RANGE = (-1.0, 2.0)

#: Muscle and fat are told apart when their means differ by this part of the sum of their standard deviations at least
#: (coils that fade make fat wide), and each holds this share of the body.
LEAST_GAP, LEAST_SHARE = 0.5, 0.01

#: Components of the mixture that are muscle, and the one that is fat. Where fat is suppressed the third component holds
#: the muscle that swelling or a near coil makes bright, and their common mean is the steadier mark.
MUSCLE_AND_FAT: dict[Contrast, tuple[tuple[int, ...], int]] = {
    Contrast.CT: ((1,), 0),
    Contrast.T1W: ((1,), 2),
    Contrast.T2W: ((1,), 2),
    Contrast.MR: ((1,), 2),
    Contrast.FAT: ((0,), 2),
    Contrast.WATER: ((1, 2), 0),
    Contrast.STIR: ((1, 2), 0),
}


@remembered()
def standardised(image: Image, per: Per = "volume") -> NDArray[np.float32]:
    """Grey values on the scale on which muscle is 0 and fat is 1, as the mixture of the image finds them.

    Parameters
    ----------
    image : Image
        Any contrast. In a fat image, where healthy muscle and bone are one component, that one is muscle; where fat is
        suppressed, muscle is the mean of the two bright components.
    per : {"slice", "volume"}
        One scale for each plane, or one for the scan.

    Returns
    -------
    ndarray of float32, shape (Z, Y, X)
        Within -1..2; values beyond lie at the ends. NaN outside the body.

    Raises
    ------
    SegmentationError
        If the mixture fails, or does not tell muscle from fat: means in the wrong order, or nearer to each other than
        half of what the two deviate together, or hardly a voxel in one of them. Per slice, only where that is so in
        every plane: else a plane without a scale takes that of its neighbours, with a `UserWarning` (none where there
        is but too little body for a mixture).
    """
    body = body_mask(image)
    mixtures = MixtureSegmenter(per=per).mixtures(image)
    if per == "slice":
        scales = _of_each(mixtures, image.contrast)
    else:
        found = _scale(mixtures[0], image.contrast)
        if not isinstance(found, _Scale):
            raise SegmentationError(found)
        scales = [found] * len(body)
    scaled: NDArray[np.float32] = np.full(image.grid.shape, np.nan, dtype=np.float32)
    for z, (zero, one) in enumerate(scales):
        scaled[z][body[z]] = np.clip((image.voxels[z][body[z]] - zero) / (one - zero), *RANGE)
    return scaled


class _Scale(NamedTuple):
    """Grey values of muscle and of fat."""

    muscle: float
    fat: float


def _scale(mixture: Mixture | None, contrast: Contrast) -> _Scale | str:
    """Return the scale of a mixture, or why it has none."""
    if mixture is None:
        return "there is too little body for a mixture"
    muscle, fat = MUSCLE_AND_FAT[contrast]
    sign = 1 if fat > muscle[0] else -1
    weights, means, variances = (np.array(part) for part in (mixture.weights, mixture.means, mixture.variances))
    of_muscle = weights[list(muscle)]
    zero, one = float(np.average(means[list(muscle)], weights=of_muscle)), float(means[fat])
    width = float(np.sqrt(variances[muscle[0]]) + np.sqrt(variances[fat]))
    share = min(float(of_muscle.sum()), float(weights[fat]))
    if sign * (one - zero) < LEAST_GAP * width or share < LEAST_SHARE:
        return (
            f"the mixture does not tell muscle (mean {zero:.4g}) from fat (mean {one:.4g}), so that the grey values"
            " have no scale in common with other images; a method without such a scale may do: tissue"
        )
    return _Scale(zero, one)


def _of_each(mixtures: Sequence[Mixture | None], contrast: Contrast) -> list[_Scale]:
    """Return a scale for each plane: its own, or one between those of the nearest planes that have one."""
    found = [_scale(mixture, contrast) for mixture in mixtures]
    known = {z: scale for z, scale in enumerate(found) if isinstance(scale, _Scale)}
    failed = {z: why for z, why in enumerate(found) if isinstance(why, str)}
    if not known:
        z, why = next(iter(failed.items()))
        raise SegmentationError(f"no slice has a scale of its own; slice {z}: {why}")
    strange = [str(z) for z in failed if mixtures[z] is not None]
    if strange:
        warnings.warn(
            f"appearance: slice {', '.join(strange)} cannot tell muscle from fat by itself and takes the scale of its"
            " neighbours; look at the result",
            UserWarning,
            stacklevel=4,
        )
    columns = zip(*known.values(), strict=True)
    zeros, ones = (np.interp(np.arange(len(found)), list(known), column) for column in columns)
    return [_Scale(float(zero), float(one)) for zero, one in zip(zeros, ones, strict=True)]


@remembered()
def appearance_counts(image: Image, reference: LabelMap, per: Per = "volume", n_bins: int = 64) -> NDArray[np.int64]:
    """Histograms of the standardised grey values of background and of muscle in one case.

    Parameters
    ----------
    image : Image
        As `standardised` takes it.
    reference : LabelMap
        Its annotation, in a label set that leads to ``muscle``. A plane without any label counts as not annotated.
    per : {"slice", "volume"}
        As in `standardised`.
    n_bins : int
        Bins from -1 to 2.

    Returns
    -------
    ndarray of int64, shape (2, n_bins)
        Background inside the body, and muscle.

    Raises
    ------
    LabelError
        If no map leads from the reference's label set to ``muscle``.
    SegmentationError
        As `standardised`.
    """
    muscle = reference.mapped(label_mapping(reference.label_set, label_set("muscle"))).mask("muscle")
    scaled = standardised(image, per)
    seen = np.isfinite(scaled)
    seen[[not plane.any() for plane in reference.voxels]] = False
    return np.stack([np.histogram(scaled[seen & part], bins=n_bins, range=RANGE)[0] for part in (~muscle, muscle)])


def class_densities(counts: NDArray[np.int64], smoothing_bins: float = 1.0) -> NDArray[np.float64]:
    """Densities of background and muscle: one is added to every bin (Laplace), then a Gaussian smooths them.

    Parameters
    ----------
    counts : ndarray of int, shape (2, n_bins)
        As `appearance_counts` gives them, summed over cases.
    smoothing_bins : float
        Standard deviation of the Gaussian in bins; 0 for none.

    Returns
    -------
    ndarray of float64, shape (2, n_bins)
        Each row sums to 1.
    """
    more = counts + 1.0
    if smoothing_bins > 0:
        more = ndimage.gaussian_filter1d(more, smoothing_bins, axis=1, mode="nearest")
    shares: NDArray[np.float64] = more / more.sum(axis=1, keepdims=True)
    return shares


def muscle_posterior(densities: NDArray[np.float64], prior: float, scaled: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probability of muscle given a standardised grey value, by Bayes' rule.

    Parameters
    ----------
    densities : ndarray of float, shape (2, n_bins)
        As `class_densities` gives them.
    prior : float
        Share of muscle in the body.
    scaled : ndarray of float32
        Standardised grey values; NaN where there are none.

    Returns
    -------
    ndarray of float32, of the shape of `scaled`
        Linear between the middles of the bins; 0 at NaN.
    """
    joint = densities * np.array([[1 - prior], [prior]])
    of_bin = joint[1] / joint.sum(axis=0)
    edges = np.linspace(*RANGE, len(of_bin) + 1)
    known = np.isfinite(scaled)
    probability = np.zeros(scaled.shape, dtype=np.float32)
    probability[known] = np.interp(scaled[known], (edges[1:] + edges[:-1]) / 2, of_bin)
    return probability


class AppearanceSegmenter(BaseEstimator):
    r"""Muscle by how bright it is in annotated cases: :math:`P = p(s|m)\pi_m / (p(s|m)\pi_m + p(s|b)\pi_b)`.

    Grey values are put on a scale on which the mixture of their own image finds muscle at 0 and fat at 1; the densities
    of muscle and of the rest of the body, and the share of muscle, come from the annotated cases.

    Parameters
    ----------
    per : {"slice", "volume"}
        One scale for each plane, or one for the scan.
    n_bins : int
        Bins of the histograms.
    smoothing_bins : float
        Standard deviation of the Gaussian that smooths them, in bins.

    Attributes
    ----------
    densities_ : ndarray of float64, shape (2, n_bins)
        Background and muscle.
    prior_ : float
        Share of muscle in the annotated planes of the body.
    contrast_ : Contrast
        What it was learnt on, and the only contrast it takes from then on.
    training_subjects_ : tuple of str
        The people it was learnt from.

    Notes
    -----
    The trained unary of Gadermayr et al., whose paper says that the initialisation comes from the mixture and the
    probabilistic model from the annotation, and no more: scale, bins and smoothing are ours.

    Where the mixture of an image fails there is no scale. `segment` then raises a `SegmentationError`; `fit` leaves the
    case out with a `UserWarning` that names it, and raises where no case is left.
    """

    def __init__(self, *, per: Per = "volume", n_bins: int = 64, smoothing_bins: float = 1.0) -> None:
        self.per = per
        self.n_bins = n_bins
        self.smoothing_bins = smoothing_bins

    @property
    def label_set(self) -> LabelSet:
        """The set ``muscle``."""
        return label_set("muscle")

    @property
    def contrasts(self) -> frozenset[Contrast]:
        """Every contrast before it was fitted, then the one it was fitted on."""
        return frozenset({self.contrast_}) if hasattr(self, "contrast_") else frozenset(Contrast)

    def fit(self, cases: Sequence[Case]) -> Self:
        """Learn the densities.

        Raises
        ------
        InputError
            If there are no cases, one has no annotation, or the mixture fails on every one.
        ModalityError
            If the cases are of several contrasts.
        """
        self._check_parameters()
        if not cases:
            raise InputError("'appearance' needs annotated cases to learn from, and was given none")
        for case in cases:
            if case.reference is None:
                raise InputError(f"'appearance' needs annotated cases: case '{case.id}' has no reference")
        check_cases(cases, frozenset(Contrast), "appearance")
        contrasts = sorted({case.image.contrast for case in cases})
        if len(contrasts) > 1:
            raise ModalityError(f"'appearance' learns from cases of one contrast, not of {' and '.join(contrasts)}")
        counts = np.zeros((2, self.n_bins), dtype=np.int64)
        learnt = [case for case in cases if self._add(counts, case)]
        if not learnt:
            raise InputError("'appearance' cannot learn: the mixture failed on every case, or no muscle is labelled")
        self.densities_ = class_densities(counts, self.smoothing_bins)
        self.prior_ = float(counts[1].sum() / counts.sum())
        self.contrast_ = contrasts[0]
        self.training_subjects_ = tuple(sorted({case.subject for case in learnt}))
        return self

    def segment(self, image: Image) -> LabelMap:
        """Label as muscle what is more probably muscle than not.

        Raises
        ------
        NotFittedError
            If it was not fitted.
        ModalityError
            If the image is of another contrast than the cases.
        SegmentationError
            If there is no body, or the mixture does not tell its muscle from its fat.
        """
        return self.probabilities(image).labels()

    def probabilities(self, image: Image) -> ProbabilityMap:
        """Probability of background and of muscle; outside the body background is certain."""
        self._check_parameters()
        check_contrast(image, self.contrasts, "appearance")
        check_voxels(image)
        if not hasattr(self, "densities_"):
            raise NotFittedError(
                "'appearance' learns from annotated cases: call fit(cases) first"
                " (on the command line: --cases MANIFEST)"
            )
        muscle = muscle_posterior(self.densities_, self.prior_, standardised(image, self.per))
        return ProbabilityMap(np.stack([1 - muscle, muscle]), image.grid, self.label_set)

    def _add(self, counts: NDArray[np.int64], case: Case) -> bool:
        """Add a case to the histograms; say whether it could be."""
        problem: object = "no muscle is labelled in its body"
        try:
            found = appearance_counts(case.image, cast(LabelMap, case.reference), self.per, self.n_bins)
            if found[1].any():
                counts += found
                return True
        except (SegmentationError, VoxelError) as failure:
            problem = failure
        warnings.warn(f"appearance: case '{case.id}' is left out: {problem}", UserWarning, stacklevel=3)
        return False

    def _check_parameters(self) -> None:
        if self.per not in get_args(Per):
            raise ParameterError(f"per must be one of {', '.join(get_args(Per))}, not {self.per!r}")
        check_number("n_bins", self.n_bins, least=2, most=4096, whole=True)
        check_number("smoothing_bins", self.smoothing_bins, least=0)
