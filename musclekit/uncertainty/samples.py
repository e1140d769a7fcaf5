"""Variance and entropy of a voxel, from samples of which none is kept."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from musclekit.errors import GeometryError, InputError, ParameterError
from musclekit.uncertainty.values import ClassReduction, Floats, check_reduction, with_classes

__all__ = ["RunningSums", "entropy"]


class RunningSums:
    """Mean and variance of sampled probabilities, found without keeping any sample.

    What is held are two arrays of float64 of the shape of a sample: the sum of the samples and that of their squares.
    For a whole volume of many classes that is still much; a network in two dimensions is sampled slice by slice.

    Notes
    -----
    Hiasa et al., equations (3) and (4); of the matrix (4) the diagonal. The variance is that of the population (divided
    by the number of samples), as printed; their port to PyTorch divides by one less.

    Examples
    --------
    >>> sums = RunningSums()
    >>> for p in (0.9, 0.7, 0.5, 0.9):
    ...     sums.add([p, 1 - p])
    >>> sums.mean().round(4).tolist(), round(float(sums.variance()), 4)
    ([0.75, 0.25], 0.055)
    """

    def __init__(self) -> None:
        self._n = 0
        self._sum: Floats = np.zeros(0)
        self._squares: Floats = np.zeros(0)

    @property
    def n(self) -> int:
        """Samples so far."""
        return self._n

    def add(self, probabilities: ArrayLike) -> None:
        """Take in one sample.

        Parameters
        ----------
        probabilities : array_like of shape (C, ...)
            Of each class at each voxel.

        Raises
        ------
        GeometryError
            If the sample has no axis, no element, or another shape than those before it.
        VoxelError
            If a value is not a probability.
        """
        sample = with_classes(probabilities)
        if not self._n:
            self._sum, self._squares = np.zeros(sample.shape), np.zeros(sample.shape)
        elif sample.shape != self._sum.shape:
            raise GeometryError(f"a sample has shape {sample.shape}, those before it {self._sum.shape}")
        self._n += 1
        # Class by class, in one small array: new memory for all classes at every call takes as long as the rest.
        exact = np.empty(sample.shape[1:])
        for n, values in enumerate(sample):
            exact[...] = values
            self._sum[n] += exact
            np.square(exact, out=exact)
            self._squares[n] += exact

    def mean(self) -> Floats:
        """Return the mean of the samples, shape (C, ...): the probabilities that labels are taken from (equation 3).

        Raises
        ------
        InputError
            If there is no sample yet.
        """
        self._need_samples()
        return self._sum / self._n

    def class_variance(self) -> Floats:
        """Return the population variance of each class, shape (C, ...): the diagonal of equation (4).

        Raises
        ------
        InputError
            If there is no sample yet.
        """
        self._need_samples()
        variance = self._squares / self._n
        variance -= np.square(self._sum / self._n)
        # What does not vary comes out some 1e-17 above or below 0.
        return np.maximum(variance, 0, out=variance)

    def variance(self, reduction: ClassReduction = "sum") -> Floats:
        """Return the predictive variance of each voxel, U, shape (...).

        Parameters
        ----------
        reduction : {"sum", "mean"}
            Over classes, background included. ``"sum"`` is that of equations (5) and (7); ``"mean"``, smaller by the
            number of classes, that of the authors' program. Thresholds and calibrations hold for one of them only.

        Raises
        ------
        InputError
            If there is no sample yet.
        ParameterError
            If there is no such reduction.
        """
        check_reduction(reduction)
        variance = self.class_variance()
        return np.asarray(variance.sum(axis=0) if reduction == "sum" else variance.mean(axis=0))

    def _need_samples(self) -> None:
        if not self._n:
            raise InputError("there is no mean and no variance of no sample; add one first")


def entropy(probabilities: ArrayLike, *, normalised: bool = False) -> Floats:
    """Entropy of the probabilities of each voxel, in bits.

    Of the mean of samples it is the whole doubt, that of single samples included; U is only how far samples disagree.

    Parameters
    ----------
    probabilities : array_like of shape (C, ...)
        Of each class; those of a voxel add up to 1.
    normalised : bool
        Whether to divide by log2 C, which makes it 0 to 1.

    Returns
    -------
    ndarray of float64, shape (...)
        0 where one class is certain, log2 C where all are alike.

    Raises
    ------
    GeometryError
        If there is no axis or no element.
    VoxelError
        If a value is not a probability.
    ParameterError
        If the entropy of a single class is to be normalised.

    Notes
    -----
    - sum p log2 p over classes, p not below 1e-30.
    """
    p = np.clip(with_classes(probabilities), 1e-30, 1, dtype=np.float64)
    bits = np.asarray(-(p * np.log2(p)).sum(axis=0))
    if not normalised:
        return bits
    if len(p) < 2:
        raise ParameterError("the entropy of a single class cannot be normalised: it is always 0")
    return np.asarray(bits / math.log2(len(p)))
