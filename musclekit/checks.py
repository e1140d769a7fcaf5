"""What every method asks of an image before it works on it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musclekit.errors import ModalityError, ParameterError, VoxelError
from musclekit.image import Case, Contrast, Image

__all__ = [
    "AIR_HU",
    "check_cases",
    "check_contrast",
    "check_number",
    "check_voxels",
    "holds_hounsfield_units",
    "looks_like_ct",
]

#: Below this a CT voxel is air rather than body (Makrogiannis' mid-thigh pipeline).
AIR_HU = -200.0

#: Fat is negative: an image said to be CT, with a smaller share of voxels below fat's upper end than this, is MR.
_NEGATIVE_SHARE = 0.001

#: Voxels that are looked at to tell CT from MR; more say nothing new.
_SAMPLE = 1_000_000


def holds_hounsfield_units(voxels: NDArray[Any]) -> bool:
    """Whether grey values can be the Hounsfield units of a leg.

    There must be air (0.5 % of the voxels below -500), or, in a crop from inside the leg, fat (1 % in -190..-30)
    in an image of which half lies in the range of soft tissue (-190..150). MR magnitudes are not negative, but for a
    little ringing where they were interpolated; MR phase reaches far below -1100, where CT holds at most the one value
    scanners pad with.

    Parameters
    ----------
    voxels : ndarray
        Grey values, of any shape.
    """
    flat = voxels.reshape(-1)
    low = float(flat.min())
    if not -4096 <= low < 0:
        return False
    sample = flat[:: max(1, flat.size // _SAMPLE)]

    def share(above: float, below: float) -> float:
        return float(np.count_nonzero((sample >= above) & (sample < below)) / sample.size)

    if share(np.nextafter(np.float32(low), np.float32(0)), -1100) > 0.01:
        return False
    return share(low, -500) >= 0.005 or (share(-190, -30) >= 0.01 and share(-190, 150) >= 0.5)


def looks_like_ct(image: Image) -> bool:
    """Whether an image's grey values can be Hounsfield units, whatever its contrast says."""
    return holds_hounsfield_units(image.voxels)


def check_contrast(image: Image, accepted: Collection[Contrast], method: str) -> None:
    """Refuse a contrast that a method does not take.

    Parameters
    ----------
    image : Image
        What is to be segmented or translated.
    accepted : collection of Contrast
        What the method takes.
    method : str
        Its name, for the message.

    Raises
    ------
    ModalityError
        If the image's contrast is not among them.
    """
    if image.contrast not in accepted:
        names = ", ".join(sorted(accepted))
        unknown = ", its weighting not known: name it (on the command line: --modality)"
        hint = unknown if image.contrast is Contrast.MR and any(one.modality == "mr" for one in accepted) else ""
        raise ModalityError(f"method '{method}' takes {names}; this image is {image.contrast}{hint}")


def check_cases(cases: Iterable[Case], accepted: Collection[Contrast], method: str) -> None:
    """Refuse cases with an image that a method does not take: all that fitting an unsupervised method has to do.

    Raises
    ------
    ModalityError
        If the contrast of an image is not among those accepted.
    """
    for case in cases:
        for image in case.images.values():
            check_contrast(image, accepted, method)


def check_voxels(image: Image) -> None:
    """Refuse an image there is nothing to see in, or whose values cannot be what its contrast says.

    Raises
    ------
    VoxelError
        If every voxel has the same value, or a CT holds nothing but air.
    ModalityError
        If a CT holds no value below fat, or an MR holds Hounsfield units.
    """
    low, high = float(image.voxels.min()), float(image.voxels.max())
    if low == high:
        raise VoxelError(f"the image is constant: every voxel is {low:g}")
    if image.contrast is Contrast.CT:
        if high < AIR_HU:
            raise VoxelError(f"the image holds nothing but air: no voxel above {AIR_HU:g} HU (highest {high:g})")
        if np.count_nonzero(image.voxels < -30) < _NEGATIVE_SHARE * image.voxels.size:
            raise ModalityError(
                f"given as CT, but the values ({low:g} to {high:g}) are not Hounsfield units: no fat, no air; is it MR?"
            )
    elif low < -500 and looks_like_ct(image):
        raise ModalityError(
            f"given as {image.contrast}, but the values ({low:g} to {high:g}) are Hounsfield units; is it CT?"
        )


def check_number(
    name: str,
    value: object,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    whole: bool = False,
) -> None:
    """Refuse a parameter that is no finite number, or none of its range.

    Parameters
    ----------
    name : str
        Of the parameter, for the message.
    value : object
        What was given; a boolean is no number.
    least, most : float
        The range, both ends included.
    above : float
        A bound that is not included.
    whole : bool
        Whether it must be a whole number.

    Raises
    ------
    ParameterError
        If it is not; the message says what it may be.
    """
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if isinstance(value, kinds) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and least <= number <= most and number > above:
            return
    bounds = [
        text
        for bound, text in (
            (above, f"above {above:.12g}"),
            (least, f"of at least {least:.12g}"),
            (most, f"of at most {most:.12g}"),
        )
        if math.isfinite(bound)
    ]
    what = "a whole number" if whole else "a number"
    raise ParameterError(f"{name} must be {' '.join([what, ' and '.join(bounds)]).strip()}, not {value!r}")
