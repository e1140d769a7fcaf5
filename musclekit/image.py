"""The data model: images, label maps and probability maps on a grid, and the cases that hold them.

Everything is 3-D in array order (z, y, x); a 2-D slice is a volume of one plane. Nothing here reads files or draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, Self, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from musclekit.errors import (
    GeometryError,
    InputError,
    LabelError,
    ModalityError,
    VoxelError,
    unknown_name,
)
from musclekit.labels import LabelMapping, LabelSet, Side

__all__ = [
    "Assessment",
    "Case",
    "Contrast",
    "Domain",
    "Grid",
    "Image",
    "LabelMap",
    "Modality",
    "Prediction",
    "ProbabilityMap",
]

Modality = Literal["ct", "mr"]

#: Two grids agree when no corner of one lies further than this from the same corner of the other.
CORNER_TOLERANCE_MM = 1e-3
CORNER_TOLERANCE_VOXELS = 0.01


class Contrast(StrEnum):
    """What the grey values of an image stand for. ``MR`` is magnetic resonance of unknown weighting."""

    CT = "ct"
    T1W = "t1w"
    T2W = "t2w"
    STIR = "stir"
    FAT = "fat"
    WATER = "water"
    MR = "mr"

    @classmethod
    def _missing_(cls, value: object) -> Contrast:
        raise unknown_name("contrast", str(value), cls)

    @property
    def modality(self) -> Modality:
        """``"ct"`` or ``"mr"``."""
        return "ct" if self is Contrast.CT else "mr"

    @property
    def fat_is_bright(self) -> bool | None:
        """Whether fat is brighter than muscle; None where the weighting is unknown."""
        if self is Contrast.MR:
            return None
        return self in (Contrast.T1W, Contrast.T2W, Contrast.FAT)


class _Immutable:
    """Copied by being handed on; pickled as its arguments, so that what comes back is checked and read-only again."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[type[Any], tuple[Any, ...]]:
        values = (getattr(self, item.name) for item in fields(cast(Any, self)))
        return type(self), tuple(dict(value) if isinstance(value, MappingProxyType) else value for value in values)


@dataclass(frozen=True, eq=False)
class Grid(_Immutable):
    """Where the voxels of an array lie in the world.

    Parameters
    ----------
    shape : tuple of int
        (planes, rows, columns).
    affine : array_like of shape (4, 4)
        Maps an index (z, y, x), in array order, to world millimetres, RAS+ (x to the patient's right, y to the
        front, z to the head).

    Raises
    ------
    GeometryError
        If the shape is not three positive numbers or the affine cannot be inverted.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1 or shape != tuple(self.shape):
            raise GeometryError(
                f"a grid has three positive dimensions (planes, rows, columns), not {tuple(self.shape)}"
            )
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError("an affine is a 4x4 matrix of finite numbers")
        if not np.allclose(affine[3], (0, 0, 0, 1)):
            raise GeometryError("the last row of an affine is 0 0 0 1")
        scale = np.linalg.norm(affine[:3, :3], axis=0)
        if (scale == 0).any() or abs(np.linalg.det(affine[:3, :3] / scale)) < 1e-6:
            raise GeometryError(
                f"the affine is singular (spacing {', '.join(f'{s:g}' for s in scale)} mm): voxels have no volume"
            )
        affine.flags.writeable = False
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def from_spacing(cls, shape: Iterable[int], spacing: Iterable[float], origin: Iterable[float] = (0, 0, 0)) -> Grid:
        """Axis-aligned grid: axis 0 points to S, axis 1 to A, axis 2 to R.

        Parameters
        ----------
        shape : iterable of int
            (planes, rows, columns).
        spacing : iterable of float
            Millimetres along (z, y, x).
        origin : iterable of float
            World (x, y, z) of voxel (0, 0, 0).
        """
        dz, dy, dx = spacing
        if min(dz, dy, dx) <= 0:
            raise GeometryError(f"spacing must be positive, not {dz:g}, {dy:g}, {dx:g} mm")
        affine = np.array([[0, 0, dx, 0], [0, dy, 0, 0], [dz, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
        affine[:3, 3] = tuple(origin)
        return cls(cast(tuple[int, int, int], tuple(shape)), affine)

    def __repr__(self) -> str:
        size, steps = (" x ".join(f"{n:.4g}" for n in numbers) for numbers in (self.shape, self.spacing))
        return f"Grid({size} voxels of {steps} mm (z, y, x))"

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between neighbouring voxels along (z, y, x)."""
        dz, dy, dx = (float(n) for n in np.linalg.norm(self.affine[:3, :3], axis=0))
        return dz, dy, dx

    @property
    def origin(self) -> NDArray[np.float64]:
        """World position (x, y, z), in mm, of the centre of voxel (0, 0, 0)."""
        return self.affine[:3, 3]

    @property
    def direction(self) -> NDArray[np.float64]:
        """3x3 unit vectors of the array axes (z, y, x), as columns, in world coordinates."""
        direction: NDArray[np.float64] = self.affine[:3, :3] / np.asarray(self.spacing)
        return direction

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in cubic millimetres (right for sheared grids too)."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def world(self, index: ArrayLike) -> NDArray[np.float64]:
        """World (x, y, z) in mm of array indices (z, y, x); the last axis holds the coordinates."""
        points = np.asarray(index, dtype=np.float64)
        world: NDArray[np.float64] = points @ self.affine[:3, :3].T + self.affine[:3, 3]
        return world

    def index(self, world: ArrayLike) -> NDArray[np.float64]:
        """Fractional array indices (z, y, x) of world points (x, y, z) in mm: the inverse of `world`."""
        points = np.asarray(world, dtype=np.float64) - self.affine[:3, 3]
        index: NDArray[np.float64] = points @ np.linalg.inv(self.affine[:3, :3]).T
        return index

    def corners(self) -> NDArray[np.float64]:
        """World position of the centres of the eight corner voxels, shape (8, 3)."""
        far = np.asarray(self.shape) - 1
        choices = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
        return self.world(choices * far)

    def crop(self, start: Iterable[int], stop: Iterable[int]) -> Grid:
        """Grid of ``array[start:stop]``; the world position of each voxel is unchanged."""
        first = np.asarray(tuple(start))
        shape = np.asarray(tuple(stop)) - first
        affine = self.affine.copy()
        affine[:3, 3] = self.world(first)
        return Grid(cast(tuple[int, int, int], tuple(int(n) for n in shape)), affine)

    def same_as(self, other: Grid) -> bool:
        """Whether both have one shape and their corners lie within 1e-3 mm and 1 % of a voxel of each other."""
        if self.shape != other.shape:
            return False
        tolerance = min(CORNER_TOLERANCE_MM, CORNER_TOLERANCE_VOXELS * min(self.spacing))
        # The affine's columns are checked with the corners: along an axis of one voxel they say nothing.
        columns = np.abs(self.affine[:3, :3] - other.affine[:3, :3]).max()
        return bool(np.abs(self.corners() - other.corners()).max() < tolerance and columns < tolerance)

    def difference(self, other: Grid) -> str:
        """One line that says how two grids differ, for an error message; empty if they do not."""
        if self.shape != other.shape:
            return f"shapes {self.shape} and {other.shape} (z, y, x) differ"
        if self.same_as(other):
            return ""
        apart = float(np.linalg.norm(self.corners() - other.corners(), axis=1).max())
        if apart < CORNER_TOLERANCE_MM:  # an axis of one voxel has both its corners in one place
            mine, theirs = (" x ".join(f"{step:.4g}" for step in grid.spacing) for grid in (self, other))
            return f"voxels of {mine} and {theirs} mm (z, y, x) differ, or point another way"
        return f"corners lie up to {apart:.3g} mm apart"


def _own(given: Any, dtype: DTypeLike) -> NDArray[Any]:
    """Return the values in memory that nobody else can write to: a copy, unless they already cannot be written to."""
    array = np.ascontiguousarray(given, dtype=dtype)
    is_callers = isinstance(given, np.ndarray) and np.may_share_memory(array, given)
    return array.copy() if is_callers and array.flags.writeable else array


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view


def _check_shape(voxels: NDArray[Any], grid: Grid, what: str) -> None:
    if voxels.shape != grid.shape:
        raise GeometryError(f"{what} has shape {voxels.shape}, its grid {grid.shape} (z, y, x)")


@dataclass(frozen=True, eq=False)
class Image(_Immutable):
    """Grey values on a grid.

    Parameters
    ----------
    voxels : array_like of shape (Z, Y, X)
        Stored as float32 and handed out read-only. CT in Hounsfield units, MR in the scanner's own.
    grid : Grid
        Where they lie.
    contrast : Contrast
        What they stand for.
    domain : str, optional
        Population the scan comes from (``"easy"``, ``"hard"``, ``"healthy"`` ...), where a translator needs to know.

    Raises
    ------
    GeometryError
        If voxels and grid differ in shape.
    VoxelError
        If a voxel is NaN or infinite.
    """

    voxels: NDArray[np.float32]
    grid: Grid
    contrast: Contrast
    domain: str | None = None

    def __post_init__(self) -> None:
        # What is too large for float32 becomes infinite and is refused with the rest.
        with np.errstate(over="ignore", invalid="ignore"):
            voxels = _own(self.voxels, np.float32)
            # The sum is finite when every voxel is, and costs a quarter of isfinite; only a bad sum is looked into.
            finite = np.isfinite(voxels.sum(dtype=np.float64))
        _check_shape(voxels, self.grid, "the image")
        if not finite:
            bad = int((~np.isfinite(voxels)).sum())
            raise VoxelError(f"{bad} of {voxels.size} voxels are NaN or infinite; replace them before segmenting")
        object.__setattr__(self, "voxels", _read_only(voxels))
        object.__setattr__(self, "contrast", Contrast(self.contrast))

    def __repr__(self) -> str:
        return f"Image({self.contrast}, {self.grid})"

    @property
    def modality(self) -> Modality:
        """``"ct"`` or ``"mr"``, from the contrast."""
        return self.contrast.modality

    def with_voxels(self, voxels: ArrayLike, contrast: Contrast | None = None, domain: str | None = None) -> Image:
        """Return a new image on the same grid; contrast and domain stay where they are not given."""
        return replace(
            self,
            voxels=np.asarray(voxels, dtype=np.float32),
            contrast=contrast or self.contrast,
            domain=self.domain if domain is None else domain,
        )


@dataclass(frozen=True, eq=False)
class LabelMap(_Immutable):
    """One label a voxel; 0 is background.

    Parameters
    ----------
    voxels : array_like of int, shape (Z, Y, X)
        Label ids; stored as uint8, or uint16 when the set holds an id above 255, and handed out read-only.
    grid : Grid
        Where they lie.
    label_set : LabelSet
        What the ids mean. Ids never travel without it.

    Raises
    ------
    GeometryError
        If voxels and grid differ in shape.
    LabelError
        If an id stands outside the label set.
    """

    voxels: NDArray[Any]
    grid: Grid
    label_set: LabelSet

    def __post_init__(self) -> None:
        given = np.asarray(self.voxels)
        _check_shape(given, self.grid, "the label map")
        if given.dtype == bool:
            given = given.astype(np.uint8)
        if not np.issubdtype(given.dtype, np.integer):
            raise LabelError(f"label ids are integers, not {given.dtype}")
        if given.min() < 0 or given.max() > np.iinfo(np.uint16).max:
            raise LabelError(f"label ids lie between 0 and 65535, found {int(given.min())} to {int(given.max())}")
        # Most voxels are background; leaving them out makes the count three times faster.
        present = np.flatnonzero(np.bincount(given[given != 0]))
        strange = [int(i) for i in present if int(i) not in self.label_set.ids]
        if strange:
            raise LabelError(f"label ids {strange} do not belong to the set '{self.label_set.name}'")
        dtype = np.uint8 if max(self.label_set.ids) < 256 else np.uint16
        object.__setattr__(self, "voxels", _read_only(_own(given, dtype)))

    def __repr__(self) -> str:
        return f"LabelMap({self.label_set.name}, {self.grid})"

    def mask(self, *names: str) -> NDArray[np.bool_]:
        """Boolean union of the labels named (every side of them); all labels when none is named.

        Raises
        ------
        LabelError
            If the set has no label of that name.
        """
        ids = [i for name in names for i in self.label_set.ids_of(name)]
        wanted = np.zeros(int(np.iinfo(self.voxels.dtype).max) + 1, dtype=np.bool_)
        wanted[ids if names else sorted(self.label_set.ids)] = True
        found: NDArray[np.bool_] = wanted[self.voxels]
        return found

    def with_voxels(self, voxels: NDArray[Any]) -> LabelMap:
        """Return a new label map on the same grid and in the same label set."""
        return replace(self, voxels=voxels)

    def mapped(self, mapping: LabelMapping) -> LabelMap:
        """Return the map in another label set; labels the mapping drops become background.

        Raises
        ------
        LabelError
            If the mapping starts from another set.
        """
        if mapping.source.name != self.label_set.name:
            raise LabelError(f"the mapping starts from '{mapping.source.name}', the labels are '{self.label_set.name}'")
        return LabelMap(mapping.table()[self.voxels], self.grid, mapping.target)


@dataclass(frozen=True, eq=False)
class ProbabilityMap(_Immutable):
    """Probability of background and of each label, at each voxel.

    Parameters
    ----------
    voxels : array_like of shape (C, Z, Y, X)
        Channel 0 is background; channel c is the c-th label of the set, in its order. Stored as float32, read-only.
    grid : Grid
        Where they lie.
    label_set : LabelSet
        The labels of channels 1 to C-1.

    Raises
    ------
    GeometryError
        If the shape is not one channel more than the set has labels, on the grid.
    VoxelError
        If a value is not a probability.
    """

    voxels: NDArray[np.float32]
    grid: Grid
    label_set: LabelSet

    def __post_init__(self) -> None:
        voxels = _own(self.voxels, np.float32)
        expected = (len(self.label_set) + 1, *self.grid.shape)
        if voxels.shape != expected:
            raise GeometryError(f"probabilities have shape {voxels.shape}, expected {expected} (channel, z, y, x)")
        low, high = float(voxels.min()), float(voxels.max())
        if not (low >= -1e-5 and high <= 1 + 1e-5):
            raise VoxelError(f"probabilities lie between 0 and 1, found {low:g} to {high:g}")
        object.__setattr__(self, "voxels", _read_only(voxels))

    def __repr__(self) -> str:
        return f"ProbabilityMap({self.label_set.name}, {self.grid})"

    def of(self, name: str) -> NDArray[np.float32]:
        """Probability of the label named, summed over its sides; shape (Z, Y, X)."""
        wanted = set(self.label_set.ids_of(name))
        channels = [c for c, label in enumerate(self.label_set, start=1) if label.id in wanted]
        return cast(NDArray[np.float32], self.voxels[channels].sum(axis=0))

    def labels(self) -> LabelMap:
        """Return the most probable label of each voxel."""
        ids = np.array([0, *(label.id for label in self.label_set)], dtype=np.uint16)
        return LabelMap(ids[self.voxels.argmax(axis=0)], self.grid, self.label_set)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What an uncertain segmenter says of one image.

    Parameters
    ----------
    labels : LabelMap
        The most probable labels.
    mean_probabilities : callable
        Makes `mean`, which is large, when it is asked for.
    variance : ndarray of float32, shape (Z, Y, X)
        Predictive variance of each voxel.
    entropy : ndarray of float32, shape (Z, Y, X)
        Entropy of the mean probabilities of each voxel, in bits.
    volume_ml : mapping of str to ndarray of shape (samples,)
        Volume of each structure, in millilitres, in each sample; by the name of the label, and its side where that is
        known (``"sartorius left"``).
    csa_mm2 : mapping of str to ndarray of shape (samples, Z)
        Cross-sectional area of each structure, in square millimetres, in each sample and slice.
    """

    labels: LabelMap
    mean_probabilities: Callable[[], ProbabilityMap]
    variance: NDArray[np.float32]
    entropy: NDArray[np.float32]
    volume_ml: Mapping[str, NDArray[np.float64]]
    csa_mm2: Mapping[str, NDArray[np.float64]]

    @cached_property
    def mean(self) -> ProbabilityMap:
        """Mean of the sampled probabilities."""
        return self.mean_probabilities()


@dataclass(frozen=True, eq=False)
class Assessment:
    """What a segmenter that knows its limits says of one image.

    Parameters
    ----------
    labels : LabelMap
        None in the slices that are not accepted.
    accepted : ndarray of bool, shape (Z,)
        Slices that show what the segmenter knows.
    sides : tuple of {"left", "right"}
        Legs that were looked at.
    confidence : mapping of str to float
        Dice to be expected of each structure, by its name, and its side where that is known (``"sartorius left"``);
        NaN where it was not found.
    notes : tuple of str
        What a reader has to know.
    """

    labels: LabelMap
    accepted: NDArray[np.bool_]
    sides: tuple[Side, ...]
    confidence: Mapping[str, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Domain:
    """One side of a translation: a contrast, and a grade (``"easy"``, ``"hard"`` ...) where that matters."""

    contrast: Contrast
    grade: str | None = None

    def holds(self, image: Image) -> bool:
        """Whether the image belongs here. A domain without a grade takes every grade."""
        return image.contrast is self.contrast and (self.grade is None or image.domain == self.grade)

    def may_hold(self, image: Image) -> bool:
        """Whether the image may belong here: its contrast fits, and its grade fits or is not known."""
        return image.contrast is self.contrast and (image.domain is None or self.holds(image))


@dataclass(frozen=True, eq=False)
class Case(_Immutable):
    """One examination: images of one region of one person, and what is known of it.

    Parameters
    ----------
    id : str
        Unique in its manifest.
    subject : str
        The person. Mandatory: two thighs of one person are not two samples.
    images : mapping of Contrast to Image
        All on one grid.
    reference : LabelMap, optional
        Annotation, on the grid of the images.
    side : {"left", "right"}, optional
        Which leg, where the image shows one.
    domain : str, optional
        Population, as in `Image`.
    meta : mapping
        Free columns of the manifest.

    Raises
    ------
    InputError
        If there is no image, or the subject is empty.
    GeometryError
        If the images or the reference do not share a grid.
    """

    id: str
    subject: str
    images: Mapping[Contrast, Image]
    reference: LabelMap | None = None
    side: Side | None = None
    domain: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.subject:
            raise InputError(f"case '{self.id}' names no subject")
        if not self.images:
            raise InputError(f"case '{self.id}' has no image")
        images = {Contrast(contrast): image for contrast, image in self.images.items()}
        for contrast, image in images.items():
            if image.contrast is not contrast:
                raise ModalityError(f"case '{self.id}' files a {image.contrast} image under {contrast}")
        grid = next(iter(images.values())).grid
        parts = [(str(contrast), image.grid) for contrast, image in images.items()]
        if self.reference is not None:
            parts.append(("reference", self.reference.grid))
        for what, other in parts:
            if not grid.same_as(other):
                raise GeometryError(f"case '{self.id}': the {what} lies on another grid: {grid.difference(other)}")
        object.__setattr__(self, "images", MappingProxyType(images))
        object.__setattr__(self, "meta", MappingProxyType(dict(self.meta)))

    @property
    def image(self) -> Image:
        """The image, when there is one.

        Raises
        ------
        InputError
            If there are several: then `image_of` says which is meant.
        """
        if len(self.images) > 1:
            names = ", ".join(self.images)
            raise InputError(f"case '{self.id}' has several images ({names}); choose one by its contrast")
        return next(iter(self.images.values()))

    def image_of(self, contrast: Contrast | None) -> Image:
        """Return the image of a contrast, or with None the only one there is.

        Raises
        ------
        InputError
            If there is none of that contrast, or no contrast is named and there are several images.
        """
        if contrast is None:
            return self.image
        if contrast not in self.images:
            raise InputError(f"case '{self.id}' has no {contrast} image, only {', '.join(self.images)}")
        return self.images[contrast]
