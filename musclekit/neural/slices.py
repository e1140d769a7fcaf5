"""Axial slices to train on: cut from volumes of any size and spacing, paired by chance, shifted and flipped.

Every slice is a square of one pixel size in the network's range -1 to 1, with the body in its middle and -1, air,
around it. Chance comes from a NumPy generator that is handed in and from nothing else: who keeps its state can go on
from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from musclekit.anatomy import body_mask, split_legs
from musclekit.checks import check_number, check_voxels
from musclekit.errors import GeometryError, InputError, MusclekitError
from musclekit.image import Case, Contrast, Grid, Image
from musclekit.neural.windows import Scale, Window

__all__ = [
    "DomainSlices",
    "SliceSpec",
    "VolumeSlices",
    "augment",
    "domain_slices",
    "resampled_plane",
    "slices_of",
    "square_shape",
    "unpaired",
]

Slices = NDArray[np.float32]
T = TypeVar("T", bound=np.generic)

#: Air in the network's range.
AIR = np.float32(-1)
#: How far a slice is shifted at random, at most.
SHIFT_PX = 8


@dataclass(frozen=True)
class SliceSpec:
    """What a slice looks like.

    Parameters
    ----------
    size : int
        Rows and columns.
    spacing_mm : float
        Edge of a pixel.
    min_body_mm2 : float
        A slice that shows less of a body, or of a leg where legs are taken apart, is left out. The default is that of
        a limb 50 mm wide.

    Raises
    ------
    ParameterError
        If one of them is not positive.
    """

    size: int
    spacing_mm: float
    min_body_mm2: float = 2000.0

    def __post_init__(self) -> None:
        check_number("size", self.size, least=1, whole=True)
        check_number("spacing_mm", self.spacing_mm, above=0)
        check_number("min_body_mm2", self.min_body_mm2, above=0)


@dataclass(frozen=True, eq=False)
class VolumeSlices:
    """Slices of one volume.

    Parameters
    ----------
    slices : ndarray of float32, shape (n, size, size)
        From the feet upwards; where legs are taken apart those of one leg first.
    scale : Scale
        What -1 and 1 stand for.
    n_small : int
        Slices left out because they show too little of a body.
    n_large : int
        Slices left out because the body is larger than they are.
    n_sideless : int
        Slices of a leg whose side is not known, which was not mirrored.
    """

    slices: Slices
    scale: Scale
    n_small: int
    n_large: int
    n_sideless: int


@dataclass(frozen=True, eq=False)
class DomainSlices:
    """Slices of all volumes of a domain.

    Parameters
    ----------
    slices : ndarray of float32, shape (n, size, size)
        Case by case.
    subjects : tuple of str
        The person in each slice.
    scale : Scale
        Medians, over the volumes, of what -1 and 1 stand for.
    contrast : Contrast
        Of all the volumes.
    spec : SliceSpec
        What the slices look like.
    n_small, n_large, n_sideless : int
        See `VolumeSlices`.
    """

    slices: Slices
    subjects: tuple[str, ...]
    scale: Scale
    contrast: Contrast
    spec: SliceSpec
    n_small: int
    n_large: int
    n_sideless: int

    @cached_property
    def deciles(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Deciles of the grey values (-1 to 1) inside the body: of each the least and the most over the people."""
        people = np.array(self.subjects)
        seen = [self.slices[people == person] for person in dict.fromkeys(self.subjects)]
        found = np.array([_deciles(slices) for slices in seen])
        least, most = (tuple(float(value) for value in ends(found, axis=0)) for ends in (np.min, np.max))
        return least, most

    def warnings(self) -> tuple[str, ...]:
        """Say, one line each, what was left out and what was not mirrored."""
        total = len(self.slices) + self.n_small + self.n_large
        lines = []
        if self.n_small:
            lines.append(f"{self.n_small} of {total} slices left out: {_too_small(self.spec)}")
        if self.n_large:
            lines.append(f"{self.n_large} of {total} slices left out: {_too_large(self.spec)}")
        if self.n_sideless:
            lines.append(f"{self.n_sideless} of {total} slices show a leg of unknown side, which was not mirrored")
        return tuple(lines)


def _too_small(spec: SliceSpec) -> str:
    return f"less than {spec.min_body_mm2:g} mm2 of body"


def _too_large(spec: SliceSpec) -> str:
    return f"a body larger than {spec.size} x {spec.size} pixels of {spec.spacing_mm:g} mm"


def square_shape(grid: Grid, spacing_mm: float) -> tuple[int, int]:
    """Rows and columns of a slice of the grid with square pixels; its edges stay, to half a pixel.

    Raises
    ------
    ParameterError
        If the spacing is not positive.
    """
    check_number("spacing_mm", spacing_mm, above=0)
    rows, columns = (
        max(1, round(n * step / spacing_mm)) for n, step in zip(grid.shape[1:], grid.spacing[1:], strict=True)
    )
    return rows, columns


def resampled_plane(plane: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Resample a slice to other numbers of rows and columns between the same edges.

    Parameters
    ----------
    plane : ndarray of float32, shape (Y, X)
        One slice.
    shape : (int, int)
        Rows and columns to have.

    Returns
    -------
    ndarray of float32
        Along each axis by itself, pixels that grow are means of those they cover; smaller ones are interpolated.
    """
    # OpenCV takes means only where no axis grows finer: each has its own turn.
    for size in ((plane.shape[1], shape[0]), (shape[1], shape[0])):
        if size != plane.shape[::-1]:
            shrinks = size[0] * size[1] < plane.size
            plane = cast(
                NDArray[np.float32],
                cv2.resize(plane, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR),
            )
    return plane


def _deciles(slices: Slices) -> NDArray[np.float64]:
    inside = slices[slices > AIR]
    # A body that is as dark as air all over, as a fixed window can make it, has nothing to be told apart.
    found: NDArray[np.float64] = np.quantile(inside if inside.size else np.array([AIR]), np.arange(1, 10) / 10)
    return found


def slices_of(image: Image, window: Window, spec: SliceSpec, *, per_leg: bool = False) -> VolumeSlices:
    """Cut the axial slices of one volume.

    All but the body is set to air: a table or a hand that only one of two domains shows would be learnt as theirs.

    Parameters
    ----------
    image : Image
        CT or MR, of any size and spacing.
    window : Window
        How grey values become -1..1.
    spec : SliceSpec
        What the slices shall look like.
    per_leg : bool
        Whether each leg has slices of its own, the other one set to air and left ones mirrored. A single leg stays as
        it is: of a scan to be translated nobody says which one it shows.

    Returns
    -------
    VolumeSlices
        Each with the middle of the body's bounding box in its middle; there may be none.

    Raises
    ------
    VoxelError
        If the image is constant or all air.
    ModalityError
        If the grey values cannot be what the contrast says.
    SegmentationError
        If there is no body in it.
    """
    check_voxels(image)
    body = body_mask(image)
    scale = window.scale_of(image, body)
    legs = split_legs(image, body) if per_leg else ()
    parts = [(leg.mask, leg.side) for leg in legs] if per_leg else [(body, "right")]
    pixel_mm2 = image.grid.spacing[1] * image.grid.spacing[2]
    # Which axis of a slice runs from left to right, as mirrored frames have it.
    across = int(np.argmax(np.abs(image.grid.direction[0, 1:])))
    square = square_shape(image.grid, spec.spacing_mm)
    slices: list[Slices] = []
    small = large = sideless = 0
    for mask, of_side in parts:
        for plane, inside in zip(image.voxels, mask, strict=True):
            if np.count_nonzero(inside) * pixel_mm2 < spec.min_body_mm2:
                small += 1
                continue
            unit, shown = np.where(inside, scale.to_unit(plane), AIR), inside
            if of_side == "left":
                unit, shown = np.flip(unit, across), np.flip(inside, across)
            cut = _centred(resampled_plane(np.ascontiguousarray(unit), square), shown, spec.size)
            if cut is None:
                large += 1
                continue
            sideless += of_side is None
            slices.append(cut)
    stack = np.stack(slices) if slices else np.empty((0, spec.size, spec.size), dtype=np.float32)
    return VolumeSlices(stack, scale, small, large, sideless)


def _centred(plane: Slices, inside: NDArray[np.bool_], size: int) -> Slices | None:
    """Square cut from a plane with the body in its middle, or None where it does not fit in.

    The mask covers the same edges as the plane, in pixels of another size.
    """
    result = np.full((size, size), AIR, dtype=np.float32)
    to, of = [], []
    for axis, pixels in enumerate(plane.shape):
        seen = np.flatnonzero(inside.any(axis=1 - axis))
        first, last = (float(edge) * pixels / inside.shape[axis] for edge in (seen[0], seen[-1] + 1))
        if round(last - first) > size:
            return None
        start = round((first + last - size) / 2)
        begin, end = max(0, start), min(pixels, start + size)
        of.append(slice(begin, end))
        to.append(slice(begin - start, end - start))
    result[tuple(to)] = plane[tuple(of)]
    return result


def domain_slices(
    cases: Iterable[Case],
    window: Window,
    spec: SliceSpec,
    *,
    name: str,
    per_leg: bool = False,
    contrast: Contrast | None = None,
    allow_single_subject: bool = False,
) -> DomainSlices:
    """Cut the slices of all cases of a domain.

    Parameters
    ----------
    cases : iterable of Case
        One at a time is enough: they are not kept.
    window, spec, per_leg
        See `slices_of`; each volume has a scale of its own.
    name : str
        What the domain is called in messages: ``"source"``, ``"target"``.
    contrast : Contrast, optional
        Which image of a case is meant, where there are several.
    allow_single_subject : bool
        Whether a domain may show a single person.

    Returns
    -------
    DomainSlices
        At least one.

    Raises
    ------
    InputError
        If there is no case or no slice, one person only, several contrasts, or a case without the contrast; the
        message names the domain and the case.
    VoxelError, ModalityError, SegmentationError
        As `slices_of` does; the message names the case.
    """
    volumes: list[VolumeSlices] = []
    subjects: list[str] = []
    people: set[str] = set()
    first: Case | None = None
    shown = contrast
    for case in cases:
        image = case.image_of(contrast)
        if first is None or shown is None:
            first, shown = case, image.contrast
        if image.contrast is not shown:
            raise InputError(
                f"the {name} domain mixes contrasts: case '{first.id}' is {shown}, case '{case.id}' {image.contrast}; "
                "a translator takes one"
            )
        try:
            volume = slices_of(image, window, spec, per_leg=per_leg)
        except MusclekitError as error:
            raise type(error)(f"case '{case.id}': {error}") from error
        volumes.append(volume)
        people.add(case.subject)
        subjects += [case.subject] * len(volume.slices)
    if shown is None or not volumes:
        raise InputError(f"the {name} domain is empty: there is no case in it")
    small, large, sideless = (
        sum(counts) for counts in zip(*((v.n_small, v.n_large, v.n_sideless) for v in volumes), strict=True)
    )
    if not subjects:
        hint = "take larger pixels or more of them, or take the legs apart" if large else "look at the scans"
        raise InputError(
            f"the {name} domain is empty: of {small + large} slices {small} show {_too_small(spec)} and {large} "
            f"{_too_large(spec)}; {hint}"
        )
    if len(set(subjects)) == 1 and not allow_single_subject:
        others = f" (of {len(people) - 1} others no slice is left)" if len(people) > 1 else ""
        raise InputError(
            f"the {name} domain shows one subject, '{subjects[0]}'{others}: what is learnt from it would be that "
            "person; add others, or set allow_single_subject = true in the plan, which the card will say"
        )
    low, high = (float(np.median(ends)) for ends in zip(*((v.scale.low, v.scale.high) for v in volumes), strict=True))
    scale = Scale(low, high)
    slices = np.concatenate([volume.slices for volume in volumes])
    return DomainSlices(slices, tuple(subjects), scale, shown, spec, small, large, sideless)


def augment(batch: Slices, rng: np.random.Generator) -> Slices:
    """Shift each slice by up to 8 pixels, and mirror half of them left to right.

    Parameters
    ----------
    batch : ndarray of float32, shape (n, ..., rows, columns)
        Slices; all that one of them holds is moved alike.
    rng : numpy.random.Generator
        Where chance comes from.

    Returns
    -------
    ndarray of float32
        In the same shape; what comes into view is air.

    Notes
    -----
    Padding by 8 and a random crop, as we take the augmentation of Yang et al.; enlarging to 286 pixels and cropping to
    256, as CycleGAN does, would change the size of a pixel.
    """
    rows, columns = batch.shape[-2:]
    shifts = rng.integers(0, 2 * SHIFT_PX + 1, size=(len(batch), 2))
    flips = rng.random(len(batch)) < 0.5
    result = np.empty_like(batch)
    for n, (sample, (y, x), flip) in enumerate(zip(batch, shifts.tolist(), flips.tolist(), strict=True)):
        border = [(0, 0)] * (sample.ndim - 2) + [(SHIFT_PX, SHIFT_PX)] * 2
        moved = np.pad(sample, border, constant_values=AIR)[..., y : y + rows, x : x + columns]
        result[n] = moved[..., ::-1] if flip else moved
    return result


def unpaired(
    source: NDArray[T], target: NDArray[T], batch: int, rng: np.random.Generator
) -> Iterator[tuple[NDArray[T], NDArray[T]]]:
    """Draw the batches of one epoch.

    An epoch shows each slice of the larger domain once, in random order; beside each stands one of the other domain,
    drawn at random. All is drawn before the first batch is handed out.

    Parameters
    ----------
    source, target : ndarray, shape (n, ...)
        Slices of the two domains, or their numbers.
    batch : int
        Slices of each domain in a batch; the last batch may hold fewer.
    rng : numpy.random.Generator
        Where chance comes from.

    Returns
    -------
    iterator of (ndarray, ndarray)
        Slices of source and target, of equal number.

    Raises
    ------
    InputError
        If a domain is empty.
    GeometryError
        If the slices of the domains differ in shape.
    ParameterError
        If the batch is not a positive whole number.
    """
    check_number("batch", batch, least=1, whole=True)
    for name, slices in (("source", source), ("target", target)):
        if not len(slices):
            raise InputError(f"the {name} domain is empty: there is no slice in it")
    if source.shape[1:] != target.shape[1:]:
        raise GeometryError(
            f"slices of the source are {source.shape[1:]} in shape, those of the target {target.shape[1:]}"
        )
    longest = max(len(source), len(target))
    order = [
        rng.permutation(longest) if len(slices) == longest else rng.integers(0, len(slices), longest)
        for slices in (source, target)
    ]
    return ((source[order[0][i : i + batch]], target[order[1][i : i + batch]]) for i in range(0, longest, batch))
