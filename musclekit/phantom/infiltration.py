"""Fat inside muscle: how much of each muscle it has replaced, and where.

Infiltration runs in streaks along the fibres, is mottled on a coarser scale, and comes from the septa inwards. Here a
smooth field of those three parts goes through a logistic curve, whose middle is set so that each muscle holds exactly
the share of fat asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from musclekit.errors import ParameterError
from musclekit.image import Grid
from musclekit.labels import SIDES, Side
from musclekit.phantom.anatomy import Anatomy, Structure, Tissue
from musclekit.phantom.shape import GRADES, MUSCLES, Grade

__all__ = ["FAT_SHARE", "Texture", "draw_fat_shares", "infiltrate", "smooth_noise"]

#: Mean share of fat in the muscles of a thigh, lowest and highest, for each grade.
FAT_SHARE: dict[Grade, tuple[float, float]] = {
    "healthy": (0.01, 0.04),
    "minor": (0.07, 0.13),
    "moderate": (0.20, 0.32),
    "severe": (0.56, 0.74),
}

#: How readily each muscle is infiltrated, relative to the thigh as a whole: sartorius and gracilis are spared longest,
#: the hamstrings and adductors go first (the order of the fat fractions published with the Huashan scans).
SUSCEPTIBILITY = {
    "sartorius": 0.45,
    "rectus femoris": 0.90,
    "vastus lateralis": 0.90,
    "vastus intermedius": 0.95,
    "vastus medialis": 0.90,
    "adductor magnus": 1.15,
    "gracilis": 0.40,
    "biceps femoris long head": 1.25,
    "semitendinosus": 1.15,
    "semimembranosus": 1.25,
    "biceps femoris short head": 0.95,
}

#: Distance from the middle of the femur at which streaks have the width that a texture states.
STREAK_RADIUS_MM = 40.0


@dataclass(frozen=True)
class Texture:
    """Look of the infiltration; lengths in mm.

    Parameters
    ----------
    mottle_mm, grain_mm : float
        Scale of the two kinds of mottling.
    streak_mm : float
        Scale across the streaks, 40 mm from the femur.
    elongation : float
        How many times longer than wide a streak is.
    pennation, sway_mm : float
        Largest angle between streaks and the rays from the femur, in degrees, and how far streaks sway.
    along_mm : float
        Scale along the thigh, in which direction the fibres run.
    mottle, grain, streaks, border : float
        Weights of coarse and fine mottling, of the streaks, and of the pull of the septa.
    border_mm : float
        Depth to which the septa pull.
    steepness : float
        Of the logistic curve: large makes fat and muscle stand side by side, small blends them.
    diffuse : float
        Share of fat, at most, that lies evenly in a whole muscle; never more than 0.4 of all its fat.
    """

    mottle_mm: float = 7.0
    grain_mm: float = 1.2
    streak_mm: float = 1.5
    elongation: float = 5.0
    pennation: float = 60.0
    sway_mm: float = 4.0
    along_mm: float = 25.0
    mottle: float = 0.8
    grain: float = 0.45
    streaks: float = 0.55
    border: float = 0.9
    border_mm: float = 4.0
    steepness: float = 2.0
    diffuse: float = 0.05


def draw_fat_shares(rng: np.random.Generator, grade: Grade) -> dict[str, float]:
    """Draw the mean share of fat of each muscle of one thigh.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of chance.
    grade : {"healthy", "minor", "moderate", "severe"}
        Degree of infiltration.

    Returns
    -------
    dict of str to float
        One share, between 0.003 and 0.9, for each name in `MUSCLES`.

    Raises
    ------
    ParameterError
        If the grade is unknown.
    """
    if grade not in GRADES:
        raise ParameterError(f"grade is one of {', '.join(GRADES)}, not '{grade}'")
    thigh = rng.uniform(*FAT_SHARE[grade])
    odds = thigh / (1 - thigh)
    shares = {}
    for name in MUSCLES:
        own = odds * SUSCEPTIBILITY[name] ** 2 * np.exp(rng.normal(0, 0.35))
        shares[name] = float(np.clip(own / (1 + own), 0.003, 0.9))
    return shares


def smooth_noise(
    rng: np.random.Generator, grid: Grid, scale_mm: float, along_mm: float, stretch: tuple[float, float] = (1.0, 1.0)
) -> NDArray[np.float32]:
    """Gaussian noise of mean 0 and deviation 1 that is smooth over a given length.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of chance.
    grid : Grid
        Where it is wanted.
    scale_mm : float
        Standard deviation of the Gaussian that smooths each plane.
    along_mm : float
        Distance along axis 0 over which the correlation of two planes falls to 1/e.
    stretch : tuple of float
        Factors on the scale along rows and columns.

    Returns
    -------
    ndarray of float32
        Of the grid's shape.
    """
    planes, rows, columns = grid.shape
    sigma = np.array([scale_mm * stretch[0] / grid.spacing[1], scale_mm * stretch[1] / grid.spacing[2]])
    # What is smooth over many voxels is drawn on fewer and enlarged.
    step = np.maximum(1, np.floor(sigma / 2.5)).astype(int)
    small = (-(-rows // step[0]) + 4, -(-columns // step[1]) + 4)
    keep = float(np.exp(-grid.spacing[0] / along_mm))
    # A Gaussian of deviation s lowers that of white noise by 2 s sqrt(pi) a dimension; below a third of a voxel it
    # does nothing.
    noise = np.empty(grid.shape, dtype=np.float32)
    previous: NDArray[np.float32] | None = None
    for k in range(planes):
        fresh = rng.standard_normal(small, dtype=np.float32)
        previous = fresh if previous is None else keep * previous + np.sqrt(1 - keep**2) * fresh
        smooth = previous
        if (sigma / step).max() > 0.3:
            blur = np.maximum(sigma / step, 1e-3)
            smooth = cv2.GaussianBlur(previous, (0, 0), sigmaX=blur[1], sigmaY=blur[0], borderType=cv2.BORDER_REFLECT)
        if step.max() > 1:
            size = (small[1] * int(step[1]), small[0] * int(step[0]))
            smooth = cv2.resize(smooth, size, interpolation=cv2.INTER_CUBIC)
        noise[k] = smooth[:rows, :columns]
    noise -= noise.mean()
    deviation = float(noise.std())
    return noise / np.float32(deviation) if deviation > 0 else noise


def infiltrate(
    anatomy: Anatomy,
    shares: Mapping[Side, Mapping[str, float]],
    rng: np.random.Generator,
    texture: Texture | None = None,
) -> NDArray[np.float32]:
    """Share of fat in the muscle tissue of each voxel.

    Parameters
    ----------
    anatomy : Anatomy
        Parametric, or built round a label map.
    shares : mapping of side to mapping of str to float
        Mean share of fat of each muscle that is there.
    rng : numpy.random.Generator
        Source of chance.
    texture : Texture, optional
        Look of the infiltration.

    Returns
    -------
    ndarray of float32, shape (Z, Y, X)
        0 to 1; 0 where there is no muscle. Its mean over the voxels whose centre lies in a muscle is the share asked
        for, to 1e-3.

    Raises
    ------
    ParameterError
        If a share does not lie between 0 and 1.
    """
    look = texture or Texture()
    field = _field(anatomy, rng, look)
    fat = np.zeros(anatomy.grid.shape, dtype=np.float32)
    key = anatomy.structure.astype(np.uint16) + np.uint16(len(MUSCLES) + 1) * anatomy.sides
    key[~anatomy.is_muscle] = 0
    flat = key.ravel()
    inside = np.flatnonzero(flat)
    inside = inside[np.argsort(flat[inside], kind="stable")]
    sorted_keys = flat[inside]
    starts = np.flatnonzero(np.r_[True, np.diff(sorted_keys) > 0]) if len(inside) else np.zeros(0, dtype=int)
    for start, stop in zip(starts, [*starts[1:], len(inside)], strict=True):
        side, structure = divmod(int(sorted_keys[start]), len(MUSCLES) + 1)
        share = shares[SIDES[side - 1]][MUSCLES[structure - 1]]
        if not 0 <= share <= 1:
            raise ParameterError(f"a share of fat lies between 0 and 1, not {share:g} ({MUSCLES[structure - 1]})")
        where = inside[start:stop]
        fat.ravel()[where] = _with_mean(field.ravel()[where], share, look)
    return _spread(fat, anatomy)


def _spread(fat: NDArray[np.float32], anatomy: Anatomy) -> NDArray[np.float32]:
    """Give voxels that hold some muscle, but whose centre lies outside it, the share of the muscle beside them."""
    muscle = anatomy.is_muscle
    rim = (anatomy.fractions[Tissue.MUSCLE] > 0) & ~muscle
    for k in np.flatnonzero(rim.any(axis=(1, 2))):
        weight = cv2.blur(muscle[k].astype(np.float32), (3, 3), borderType=cv2.BORDER_CONSTANT)
        summed = cv2.blur(fat[k], (3, 3), borderType=cv2.BORDER_CONSTANT)
        here = rim[k]
        fat[k][here] = summed[here] / np.maximum(weight[here], np.float32(1e-3))
    return fat


def _field(anatomy: Anatomy, rng: np.random.Generator, look: Texture) -> NDArray[np.float32]:
    """Return what makes one place fattier than another: mottling, streaks and the nearness of septa."""
    grid = anatomy.grid
    field = np.float32(look.mottle) * smooth_noise(rng, grid, look.mottle_mm, look.along_mm)
    field += np.float32(look.grain) * smooth_noise(rng, grid, look.grain_mm, look.along_mm)
    for side in (1, 2):
        leg = anatomy.is_muscle & (anatomy.sides == side)
        if leg.any():
            field[leg] += np.float32(look.streaks) * _streaks(anatomy, side, rng, look)[leg]
    field += np.float32(look.border) * np.exp(_depth_mm(anatomy) * np.float32(-1 / look.border_mm))
    return field


def _streaks(anatomy: Anatomy, side: int, rng: np.random.Generator, look: Texture) -> NDArray[np.float32]:
    """Thin lines that radiate from the femur of one leg, as the fibre bundles do; mean about 0, deviation about 1."""
    grid = anatomy.grid
    planes, rows, columns = grid.shape
    _, dy, dx = grid.spacing
    centre = _bone_centre(anatomy, side)
    y = (np.arange(rows, dtype=np.float32)[:, None] - np.float32(centre[0])) * np.float32(dy)
    x = (np.arange(columns, dtype=np.float32) - np.float32(centre[1])) * np.float32(dx)
    radius = np.hypot(y, x)
    # A polar canvas, 1 mm along the ray and 1 mm along the arc at a typical distance from the bone; past both ends of
    # the arc the canvas goes on with its beginning, so that no seam shows.
    around = int(2 * np.pi * STREAK_RADIUS_MM)
    angle = (np.arctan2(y, x) + np.float32(np.pi)) * np.float32(around / (2 * np.pi))
    outward = int(radius.max()) + 2
    lengthwise = max(look.streak_mm, 1.0) * look.elongation
    pad = int(4 * look.streak_mm) + 2
    keep = float(np.exp(-grid.spacing[0] / look.along_mm))
    # Fibres meet the ray at an angle of their own in each muscle: they follow spirals, and sway.
    turn = np.zeros(max(Structure) + 1, dtype=np.float32)
    turn[1 : len(MUSCLES) + 1] = (
        rng.uniform(-1, 1, len(MUSCLES)) * STREAK_RADIUS_MM * np.tan(np.deg2rad(look.pennation))
    )
    curl = np.log(np.maximum(radius, 5) / np.float32(STREAK_RADIUS_MM))
    sway = np.float32(look.sway_mm) * smooth_noise(rng, grid, 10.0, look.along_mm)
    streaks = np.empty(grid.shape, dtype=np.float32)
    canvas = np.zeros((outward, around), dtype=np.float32)
    for k in range(planes):
        fresh = rng.standard_normal((outward, around), dtype=np.float32)
        canvas = fresh if k == 0 else np.float32(keep) * canvas + np.float32(np.sqrt(1 - keep**2)) * fresh
        wrapped = np.pad(canvas, ((0, 0), (pad, pad)), mode="wrap")
        smooth = cv2.GaussianBlur(wrapped, (0, 0), sigmaX=look.streak_mm, sigmaY=lengthwise)
        # Where smooth noise crosses zero there are lines; they are where fat runs between the bundles.
        lines = np.exp(np.square(smooth / smooth.std()) * np.float32(-1 / 0.15))
        turned = np.mod(angle + turn[anatomy.structure[k]] * curl + sway[k], np.float32(around)) + np.float32(pad)
        streaks[k] = cv2.remap(lines, turned, radius, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return (streaks - np.float32(0.27)) * np.float32(3.0)


def _bone_centre(anatomy: Anatomy, side: int) -> tuple[float, float]:
    """Row and column, in voxels, of the middle of the femur of one leg; of the leg when no femur is there."""
    leg = (anatomy.structure > 0) & (anatomy.sides == side)
    bone = leg & ((anatomy.structure == Structure.CORTEX) | (anatomy.structure == Structure.MARROW))
    shadow = (bone if bone.any() else leg).sum(axis=0)
    rows, columns = (np.arange(n) for n in shadow.shape)
    total = shadow.sum()
    return float(shadow.sum(axis=1) @ rows / total), float(shadow.sum(axis=0) @ columns / total)


def _depth_mm(anatomy: Anatomy) -> NDArray[np.float32]:
    """In-plane distance of each voxel from the border of its muscle, in mm."""
    structure = anatomy.structure
    border = ~anatomy.is_muscle
    border[:, 1:] |= structure[:, 1:] != structure[:, :-1]
    border[:, :, 1:] |= structure[:, :, 1:] != structure[:, :, :-1]
    _, dy, dx = anatomy.grid.spacing
    inner = (~border).astype(np.uint8)
    depth = np.empty(structure.shape, dtype=np.float32)
    for k, plane in enumerate(inner):
        depth[k] = cv2.distanceTransform(plane, cv2.DIST_L2, 3)
    depth *= np.float32((dx * dy) ** 0.5)
    return depth


def _with_mean(field: NDArray[np.float32], mean: float, look: Texture) -> NDArray[np.float32]:
    """Logistic curve of the field, its middle set by bisection so that the values have the mean asked for."""
    if mean <= 0 or mean >= 1:
        return np.full_like(field, mean)
    everywhere = min(look.diffuse, 0.4 * mean)
    wanted = (mean - everywhere) / (1 - everywhere)
    low, high = float(field.min()) - 20 / look.steepness, float(field.max()) + 20 / look.steepness
    counts, edges = np.histogram(field, bins=1024)
    centres = 0.5 * (edges[1:] + edges[:-1])
    for _ in range(60):
        middle = 0.5 * (low + high)
        got = float((counts / (1 + np.exp(-look.steepness * (centres - middle)))).sum() / counts.sum())
        low, high = (middle, high) if got > wanted else (low, middle)
    curve = 1 / (1 + np.exp(-np.float32(look.steepness) * (field - np.float32(middle))))
    values: NDArray[np.float32] = np.float32(everywhere) + np.float32(1 - everywhere) * curve
    return values
