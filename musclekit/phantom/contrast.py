"""From tissues to grey values: what CT and the common MR weightings make of an anatomy.

The signal of a voxel is the sum over its tissues, weighted by the share that each fills, so that partial volume and
thick slices need nothing further. What a scanner adds comes after: uneven coils, bias, noise, streaks, and the couch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from musclekit.errors import ModalityError, ParameterError
from musclekit.image import Contrast, Grid, Image
from musclekit.phantom.anatomy import Anatomy, Tissue
from musclekit.phantom.infiltration import smooth_noise

__all__ = [
    "APPEARANCE",
    "FAT_DENSITY",
    "IDEAL",
    "WATER_DENSITY",
    "Appearance",
    "Scanner",
    "acquire",
    "default_scanner",
    "proton_fat_fraction",
    "receive_gain",
    "signal",
]


@dataclass(frozen=True)
class Appearance:
    """Grey value of each pure tissue in one contrast.

    Parameters
    ----------
    air, muscle, cortical_bone, marrow, subcutaneous_fat, intermuscular_fat, fascia, vessel, skin : float
        In HU for CT, else in units in which subcutaneous fat on T1w is about 1000.
    infiltrating_fat : float
        Of the fat inside muscle.
    """

    air: float
    muscle: float
    cortical_bone: float
    marrow: float
    subcutaneous_fat: float
    intermuscular_fat: float
    fascia: float
    vessel: float
    skin: float
    infiltrating_fat: float

    def by_tissue(self) -> NDArray[np.float32]:
        """Values in the order of `Tissue`."""
        return np.array([getattr(self, tissue.name.lower()) for tissue in Tissue], dtype=np.float32)

    def scaled(self, factor: float) -> Appearance:
        """Return every value times a factor."""
        return Appearance(**{field.name: factor * getattr(self, field.name) for field in fields(self)})


#: Signal of water and of fat in each tissue: what a Dixon scan tells apart. As on scanners, which weigh fast relaxing
#: fat more and leave some of it in the water image, fat tissue shows a fat fraction of about 0.8 and muscle free of
#: infiltration one of about 0.06 (the Huashan scans: 0.72 to 0.78 under the skin, 0.06 to 0.09 in the leanest muscle).
WATER_DENSITY = Appearance(
    air=0.0,
    muscle=0.80,
    cortical_bone=0.04,
    marrow=0.15,
    subcutaneous_fat=0.24,
    intermuscular_fat=0.24,
    fascia=0.25,
    vessel=0.85,
    skin=0.40,
    infiltrating_fat=0.22,
)
FAT_DENSITY = Appearance(
    air=0.0,
    muscle=0.05,
    cortical_bone=0.02,
    marrow=0.95,
    subcutaneous_fat=0.95,
    intermuscular_fat=0.93,
    fascia=0.05,
    vessel=0.01,
    skin=0.10,
    infiltrating_fat=0.95,
)

#: Grey values of the pure tissues. CT: HU at 120 kV. T1w: muscle a third of fat; flowing blood and
#: cortex dark. Fat and water are the densities above.
APPEARANCE: dict[Contrast, Appearance] = {
    Contrast.CT: Appearance(-1000, 55, 1350, -40, -105, -95, 58, 42, 20, -100),
    Contrast.T1W: Appearance(0, 360, 20, 1000, 1000, 950, 70, 50, 220, 960),
    Contrast.T2W: Appearance(0, 260, 30, 800, 820, 790, 110, 160, 240, 780),
    Contrast.STIR: Appearance(0, 420, 30, 90, 70, 80, 150, 380, 260, 75),
    Contrast.FAT: FAT_DENSITY.scaled(1000),
    Contrast.WATER: WATER_DENSITY.scaled(1000),
}


@dataclass(frozen=True)
class Scanner:
    """What a scanner adds to the signal.

    Parameters
    ----------
    noise : float
        Standard deviation: of each of the two channels of MR (the magnitude is Rician), of CT in HU.
    noise_grain_mm : float
        Scale over which CT noise is smooth; reconstruction kernels make it so.
    bias : float
        Standard deviation of the logarithm of the smooth gain of MR.
    bias_mm : float
        Scale of that gain.
    shading : float
        Loss of signal from the surface coils to the middle of the body, as a share.
    streaks : float
        Standard deviation of the horizontal streaks of CT between the femurs, in HU.
    table : bool
        Whether CT shows the couch.
    calibration : bool
        Whether CT shows a QCT calibration phantom between the couch and the legs.
    """

    noise: float = 0.0
    noise_grain_mm: float = 0.7
    bias: float = 0.0
    bias_mm: float = 80.0
    shading: float = 0.0
    streaks: float = 0.0
    table: bool = False
    calibration: bool = False


#: A scanner that adds nothing.
IDEAL = Scanner()


def default_scanner(contrast: Contrast) -> Scanner:
    """Return the scanner that a contrast is acquired on when none is given."""
    if contrast is Contrast.CT:
        return Scanner(noise=17.0, noise_grain_mm=0.6, streaks=8.0)
    return Scanner(noise=10.0, bias=0.08, shading=0.12)


def signal(anatomy: Anatomy, fat: NDArray[np.float32], appearance: Appearance) -> NDArray[np.float32]:
    """Noiseless grey values.

    Parameters
    ----------
    anatomy : Anatomy
        Parametric, or built round a label map.
    fat : ndarray of float32, shape (Z, Y, X)
        Share of fat in the muscle of each voxel (`musclekit.phantom.infiltration.infiltrate`).
    appearance : Appearance
        Grey value of each tissue.

    Returns
    -------
    ndarray of float32, shape (Z, Y, X)
        Sum over tissues of fraction times grey value.
    """
    values = appearance.by_tissue()
    flat = anatomy.fractions.reshape(len(Tissue), -1)
    grey: NDArray[np.float32] = (values @ flat).reshape(anatomy.grid.shape)
    gain = np.float32(appearance.infiltrating_fat - appearance.muscle)
    grey += anatomy.fractions[Tissue.MUSCLE] * fat * gain
    return grey


def proton_fat_fraction(anatomy: Anatomy, fat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fat fraction that an ideal Dixon scan shows: signal of fat over that of fat and water; 0 where there is none.

    Parameters
    ----------
    anatomy : Anatomy
        Parametric, or built round a label map.
    fat : ndarray of float32, shape (Z, Y, X)
        Share of fat in the muscle of each voxel.
    """
    of_fat = signal(anatomy, fat, FAT_DENSITY)
    total = of_fat + signal(anatomy, fat, WATER_DENSITY)
    share: NDArray[np.float32] = np.divide(of_fat, total, out=np.zeros_like(of_fat), where=total > 1e-6)
    return share


def acquire(
    anatomy: Anatomy,
    fat: NDArray[np.float32],
    contrast: Contrast,
    rng: np.random.Generator,
    *,
    scanner: Scanner | None = None,
    gain: NDArray[np.float32] | None = None,
    appearance: Mapping[Contrast, Appearance] = APPEARANCE,
    domain: str | None = None,
) -> Image:
    """Scan an anatomy.

    Parameters
    ----------
    anatomy : Anatomy
        Parametric, or built round a label map.
    fat : ndarray of float32, shape (Z, Y, X)
        Share of fat in the muscle of each voxel.
    contrast : Contrast
        What to scan it with: any but `Contrast.MR`.
    rng : numpy.random.Generator
        Source of chance.
    scanner : Scanner, optional
        What the scanner adds; `default_scanner` of the contrast when not given, `IDEAL` for nothing.
    gain : ndarray of float32, shape (Z, Y, X), optional
        Receive gain of MR, where several images share one; drawn (`receive_gain`) when not given.
    appearance : mapping of Contrast to Appearance
        Grey values of the tissues.
    domain : str, optional
        Population, kept with the image.

    Returns
    -------
    Image
        HU for CT; magnitudes for MR.

    Raises
    ------
    ModalityError
        If the contrast has no grey values to go by.
    """
    if contrast not in appearance:
        known = ", ".join(sorted(appearance))
        raise ModalityError(f"a phantom can be scanned as {known}; not as {contrast}")
    machine = default_scanner(contrast) if scanner is None else scanner
    if min(machine.noise, machine.bias, machine.streaks) < 0 or not 0 <= machine.shading < 1:
        raise ParameterError("noise, bias and streaks of a scanner are not negative, and its shading lies below 1")
    grey = signal(anatomy, fat, appearance[contrast])
    if contrast is Contrast.CT:
        return Image(_ct(grey, anatomy, machine, rng), anatomy.grid, contrast, domain)
    if gain is None:
        gain = receive_gain(anatomy.grid, machine, rng)
    return Image(_magnetic(grey, gain, machine, rng), anatomy.grid, contrast, domain)


def receive_gain(grid: Grid, machine: Scanner, rng: np.random.Generator) -> NDArray[np.float32]:
    """Gain with which MR coils see each voxel: a smooth bias, and a loss towards the middle of the picture.

    Parameters
    ----------
    grid : Grid
        Where it is wanted.
    machine : Scanner
        Its bias and shading are used.
    rng : numpy.random.Generator
        Source of chance.

    Returns
    -------
    ndarray of float32
        Of the grid's shape, positive.
    """
    gain = np.ones(grid.shape, dtype=np.float32)
    if machine.bias > 0:
        field = smooth_noise(rng, grid, machine.bias_mm, along_mm=3 * machine.bias_mm)
        gain = np.exp(np.float32(machine.bias) * field)
    if machine.shading > 0:
        y = np.linspace(-1, 1, grid.shape[1], dtype=np.float32)[:, None]
        x = np.linspace(-1, 1, grid.shape[2], dtype=np.float32)
        gain = gain * (1 - np.float32(machine.shading) * np.exp(-(x**2 + y**2) / np.float32(0.35)))
    return gain


def _magnetic(
    grey: NDArray[np.float32], gain: NDArray[np.float32], machine: Scanner, rng: np.random.Generator
) -> NDArray[np.float32]:
    grey = grey * gain
    if machine.noise == 0:
        return grey
    real = rng.standard_normal(grey.shape, dtype=np.float32) * np.float32(machine.noise) + grey
    imaginary = rng.standard_normal(grey.shape, dtype=np.float32) * np.float32(machine.noise)
    magnitude: NDArray[np.float32] = np.hypot(real, imaginary)
    return magnitude


def _ct(grey: NDArray[np.float32], anatomy: Anatomy, machine: Scanner, rng: np.random.Generator) -> NDArray[np.float32]:
    grid = anatomy.grid
    if machine.table or machine.calibration:
        _put_underneath(grey, anatomy, machine)
    if machine.streaks > 0:
        grey = grey + np.float32(machine.streaks) * _streaks(anatomy, rng)
    if machine.noise > 0:
        grey = grey + np.float32(machine.noise) * smooth_noise(rng, grid, machine.noise_grain_mm, along_mm=1e-3)
    return np.maximum(grey, np.float32(-1024))


def _streaks(anatomy: Anatomy, rng: np.random.Generator) -> NDArray[np.float32]:
    """Horizontal streaks in the rows of cortical bone, where rays through both femurs starve."""
    grid = anatomy.grid
    bone = anatomy.fractions[Tissue.CORTICAL_BONE].sum(axis=2)
    rows = bone / max(float(bone.max()), 1e-6)
    _, dy, dx = grid.spacing
    wide = (1.0, 40.0 * dy / dx)
    streaks: NDArray[np.float32] = smooth_noise(rng, grid, dy, along_mm=1e-3, stretch=wide) * rows[:, :, None]
    return streaks


#: Couch: a shell of carbon fibre round foam, thickness in mm.
COUCH_SHELL_HU, COUCH_FOAM_HU, COUCH_SHELL_MM, COUCH_MM = -250.0, -920.0, 3.0, 45.0
#: QCT calibration phantom: a plastic slab with rods of known density (0 to 200 mg/ml of hydroxyapatite).
SLAB_HU, SLAB_MM, SLAB_WIDTH_MM, ROD_RADIUS_MM = 20.0, 28.0, 260.0, 9.0
ROD_HU = (0.0, 65.0, 130.0, 195.0, 260.0)


def _put_underneath(grey: NDArray[np.float32], anatomy: Anatomy, machine: Scanner) -> None:
    """Write couch and calibration phantom into the air under the legs, in place."""
    grid = anatomy.grid
    body = anatomy.fractions[Tissue.AIR] < 1
    if not body.any():
        return
    _, dy, dx = grid.spacing
    low = int(np.flatnonzero(body.any(axis=(0, 2)))[0])
    middle = 0.5 * (grid.shape[2] - 1)
    y = (np.arange(grid.shape[1])[:, None] - low) * dy
    x = (np.arange(grid.shape[2])[None, :] - middle) * dx
    top = np.zeros_like(x)
    under = np.full((grid.shape[1], grid.shape[2]), np.nan, dtype=np.float32)
    if machine.calibration:
        slab = (y < -1) & (y > -1 - SLAB_MM) & (np.abs(x) < SLAB_WIDTH_MM / 2)
        under[slab] = SLAB_HU
        for n, hu in enumerate(ROD_HU):
            rod = (n - (len(ROD_HU) - 1) / 2) * SLAB_WIDTH_MM / (len(ROD_HU) + 1)
            under[(x - rod) ** 2 + (y + 1 + SLAB_MM / 2) ** 2 < ROD_RADIUS_MM**2] = hu
        top = top - SLAB_MM - 1
    if machine.table:
        # Flat under the legs, bent up beside them.
        surface = top - 2 + np.maximum(np.abs(x) - 140, 0) ** 2 / 250
        depth = surface - y
        under[(depth > 0) & (depth < COUCH_MM)] = COUCH_FOAM_HU
        under[((depth > 0) & (depth < COUCH_SHELL_MM)) | ((depth > COUCH_MM - COUCH_SHELL_MM) & (depth < COUCH_MM))] = (
            COUCH_SHELL_HU
        )
    there = ~np.isnan(under)
    air = anatomy.fractions[Tissue.AIR]
    for k in range(grid.shape[0]):
        grey[k][there] += air[k][there] * (under[there] + 1000)
