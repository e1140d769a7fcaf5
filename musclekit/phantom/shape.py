"""The shape of one thigh as numbers: outlines, bone, vessels and muscles, all continuous functions of the level.

A thigh is described in its own frame, in millimetres: u grows away from the other leg (laterally), v to the front, and
the level t runs from 0 just above the knee to 1 near the groin. Outlines are Fourier series of the radius about the
centre and the femur is an ellipse, so that their areas have closed forms. Muscles are ellipses that compete for the
room inside the fascia; the small table of their relative positions and second moments, ``landmarks.csv``, holds medians
over both thighs of the 35 label maps of Huashan Neuromuscular Group, "Multimodal multiethnic thigh muscle MRI"
(Apache-2.0); ``benchmarks/phantom_landmarks.py`` remakes it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from musclekit.errors import ParameterError
from musclekit.labels import label_set

__all__ = ["GRADES", "LEVELS", "MUSCLES", "Grade", "LegProfile", "LegShape", "draw_leg", "vary_leg"]

Grade = Literal["healthy", "minor", "moderate", "severe"]
GRADES: tuple[Grade, ...] = get_args(Grade)

#: The eleven muscles, in the order of their ids in ``thigh-11`` and ``thigh-full``.
MUSCLES = label_set("thigh-11").names

#: Levels at which the tables are given.
LEVELS = np.linspace(0.0, 1.0, 11)

#: Length of a thigh from level 0 to level 1: mean of the label maps, in mm.
LENGTH_MM = 240.0

#: Radius of the compartment at each level, in mm: of a circle with the area of the muscles' convex hull; medians of the
#: label maps, about 1 mm added for the fascia, and continued smoothly above level 0.8, where few maps reach.
COMPARTMENT_RADIUS_MM = np.array([52.0, 53.0, 55.0, 57.0, 59.0, 60.5, 61.5, 62.0, 62.5, 63.0, 63.0])

#: Fourier coefficients of that outline, cosine and sine of orders 2 to 5, relative to the mean radius.
COMPARTMENT_OUTLINE = np.array(
    [
        [0.000, 0.072, 0.015, 0.010, -0.024, 0.016, -0.002, 0.000],
        [-0.009, 0.082, 0.014, 0.013, -0.025, 0.013, 0.003, 0.003],
        [-0.007, 0.098, 0.013, 0.011, -0.020, 0.014, 0.005, 0.003],
        [-0.011, 0.111, 0.015, 0.001, -0.014, 0.014, 0.005, 0.000],
        [-0.001, 0.114, 0.014, -0.002, -0.008, 0.016, 0.004, -0.003],
        [0.011, 0.117, 0.007, -0.007, -0.001, 0.017, 0.001, -0.006],
        [0.032, 0.109, 0.005, -0.011, 0.002, 0.014, -0.002, -0.006],
        [0.069, 0.108, 0.014, -0.015, 0.010, 0.007, -0.008, -0.008],
        [0.090, 0.090, 0.010, -0.016, 0.019, -0.002, -0.016, -0.011],
        [0.100, 0.060, 0.006, -0.018, 0.023, -0.015, -0.022, -0.012],
        [0.105, 0.040, -0.008, -0.021, 0.033, -0.024, -0.027, -0.006],
    ]
)

#: Centre of the femur relative to the compartment's radius: measured where the muscles leave the room up to level 0.7.
FEMUR_CENTRE = np.array(
    [
        [0.13, 0.27],
        [0.13, 0.34],
        [0.14, 0.35],
        [0.15, 0.34],
        [0.16, 0.31],
        [0.19, 0.27],
        [0.22, 0.21],
        [0.25, 0.14],
        [0.28, 0.08],
        [0.30, 0.04],
        [0.32, 0.00],
    ]
)

#: Outer radius of the femur and thickness of its cortex, in mm: wide and thin above the knee, thick in the shaft.
FEMUR_RADIUS_MM = np.array([19.0, 16.5, 14.8, 13.8, 13.3, 13.2, 13.3, 13.6, 14.2, 15.2, 16.5])
CORTEX_MM = np.array([2.4, 3.6, 4.9, 5.7, 6.2, 6.3, 6.1, 5.8, 5.3, 4.6, 4.0])

#: Vessels: weights of the muscles they run between, offset relative to the compartment's radius, and radius in mm.
#: Femoral artery and vein lie under sartorius, between vastus medialis and the adductors; the deep femoral vessels
#: behind the femur; the last stands for the vessels that go with the sciatic nerve, between the hamstrings.
VESSELS: tuple[tuple[dict[str, float], tuple[float, float], float], ...] = (
    ({"sartorius": 0.60, "vastus medialis": 0.20, "adductor magnus": 0.20}, (0.0, 0.0), 3.6),
    ({"sartorius": 0.55, "vastus medialis": 0.15, "adductor magnus": 0.30}, (0.02, -0.07), 4.3),
    ({"adductor magnus": 0.45, "vastus intermedius": 0.55}, (-0.08, -0.06), 2.0),
    ({"biceps femoris long head": 0.45, "adductor magnus": 0.35, "semitendinosus": 0.20}, (0.05, 0.05), 2.6),
)

#: Radius of the great saphenous vein.
SAPHENOUS_MM = 1.7

#: Mean thickness of the subcutaneous fat at mid-thigh with its skin, in mm, what there is at least between skin and
#: fascia, and the relative change of the mean from level 0 to level 1.
FAT_MM = 11.0
LEAST_FAT_MM = 0.8
FAT_PROFILE = np.linspace(0.75, 1.30, len(LEVELS))

#: Above this level the label maps leave out muscles (adductor longus and brevis, pectineus, the gluteals); their
#: neighbours fill the room, the more so the higher up: clefts widen by this factor for each whole level.
FILLED_ABOVE, FILLED_BY = 0.6, 8.0

#: How far a muscle grows beyond the ellipse that was measured, and the widest cleft it still fills, in mm: people with
#: little fat between their muscles have them packed tight, atrophy opens the clefts.
GROW_MM: dict[Grade, float] = {"healthy": 3.0, "minor": 2.5, "moderate": 1.5, "severe": 0.5}
CLEFT_MM: dict[Grade, float] = {"healthy": 5.0, "minor": 4.5, "moderate": 3.5, "severe": 2.5}
SEPTUM_MM: dict[Grade, float] = {"healthy": 0.7, "minor": 0.9, "moderate": 1.3, "severe": 1.7}

#: Room between a muscle that has ended and nothing, in levels.
TAPER = 0.12

#: Waves of the warp that makes muscles less than perfect ellipses.
WARP_WAVES = 6


@dataclass(frozen=True, eq=False)
class LegShape:
    """One thigh, in its own frame, at the eleven `LEVELS`; millimetres throughout.

    Parameters
    ----------
    length : float
        From level 0 to level 1.
    outline : ndarray of complex, shape (11, 6)
        Outer edge of the fascia lata: radius(theta) = Re sum_k outline[k] exp(-i k theta).
    fat : ndarray of complex, shape (11, 6)
        Thickness of subcutaneous fat and skin along the same ray, as the same kind of series.
    femur : ndarray of shape (11, 4)
        Centre (u, v) and the two half axes of the femur, along u and v.
    cortex : ndarray of shape (11,)
        Thickness of the cortex.
    muscles : ndarray of shape (P, 11, 6)
        For each part of a muscle: centre (u, v), second moments (uu, vv, uv), and its extent: 1 where it is whole,
        below 1 where it tapers off, 0 where it has ended.
    muscle_of_part : tuple of int, length P
        Index into `MUSCLES`, ascending.
    vessels : ndarray of shape (V, 11, 3)
        Centre (u, v) and radius.
    warp : ndarray of shape (W, 6)
        Waves that bend the muscles: amplitude in u and v, wave numbers along u, v and the axis (radians a mm), phase.
    grow, cleft, septum, fascia, skin : float
        Growth of muscles beyond their ellipse, widest cleft that they fill, width of the septa between them, and the
        thickness of fascia lata and skin.
    """

    length: float
    outline: NDArray[np.complex128]
    fat: NDArray[np.complex128]
    femur: NDArray[np.float64]
    cortex: NDArray[np.float64]
    muscles: NDArray[np.float64]
    muscle_of_part: tuple[int, ...]
    vessels: NDArray[np.float64]
    warp: NDArray[np.float64]
    grow: float
    cleft: float
    septum: float
    fascia: float
    skin: float

    def at(self, level: NDArray[np.float64]) -> LegProfile:
        """Return the shape at some levels, smooth between those of the table and constant beyond the first and last.

        Parameters
        ----------
        level : ndarray of shape (N,)
            Levels t.
        """
        t = np.clip(level, LEVELS[0], LEVELS[-1])

        def between(table: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
            found: NDArray[np.float64] = np.moveaxis(PchipInterpolator(LEVELS, table, axis=axis)(t), axis, 0)
            return found

        return LegProfile(
            shape=self,
            height=(level - 0.5) * self.length,
            cleft=self.cleft * (1 + FILLED_BY * np.maximum(t - FILLED_ABOVE, 0)),
            outline=between(self.outline.real, 0) + 1j * between(self.outline.imag, 0),
            fat=between(self.fat.real, 0) + 1j * between(self.fat.imag, 0),
            femur=between(self.femur, 0),
            cortex=between(self.cortex, 0),
            muscles=between(self.muscles, 1),
            vessels=between(self.vessels, 1),
        )


@dataclass(frozen=True, eq=False)
class LegProfile:
    """A `LegShape` at N levels: each array is that of the shape with N levels leading.

    Parameters
    ----------
    shape : LegShape
        Where it comes from.
    height : ndarray of shape (N,)
        Above level 0.5, in mm.
    cleft : ndarray of shape (N,)
        Widest cleft that a muscle still fills, in mm; it grows near the groin.
    outline, fat : ndarray of complex, shape (N, 6)
        As in the shape.
    femur : ndarray of shape (N, 4)
        As in the shape.
    cortex : ndarray of shape (N,)
        As in the shape.
    muscles : ndarray of shape (N, P, 6)
        As in the shape.
    vessels : ndarray of shape (N, V, 3)
        As in the shape.
    """

    shape: LegShape
    height: NDArray[np.float64]
    cleft: NDArray[np.float64]
    outline: NDArray[np.complex128]
    fat: NDArray[np.complex128]
    femur: NDArray[np.float64]
    cortex: NDArray[np.float64]
    muscles: NDArray[np.float64]
    vessels: NDArray[np.float64]

    def areas(self) -> dict[str, NDArray[np.float64]]:
        """Closed-form areas in square millimetres of what has one, each of shape (N,).

        Returns
        -------
        dict
            ``"leg"`` (inside the skin), ``"skin"``, ``"subcutaneous fat"`` (vessels in it left out of account),
            ``"inside the fascia"`` (femur included), ``"fascia lata"``, ``"femur"``, ``"cortical bone"``, ``"marrow"``.

        Notes
        -----
        The area inside r(theta) = a_0 + sum a_k cos(k theta) + b_k sin(k theta) is pi a_0^2 + pi/2 sum (a_k^2 + b_k^2).
        """
        leg = star_area(self.outline + self.fat)
        under_skin = star_area(shrunk(self.outline + self.fat, self.shape.skin))
        compartment = star_area(self.outline)
        muscles = star_area(shrunk(self.outline, self.shape.fascia))
        a, b = self.femur[:, 2], self.femur[:, 3]
        femur, marrow = np.pi * a * b, np.pi * (a - self.cortex) * (b - self.cortex)
        return {
            "leg": leg,
            "skin": leg - under_skin,
            "subcutaneous fat": under_skin - compartment,
            "inside the fascia": compartment,
            "fascia lata": compartment - muscles,
            "femur": femur,
            "cortical bone": femur - marrow,
            "marrow": marrow,
        }

    def extent(self) -> tuple[float, float, float, float]:
        """Smallest and largest u, smallest and largest v of the skin, in mm, over all levels."""
        theta = np.linspace(0, 2 * np.pi, 181)
        radius = star_radius(self.outline + self.fat, theta)
        u, v = radius * np.cos(theta), radius * np.sin(theta)
        return float(u.min()), float(u.max()), float(v.min()), float(v.max())


def star_radius(series: NDArray[np.complex128], theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Radius at some angles of outlines given as Fourier series; shape (N, angles)."""
    waves = np.exp(-1j * np.arange(series.shape[-1])[:, None] * theta)
    radius: NDArray[np.float64] = (series @ waves).real
    return radius


def star_area(series: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Area inside outlines given as Fourier series of their radius; shape (N,)."""
    power = np.abs(series) ** 2
    area: NDArray[np.float64] = np.pi * (power[..., 0] + 0.5 * power[..., 1:].sum(axis=-1))
    return area


def shrunk(series: NDArray[np.complex128], by: float) -> NDArray[np.complex128]:
    """Outlines whose radius is smaller by a constant."""
    smaller = series.copy()
    smaller[..., 0] -= by
    return smaller


@cache
def _landmarks() -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """Relative centre, second moments and extent of each part at each level, and the muscle of each part."""
    text = files("musclekit.phantom").joinpath("landmarks.csv").read_text(encoding="utf-8")
    rows: dict[tuple[int, int], dict[int, list[float]]] = {}
    for row in csv.DictReader(text.splitlines()):
        part = (MUSCLES.index(row["muscle"]), int(row["part"]))
        values = [float(row[name]) for name in ("u", "v", "uu", "vv", "uv")]
        rows.setdefault(part, {})[round(float(row["level"]) * 10)] = values
    table = np.zeros((len(rows), len(LEVELS), 6))
    for p, part in enumerate(sorted(rows)):
        seen = sorted(rows[part])
        known = np.array([rows[part][k] for k in seen])
        for column in range(5):
            table[p, :, column] = np.interp(LEVELS, LEVELS[seen], known[:, column])
        beyond = np.maximum(LEVELS[seen[0]] - LEVELS, LEVELS - LEVELS[seen[-1]])
        table[p, :, 5] = np.clip(1 - beyond / TAPER, 0, 1)
    table.flags.writeable = False
    return table, tuple(muscle for muscle, _ in sorted(rows))


def draw_leg(rng: np.random.Generator, grade: Grade = "healthy", *, fat_mm: float | None = None) -> LegShape:
    """Draw the shape of one person's thigh.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of chance; the same state gives the same thigh.
    grade : {"healthy", "minor", "moderate", "severe"}
        Degree of muscle wasting: it narrows the muscles and widens the clefts between them.
    fat_mm : float, optional
        Mean thickness of subcutaneous fat and skin at mid-thigh; drawn when not given.

    Returns
    -------
    LegShape
        Within what people are like: compartment radius varies by 7 %, muscle size by 8 %, positions by 2 % of the
        radius (standard deviations).

    Raises
    ------
    ParameterError
        If the grade is unknown, or the fat is not 2 to 60 mm thick.
    """
    if grade not in GRADES:
        raise ParameterError(f"grade is one of {', '.join(GRADES)}, not '{grade}'")
    drawn_fat = float(np.clip(FAT_MM * np.exp(rng.normal(0, 0.35)), 4.0, 26.0))
    thickness = drawn_fat if fat_mm is None else fat_mm
    if not 2 <= thickness <= 60:
        raise ParameterError(f"subcutaneous fat is 2 to 60 mm thick, not {thickness:g}")

    size = np.exp(rng.normal(0, 0.07))
    length = LENGTH_MM * size**0.5 * np.exp(rng.normal(0, 0.03))
    taper = 1 + rng.normal(0, 0.05) * (LEVELS - 0.5)
    radius = COMPARTMENT_RADIUS_MM * size * taper

    outline = np.zeros((len(LEVELS), 6), dtype=np.complex128)
    outline[:, 0] = radius
    outline[:, 2:] = (COMPARTMENT_OUTLINE[:, 0::2] + 1j * COMPARTMENT_OUTLINE[:, 1::2]) * radius[:, None]
    order = np.array([2, 3, 4, 5])
    chance = (rng.normal(size=4) + 1j * rng.normal(size=4)) * 0.02 / (order - 1)
    outline[:, 2:] += chance * radius[:, None]

    # Fat lies thicker behind and on the inner side than in front, and lopsided in everybody's own way.
    fat = np.zeros_like(outline)
    fat[:, 0] = thickness * FAT_PROFILE
    lopsided = rng.uniform(0.25, 0.45) * np.exp(1j * np.deg2rad(rng.normal(-110, 30)))
    second = rng.uniform(0.0, 0.18) * np.exp(1j * rng.uniform(0, 2 * np.pi))
    third = rng.uniform(0.0, 0.08) * np.exp(1j * rng.uniform(0, 2 * np.pi))
    fat[:, 1:4] = fat[:, :1] * np.array([lopsided, second, third])

    moved, muscle_of_part = _landmarks()
    muscles = moved.copy()
    of_part = np.array(muscle_of_part)
    # One shift a muscle at each end of the thigh, half of it shared by its neighbours through the warp.
    ends = rng.normal(0, 0.02, size=(len(MUSCLES), 2, 2))
    shift = ends[:, :1] * (1 - LEVELS[:, None]) + ends[:, 1:] * LEVELS[:, None]
    swell = np.exp(rng.normal(0, 0.08, size=len(MUSCLES)))
    muscles[:, :, :2] += shift[of_part]
    muscles[:, :, 2:5] *= swell[of_part][:, None, None] ** 2
    scale = radius[:, None]
    muscles[:, :, :2] *= scale
    muscles[:, :, 2:5] *= scale**2

    femur = np.zeros((len(LEVELS), 4))
    femur[:, :2] = FEMUR_CENTRE * scale
    bone = size**0.5 * np.exp(rng.normal(0, 0.04))
    flatness = np.exp(rng.normal(0, 0.03))
    femur[:, 2] = FEMUR_RADIUS_MM * bone * flatness
    femur[:, 3] = FEMUR_RADIUS_MM * bone / flatness
    cortex = CORTEX_MM * bone * np.exp(rng.normal(0, 0.08))

    centres = np.array([muscles[of_part == m, :, :2].mean(axis=0) for m in range(len(MUSCLES))])
    vessels = np.zeros((len(VESSELS) + 1, len(LEVELS), 3))
    for n, (between, offset, vessel_radius) in enumerate(VESSELS):
        where = sum(weight * centres[MUSCLES.index(name)] for name, weight in between.items())
        vessels[n, :, :2] = where + np.array(offset) * scale
        vessels[n, :, 2] = vessel_radius * np.exp(rng.normal(0, 0.1))

    # The great saphenous vein runs in the fat of the inner side, nearer to the front higher up.
    theta = np.deg2rad(np.linspace(190, 140, len(LEVELS)) + rng.normal(0, 6))
    ray = np.exp(-1j * np.arange(outline.shape[1]) * theta[:, None])
    depth = ((outline + 0.45 * fat) * ray).real.sum(axis=1)
    vessels[-1, :, 0], vessels[-1, :, 1] = depth * np.cos(theta), depth * np.sin(theta)
    room = (fat * ray).real.sum(axis=1)
    vessels[-1, :, 2] = np.minimum(SAPHENOUS_MM * np.exp(rng.normal(0, 0.15)), 0.22 * room)

    angle = np.deg2rad(rng.normal(0, 7))
    _turn(outline, fat, muscles, femur, vessels, angle)
    warp = _waves(rng)
    skin = float(np.clip(rng.normal(1.8, 0.2), 1.3, 2.4))
    # However lopsided, a little fat lies under the skin everywhere.
    thinnest = star_radius(fat, np.linspace(0, 2 * np.pi, 181)).min(axis=1)
    fat[:, 0] += np.maximum(skin + LEAST_FAT_MM - thinnest, 0)
    return LegShape(
        length=float(length),
        outline=outline,
        fat=fat,
        femur=femur,
        cortex=cortex,
        muscles=muscles,
        muscle_of_part=muscle_of_part,
        vessels=vessels,
        warp=warp,
        grow=GROW_MM[grade],
        cleft=CLEFT_MM[grade],
        septum=SEPTUM_MM[grade],
        fascia=0.9,
        skin=skin,
    )


def vary_leg(shape: LegShape, rng: np.random.Generator, amount: float) -> LegShape:
    """Return the other leg of the same person: alike, but not a mirror image.

    Parameters
    ----------
    shape : LegShape
        One leg.
    rng : numpy.random.Generator
        Source of chance.
    amount : float
        Standard deviation of the relative change of outline, fat and muscle positions; 0 returns the leg unchanged.
    """
    if amount == 0:
        return shape
    from dataclasses import replace

    girth = np.exp(rng.normal(0, amount))
    muscles = shape.muscles.copy()
    radius = shape.outline[:, 0].real
    muscles[:, :, :2] += rng.normal(0, 0.3 * amount, size=(len(muscles), 1, 2)) * radius[:, None]
    muscles[:, :, :2] *= girth
    muscles[:, :, 2:5] *= girth**2
    femur, vessels = shape.femur.copy(), shape.vessels.copy()
    femur[:, :2] *= girth
    vessels[:, :, :2] *= girth
    return replace(
        shape,
        outline=shape.outline * girth,
        fat=shape.fat * np.exp(rng.normal(0, amount)),
        muscles=muscles,
        femur=femur,
        vessels=vessels,
    )


def _turn(
    outline: NDArray[np.complex128],
    fat: NDArray[np.complex128],
    muscles: NDArray[np.float64],
    femur: NDArray[np.float64],
    vessels: NDArray[np.float64],
    angle: float,
) -> None:
    """Turn everything about the centre, in place: people lie with their feet turned in or out."""
    phase = np.exp(1j * angle * np.arange(outline.shape[1]))
    outline *= phase
    fat *= phase
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for table in (muscles, femur, vessels):
        table[..., :2] = table[..., :2] @ turn.T
    uu, vv, uv = muscles[..., 2], muscles[..., 3], muscles[..., 4]
    moments = turn @ np.stack([np.stack([uu, uv], -1), np.stack([uv, vv], -1)], -2) @ turn.T
    muscles[..., 2], muscles[..., 3], muscles[..., 4] = moments[..., 0, 0], moments[..., 1, 1], moments[..., 0, 1]


def _waves(rng: np.random.Generator) -> NDArray[np.float64]:
    """Amplitudes, wave numbers and phases of the warp: bends of 18 to 70 mm across, slower along the axis."""
    direction = rng.uniform(0, 2 * np.pi, WARP_WAVES)
    number = 2 * np.pi / rng.uniform(18, 70, WARP_WAVES)
    push = rng.uniform(0, 2 * np.pi, WARP_WAVES)
    amplitude = rng.uniform(0.02, 0.035, WARP_WAVES) / number * 2 * np.pi
    along = 2 * np.pi / rng.uniform(120, 300, WARP_WAVES) * rng.choice([-1, 1], WARP_WAVES)
    columns = (
        amplitude * np.cos(push),
        amplitude * np.sin(push),
        number * np.cos(direction),
        number * np.sin(direction),
        along,
        rng.uniform(0, 2 * np.pi, WARP_WAVES),
    )
    return np.stack(columns, axis=1)
