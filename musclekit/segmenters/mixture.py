"""Muscle by a Gaussian mixture of the grey values: no training data, no shape, three tissues told apart by brightness.

The mixture has three components: a dark one, muscle, and a bright one. Gadermayr et al. start it at the smallest grey
value, a sixth of the range above it, and the largest, and call muscle what was started second; a component stays what
it was started as, wherever its mean goes. Expectation maximisation runs on a histogram.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, get_args

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from musclekit.anatomy import body_mask
from musclekit.checks import check_cases, check_contrast, check_number, check_voxels
from musclekit.errors import ParameterError, SegmentationError, VoxelError
from musclekit.image import Case, Contrast, Image, LabelMap, ProbabilityMap
from musclekit.labels import LabelSet, label_set

__all__ = ["Initial", "Mixture", "MixtureSegmenter", "Muscle", "Per", "fit_mixture", "posteriors", "smooth_inside"]

Initial = Literal["exact", "robust"]
Muscle = Literal["by-contrast", "second"]
Per = Literal["slice", "volume"]

#: Start of the three means, as fractions of the range (Gadermayr et al., section 2.2).
START_FRACTIONS = (0.0, 1.0 / 6.0, 1.0)

#: Start where fat is suppressed: muscle is then most of the picture and lies in the middle of the range.
START_FRACTIONS_FAT_DARK = (0.0, 0.5, 1.0)

#: Start of the means of a CT in HU: fat, muscle, bone (the seeds of Makrogiannis' mid-thigh pipeline, its fat seed
#: moved from -20 to where fat is).
START_HU = (-100.0, 50.0, 700.0)

#: Range of grey values that a robust start believes, as quantiles.
ROBUST_QUANTILES = (0.001, 0.999)

#: Bins that the quantiles are read from.
FINE_BINS = 1 << 20

#: The variances start at the square of this part of the range and never fall below the square of the other.
START_DEVIATION = 1.0 / 6.0
FLOOR_DEVIATION = 1e-3

#: A plane with less body than this is left empty when planes are fitted one by one: three components need data.
LEAST_VOXELS = 100

#: Contrasts in which fat is suppressed.
FAT_DARK = frozenset({Contrast.WATER, Contrast.STIR})

SECOND = 1

#: Components that are muscle where it is not the second alone.
MUSCLE_COMPONENTS = {Contrast.FAT: (0, SECOND), Contrast.WATER: (SECOND, 2), Contrast.STIR: (SECOND, 2)}


@dataclass(frozen=True)
class Mixture:
    """A one-dimensional Gaussian mixture, its components in the order they were started in.

    Parameters
    ----------
    weights, means, variances : tuple of float
        One a component; weights sum to 1, means in grey values, variances in their square.
    n_iterations : int
        Steps of expectation maximisation taken.
    converged : bool
        Whether the mean log-likelihood stopped rising before the steps ran out.
    """

    weights: tuple[float, ...]
    means: tuple[float, ...]
    variances: tuple[float, ...]
    n_iterations: int
    converged: bool

    @property
    def in_order(self) -> bool:
        """Whether the means still rise in the order of the components; if not, the names given them are in doubt."""
        return all(low < high for low, high in zip(self.means, self.means[1:], strict=False))


def fit_mixture(
    values: ArrayLike,
    mask: NDArray[np.bool_] | None = None,
    *,
    initial: Initial = "exact",
    means: Sequence[float] | None = None,
    start_fractions: Sequence[float] = START_FRACTIONS,
    n_bins: int = 1024,
    max_iterations: int = 200,
    tolerance: float = 1e-4,
) -> Mixture:
    """Fit a Gaussian mixture to grey values by expectation maximisation on their histogram.

    Parameters
    ----------
    values : array_like of any shape
        Grey values; finite.
    mask : ndarray of bool, of the shape of `values`, optional
        Which of them to use; all when not given.
    initial : {"exact", "robust"}
        Exact: the range that the means start in goes from the smallest to the largest value, as published, and every
        standard deviation starts at a sixth of it. Robust: the range lies between the quantiles 0.001 and 0.999,
        values beyond them counted at its ends, and each deviation starts at half the distance to the nearest other
        mean, so that the dark component does not take the muscle over.
    means : sequence of float, optional
        Means to start from, in grey values, in place of `start_fractions`.
    start_fractions : sequence of float
        Means to start from, as fractions of the range.
    n_bins : int
        Bins of the histogram. The result differs from that on the values themselves by less than a bin.
    max_iterations : int
        Steps at most.
    tolerance : float
        The steps end when the mean log-likelihood rises by less.

    Returns
    -------
    Mixture
        Its components in the order they were started in, sorted or not.

    Raises
    ------
    VoxelError
        If there are no values, or all are alike.
    SegmentationError
        If a component loses its last voxel twice.

    Notes
    -----
    After Gadermayr et al., section 2.2, which gives the start of the means alone. Here weights start equal, and
    standard deviations never fall below a thousandth of the range. A component that is left with less than one voxel
    is started anew once.

    Examples
    --------
    >>> grey = np.concatenate([np.full(100, 0.0), np.full(300, 0.2), np.full(200, 1.0)])
    >>> [round(mean, 2) for mean in fit_mixture(grey).means]
    [0.0, 0.2, 1.0]
    """
    counts, centres = _histogram(np.asarray(values, dtype=np.float32), mask, initial, n_bins)
    low, width = float(centres[0]), float(centres[-1] - centres[0])
    start = np.array([low + f * width for f in start_fractions] if means is None else means, dtype=np.float64)
    deviations = np.full(len(start), START_DEVIATION * width) if initial == "exact" else _half_gaps(start)
    return _expectation_maximisation(
        counts, centres, start, deviations, max_iterations=max_iterations, tolerance=tolerance
    )


def posteriors(mixture: Mixture, values: ArrayLike) -> NDArray[np.float64]:
    r"""Probability of each component given the grey value.

    Parameters
    ----------
    mixture : Mixture
        As `fit_mixture` returns it.
    values : array_like of any shape
        Grey values.

    Returns
    -------
    ndarray of float64, shape (components, \*values.shape)
        Sums to 1 over the first axis, also where every density underflows (log-sum-exp).
    """
    s = np.asarray(values, dtype=np.float64)
    log_joint = _log_joint(
        s.reshape(-1), np.array(mixture.weights), np.array(mixture.means), np.array(mixture.variances)
    )
    responsibilities, _ = _normalised(log_joint)
    return responsibilities.reshape(len(mixture.weights), *s.shape)


def smooth_inside(
    plane: NDArray[np.float32], inside: NDArray[np.bool_], sigma: tuple[float, float]
) -> NDArray[np.float32]:
    """Gaussian low-pass of one plane that takes nothing from outside a mask (a normalised convolution).

    Parameters
    ----------
    plane : ndarray of float32, shape (Y, X)
        Grey values.
    inside : ndarray of bool, shape (Y, X)
        Where they count.
    sigma : (float, float)
        Standard deviation along rows and columns (y, x), in voxels.

    Returns
    -------
    ndarray of float32, shape (Y, X)
        Smoothed inside, zero outside.
    """
    weight = inside.astype(np.float32)
    top = cv2.GaussianBlur(plane * weight, (0, 0), sigmaX=sigma[1], sigmaY=sigma[0])
    bottom = cv2.GaussianBlur(weight, (0, 0), sigmaX=sigma[1], sigmaY=sigma[0])
    smooth = np.zeros_like(plane)
    np.divide(top, bottom, out=smooth, where=inside)
    return smooth


class MixtureSegmenter(BaseEstimator):
    """Muscle as one component of a three-component Gaussian mixture, inside the body (Gadermayr et al., section 2.2).

    The components, from dark to bright, and those that are muscle with ``muscle="by-contrast"``:

    ============ ========================= ============================== ==============
    contrast     components                start                          muscle
    ============ ========================= ============================== ==============
    T1W, T2W, MR bone and vessels, muscle, 0, 1/6, 1 of the range,        second
                 fat                       as published
    FAT          bone and muscle, muscle,  0, 1/6, 1 of the range         first and
                 fat                                                      second
    CT           fat, muscle, bone         robust: -100, 50, 700 HU       second
                                           exact: 0, 1/6, 1 of the range
    WATER, STIR  fat and bone, muscle,     0, 1/2, 1 of the range         second and
                 fluid                                                    third
    ============ ========================= ============================== ==============

    A fat image shows neither bone nor healthy muscle: both are the first component, infiltrated muscle the second.
    In a water image muscle near a coil, or swollen, is as bright as fluid. An MR of unknown weighting is taken to have
    bright fat. The paper knows T1W alone.

    Parameters
    ----------
    per : {"slice", "volume"}
        One mixture for each plane, as published, or one for the whole scan.
    initial : {"exact", "robust"}
        Where the means start: see `fit_mixture`.
    sigma_mm : float
        Standard deviation of the in-plane Gaussian low-pass applied first; 0 for none.
    muscle : {"by-contrast", "second"}
        Which components are muscle: those of the table, or the one started second whatever the contrast, as published.
    n_bins, max_iterations, tolerance
        As in `fit_mixture`.

    Notes
    -----
    The defaults are the robust ones. `MixtureSegmenter.exact` gives the published setting but for one thing: air
    outside the body is left out, where the paper does not say.

    A component keeps its name when its mean passes that of another. That is reported with a `UserWarning` that names
    the planes, never mended in silence.
    """

    def __init__(
        self,
        *,
        per: Per = "volume",
        initial: Initial = "robust",
        sigma_mm: float = 0.0,
        muscle: Muscle = "by-contrast",
        n_bins: int = 1024,
        max_iterations: int = 200,
        tolerance: float = 1e-4,
    ) -> None:
        self.per = per
        self.initial = initial
        self.sigma_mm = sigma_mm
        self.muscle = muscle
        self.n_bins = n_bins
        self.max_iterations = max_iterations
        self.tolerance = tolerance

    @classmethod
    def exact(cls) -> Self:
        """Return the published setting: each slice for itself, from its smallest to its largest value, unsmoothed."""
        return cls(per="slice", initial="exact", sigma_mm=0.0, muscle="second")

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
        check_cases(cases, self.contrasts, "gmm")
        return self

    def segment(self, image: Image) -> LabelMap:
        """Label as muscle what is more probably muscle than not.

        Raises
        ------
        VoxelError
            If the image is constant.
        SegmentationError
            If there is no body, or a component of the mixture stays empty.
        """
        return self.probabilities(image).labels()

    def probabilities(self, image: Image) -> ProbabilityMap:
        """Probability of background and of muscle; outside the body background is certain."""
        parts = self.component_posteriors(image)
        which = MUSCLE_COMPONENTS.get(image.contrast, (SECOND,)) if self.muscle == "by-contrast" else (SECOND,)
        muscle = parts[list(which)].sum(axis=0)
        return ProbabilityMap(np.stack([1 - muscle, muscle]), image.grid, self.label_set)

    def component_posteriors(self, image: Image) -> NDArray[np.float32]:
        """Probability of every component at every voxel.

        Returns
        -------
        ndarray of float32, shape (3, Z, Y, X)
            In the order the components were started in; zero outside the body.
        """
        prepared, body = self._prepare(image)
        found = np.zeros((3, *prepared.shape), dtype=np.float32)
        for z, mixture in enumerate(self._fit_planes(prepared, body, image.contrast)):
            if mixture is not None:
                found[:, z, body[z]] = posteriors(mixture, prepared[z, body[z]])
        return found

    def mixtures(self, image: Image) -> tuple[Mixture | None, ...]:
        """Return the mixture each plane is segmented with; None where a plane holds too little body to fit one."""
        prepared, body = self._prepare(image)
        return self._fit_planes(prepared, body, image.contrast)

    def _check_parameters(self) -> None:
        for name, allowed in (("per", get_args(Per)), ("initial", get_args(Initial)), ("muscle", get_args(Muscle))):
            if getattr(self, name) not in allowed:
                raise ParameterError(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        check_number("sigma_mm", self.sigma_mm, least=0)
        check_number("n_bins", self.n_bins, least=3, most=1 << 20, whole=True)
        check_number("max_iterations", self.max_iterations, least=1, whole=True)
        check_number("tolerance", self.tolerance, least=0)

    def _prepare(self, image: Image) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the grey values, smoothed where asked for, and the body."""
        self._check_parameters()
        check_contrast(image, self.contrasts, "gmm")
        check_voxels(image)
        body = body_mask(image)
        if self.sigma_mm == 0:
            return image.voxels, body
        _, dy, dx = image.grid.spacing
        sigma = (self.sigma_mm / dy, self.sigma_mm / dx)
        smooth = [smooth_inside(plane, inside, sigma) for plane, inside in zip(image.voxels, body, strict=True)]
        return np.stack(smooth), body

    def _fit_planes(
        self, voxels: NDArray[np.float32], body: NDArray[np.bool_], contrast: Contrast
    ) -> tuple[Mixture | None, ...]:
        found: tuple[Mixture | None, ...]
        if self.per == "volume":
            found = (self._fit_values(voxels, body, contrast),) * len(voxels)
        else:
            enough = np.count_nonzero(body, axis=(1, 2)) >= LEAST_VOXELS
            found = tuple(
                self._fit_values(voxels[z], body[z], contrast, f"slice {z}: ") if enough[z] else None
                for z in range(len(voxels))
            )
        strange = [str(z) for z, mixture in enumerate(found) if mixture is not None and not mixture.in_order]
        if strange:
            where = "the whole scan" if self.per == "volume" else f"slice {', '.join(strange)}"
            warnings.warn(
                f"gmm: in {where} the means of the components left the order they were started in; look at the result",
                UserWarning,
                stacklevel=4,
            )
        return found

    def _fit_values(
        self, voxels: NDArray[np.float32], body: NDArray[np.bool_], contrast: Contrast, where: str = ""
    ) -> Mixture:
        hounsfield = contrast is Contrast.CT and self.initial == "robust"
        try:
            return fit_mixture(
                voxels,
                body,
                initial=self.initial,
                means=START_HU if hounsfield else None,
                start_fractions=START_FRACTIONS_FAT_DARK if contrast in FAT_DARK else START_FRACTIONS,
                n_bins=self.n_bins,
                max_iterations=self.max_iterations,
                tolerance=self.tolerance,
            )
        except (SegmentationError, VoxelError) as error:
            raise type(error)(f"{where}{error}") from error


def _histogram(
    values: NDArray[np.float32], mask: NDArray[np.bool_] | None, initial: Initial, n_bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return counts and grey values of the bins; the first and last bin are centred on the ends of the range."""
    # OpenCV takes two-dimensional arrays of bytes as masks.
    plane = np.ascontiguousarray(values).reshape(values.shape[0] if values.ndim > 1 else 1, -1)
    chosen = None if mask is None else np.ascontiguousarray(mask).reshape(plane.shape).view(np.uint8)
    if plane.size == 0 or (chosen is not None and not chosen.any()):
        raise VoxelError("there are no voxels to fit a mixture to")
    low, high, _, _ = cv2.minMaxLoc(plane, mask=chosen)
    if not low < high:
        raise VoxelError(f"all voxels have one grey value ({low:g}): there is nothing to tell apart")
    if initial == "exact":
        return _count(plane, chosen, low, high, n_bins)
    # Bins of a millionth of the range resolve the tissues also beside metal; they are then gathered into `n_bins`.
    fine, grey = _count(plane, chosen, low, high, FINE_BINS)
    share = np.cumsum(fine) / fine.sum()
    first, last = np.searchsorted(share, ROBUST_QUANTILES)
    low, high = float(grey[first]), float(grey[last])
    if not low < high:
        raise VoxelError(f"nearly all voxels have one grey value ({low:g}): there is nothing to tell apart")
    centres = np.linspace(low, high, n_bins)
    nearest = np.rint(np.interp(grey, centres, np.arange(n_bins))).astype(np.intp)
    return np.bincount(nearest, weights=fine, minlength=n_bins).astype(np.float64), centres


def _count(
    plane: NDArray[np.float32], chosen: NDArray[np.uint8] | None, low: float, high: float, n_bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Histogram with bin centres from `low` to `high`."""
    half = 0.5 * (high - low) / (n_bins - 1)
    edges = [low - half, high + half]
    counts = cv2.calcHist([plane], [0], chosen, [n_bins], edges).ravel().astype(np.float64)
    return counts, np.linspace(low, high, n_bins)


def _half_gaps(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half the distance from each mean to the nearest other one."""
    gaps = np.abs(means[:, None] - means)
    np.fill_diagonal(gaps, np.inf)
    nearest: NDArray[np.float64] = gaps.min(axis=1)
    return nearest / 2


def _log_joint(
    s: NDArray[np.float64], weights: NDArray[np.float64], means: NDArray[np.float64], variances: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Log of weight times density, shape (components, n)."""
    # A weight of zero has no logarithm; the smallest positive one is as good as none.
    constant = np.log(np.maximum(weights, np.finfo(np.float64).tiny)) - 0.5 * np.log(2 * np.pi * variances)
    joint: NDArray[np.float64] = constant[:, None] - 0.5 * (s - means[:, None]) ** 2 / variances[:, None]
    return joint


def _normalised(log_joint: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Responsibilities and log-likelihoods (log-sum-exp over the components)."""
    top = log_joint.max(axis=0)
    parts = np.exp(log_joint - top)
    total = parts.sum(axis=0)
    return parts / total, top + np.log(total)


def _expectation_maximisation(
    counts: NDArray[np.float64],
    centres: NDArray[np.float64],
    start: NDArray[np.float64],
    deviations: NDArray[np.float64],
    *,
    max_iterations: int,
    tolerance: float,
) -> Mixture:
    width = float(centres[-1] - centres[0])
    used = counts > 0
    n, s = counts[used], centres[used]
    total = float(n.sum())
    means = start.copy()
    variances = deviations**2
    weights = np.full(len(means), 1 / len(means))
    restarted: set[int] = set()
    before = -np.inf
    converged = False
    step = 0
    while step < max_iterations and not converged:
        step += 1
        share, log_likelihood = _normalised(_log_joint(s, weights, means, variances))
        share *= n
        size = share.sum(axis=1)
        empty = np.flatnonzero(size < 1)
        if len(empty):
            again = sorted(restarted.intersection(empty.tolist()))
            if again:
                raise SegmentationError(
                    f"component {again[0] + 1} of the mixture holds no voxel, also when started anew at"
                    f" {start[again[0]]:g}: the image does not show {len(means)} tissues"
                )
            restarted.update(empty.tolist())
            means[empty] = start[empty]
            # Wide, whatever it was at first: a narrow component between two tissues would be left empty again.
            variances[empty] = (START_DEVIATION * width) ** 2
            weights[empty] = 1 / len(means)
            weights /= weights.sum()
            before = -np.inf
            continue
        means = share @ s / size
        variances = np.maximum((share * (s - means[:, None]) ** 2).sum(axis=1) / size, (FLOOR_DEVIATION * width) ** 2)
        weights = size / total
        mean_log_likelihood = float(n @ log_likelihood) / total
        converged = abs(mean_log_likelihood - before) < tolerance
        before = mean_log_likelihood
    return Mixture(tuple(weights.tolist()), tuple(means.tolist()), tuple(variances.tolist()), step, converged)
