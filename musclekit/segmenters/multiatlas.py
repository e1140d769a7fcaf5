"""Muscles by several annotated thighs, each laid onto the scan, and a vote (Yokota et al. 2018, hierarchically).

Skin first, then all muscle, then the single muscles: a similarity transform by the outlines of leg, muscle compartment
and femur, an affine one that refines it, and a coarse B-spline on pictures of the compartment and, where both scans
have the same contrast, of what is inside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from musclekit.anatomy.registration import plane_axes
from musclekit.checks import check_contrast, check_number, check_voxels
from musclekit.errors import InputError, NotFittedError, ParameterError
from musclekit.image import Case, Contrast, Grid, Image, LabelMap, ProbabilityMap
from musclekit.labels import SIDES, Label, LabelSet, label_set
from musclekit.memory import remembered, remembering
from musclekit.segmenters.atlas import (
    OVERLAP,
    WEIGHT,
    AtlasCase,
    AtlasLeg,
    Thigh,
    annotated,
    atlas_case,
    atlas_legs,
    registration_of,
    thighs_of,
    warn_of_own_annotation,
)
from musclekit.segmenters.deformable import bend, displacement, sample

__all__ = ["MultiAtlasSegmenter"]

Plane = NDArray[np.float32]

#: Side of the square round a leg on which splines are sought.
FIELD_MM = 288.0
#: What leg, compartment and femur weigh in the pictures that are compared, as in the affine registration.
WEIGHTS = (0.3, 1.0, -2.0)
#: Standard deviation of the blur of the pictures, in mm.
BLUR_MM = 2.0
#: Grey values of a compartment run from the first to the second percentile.
PERCENTILES = (2, 98)


class _Raster:
    """The square round one leg in one slice: where its pixels lie."""

    def __init__(self, centre: NDArray[np.float64], spacing_mm: float) -> None:
        self.size = round(FIELD_MM / spacing_mm)
        self.spacing_mm = spacing_mm
        self.origin = centre - spacing_mm * (self.size - 1) / 2

    def places(self) -> NDArray[np.float64]:
        """Millimetres to the right and to the front of each pixel, shape (Y, X, 2)."""
        steps = self.spacing_mm * np.arange(self.size)
        found: NDArray[np.float64] = self.origin + np.stack(np.meshgrid(steps, steps), axis=-1)
        return found


def _at(plane: Plane, grid: Grid, places: NDArray[np.float64]) -> Plane:
    """Values of a slice at places in millimetres; 0 outside it."""
    pixels = (places @ np.linalg.inv(plane_axes(grid)).T).astype(np.float32)
    return sample(plane, np.ascontiguousarray(pixels[..., 0]), np.ascontiguousarray(pixels[..., 1]))


@remembered()
def _pictures(image: Image, leg: int, grey: bool) -> NDArray[np.float32]:
    """Draw the outlines of a leg, and the grey values of its compartment from 0 to 1; shape (Z, Y, X)."""
    thigh = thighs_of(image)[leg]
    parts = (thigh.mask, thigh.compartment, thigh.bone)
    drawn = sum(np.float32(weight) * part for weight, part in zip(WEIGHTS, parts, strict=True))
    picture = np.asarray(drawn, dtype=np.float32)
    if grey:
        for z in range(len(picture)):
            inside = thigh.compartment[z] & ~thigh.bone[z]
            if inside.any():
                low, high = np.percentile(image.voxels[z][inside], PERCENTILES)
                if high > low:
                    share = np.clip((image.voxels[z] - low) / (high - low), 0, 1)
                    picture[z] += np.where(inside, share, 0)
    _, dy, dx = image.grid.spacing
    sigma = (BLUR_MM / dx, BLUR_MM / dy)
    return np.stack([cv2.GaussianBlur(plane, (0, 0), sigmaX=sigma[0], sigmaY=sigma[1]) for plane in picture])


@remembered(lasts=True)
def _splines(
    image: Image, leg: int, atlas: Image, atlas_leg: int, mirrored: bool, spacing_mm: float, control_mm: float
) -> NDArray[np.float64]:
    """Bend a leg of an atlas onto a leg of a scan; shape (Z, P), zeros where the scan does not show the leg."""
    registration = registration_of(image, leg, atlas, atlas_leg, mirrored)
    grey = image.contrast is atlas.contrast
    mine, theirs = _pictures(image, leg, grey), _pictures(atlas, atlas_leg, grey)
    outlines = thighs_of(image)[leg].outlines
    found: dict[int, NDArray[np.float64]] = {}
    for n, z in enumerate(outlines.slices):
        piece = registration[z, registration[z, :, WEIGHT].argmax()]
        if piece[WEIGHT] == 0:
            continue
        places = _Raster(outlines.centres[n], spacing_mm).places()
        found[int(z)] = bend(
            _at(mine[z], image.grid, places),
            _at(theirs[int(piece[0])], atlas.grid, _affine(piece, places)),
            spacing_mm=spacing_mm,
            control_mm=control_mm,
        )
    size = max((len(spline) for spline in found.values()), default=0)
    splines = np.zeros((image.grid.shape[0], size))
    for z, spline in found.items():
        splines[z] = spline
    return splines


def _affine(piece: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places in the atlas of places in the scan."""
    matrix = piece[3:].reshape(2, 3)
    moved: NDArray[np.float64] = places @ matrix[:, :2].T + matrix[:, 2]
    return moved


@remembered()
def _votes(
    image: Image, leg: int, case: AtlasCase, atlas_leg: int, mirrored: bool, spacing_mm: float, control_mm: float
) -> NDArray[np.float32]:
    """Share of each label of an atlas case, background first, at each voxel of a scan; 0 where it shows nothing."""
    thigh = thighs_of(case.image)[atlas_leg]
    own = np.where(thigh.mask, case.labels.voxels, 0)
    registration = annotated(registration_of(image, leg, case.image, atlas_leg, mirrored), own > 0)
    splines = _splines(image, leg, case.image, atlas_leg, mirrored, spacing_mm, control_mm)
    outlines = thighs_of(image)[leg].outlines
    labels = case.labels.label_set
    votes = np.zeros((1 + len(labels), *image.grid.shape), dtype=np.float32)
    rows, columns = np.indices(image.grid.shape[1:])
    here = np.stack([columns, rows], axis=-1) @ plane_axes(image.grid).T
    inside = np.ones(case.image.grid.shape[1:], dtype=np.float32)
    for n, z in enumerate(outlines.slices):
        raster = _Raster(outlines.centres[n], spacing_mm)
        shape = (raster.size, raster.size)
        bent = displacement(splines[z], shape, spacing_mm=spacing_mm, control_mm=control_mm)
        at = ((here - raster.origin) / spacing_mm).astype(np.float32)
        places = here + np.stack(
            [sample(np.ascontiguousarray(bent[..., k]), at[..., 0].copy(), at[..., 1].copy()) for k in (0, 1)], axis=-1
        )
        for piece in registration[z]:
            if piece[WEIGHT] == 0:
                continue
            there, plane = _affine(piece, places), own[int(piece[0])]
            weight = np.float32(piece[WEIGHT])
            known = _at(inside, case.image.grid, there)
            votes[0, z] += weight * known
            for k, label in enumerate(labels, start=1):
                own_label = plane == _id_in_atlas(label, labels, mirrored)
                if own_label.any():
                    share = weight * _at(own_label.astype(np.float32), case.image.grid, there)
                    votes[k, z] += share
                    votes[0, z] -= share
    return np.maximum(votes, 0)


def _id_in_atlas(label: Label, labels: LabelSet, mirrored: bool) -> int:
    """Id that the atlas has for a label of the scan: where it is mirrored, that of the other side."""
    if not mirrored or label.side is None:
        return label.id
    return labels.ids_of(label.name, SIDES[1 - SIDES.index(label.side)])[0]


def _nearest(cases: Sequence[AtlasCase], image: Image, leg: int, legs: Sequence[AtlasLeg], n: int) -> list[AtlasLeg]:
    """Return the legs of the atlas whose outlines overlap most with those of the scan, the best first."""

    def overlap(pair: AtlasLeg) -> float:
        found = registration_of(image, leg, cases[pair.case].image, pair.leg, pair.mirrored)
        return float((found[..., WEIGHT] * found[..., OVERLAP]).sum() / max(found[..., WEIGHT].sum(), 1e-9))

    order = sorted(range(len(legs)), key=lambda k: (-overlap(legs[k]), k))
    return [legs[k] for k in order[:n]]


class MultiAtlasSegmenter(BaseEstimator):
    """Single muscles by annotated thighs laid onto the scan (after Yokota et al. 2018; the comparator of Hiasa et al.).

    Parameters
    ----------
    labels : str
        Name of the label set that is found; the references of the cases must lead to it.
    n_atlases : int
        How many thighs of the atlas vote, those that overlap most; all if there are fewer.
    spacing_mm : float
        Pixels on which the splines are sought.
    control_mm : float
        Distance of the control points of the splines: the larger, the stiffer.

    Attributes
    ----------
    atlas_ : tuple of AtlasCase
        The annotated cases.
    training_subjects_ : tuple of str
        The people they are of.

    Notes
    -----
    The hierarchy of Yokota et al. is kept (skin, all muscle, single muscles, each on the frame of the one before), its
    numbers too where they are known: an affine transform and a coarse B-spline at 2 mm, five nearest atlases. Different
    from them, slices are matched along the thigh first and then registered in the plane (the slices of a muscle MR lie
    5 to 30 mm apart); the muscle compartment of scan and atlas comes from `TissueSegmenter`; every atlas has an equal
    vote, a share of it where two of its slices are mixed.

    A person who stands in the atlas is segmented by their own annotation. Who measures must leave them out; of an image
    that is in the atlas itself a `UserWarning` says so.
    """

    def __init__(
        self,
        *,
        labels: str = "thigh-11",
        n_atlases: int = 5,
        spacing_mm: float = 2.0,
        control_mm: float = 72.0,
    ) -> None:
        self.labels = labels
        self.n_atlases = n_atlases
        self.spacing_mm = spacing_mm
        self.control_mm = control_mm

    @property
    def label_set(self) -> LabelSet:
        """The set of that name."""
        return label_set(self.labels)

    @property
    def contrasts(self) -> frozenset[Contrast]:
        """Every contrast."""
        return frozenset(Contrast)

    def fit(self, cases: Sequence[Case]) -> Self:
        """Keep the cases as the atlas.

        Raises
        ------
        InputError
            If there are no cases, or one has no annotation or nothing labelled in it.
        LabelError
            If a reference does not lead to the label set.
        ParameterError
            If a parameter is out of range.
        """
        self._check_parameters()
        if not cases:
            raise InputError("'multiatlas' needs annotated cases to learn from, and was given none")
        self.atlas_ = tuple(atlas_case(case, "multiatlas", self.label_set) for case in cases)
        self.training_subjects_ = tuple(sorted({case.subject for case in cases}))
        return self

    def segment(self, image: Image) -> LabelMap:
        """Give each voxel the label with most votes.

        Raises
        ------
        NotFittedError
            If it was not fitted.
        VoxelError
            If the image is constant.
        SegmentationError
            If there is no leg in it.
        """
        return self.probabilities(image).labels()

    def probabilities(self, image: Image) -> ProbabilityMap:
        """Share of the votes for background and for each label. Errors are those of `segment`."""
        self._check_parameters()
        check_contrast(image, self.contrasts, "multiatlas")
        check_voxels(image)
        if not hasattr(self, "atlas_"):
            raise NotFittedError(
                "'multiatlas' learns from annotated cases: call fit(cases) first "
                "(on the command line: --cases MANIFEST)"
            )
        warn_of_own_annotation(self.atlas_, image, "multiatlas")
        # An atlas case meets each leg of the scan: its own legs are sought once even where nobody searches.
        with remembering():
            return ProbabilityMap(self._vote(image), image.grid, self.label_set)

    def _vote(self, image: Image) -> NDArray[np.float32]:
        thighs: tuple[Thigh, ...] = thighs_of(image)
        total = np.zeros((1 + len(self.label_set), *image.grid.shape), dtype=np.float32)
        for leg, pairs in enumerate(atlas_legs(self.atlas_, image)):
            own = thighs[leg].mask if len(thighs) > 1 else np.ones(image.grid.shape, dtype=np.bool_)
            for pair in _nearest(self.atlas_, image, leg, pairs, self.n_atlases):
                case = self.atlas_[pair.case]
                votes = _votes(image, leg, case, pair.leg, pair.mirrored, self.spacing_mm, self.control_mm)
                total += np.where(own, votes, 0)
        count = total.sum(axis=0)
        total[0, count == 0] = 1
        total /= np.where(count == 0, np.float32(1), count)
        return total

    def _check_parameters(self) -> None:
        if not isinstance(self.labels, str):
            raise ParameterError(f"labels must be the name of a label set, such as thigh-11, not {self.labels!r}")
        check_number("n_atlases", self.n_atlases, least=1, whole=True)
        check_number("spacing_mm", self.spacing_mm, least=0.5, most=10)
        check_number("control_mm", self.control_mm, least=8, most=FIELD_MM)
