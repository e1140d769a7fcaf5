"""How a scan comes to a network and its answer back: both legs, one leg at a time, or a thigh stood on its femur.

A view is a frame, which undoes itself, and a mask of what is seen in it. Training and inference see scans through the
same views.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from musclekit.anatomy import (
    Frame,
    Leg,
    body_mask,
    crop_frame,
    femur_axis,
    femur_frame,
    femur_mask,
    mirror_frame,
    resample_frame,
    split_legs,
)
from musclekit.checks import check_number, check_voxels
from musclekit.errors import GeometryError, ParameterError, SegmentationError
from musclekit.image import Contrast, Grid, Image, LabelMap
from musclekit.labels import Side
from musclekit.neural.windows import Scale

__all__ = ["AIR", "View", "ViewSpec", "labels_in", "unit_image", "views_of"]

ViewKind = Literal["whole", "leg", "femur"]

#: Air in the network's range.
AIR = np.float32(-1)
#: Voxels left free round what is seen, in the plane, after resampling.
MARGIN = 2
#: The side that all legs are made to look like.
MIRROR_TO: Side = "right"


@dataclass(frozen=True)
class ViewSpec:
    """What a network is shown of a scan.

    Parameters
    ----------
    kind : {"whole", "leg", "femur"}
        Both legs at once, slice by slice as the scan has them; each leg alone, left ones mirrored; or each leg alone,
        turned upright on its femur, in cubic voxels and a field of fixed size.
    spacing_mm : float
        Edge of a pixel; of a voxel in the femur's view.
    size : tuple of int
        Rows and columns of what the network is trained on; planes, rows and columns in the femur's view.
    z_range : {"scan", "bone"}
        Which slices the femur's view is centred on: all that show the leg, or those that show the femur's shaft.

    Raises
    ------
    ParameterError
        If there is no such view, or a number is out of range.
    """

    kind: ViewKind = "whole"
    spacing_mm: float = 1.5
    size: tuple[int, ...] = (256, 256)
    z_range: Literal["scan", "bone"] = "scan"

    def __post_init__(self) -> None:
        if self.kind not in get_args(ViewKind):
            raise ParameterError(f"a view is one of {', '.join(get_args(ViewKind))}, not '{self.kind}'")
        check_number("spacing_mm", self.spacing_mm, above=0)
        object.__setattr__(self, "size", tuple(self.size))
        wanted = 3 if self.kind == "femur" else 2
        if len(self.size) != wanted:
            sides = "planes, rows and columns" if wanted == 3 else "rows and columns"
            raise ParameterError(f"the size of a '{self.kind}' view is {wanted} numbers ({sides}), not {self.size}")
        for side in self.size:
            check_number("size", side, least=1, whole=True)
        if self.z_range not in ("scan", "bone"):
            raise ParameterError(f"z_range is scan or bone, not '{self.z_range}'")
        if self.z_range == "bone" and self.kind != "femur":
            raise ParameterError(f"z_range = \"bone\" goes with the femur's view, not with '{self.kind}'")

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data, for a card or a plan."""
        return asdict(self) | {"size": list(self.size)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> ViewSpec:
        """Return what `as_data` described.

        Raises
        ------
        ParameterError
            If a field cannot be what it is.
        """
        return cls(**{**data, "size": tuple(data["size"])})


@dataclass(frozen=True, eq=False)
class View:
    """A scan as a network sees it.

    Parameters
    ----------
    frame : Frame
        From the grid of the scan to that of the network.
    mask : ndarray of bool, shape (Z, Y, X)
        What is seen, on the grid of the scan: the body or one leg.
    side : {"left", "right"} or None
        Of the leg; None where both are seen, or it is not known.
    warnings : tuple of str
        What a reader has to know: a femur without an axis, a leg that was not mirrored.
    """

    frame: Frame
    mask: NDArray[np.bool_]
    side: Side | None = None
    warnings: tuple[str, ...] = ()


def views_of(
    image: Image, spec: ViewSpec, *, multiple: int = 1, body: NDArray[np.bool_] | None = None, side: Side | None = None
) -> tuple[View, ...]:
    """Return the views of a scan.

    Parameters
    ----------
    image : Image
        CT or MR, of any size and spacing.
    spec : ViewSpec
        What is to be seen.
    multiple : int
        Of which rows and columns (in the femur's view planes too) have to be; they are never fewer than the spec says.
    body : ndarray of bool, shape (Z, Y, X), optional
        Mask of the body, if it is known.
    side : {"left", "right"}, optional
        Which leg, where the scan shows one and it is known.

    Returns
    -------
    tuple of View
        One, or one for each leg. Where a leg is larger than the spec says the view is larger too; the femur's view
        has the size it has, and cuts off what does not fit.

    Raises
    ------
    VoxelError
        If the image is constant or all air.
    ModalityError
        If the grey values cannot be what the contrast says, or a femur is sought in MR.
    SegmentationError
        If there is no body in the image.
    """
    check_voxels(image)
    inside = body_mask(image) if body is None else body
    if spec.kind == "whole":
        return (View(_window(image.grid, inside, spec, multiple), inside),)
    legs = split_legs(image, inside, side=side)
    return tuple(_leg_view(image, leg, spec, multiple) for leg in legs)


def _leg_view(image: Image, leg: Leg, spec: ViewSpec, multiple: int) -> View:
    warnings = []
    if leg.side is None:
        warnings.append("a leg of unknown side was not mirrored: say which it is (side)")
    if spec.kind == "leg":
        frame = _window(image.grid, leg.mask, spec, multiple)
        if leg.side not in (None, MIRROR_TO):
            frame = frame.then(mirror_frame)
        return View(frame, leg.mask, leg.side, tuple(warnings))
    bone = femur_mask(image, leg.mask)
    axis = femur_axis(bone, image.grid)
    if axis.doubt:
        warnings.append(f"the {leg.side or 'single'} thigh was not turned upright: {axis.doubt}")
    seen = leg.mask
    if spec.z_range == "bone":
        seen = leg.mask & np.asarray(bone.any(axis=(1, 2)))[:, None, None]
    field = tuple(-(-n // multiple) * multiple * spec.spacing_mm for n in spec.size)
    frame = femur_frame(
        image.grid,
        axis,
        seen,
        leg.side,
        mirror_to=MIRROR_TO,
        field_mm=(field[0], field[1], field[2]),
        spacing_mm=spec.spacing_mm,
    )
    if not frame.apply_mask(leg.mask).any():
        raise SegmentationError(f"the field of {spec.size} voxels of {spec.spacing_mm:g} mm does not show the leg")
    if frame.is_truncated:
        warnings.append(
            f"the scan of the {leg.side or 'single'} leg is shorter than the {field[0]:g} mm that the network sees, to "
            "which the rest is air"
        )
    return View(frame, leg.mask, leg.side, tuple(warnings))


def _window(grid: Grid, mask: NDArray[np.bool_], spec: ViewSpec, multiple: int) -> Frame:
    """Frame to square pixels, the slices that show something, and a window with it in the middle."""
    if not mask.any():
        raise SegmentationError("there is nothing to look at: the mask is empty")
    spacing = spec.spacing_mm
    even = resample_frame(grid, (grid.spacing[0], spacing, spacing))
    planes = np.flatnonzero(mask.any(axis=(1, 2)))
    start, stop = [int(planes[0])], [int(planes[-1]) + 1]
    for axis in (1, 2):
        seen = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        shrinks = grid.spacing[axis] / even.target.spacing[axis]
        # The grids share their outer edges, up to half a new pixel on either side.
        offset = (even.target.shape[axis] - grid.shape[axis] * shrinks) / 2
        first, last = (edge * shrinks + offset for edge in (int(seen[0]), int(seen[-1]) + 1))
        needed = max(spec.size[axis - 1], math.ceil(last - first) + 2 * MARGIN)
        length = -(-needed // multiple) * multiple
        start.append(round((first + last - length) / 2))
        stop.append(start[-1] + length)
    return even.then(crop_frame(even.target, start, stop))


def unit_image(image: Image, view: View, scale: Scale) -> NDArray[np.float32]:
    """Return what the network sees: -1 to 1, and air outside the mask.

    Parameters
    ----------
    image : Image
        The scan.
    view : View
        How it is seen.
    scale : Scale
        Of its grey values.

    Returns
    -------
    ndarray of float32, shape of ``view.frame.target``
        Where voxels grow they are means of what they cover: the scan is blurred by as much before it is resampled.

    Raises
    ------
    GeometryError
        If image and view do not share a grid.
    """
    if view.mask.shape != image.grid.shape:
        raise GeometryError(f"the view is of a scan of {view.mask.shape}, the image has {image.grid.shape} (z, y, x)")
    unit = np.where(view.mask, scale.to_unit(image.voxels), AIR)
    return _brought_over(_blurred(unit, view.frame), view.frame, float(AIR))


def _blurred(voxels: NDArray[np.float32], frame: Frame) -> NDArray[np.float32]:
    """Blur by what a box of the new voxel's size has more of than the old one's: its variance is a twelfth."""
    growth = np.linalg.norm(frame.pull[:3, :3], axis=1)
    sigma = np.sqrt(np.maximum(growth**2 - 1, 0) / 12)
    if sigma[0] > 0:
        voxels = ndimage.gaussian_filter1d(voxels, sigma[0], axis=0, mode="nearest", truncate=3)
    if not sigma[1:].any():
        return voxels
    blurred = np.empty_like(voxels)
    for z, plane in enumerate(voxels):
        # OpenCV takes a width of 0 for one that it is to choose.
        blurred[z] = cv2.GaussianBlur(
            plane, (0, 0), sigmaX=max(sigma[2], 1e-3), sigmaY=max(sigma[1], 1e-3), borderType=cv2.BORDER_REPLICATE
        )
    return blurred


def _brought_over(voxels: NDArray[np.float32], frame: Frame, outside: float) -> NDArray[np.float32]:
    # A frame fills with 0 what an MR image does not show.
    shifted = Image(voxels - np.float32(outside), frame.source, Contrast.MR)
    moved: NDArray[np.float32] = frame.apply_image(shifted).voxels + np.float32(outside)
    return moved


def labels_in(labels: LabelMap, view: View) -> LabelMap:
    """Return labels as the network is to give them: nearest voxel, nothing outside the mask.

    Raises
    ------
    GeometryError
        If labels and view do not share a grid.
    """
    if view.mask.shape != labels.grid.shape:
        raise GeometryError(
            f"the view is of a scan of {view.mask.shape}, the labels have {labels.grid.shape} (z, y, x)"
        )
    seen = labels.with_voxels(np.where(view.mask, labels.voxels, 0))
    return view.frame.apply_labels(seen)
