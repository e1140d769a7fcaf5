"""N4 bias field correction as a translator: shaded MR in, evenly lit MR out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from musclekit.anatomy import body_mask
from musclekit.checks import check_contrast, check_number, check_voxels
from musclekit.errors import ParameterError
from musclekit.image import Contrast, Domain, Image

__all__ = ["N4", "bias_field"]

#: The field is smooth: it is estimated on voxels of about this size, where it costs a hundredth ...
COARSE_MM = 8.0

#: ... but on no fewer along an axis than this.
LEAST_VOXELS = 16


def bias_field(
    image: Image, mask: NDArray[np.bool_], *, n_iterations: tuple[int, ...] = (40, 30, 20), spline_mm: float = 150.0
) -> NDArray[np.float32]:
    """Estimate the smooth multiplicative shading of an MR image with N4.

    Parameters
    ----------
    image : Image
        MR image.
    mask : ndarray of bool, shape (Z, Y, X)
        Voxels to estimate it from: the body.
    n_iterations : tuple of int
        Iterations at each level; every level doubles the spline's mesh.
    spline_mm : float
        Distance of the spline's control points at the first level, in millimetres.

    Returns
    -------
    ndarray of float32, shape (Z, Y, X)
        The field, positive, of geometric mean 1 over the mask. Dividing the image by it evens the shading out.

    References
    ----------
    Tustison et al., N4ITK: improved N3 bias correction, IEEE TMI 29 (2010). We estimate the field on a coarse grid
    (8 mm) and evaluate the spline on the fine one.
    """
    import SimpleITK as sitk

    flat = image.grid.shape[0] == 1
    spacing = image.grid.spacing
    shrink = [
        max(1, min(round(COARSE_MM / s), n // LEAST_VOXELS))
        for n, s in zip(reversed(image.grid.shape), reversed(spacing), strict=True)
    ]
    # N4 works on logarithms: what is not above zero tells it nothing.
    usable = mask & (image.voxels > 0)
    extent = [n * s for n, s in zip(reversed(image.grid.shape), reversed(spacing), strict=True)]
    mesh = [max(1, round(length / spline_mm)) for length in extent]
    values = image.voxels[0] if flat else image.voxels
    inside = usable[0] if flat else usable
    n_axes = values.ndim
    voxels = sitk.GetImageFromArray(values)
    voxels.SetSpacing([float(s) for s in reversed(spacing)][:n_axes])
    region = sitk.GetImageFromArray(inside.astype(np.uint8))
    region.CopyInformation(voxels)
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations(list(n_iterations))
    corrector.SetNumberOfControlPoints([m + 3 for m in mesh[:n_axes]])
    corrector.SetNumberOfThreads(1)  # the sums are taken in thread order: one thread gives the same field every time
    corrector.Execute(sitk.Shrink(voxels, shrink[:n_axes]), sitk.Shrink(region, shrink[:n_axes]))
    log_field = sitk.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(voxels)).reshape(image.grid.shape)
    field: NDArray[np.float32] = np.exp(log_field - log_field[usable].mean()).astype(np.float32)
    return field


class N4(BaseEstimator):
    """Take the shading of the coils out of an MR image.

    Parameters
    ----------
    spline_mm : float
        Distance of the spline's control points at the first level, in millimetres: smaller follows sharper shading.
    n_iterations : tuple of int
        Iterations at each level.

    See Also
    --------
    bias_field : the field itself.
    """

    contrasts: frozenset[Contrast] = frozenset(Contrast) - {Contrast.CT}

    def __init__(self, *, spline_mm: float = 150.0, n_iterations: tuple[int, ...] = (40, 30, 20)) -> None:
        self.spline_mm = spline_mm
        self.n_iterations = n_iterations

    @property
    def source(self) -> Domain | None:
        """None: it takes any MR."""
        return None

    @property
    def target(self) -> Domain | None:
        """None: the domain stays as it is."""
        return None

    def translate(self, image: Image) -> Image:
        """Return the image divided by its estimated bias field.

        Raises
        ------
        ModalityError
            If the image is a CT, which has no bias field.
        ParameterError
            If a parameter is out of range.
        """
        check_number("spline_mm", self.spline_mm, above=0)
        if not isinstance(self.n_iterations, (tuple, list)) or not self.n_iterations:
            raise ParameterError(f"n_iterations must be a list of numbers, one a level, not {self.n_iterations!r}")
        for number in self.n_iterations:
            check_number("each of n_iterations", number, least=1, whole=True)
        check_contrast(image, self.contrasts, "n4")
        check_voxels(image)
        iterations = tuple(int(n) for n in self.n_iterations)
        field = bias_field(image, body_mask(image), n_iterations=iterations, spline_mm=self.spline_mm)
        return image.with_voxels(image.voxels / field)
