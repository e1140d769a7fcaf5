"""Chance in grey values: every tissue a mean and a texture of its own, with the contrasts of scanners as attractors."""

from __future__ import annotations

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from musclekit.image import Contrast
from musclekit.phantom.anatomy import Structure
from musclekit.phantom.contrast import APPEARANCE, Appearance
from musclekit.phantom.random_shape import smooth_plane
from musclekit.phantom.shape import MUSCLES

__all__ = ["LEAST_CONTRAST", "draw_appearance", "painted"]

#: Fat and muscle lie at least so far apart, as a share of the range of grey values.
LEAST_CONTRAST = 0.12
#: The window that CT is seen through, in HU: its lower and its upper end lie somewhere between these.
CT_LOW, CT_HIGH = (-250.0, -130.0), (180.0, 500.0)
#: A mass is at least so much lighter or darker than muscle: one that nobody could tell from muscle is none.
LEAST_MASS = 0.08
#: How often grey values are those of a scanner, and how often they lie between those of two; else they are anything.
LIKE_ONE, LIKE_TWO = 0.55, 0.2

#: How often fat and water are out of phase, so that where they meet in a pixel they cancel.
OPPOSED = 0.12

_N = max(Structure) + 1
_FATTY = (Structure.CLEFT, Structure.SUBCUTANEOUS)


def draw_appearance(rng: np.random.Generator) -> Appearance:
    """Draw the grey value of each tissue, about 0 to 1.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of chance.

    Returns
    -------
    Appearance
        Fat and muscle at least `LEAST_CONTRAST` apart.
    """
    known = list(APPEARANCE)
    while True:
        chance = rng.random()
        if chance < LIKE_ONE:
            values = _unit(known[rng.integers(len(known))], rng) + rng.normal(0, 0.05, 10)
        elif chance < LIKE_ONE + LIKE_TWO:
            one, two = rng.choice(len(known), 2, replace=False)
            share = rng.random()
            values = share * _unit(known[one], rng) + (1 - share) * _unit(known[two], rng) + rng.normal(0, 0.05, 10)
        else:
            values = _free(rng)
        found = Appearance(*(float(value) for value in values))
        if abs(found.subcutaneous_fat - found.muscle) >= LEAST_CONTRAST:
            return found


def _unit(contrast: Contrast, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the grey values of a scanner on a scale from 0 to 1, in the order of the fields of `Appearance`."""
    look = APPEARANCE[contrast]
    values = np.array([*look.by_tissue(), look.infiltrating_fat], dtype=np.float64)
    low, high = (rng.uniform(*CT_LOW), rng.uniform(*CT_HIGH)) if contrast is Contrast.CT else (0.0, float(values.max()))
    unit: NDArray[np.float64] = (np.clip(values, low, high) - low) / (high - low)
    return unit


def _free(rng: np.random.Generator) -> NDArray[np.float64]:
    muscle, fat = rng.uniform(0.05, 1, 2)
    return np.array([
        0.0,
        muscle,
        rng.uniform(0, 0.15) if rng.random() < 0.7 else rng.random(),
        fat + rng.normal(0, 0.08) if rng.random() < 0.8 else rng.random(),
        fat,
        fat + rng.normal(0, 0.06),
        rng.uniform(0, 1) if rng.random() < 0.4 else 0.5 * muscle,
        rng.random(),
        rng.uniform(0.2, 1) if rng.random() < 0.5 else 0.7 * muscle,
        fat + rng.normal(0, 0.05),
    ])  # fmt: skip


def painted(
    structure: NDArray[np.uint8], spacing_mm: float, look: Appearance, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Grey values of a plane as a perfect scanner would see them: tissues with their textures, muscles with their fat.

    Parameters
    ----------
    structure : ndarray of uint8, shape (Y, X)
        `Structure`.
    spacing_mm : float
        Edge of a pixel.
    look : Appearance
        Mean of each tissue.
    rng : numpy.random.Generator
        Source of chance.
    """
    table = np.zeros(_N, dtype=np.float32)
    table[1 : len(MUSCLES) + 1] = look.muscle + rng.normal(0, rng.choice([0.0, 0.03]), len(MUSCLES))
    table[Structure.AIR] = look.air
    table[Structure.CORTEX] = look.cortical_bone
    table[Structure.MARROW] = look.marrow
    table[Structure.CLEFT] = look.intermuscular_fat
    table[Structure.FASCIA] = 0.5 * (look.fascia + look.intermuscular_fat)
    table[Structure.VESSEL] = look.vessel
    table[Structure.SUBCUTANEOUS] = look.subcutaneous_fat
    table[Structure.SKIN] = look.skin
    table[Structure.OTHER_CORTEX] = look.cortical_bone
    table[Structure.OTHER_MARROW] = look.marrow
    table[Structure.OTHER_MUSCLE] = look.muscle + rng.normal(0, 0.03)
    table[Structure.MASS] = _apart(look.muscle, rng)
    texture = np.full(_N, rng.uniform(0, 0.03), dtype=np.float32)
    texture[list(_FATTY)] = rng.uniform(0, 0.05)
    texture[Structure.MASS] = rng.uniform(0, 0.25)
    texture[[Structure.MARROW, Structure.OTHER_MARROW]] = rng.uniform(0, 0.08)
    grey = table[structure]
    fat = _infiltration(structure, spacing_mm, rng)
    grey += fat * (np.float32(look.infiltrating_fat) - grey)
    grey += texture[structure] * smooth_plane(rng, structure.shape, rng.uniform(0.5, 3.0) / spacing_mm)
    # Fat under the skin has its septa, marrow its patches: slow changes across the leg.
    grey += np.where(structure == Structure.SUBCUTANEOUS, np.float32(rng.uniform(0, 0.05)), 0) * smooth_plane(
        rng, structure.shape, 8 / spacing_mm
    )
    if rng.random() < OPPOSED:
        fat[np.isin(structure, (*_FATTY, Structure.MARROW, Structure.OTHER_MARROW))] = 1
        grey *= 1 - np.float32(rng.uniform(0.4, 1)) * _cancelled(fat, structure, spacing_mm)
    return grey.astype(np.float32)


def _apart(muscle: float, rng: np.random.Generator) -> float:
    """Return the grey value of a mass that can be told from muscle."""
    while True:
        value = float(rng.uniform(0, 1.1))
        if abs(value - muscle) >= LEAST_MASS:
            return value


def _cancelled(fat: NDArray[np.float32], structure: NDArray[np.uint8], spacing_mm: float) -> NDArray[np.float32]:
    """Share of the signal that is lost where fat and water of a pixel are out of phase; nothing is lost in the air."""
    seen = cv2.GaussianBlur((structure > 0).astype(np.float32), (0, 0), 0.8 / spacing_mm)
    share = cv2.GaussianBlur(fat, (0, 0), 0.8 / spacing_mm) / np.maximum(seen, np.float32(0.05))
    lost: NDArray[np.float32] = 1 - np.abs(1 - 2 * np.clip(share, 0, 1))
    return lost


def _infiltration(structure: NDArray[np.uint8], spacing_mm: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Share of fat in every pixel of muscle: mottled and streaky, from the septa inwards, of any grade."""
    muscle = (structure > 0) & (structure <= len(MUSCLES)) | (structure == Structure.OTHER_MUSCLE)
    fat = np.zeros(structure.shape, dtype=np.float32)
    if not muscle.any():
        return fat
    shape = structure.shape
    border = ~muscle
    border[1:] |= structure[1:] != structure[:-1]
    border[:, 1:] |= structure[:, 1:] != structure[:, :-1]
    depth = cv2.distanceTransform((~border).astype(np.uint8), cv2.DIST_L2, 3) * np.float32(spacing_mm)
    field = np.float32(rng.uniform(0.3, 1.0)) * smooth_plane(rng, shape, rng.uniform(4, 10) / spacing_mm)
    field += np.float32(rng.uniform(0.2, 0.7)) * smooth_plane(rng, shape, rng.uniform(0.8, 2.5) / spacing_mm)
    field += np.float32(rng.uniform(0, 0.6)) * _streaks(shape, spacing_mm, rng)
    field += np.float32(rng.uniform(0, 1.2)) * np.exp(depth * np.float32(-1 / rng.uniform(2, 7)))
    steepness = np.float32(rng.uniform(1.2, 5.0))
    healthy = rng.random() < 0.4
    grade = rng.uniform(0.01, 0.08) if healthy else rng.uniform(0.03, 0.85)
    odds = np.log(grade / (1 - grade))
    for n in np.unique(structure[muscle]):
        where = structure == n
        mine = odds + rng.normal(0, 0.3 if healthy else 0.9)
        if rng.random() < 0.04:
            mine = rng.uniform(2.0, 5.0)
        share = float(1 / (1 + np.exp(-mine)))
        values = field[where]
        middle = np.float32(np.quantile(values[:: max(1, len(values) // 400)], 1 - share))
        # A muscle that is all fat is so evenly, and one that is none of it too.
        spread = 1 / (1 + np.exp(-steepness * (values - middle)))
        evenly = np.float32(share**2 if share > 0.5 else 0.0)
        fat[where] = np.maximum(spread, evenly) if share > 0.03 else np.float32(share) * spread * 2
    return np.clip(fat, 0, 1)


def _streaks(shape: tuple[int, int], spacing_mm: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Thin lines between fibre bundles, which run one way here and another there."""
    long = rng.uniform(3, 8)
    turn = rng.uniform(0, np.pi)
    side = max(shape)
    noise: MatLike = rng.standard_normal((side, side), dtype=np.float32)
    width = max(rng.uniform(0.8, 1.6) / spacing_mm, 0.5)
    noise = cv2.GaussianBlur(noise, (0, 0), sigmaX=width * long, sigmaY=width)
    at = np.arange(side, dtype=np.float32) - np.float32(side / 2)
    sway = np.float32(6 / spacing_mm) * smooth_plane(rng, (side, side), 20 / spacing_mm)
    y, x = at[:, None] + sway, at[None, :] + sway
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    half = np.float32(side / 2)
    turned = cv2.remap(
        noise, c * x - s * y + half, s * x + c * y + half, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    lines = np.exp(np.square(turned / turned.std()) * np.float32(-1 / 0.15))[: shape[0], : shape[1]]
    result: NDArray[np.float32] = (lines - np.float32(0.27)) * np.float32(3.0)
    return result
