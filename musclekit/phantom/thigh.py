"""A whole phantom: the shape of one person's legs, what the voxels hold, and what is true of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from musclekit.errors import LabelError, ParameterError
from musclekit.image import Contrast, Grid, Image, LabelMap
from musclekit.labels import Side, label_mapping, label_set
from musclekit.phantom.anatomy import Anatomy, PlacedLeg, cross_sections, rasterise
from musclekit.phantom.contrast import Scanner, acquire, default_scanner, proton_fat_fraction, receive_gain
from musclekit.phantom.infiltration import Texture, draw_fat_shares, infiltrate
from musclekit.phantom.shape import LEVELS, MUSCLES, Grade, LegShape, draw_leg, vary_leg

__all__ = ["GENERATOR_VERSION", "Legs", "Phantom", "StructureTruth", "make_thigh", "render"]

#: Changes whenever the same seed gives other voxels; it stands beside the seed in every result.
GENERATOR_VERSION = "1"

Legs = Literal["both", "left", "right"]

#: Field of view in mm for one leg and for two, widened for those who do not fit.
FIELD_OF_VIEW_MM = {1: 220.0, 2: 400.0}
MARGIN_MM = 8.0

#: Distance of the points that muscle areas are counted on.
COUNTING_STEP_MM = 0.6

#: Slice spacing when none is given, and the levels that slices may cover then: above them other muscles, which no label
#: set here holds, join in.
SLICE_MM = 10.0
COVERED_LEVELS = (0.06, 0.86)
MIDDLE_LEVEL = 0.46


@dataclass(frozen=True, eq=False)
class StructureTruth:
    """What is true of one structure of one leg, from its shape rather than from voxels.

    Parameters
    ----------
    name : str
        As in ``thigh-full`` for muscles, femur and subcutaneous fat; else as in `LegProfile.areas`.
    side : {"left", "right"}
        Which leg.
    area_mm2 : ndarray of shape (Z,)
        Mean area over the slab of each slice.
    volume_ml : float
        Sum over the slices of area times slice spacing.
    fat_share : float or None
        Mean share of fat in a muscle; None for other structures.
    closed_form : bool
        Whether the area is a formula; that of a muscle is counted on points 0.6 mm apart, which is good to
        half a per cent for a muscle of 500 mm2.
    """

    name: str
    side: Side
    area_mm2: NDArray[np.float64]
    volume_ml: float
    fat_share: float | None
    closed_form: bool


@dataclass(frozen=True, eq=False)
class Phantom:
    """One or both thighs of a person, with exact truth.

    Parameters
    ----------
    seed : int
        What it was drawn from; with `version` it says which phantom this is.
    version : str
        `GENERATOR_VERSION` of the generator that made it.
    grade : {"healthy", "minor", "moderate", "severe"}
        Degree of infiltration.
    legs : mapping of side to PlacedLeg
        Shapes and where they lie.
    thickness_mm : float
        Height of the slab that each slice averages over.
    anatomy : Anatomy
        Structures and tissue fractions.
    fat_shares : mapping of side to mapping of str to float
        Mean share of fat in each muscle.
    muscle_fat : ndarray of float32, shape (Z, Y, X)
        Share of fat in the muscle tissue of each voxel.
    """

    seed: int
    version: str
    grade: Grade
    legs: Mapping[Side, PlacedLeg]
    thickness_mm: float
    anatomy: Anatomy
    fat_shares: Mapping[Side, Mapping[str, float]]
    muscle_fat: NDArray[np.float32]

    @property
    def grid(self) -> Grid:
        """Where the voxels lie."""
        return self.anatomy.grid

    @property
    def labels(self) -> LabelMap:
        """Truth in the set ``thigh-full-sided``."""
        return self.anatomy.labels

    @property
    def tissue(self) -> LabelMap:
        """Truth in the set ``tissue``; a muscle is muscle with all the fat inside it."""
        return self.anatomy.tissue

    @property
    def fat_fraction(self) -> NDArray[np.float32]:
        """Fat over fat and water in each voxel, 0 to 1: what an ideal Dixon scan shows, partial volume included."""
        return proton_fat_fraction(self.anatomy, self.muscle_fat)

    def reference(self, name: str = "thigh-full-sided") -> LabelMap:
        """Truth in a label set.

        Parameters
        ----------
        name : str
            ``tissue``, ``compartment``, or any set that ``thigh-full`` leads to; sided or not.

        Raises
        ------
        UnknownNameError
            If there is no such set.
        LabelError
            If neither anatomy nor tissues lead to it, or sides are asked of the tissues.
        """
        wanted = label_set(name)
        source = self.tissue if wanted.unsided().name in ("tissue", "compartment") else self.labels
        if wanted.is_sided and not source.label_set.is_sided:
            raise LabelError(f"a phantom's tissues carry no sides: ask for '{wanted.unsided().name}'")
        return source.mapped(label_mapping(source.label_set, wanted))

    def truth(self) -> tuple[StructureTruth, ...]:
        """Area, volume and share of fat of every structure of every leg, from the shapes.

        Returns
        -------
        tuple of StructureTruth
            Muscles, then what has a closed form. The legs count whole, also where the field of view or the other leg
            cuts them.
        """
        return tuple(row for leg in self.legs.values() for row in self._truth_of(leg))

    def _truth_of(self, leg: PlacedLeg) -> list[StructureTruth]:
        dz = self.grid.spacing[0]
        z = self.grid.origin[2] + dz * np.arange(self.grid.shape[0])
        nodes, weights = np.polynomial.legendre.leggauss(3)
        heights = z[:, None] + 0.5 * self.thickness_mm * nodes
        found = dict(zip(MUSCLES, self._muscle_areas(leg, heights, weights / 2), strict=True))
        for name, flat in leg.shape.at(leg.level(heights.ravel())).areas().items():
            found[name] = flat.reshape(heights.shape) @ (weights / 2)
        shares = self.fat_shares[leg.side]
        return [
            StructureTruth(name, leg.side, area, float(area.sum() * dz / 1000), shares.get(name), name not in MUSCLES)
            for name, area in found.items()
        ]

    def _muscle_areas(
        self, leg: PlacedLeg, heights: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Area of each muscle in each slice, counted on a dense lattice; shape (11, Z)."""
        u0, u1, v0, v1 = leg.shape.at(LEVELS).extent()
        u, v = np.arange(u0, u1, COUNTING_STEP_MM), np.arange(v0, v1, COUNTING_STEP_MM)
        sections = cross_sections(leg.shape, leg.level(heights.ravel()), u, v)
        counts = np.stack([np.bincount(plane.ravel(), minlength=32)[1 : len(MUSCLES) + 1] for plane in sections])
        areas: NDArray[np.float64] = (counts.T * COUNTING_STEP_MM**2).reshape(-1, *heights.shape) @ weights
        return areas


def make_thigh(
    seed: int,
    *,
    shape: tuple[int, int, int] = (20, 256, 256),
    spacing: tuple[float, float, float] | None = None,
    legs: Legs = "both",
    grade: Grade = "healthy",
    thickness_mm: float | None = None,
    fat_mm: float | None = None,
    gap_mm: float | None = None,
    asymmetry: float = 0.02,
    texture: Texture | None = None,
    supersampling: tuple[int, int, int] = (2, 2, 2),
) -> Phantom:
    """Make the thighs of one person.

    Parameters
    ----------
    seed : int
        The same seed gives the same person and the same voxels. The grade changes the muscles of a person, not the
        outline of the leg; left and right are drawn whether or not both are shown.
    shape : tuple of int
        (planes, rows, columns).
    spacing : tuple of float, optional
        Millimetres along (z, y, x). When not given the rows and columns span 400 mm for two legs and 220 mm for one,
        or what these legs need, and slices lie 10 mm apart, or closer where the thigh is too short for them.
    legs : {"both", "left", "right"}
        Which to show. The left leg lies at negative x in the world, and mirrors the right.
    grade : {"healthy", "minor", "moderate", "severe"}
        Degree of infiltration and wasting.
    thickness_mm : float, optional
        Height of the slab that a slice averages over; the slice spacing when not given.
    fat_mm : float, optional
        Mean thickness of subcutaneous fat and skin at mid-thigh; drawn when not given.
    gap_mm : float, optional
        Room between the legs where they are nearest, between levels 0.06 and 0.86; drawn between 1 and 25 mm when not
        given. 0 makes them touch, a negative value presses them flat against each other.
    asymmetry : float
        Standard deviation of the relative difference between left and right; 0 makes mirror images.
    texture : Texture, optional
        Look of the infiltration.
    supersampling : tuple of int
        Points a voxel along (z, y, x) that partial volume is counted on.

    Returns
    -------
    Phantom
        Grid centred on the legs, level 0.46 of the thigh at world z = 0.

    Raises
    ------
    ParameterError
        If a parameter lies outside its range.
    """
    if legs not in get_args(Legs):
        raise ParameterError(f"legs is one of {', '.join(get_args(Legs))}, not '{legs}'")
    if seed < 0:
        raise ParameterError(f"a seed is 0 or more, not {seed}")
    if asymmetry < 0:
        raise ParameterError(f"asymmetry is not negative, but {asymmetry:g} was given")
    shape_seed, other_seed, gap_seed, fat_seed, texture_seed = np.random.SeedSequence(seed).spawn(5)
    right = draw_leg(np.random.default_rng(shape_seed), grade, fat_mm=fat_mm)
    left = vary_leg(right, np.random.default_rng(other_seed), asymmetry)
    gap = float(np.random.default_rng(gap_seed).uniform(1, 25)) if gap_mm is None else gap_mm
    placed = _place(left, right, gap)
    fat_rng = np.random.default_rng(fat_seed)
    shares: dict[Side, dict[str, float]] = {side: draw_fat_shares(fat_rng, grade) for side in ("left", "right")}
    # Two legs of one person are infiltrated alike, not equally.
    for name in MUSCLES:
        shares["left"][name] = float(np.clip(0.75 * shares["right"][name] + 0.25 * shares["left"][name], 0, 1))

    shown: dict[Side, PlacedLeg] = {side: leg for side, leg in placed.items() if legs in ("both", side)}
    grid = _grid(shown, shape, spacing)
    anatomy = rasterise(shown, grid, thickness_mm=thickness_mm, supersampling=supersampling)
    fat = infiltrate(anatomy, shares, np.random.default_rng(texture_seed), texture)
    return Phantom(
        seed=seed,
        version=GENERATOR_VERSION,
        grade=grade,
        legs=shown,
        thickness_mm=grid.spacing[0] if thickness_mm is None else thickness_mm,
        anatomy=anatomy,
        fat_shares={side: shares[side] for side in shown},
        muscle_fat=fat,
    )


def render(phantom: Phantom, contrast: Contrast, *, seed: int | None = None, scanner: Scanner | None = None) -> Image:
    """Scan a phantom.

    Parameters
    ----------
    phantom : Phantom
        What to scan.
    contrast : Contrast
        Any but `Contrast.MR`.
    seed : int, optional
        Of bias and noise; the phantom's own when not given. Each contrast has its own, but fat and water share the
        bias, as they do on a scanner.
    scanner : Scanner, optional
        What the scanner adds; `default_scanner` of the contrast when not given, `IDEAL` for nothing.

    Returns
    -------
    Image
        HU for CT; magnitudes for MR. Its domain is ``"easy"`` for the grades healthy and minor, ``"hard"`` for the
        others (Gadermayr et al., section 3.1).

    Raises
    ------
    ModalityError
        If the contrast is `Contrast.MR`, which says nothing of the weighting.
    """
    own = phantom.seed if seed is None else seed
    machine = default_scanner(contrast) if scanner is None else scanner
    domain = "easy" if phantom.grade in ("healthy", "minor") else "hard"
    gain = None
    if contrast.modality == "mr":
        # Fat and water come from one acquisition: the coils weigh both alike.
        acquisition = Contrast.FAT if contrast is Contrast.WATER else contrast
        gain = receive_gain(phantom.grid, machine, _generator(own, 1, acquisition))
    rng = _generator(own, 2, contrast)
    return acquire(phantom.anatomy, phantom.muscle_fat, contrast, rng, scanner=machine, gain=gain, domain=domain)


def _generator(seed: int, purpose: int, contrast: Contrast) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, purpose, list(Contrast).index(contrast)]))


def _place(left: LegShape, right: LegShape, gap: float) -> dict[Side, PlacedLeg]:
    """Put the legs side by side, so far apart that the gap is the narrowest place between them."""
    shown = np.linspace(*COVERED_LEVELS, 17)
    inner = {"left": -left.at(shown).extent()[0], "right": -right.at(shown).extent()[0]}
    return {
        "left": PlacedLeg(left, "left", x=-(inner["left"] + gap / 2), z=(0.5 - MIDDLE_LEVEL) * left.length),
        "right": PlacedLeg(right, "right", x=inner["right"] + gap / 2, z=(0.5 - MIDDLE_LEVEL) * right.length),
    }


def _grid(
    legs: Mapping[Side, PlacedLeg], shape: tuple[int, int, int], spacing: tuple[float, float, float] | None
) -> Grid:
    """Grid centred on the legs."""
    planes, rows, columns = shape
    bounds = np.array([_bounds(leg) for leg in legs.values()])
    x0, x1 = bounds[:, 0].min(), bounds[:, 1].max()
    y0, y1 = bounds[:, 2].min(), bounds[:, 3].max()
    if spacing is None:
        view = max(FIELD_OF_VIEW_MM[len(legs)], x1 - x0 + 2 * MARGIN_MM, y1 - y0 + 2 * MARGIN_MM)
        length = min(leg.shape.length for leg in legs.values()) * (COVERED_LEVELS[1] - COVERED_LEVELS[0])
        step = view / min(rows, columns)
        spacing = (min(SLICE_MM, length / planes), step, step)
    dz, dy, dx = spacing
    middle = (0.5 * (x0 + x1), 0.5 * (y0 + y1), 0.0)
    extent = (dx * (columns - 1), dy * (rows - 1), dz * (planes - 1))
    return Grid.from_spacing(shape, spacing, [m - e / 2 for m, e in zip(middle, extent, strict=True)])


def _bounds(leg: PlacedLeg) -> tuple[float, float, float, float]:
    u0, u1, v0, v1 = leg.shape.at(LEVELS).extent()
    x0, x1 = (leg.x - u1, leg.x - u0) if leg.side == "left" else (leg.x + u0, leg.x + u1)
    return x0, x1, leg.y + v0, leg.y + v1
