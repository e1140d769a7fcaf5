"""Grey values to a network's range and back: windows say how, scales are what they come to in one volume.

A network sees -1 to 1, the range of its tanh. The scale of every volume is kept, so that what the network returns can
be told in Hounsfield units or in the scanner's own numbers again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from musclekit.anatomy import body_mask
from musclekit.checks import check_number
from musclekit.errors import GeometryError, ParameterError, SchemaError, VoxelError
from musclekit.image import Image

__all__ = ["CT_WINDOW", "MR_WINDOW", "Scale", "Window"]

WindowKind = Literal["fixed", "percentile"]


@dataclass(frozen=True)
class Scale:
    """The grey values that become -1 and 1.

    Parameters
    ----------
    low, high : float
        In the units of the image. Where both are the same everything becomes -1; where low is above high the scale is
        inverted, and what is bright in the image is dark to the network.
    quantize_bits : int, optional
        To how many bits grey values are rounded; not at all if left out.

    Raises
    ------
    ParameterError
        If they are not finite, or the bits are not 1 to 16.
    """

    low: float
    high: float
    quantize_bits: int | None = None

    def __post_init__(self) -> None:
        check_number("low", self.low)
        check_number("high", self.high)
        _check_bits(self.quantize_bits)
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))

    @property
    def ends(self) -> tuple[float, float]:
        """Least and greatest grey value."""
        return min(self.low, self.high), max(self.low, self.high)

    def to_unit(self, voxels: ArrayLike) -> NDArray[np.float32]:
        """Bring grey values to -1..1; those outside the scale become its ends.

        Parameters
        ----------
        voxels : array_like
            Of any shape, whole numbers or float.

        Returns
        -------
        ndarray of float32
            In the same shape.

        Raises
        ------
        VoxelError
            If a value is NaN or infinite.
        """
        # In double precision: what lies on a large offset keeps its digits, and 16-bit values do not overflow.
        values = _finite(voxels, "grey values")
        if self.high == self.low:
            return np.full(values.shape, -1, dtype=np.float32)
        share = (np.clip(values, *self.ends) - self.low) / (self.high - self.low)
        if self.quantize_bits is not None:
            steps = 2**self.quantize_bits - 1
            share = np.rint(share * steps) / steps
        return (2 * share - 1).astype(np.float32)

    def from_unit(self, values: ArrayLike) -> NDArray[np.float32]:
        """Bring a network's values back to grey values: the inverse of `to_unit` inside the scale.

        Parameters
        ----------
        values : array_like
            Of any shape; what lies outside -1..1 is carried on along the same line.

        Returns
        -------
        ndarray of float32
            In the same shape.

        Raises
        ------
        VoxelError
            If a value is NaN or infinite.
        """
        share = (_finite(values, "values of the network") + 1) / 2
        return (self.low + share * (self.high - self.low)).astype(np.float32)


def _check_bits(bits: int | None) -> None:
    if bits is not None:
        check_number("quantize_bits", bits, least=1, most=16, whole=True)


def _finite(values: ArrayLike, what: str) -> NDArray[np.float64]:
    given = np.asarray(values, dtype=np.float64)
    bad = int(np.count_nonzero(~np.isfinite(given)))
    if bad:
        raise VoxelError(f"{bad} of {given.size} {what} are NaN or infinite")
    return given


@dataclass(frozen=True)
class Window:
    """How the scale of a volume is found.

    Parameters
    ----------
    kind : {"fixed", "percentile"}
        Fixed grey values, the same for every volume; or percentiles of the voxels inside the body of the whole
        volume, never of one slice, so that a slice with little fat does not look like one with much.
    low, high : float
        Grey values, or percentiles from 0 to 100.
    inverted : bool
        Whether the least becomes 1 and the greatest -1. Bone, muscle and fat of T1-weighted MR then come in the order
        that they have in CT, and a translator from one to the other has none to turn round.
    quantize_bits : int, optional
        To how many bits grey values are rounded; not at all if left out. 8 in the code of Hiasa et al. (Bayesian
        U-Net), whose paper does not say so.

    Raises
    ------
    ParameterError
        If there is no such kind, low and high do not rise or lie outside 0 to 100, or the bits are not 1 to 16.

    Examples
    --------
    >>> CT_WINDOW.as_data()
    {'kind': 'fixed', 'low': -200.0, 'high': 500.0}
    """

    kind: WindowKind
    low: float
    high: float
    inverted: bool = False
    quantize_bits: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(WindowKind):
            raise ParameterError(f"a window is one of {', '.join(get_args(WindowKind))}, not '{self.kind}'")
        least, most = (0.0, 100.0) if self.kind == "percentile" else (-math.inf, math.inf)
        check_number("low", self.low, least=least, most=most)
        check_number("high", self.high, above=self.low, most=most)
        _check_bits(self.quantize_bits)
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))

    def scale_of(self, image: Image, body: NDArray[np.bool_] | None = None) -> Scale:
        """Scale of one volume.

        Parameters
        ----------
        image : Image
            The whole volume.
        body : ndarray of bool, shape (Z, Y, X), optional
            Where percentiles are taken; `musclekit.anatomy.body_mask` finds it when it is not given.

        Returns
        -------
        Scale
            That of a constant volume is its one value, which becomes -1.

        Raises
        ------
        GeometryError
            If image and body differ in shape.
        SegmentationError
            If percentiles are asked for and there is no body in the image.
        """
        least, most = float(image.voxels.min()), float(image.voxels.max())
        if least == most:
            return Scale(least, most)
        if self.kind == "fixed":
            return self._scale(self.low, self.high)
        inside = body_mask(image) if body is None else body
        if inside.shape != image.grid.shape:
            raise GeometryError(f"the body mask has shape {inside.shape}, the image {image.grid.shape} (z, y, x)")
        if not inside.any():
            raise VoxelError("percentiles of an empty body mask")
        low, high = np.percentile(image.voxels[inside].astype(np.float64), (self.low, self.high))
        return self._scale(float(low), float(high))

    def _scale(self, low: float, high: float) -> Scale:
        ends = (high, low) if self.inverted else (low, high)
        return Scale(*ends, self.quantize_bits)

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data, for a card or a plan."""
        # Where nothing is said a window is not inverted, and grey values are not rounded.
        return {name: value for name, value in asdict(self).items() if value is not None and value is not False}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Window:
        """Return the window that `as_data` described.

        Raises
        ------
        SchemaError
            If a field is missing or unknown.
        ParameterError
            If a field cannot be what it is.
        """
        if set(data) - {"inverted", "quantize_bits"} != {"kind", "low", "high"}:
            raise SchemaError(
                "a window has the fields kind, low, high and perhaps inverted and quantize_bits, not "
                f"{', '.join(sorted(data)) or 'none'}"
            )
        return cls(**data)


#: Everything between air and dense bone, in Hounsfield units (Yang et al., CT domain adaptation).
CT_WINDOW = Window("fixed", -200, 500)
#: MR has no unit: nearly all that lies inside the body.
MR_WINDOW = Window("percentile", 0.5, 99.5)
