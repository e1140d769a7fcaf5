"""Invertible frames: crop, mirror and resample a scan, and bring labels back to where they belong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from musclekit.anatomy.femur import FemurAxis
from musclekit.errors import GeometryError, SegmentationError
from musclekit.image import Contrast, Grid, Image, LabelMap, ProbabilityMap
from musclekit.labels import LabelSet, Side

__all__ = ["AIR_FILL_HU", "Frame", "crop_frame", "femur_frame", "mirror_frame", "resample_frame"]

#: What CT shows where there was no scan.
AIR_FILL_HU = -1024.0
#: Size (z, y, x) in mm and voxel of a femur frame: 180 x 128 x 128 voxels.
FEMUR_FIELD_MM = (360.0, 256.0, 256.0)
FEMUR_SPACING_MM = 2.0
#: An index map is taken for a shift or a flip when it is one to this many voxels.
EXACT = 1e-4


@dataclass(frozen=True, eq=False)
class Frame:
    """A way from one grid to another and back.

    Parameters
    ----------
    source : Grid
        Grid of the scan.
    target : Grid
        Grid that the frame leads to.
    world : ndarray of float, shape (4, 4)
        Takes world mm of the source to world mm of the target; the identity for a crop.

    Notes
    -----
    Frames are chained by `then`, which multiplies their matrices: whatever the chain, voxels are interpolated once.
    A shift by whole voxels or a flip copies voxels and interpolates nothing.

    Examples
    --------
    >>> grid = Grid.from_spacing((4, 64, 64), (5, 1, 1))
    >>> frame = crop_frame(grid, (0, 10, 10), (4, 42, 42)).then(mirror_frame)
    >>> frame.target.shape, frame.is_mirrored
    ((4, 32, 32), True)
    """

    source: Grid
    target: Grid
    world: NDArray[np.float64]

    def __post_init__(self) -> None:
        world = np.array(self.world, dtype=np.float64)
        if world.shape != (4, 4) or not np.isfinite(world).all() or abs(np.linalg.det(world)) < 1e-9:
            raise GeometryError("a frame needs a 4x4 matrix of finite numbers that can be inverted")
        world.flags.writeable = False
        object.__setattr__(self, "world", world)

    @property
    def is_mirrored(self) -> bool:
        """Whether left and right change places."""
        return bool(np.linalg.det(self.world[:3, :3]) < 0)

    @property
    def is_truncated(self) -> bool:
        """Whether the target reaches beyond the first or the last slice of the scan.

        Judged along the middle of the target; half a target voxel is forgiven.
        """
        planes, rows, columns = self.target.shape
        ends = np.array([[z, (rows - 1) / 2, (columns - 1) / 2] for z in (0.0, planes - 1.0)])
        z = (ends @ self.pull[:3, :3].T + self.pull[:3, 3])[:, 0]
        slack = 0.5 + 0.5 * self.target.spacing[0] / self.source.spacing[0]
        return bool(z.min() < -slack or z.max() > self.source.shape[0] - 1 + slack)

    @cached_property
    def pull(self) -> NDArray[np.float64]:
        """4x4 matrix that takes an index (z, y, x) of the target to the index of the source that it shows."""
        pull: NDArray[np.float64] = np.linalg.inv(self.world @ self.source.affine) @ self.target.affine
        return pull

    def then(self, following: Frame | Callable[[Grid], Frame]) -> Frame:
        """Chain another frame.

        Parameters
        ----------
        following : Frame or callable
            A frame that starts from this one's target, or a function that makes one from a grid (`mirror_frame`).

        Raises
        ------
        GeometryError
            If it starts elsewhere.
        """
        frame = following if isinstance(following, Frame) else following(self.target)
        if not frame.source.same_as(self.target):
            raise GeometryError(f"frames do not chain: {self.target.difference(frame.source)}")
        return Frame(self.source, frame.target, frame.world @ self.world)

    def inverse(self) -> Frame:
        """Return the way back."""
        return Frame(self.target, self.source, np.linalg.inv(self.world).astype(np.float64))

    def apply_image(self, image: Image) -> Image:
        """Bring an image over: linear interpolation, -1024 HU (MR: 0) where there was no scan.

        Raises
        ------
        GeometryError
            If the image does not lie on the source grid.
        """
        self._check(image.grid, "image")
        fill = AIR_FILL_HU if image.contrast is Contrast.CT else 0.0
        voxels = self._sample(image.voxels, order=1, fill=fill)
        return Image(voxels, self.target, image.contrast, image.domain)

    def apply_labels(self, labels: LabelMap) -> LabelMap:
        """Bring labels over: nearest voxel; a mirrored frame exchanges left and right.

        Raises
        ------
        GeometryError
            If the labels do not lie on the source grid.
        """
        self._check(labels.grid, "label map")
        voxels = self._sample(labels.voxels, order=0, fill=0)
        if self.is_mirrored:
            voxels = _exchanged_ids(labels.label_set)[voxels]
        return LabelMap(voxels, self.target, labels.label_set)

    def apply_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Bring a mask over: nearest voxel, False where there was no scan.

        Raises
        ------
        GeometryError
            If it does not have the shape of the source grid.
        """
        if mask.shape != self.source.shape:
            raise GeometryError(f"the mask has shape {mask.shape}, the frame starts from {self.source.shape} (z, y, x)")
        moved: NDArray[np.bool_] = self._sample(mask.astype(np.uint8), order=0, fill=0) > 0
        return moved

    def apply_probabilities(self, probabilities: ProbabilityMap) -> ProbabilityMap:
        """Bring probabilities over: linear interpolation, background where there was no scan.

        Raises
        ------
        GeometryError
            If they do not lie on the source grid.
        """
        self._check(probabilities.grid, "probability map")
        channels = list(range(len(probabilities.voxels)))
        if self.is_mirrored:
            ids = [label.id for label in probabilities.label_set]
            exchanged = _exchanged_ids(probabilities.label_set)
            channels = [0, *(1 + ids.index(int(exchanged[i])) for i in ids)]
        voxels = np.stack(
            [self._sample(probabilities.voxels[c], order=1, fill=float(n == 0)) for n, c in enumerate(channels)]
        )
        return ProbabilityMap(np.clip(voxels, 0, 1), self.target, probabilities.label_set)

    def restore_image(self, image: Image) -> Image:
        """Bring an image on the target grid back to the source; see `apply_image`."""
        return self.inverse().apply_image(image)

    def restore_labels(self, labels: LabelMap) -> LabelMap:
        """Bring labels on the target grid back to the source; background beyond the target. See `apply_labels`."""
        return self.inverse().apply_labels(labels)

    def restore_probabilities(self, probabilities: ProbabilityMap) -> ProbabilityMap:
        """Bring probabilities on the target grid back to the source.

        Its `labels` follow a curved surface more closely than labels brought back themselves. See
        `apply_probabilities`.
        """
        return self.inverse().apply_probabilities(probabilities)

    def _check(self, grid: Grid, what: str) -> None:
        if not grid.same_as(self.source):
            raise GeometryError(f"the {what} does not lie on the frame's grid: {self.source.difference(grid)}")

    def _sample(self, voxels: NDArray[Any], order: Literal[0, 1], fill: float) -> NDArray[Any]:
        """Values of `voxels` (on the source grid) at each voxel of the target."""
        result = np.full(self.target.shape, fill, dtype=voxels.dtype)
        steps = np.rint(np.diag(self.pull)[:3]).astype(int)
        start = np.rint(self.pull[:3, 3]).astype(int)
        exact = np.eye(4)
        exact[:3, :3] = np.diag(steps)
        exact[:3, 3] = start
        far = np.append(np.asarray(self.target.shape) - 1.0, 1.0)
        if set(np.abs(steps)) == {1} and np.abs((self.pull - exact) * [*far[:3], 1]).max() < EXACT:
            to, of = zip(
                *(
                    _overlap(n, m, s, t)
                    for n, m, s, t in zip(self.target.shape, voxels.shape, start, steps, strict=True)
                ),
                strict=True,
            )
            result[to] = voxels[of]
            return result
        # Only the part of the target that the source can reach is computed.
        window = self.reached()
        if any(part.start >= part.stop for part in window):
            return result
        offset: NDArray[np.float64] = self.pull[:3, :3] @ np.array([part.start for part in window]) + self.pull[:3, 3]
        shape = tuple(int(part.stop - part.start) for part in window)
        values: NDArray[Any] = ndimage.affine_transform(
            voxels, self.pull[:3, :3], offset, output_shape=shape, order=order, mode="nearest", prefilter=False
        )
        # A voxel is a box: half of it lies beyond its centre, on the outermost planes too.
        inside = np.ones(shape, dtype=np.bool_)
        z, y, x = np.ogrid[tuple(slice(0, n) for n in shape)]
        for axis, size in enumerate(voxels.shape):
            a, b, c = self.pull[axis, :3]
            index = a * z + b * y + c * x + offset[axis]
            inside &= (index >= -0.5) & (index < size - 0.5)
        result[window] = np.where(inside, values, np.asarray(fill, dtype=voxels.dtype))
        return result

    def reached(self) -> tuple[slice, slice, slice]:
        """Bounding box, in the target, of the source's voxels."""
        size = np.asarray(self.source.shape)
        corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * size - 0.5
        push = np.linalg.inv(self.pull)
        reached = corners @ push[:3, :3].T + push[:3, 3]
        first = np.clip(np.floor(reached.min(axis=0)), 0, self.target.shape).astype(int)
        last = np.clip(np.ceil(reached.max(axis=0)) + 1, 0, self.target.shape).astype(int)
        z, y, x = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
        return z, y, x


def _overlap(target: int, source: int, start: int, step: int) -> tuple[slice, slice]:
    """Slices of target and source where target index i shows source index ``start + step * i``, step 1 or -1."""
    first, last = (-start, source - start) if step > 0 else (start - source + 1, start + 1)
    first, last = max(0, int(first)), min(target, int(last))
    if first >= last:
        return slice(0, 0), slice(0, 0)
    begin, end = int(start + step * first), int(start + step * last)
    return slice(first, last), slice(begin, end if end >= 0 else None, int(step))


def _exchanged_ids(label_set: LabelSet) -> NDArray[np.uint16]:
    """Lookup table that exchanges left and right; ids without a side stay."""
    table = np.arange(max(label_set.ids) + 1, dtype=np.uint16)
    for label in label_set:
        if label.side is not None:
            other: Side = "right" if label.side == "left" else "left"
            table[label.id] = label_set.ids_of(label.name, other)[0]
    return table


def crop_frame(grid: Grid, start: Iterable[int], stop: Iterable[int]) -> Frame:
    """Crop to ``array[start:stop]``; a start below 0 or a stop beyond the end pads.

    Parameters
    ----------
    grid : Grid
        Grid of the scan.
    start, stop : iterable of int
        Index (z, y, x) of the first voxel and of the one after the last.

    Raises
    ------
    GeometryError
        If nothing is left.
    """
    return Frame(grid, grid.crop(start, stop), np.eye(4))


def mirror_frame(grid: Grid) -> Frame:
    """Mirror left and right about the middle of the grid: a flip of the array axis that lies closest to world x.

    Grid and shape stay. On an oblique grid the mirror stands at a right angle to that axis, not to world x, so that
    voxels are copied and not interpolated.
    """
    axis = int(np.argmax(np.abs(grid.direction[0])))
    flip = np.eye(4)
    flip[axis, axis] = -1
    flip[axis, 3] = grid.shape[axis] - 1
    return Frame(grid, grid, grid.affine @ flip @ np.linalg.inv(grid.affine))


def resample_frame(grid: Grid, spacing: Iterable[float]) -> Frame:
    """Resample to another spacing; the outer faces of the grid stay where they are, up to half a new voxel.

    Parameters
    ----------
    grid : Grid
        Grid of the scan.
    spacing : iterable of float
        New distance in mm between voxels along (z, y, x).

    Raises
    ------
    GeometryError
        If a spacing is not positive.
    """
    wanted = np.asarray(tuple(spacing), dtype=np.float64)
    if wanted.shape != (3,) or not (wanted > 0).all():
        raise GeometryError(f"spacing is three positive numbers (z, y, x) in mm, not {tuple(wanted)}")
    extent = np.asarray(grid.shape) * grid.spacing
    shape = np.maximum(1, np.rint(extent / wanted)).astype(int)
    affine = grid.affine.copy()
    affine[:3, :3] = grid.direction * wanted
    middle = grid.world((np.asarray(grid.shape) - 1) / 2)
    affine[:3, 3] = middle - affine[:3, :3] @ ((shape - 1) / 2)
    return Frame(grid, Grid(cast(tuple[int, int, int], tuple(shape)), affine), np.eye(4))


def femur_frame(
    grid: Grid,
    axis: FemurAxis,
    leg: NDArray[np.bool_],
    side: Side | None,
    *,
    mirror_to: Side = "right",
    field_mm: tuple[float, float, float] = FEMUR_FIELD_MM,
    spacing_mm: float = FEMUR_SPACING_MM,
) -> Frame:
    """Stand a thigh upright on its femur, mirrored to one side, in a field of fixed size.

    Parameters
    ----------
    grid : Grid
        Grid of the scan.
    axis : FemurAxis
        Its direction becomes world z, by the smallest rotation, about its point. An axis that is not reliable turns
        nothing.
    leg : ndarray of bool, shape (Z, Y, X)
        Mask of the leg; its centroid is the middle of the field in the plane, the middle of its slices along z.
    side : {"left", "right"} or None
        Whose leg it is; None is not mirrored.
    mirror_to : {"left", "right"}
        The side that all legs shall look like.
    field_mm : (float, float, float)
        Size of the field along (z, y, x).
    spacing_mm : float
        Distance between voxels.

    Returns
    -------
    Frame
        To a grid of 180 x 128 x 128 voxels of 2 mm unless told otherwise; its ``is_truncated`` says whether the
        field is longer than the scan.

    Raises
    ------
    GeometryError
        If grid and mask differ in shape.
    SegmentationError
        If the mask is empty.

    Notes
    -----
    Alignment, field, spacing and mirroring to the right are those of Haque et al. (2.5-D U-Net), who do not say where
    the field is centred.
    """
    if leg.shape != grid.shape:
        raise GeometryError(f"the leg mask has shape {leg.shape}, its grid {grid.shape} (z, y, x)")
    slices = np.flatnonzero(leg.any(axis=(1, 2)))
    if not len(slices):
        raise SegmentationError("no leg to align: its mask is empty")
    turn = rotation_between(axis.direction, (0, 0, 1)) if axis.reliable else np.eye(3)
    world = np.eye(4)
    world[:3, :3] = turn
    world[:3, 3] = axis.point_mm - turn @ axis.point_mm
    if side is not None and side != mirror_to:
        mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
        mirror[0, 3] = 2 * axis.point_mm[0]
        world = mirror @ world
    area = leg.sum(axis=(1, 2), dtype=np.int64)[slices]
    rows = (leg.sum(axis=2, dtype=np.int64) @ np.arange(leg.shape[1]))[slices] / area
    columns = (leg.sum(axis=1, dtype=np.int64) @ np.arange(leg.shape[2]))[slices] / area
    centres = grid.world(np.stack([slices, rows, columns], axis=1)) @ world[:3, :3].T + world[:3, 3]
    middle = np.average(centres, axis=0, weights=area)
    middle[2] = (centres[:, 2].min() + centres[:, 2].max()) / 2
    shape = tuple(max(1, round(size / spacing_mm)) for size in field_mm)
    # A plane of the field lies on the middle of the scan, which may be a single slice.
    corner = middle - spacing_mm * np.array([(shape[2] - 1) / 2, (shape[1] - 1) / 2, shape[0] // 2])
    return Frame(grid, Grid.from_spacing(shape, (spacing_mm,) * 3, corner), world)


def rotation_between(start: ArrayLike, end: ArrayLike) -> NDArray[np.float64]:
    """Smallest rotation that takes one direction to another (Rodrigues' formula).

    Parameters
    ----------
    start, end : array_like of shape (3,)
        Directions; their lengths do not matter.

    Returns
    -------
    ndarray of float, shape (3, 3)

    Raises
    ------
    GeometryError
        If they are opposite, when no rotation is the smallest.
    """
    a = np.asarray(start, dtype=np.float64) / np.linalg.norm(start)
    b = np.asarray(end, dtype=np.float64) / np.linalg.norm(end)
    cosine = float(a @ b)
    if cosine < -1 + 1e-9:
        raise GeometryError("the directions are opposite: no rotation between them is the smallest")
    x, y, z = np.cross(a, b)
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation: NDArray[np.float64] = np.eye(3) + skew + skew @ skew / (1 + cosine)
    return rotation
