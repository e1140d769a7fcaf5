"""One slice of a thigh bent onto another by a coarse B-spline."""

from __future__ import annotations

import cv2
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

__all__ = ["bend", "displacement", "sample"]

#: Order of the spline: cubic.
ORDER = 3
#: Steps of the optimiser at most, and how small the gradient or the gain (as a factor of the precision) ends them.
STEPS = 15
LEAST_GRADIENT = 1e-5
LEAST_GAIN = 1e9
#: Share of the pixels that are compared, evenly spread but for a jitter, which has this seed.
SAMPLED = 0.25
SEED = 1


def _image(plane: NDArray[np.float32], spacing_mm: float) -> sitk.Image:
    image = sitk.GetImageFromArray(plane)
    image.SetSpacing((spacing_mm, spacing_mm))
    return image


def _spline(plane: sitk.Image, control_mm: float) -> sitk.BSplineTransform:
    mesh = [max(1, round(n * mm / control_mm)) for n, mm in zip(plane.GetSize(), plane.GetSpacing(), strict=True)]
    spline: sitk.BSplineTransform = sitk.BSplineTransformInitializer(plane, mesh, ORDER)
    return spline


def bend(
    target: NDArray[np.float32], atlas: NDArray[np.float32], *, spacing_mm: float, control_mm: float
) -> NDArray[np.float64]:
    """Find the spline under which the picture of an atlas slice looks like that of a slice of a scan.

    Parameters
    ----------
    target, atlas : ndarray of float32, shape (Y, X)
        Pictures on one raster, already aligned by an affine transform.
    spacing_mm : float
        Size of their pixels.
    control_mm : float
        Distance of the control points: the larger, the stiffer.

    Returns
    -------
    ndarray of float64, shape (P,)
        Displacements at the control points in mm, as `displacement` takes them.

    Notes
    -----
    Mean squared difference of the pictures, minimised by L-BFGS-B (SimpleITK) on one thread, so that the same pictures
    give the same spline.
    """
    fixed, moving = _image(target, spacing_mm), _image(atlas, spacing_mm)
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMeanSquares()
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(SAMPLED, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsLBFGSB(
        gradientConvergenceTolerance=LEAST_GRADIENT,
        numberOfIterations=STEPS,
        maximumNumberOfFunctionEvaluations=2 * STEPS,
        costFunctionConvergenceFactor=LEAST_GAIN,
    )
    method.SetInitialTransform(_spline(fixed, control_mm), inPlace=False)
    return np.array(method.Execute(fixed, moving).GetParameters())


def displacement(
    spline: NDArray[np.float64], shape: tuple[int, int], *, spacing_mm: float, control_mm: float
) -> NDArray[np.float32]:
    """Displacements of the pixels of a raster under a spline.

    Parameters
    ----------
    spline : ndarray of float64, shape (P,)
        From `bend`.
    shape : (int, int)
        Rows and columns of its raster.
    spacing_mm, control_mm : float
        As they were given to `bend`.

    Returns
    -------
    ndarray of float32, shape (Y, X, 2)
        Millimetres along columns and rows from a place of the scan to its place in the (aligned) atlas.
    """
    plane = _image(np.zeros(shape, dtype=np.float32), spacing_mm)
    transform = _spline(plane, control_mm)
    transform.SetParameters(spline.tolist())
    field = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat32, plane.GetSize(), plane.GetOrigin(), plane.GetSpacing()
    )
    return np.asarray(sitk.GetArrayFromImage(field), dtype=np.float32)


def sample(plane: NDArray[np.float32], columns: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values of a plane at fractional pixels; 0 outside it."""
    return np.asarray(cv2.remap(plane, columns, rows, cv2.INTER_LINEAR, borderValue=0), dtype=np.float32)
