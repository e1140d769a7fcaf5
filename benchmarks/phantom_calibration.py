"""Phantoms beside real scans: how hard the literal mixture finds them, and the figures behind it.

    python benchmarks/phantom_calibration.py [--real ../shared/data] [--subjects 6]

Prints the tables of docs/phantom.md. The part on real scans is left out, and says so, where they are absent.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from musclekit.anatomy import body_mask
from musclekit.image import Contrast, Image
from musclekit.io import read, read_labels
from musclekit.labels import label_mapping, label_set
from musclekit.phantom import GENERATOR_VERSION, GRADES, Phantom, Tissue, make_thigh, render
from musclekit.segmenters.mixture import fit_mixture, posteriors

Mask = NDArray[np.bool_]

HEADER = "| scan | slices | Dice of the literal mixture | overlap | separation | contrast to noise | grain, mm |"


def literal_dice(plane: NDArray[np.float32], body: Mask, muscle: Mask) -> float:
    """Dice of the component started second, fitted to one slice of the body, against muscle with its fat."""
    found = (posteriors(fit_mixture(plane, body), plane).argmax(axis=0) == 1) & body
    return float(2 * (found & muscle).sum() / (found.sum() + muscle.sum()))


def overlap(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    """Common area of two normalised histograms of 64 bins."""
    bins = np.linspace(min(one.min(), two.min()), np.percentile(np.r_[one, two], 99.5), 65)
    a, b = (np.histogram(np.clip(x, bins[0], bins[-1]), bins)[0] / len(x) for x in (one, two))
    return float(np.minimum(a, b).sum())


def separation(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    """Difference of the means over the root mean variance."""
    return float(abs(one.mean() - two.mean()) / np.sqrt(0.5 * (one.var() + two.var())))


def noise(plane: NDArray[np.float32], inside: Mask) -> float:
    """Noise from what a pixel differs from the mean of its four neighbours by, robustly."""
    kernel = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=np.float32) / 4
    rest = (plane - cv2.filter2D(plane, -1, kernel))[shrunk(inside, 1)]
    if len(rest) < 50:
        return float("nan")
    return float(1.4826 * np.median(np.abs(rest - np.median(rest))) / np.sqrt(1.25))


def grain(plane: NDArray[np.float32], inside: Mask, pixel: float) -> float:
    """Lag in mm at which the autocorrelation inside a mask falls to a half."""
    double = [2 * n for n in plane.shape]
    field = np.fft.rfft2(np.where(inside, plane - plane[inside].mean(), 0).astype(float), double)
    window = np.fft.rfft2(inside.astype(float), double)
    pairs = np.fft.irfft2(np.abs(window) ** 2, double)
    ratio = np.fft.irfft2(np.abs(field) ** 2, double) / np.maximum(pairs, 0.5)
    ratio /= ratio[0, 0]
    reach = int(25 / pixel)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    lag = np.hypot(dy, dx) * pixel
    here, enough = ratio[dy, dx], pairs[dy, dx] > 50
    steps = np.arange(0, 20, pixel)
    profile = [here[(np.abs(lag - step) <= pixel / 2) & enough].mean() for step in steps]
    for n in range(1, len(profile)):
        if profile[n] < 0.5:
            return float(steps[n - 1] + (profile[n - 1] - 0.5) / (profile[n - 1] - profile[n]) * pixel)
    return float("nan")


def shrunk(mask: Mask, times: int) -> Mask:
    return cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=times) > 0


def under_the_skin(body: Mask, muscle: Mask, pixel: float) -> Mask:
    """Subcutaneous fat of a real scan: body outside the closed muscles and 3.5 mm under the skin."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * int(12 / pixel) + 1,) * 2)
    closed = cv2.dilate(cv2.morphologyEx(muscle.astype(np.uint8), cv2.MORPH_CLOSE, disc), np.ones((3, 3), np.uint8))
    depth = cv2.distanceTransform(body.astype(np.uint8), cv2.DIST_L2, 5) * pixel
    return body & (closed == 0) & (depth > 3.5)


def measured(image: Image, muscle: Mask, body: Mask, fat: Mask | None = None, step: int = 1) -> NDArray[np.float64]:
    """One row a slice: Dice, overlap, separation, contrast to noise, grain."""
    pixel = image.grid.spacing[2]
    rows = []
    for k in range(step // 2, len(muscle), step):
        plane, inside = image.voxels[k], muscle[k]
        if inside.sum() * pixel**2 < 2500:
            continue
        beside = under_the_skin(body[k], inside, pixel) if fat is None else fat[k]
        # Infiltration is left out of the contrast: the quarter of muscle that looks least like fat stands for it.
        bright = np.median(plane[beside]) > np.median(plane[inside])
        contrast = abs(np.median(plane[beside]) - np.percentile(plane[inside], 25 if bright else 75))
        rows.append(
            (
                literal_dice(plane, body[k], inside),
                overlap(plane[inside], plane[beside]),
                separation(plane[inside], plane[beside]),
                contrast / noise(plane, beside),
                grain(plane, inside, pixel),
            )
        )
    return np.array(rows)


def line(name: str, rows: NDArray[np.float64]) -> str:
    dice, common, apart, contrast, size = np.nanmedian(rows, axis=0)
    low, high = np.percentile(rows[:, 1], (5, 95))
    return (
        f"| {name} | {len(rows)} | {dice:.2f} | {common:.2f} ({low:.2f} to {high:.2f}) | {apart:.2f} | "
        f"{contrast:.0f} | {size:.1f} |"
    )


def real_rows(folder: Path) -> Iterator[str]:
    for patient in ("001", "003"):
        labels = read_labels(folder / f"huashan/Thigh_{patient}_dseg.nii.gz", label_set("huashan-11"))
        for contrast in (Contrast.FAT, Contrast.WATER):
            image = read(folder / f"huashan/Thigh_{patient}_{contrast}.nii.gz", contrast=contrast)
            yield line(f"Huashan {patient}, {contrast}", measured(image, labels.mask(), body_mask(image)))
    qmritools = label_set("qmritools").sided()
    labels = read_labels(folder / "qmritools/thigh_dseg.nii.gz", qmritools)
    muscle = labels.mapped(label_mapping(qmritools, label_set("muscle"))).mask()
    image = read(folder / "qmritools/thigh_image.nii.gz", contrast=Contrast.WATER)
    yield line("QMRITools, fat-suppressed", measured(image, muscle, body_mask(image), step=3))


def sarcoma_rows(folder: Path) -> Iterator[str]:
    """Contrast and noise of the sarcoma patients, who have no muscle labels: fat and muscle by their grey values."""
    windows = {
        Contrast.T1W: ("MR_T1", (750.0, 1250.0), (200.0, 500.0)),
        Contrast.CT: ("CT", (-160.0, -50.0), (0.0, 110.0)),
    }
    for contrast, (name, fat_window, muscle_window) in windows.items():
        rows = []
        for patient in sorted(folder.glob("sts/STS_*"))[:14]:
            image = read(patient / f"{name}_image.nii.gz", contrast=contrast)
            tumour = read_labels(patient / f"{name}_mask.nii.gz", label_set("muscle")).mask()
            free = [k for k in range(3, len(tumour) - 3, 4) if not tumour[k].any()]
            for k in free[:5]:
                rows += pure(image.voxels[k], fat_window, muscle_window)
        yield grey_line(f"STS {contrast}", np.array(rows))


def pure(
    plane: NDArray[np.float32], fat_window: tuple[float, float], muscle_window: tuple[float, float]
) -> list[tuple[float, ...]]:
    values: list[float] = []
    for low, high in (fat_window, muscle_window):
        inside = (plane > low) & (plane < high)
        deep = shrunk(inside, 2)
        if deep.sum() < 200:
            return []
        values += [float(np.median(plane[deep])), float(plane[deep].std()), noise(plane, inside)]
    return [tuple(values)]


def grey_line(name: str, rows: NDArray[np.float64]) -> str:
    fat, fat_sd, fat_noise, muscle, muscle_sd, muscle_noise = np.nanmedian(rows, axis=0)
    return (
        f"| {name} | {len(rows)} | {fat:.0f} ± {fat_sd:.0f} | {muscle:.0f} ± {muscle_sd:.0f} | "
        f"{abs(fat - muscle) / fat_noise:.0f} | {abs(fat - muscle) / muscle_noise:.0f} |"
    )


def phantom_rows(subjects: int) -> Iterator[str]:
    for grade in GRADES:
        people = [make_thigh(seed, grade=grade) for seed in range(subjects)]
        for contrast in (Contrast.T1W, Contrast.FAT, Contrast.WATER):
            rows = [
                measured(
                    render(p, contrast),
                    p.anatomy.is_muscle,
                    p.anatomy.structure > 0,
                    p.tissue.mask("subcutaneous fat"),
                    step=4,
                )
                for p in people
            ]
            yield line(f"phantom {grade}, {contrast}", np.concatenate(rows))


def phantom_greys(subjects: int) -> Iterator[str]:
    people = [make_thigh(seed, shape=(5, 256, 256), legs="right", spacing=(25, 0.98, 0.98)) for seed in range(subjects)]
    for contrast, fat, muscle in (
        (Contrast.T1W, (750.0, 1350.0), (200.0, 500.0)),
        (Contrast.CT, (-160.0, -50.0), (0.0, 110.0)),
    ):
        rows = [row for p in people for plane in render(p, contrast).voxels for row in pure(plane, fat, muscle)]
        yield grey_line(f"phantom healthy {contrast}", np.array(rows))


def spread(subjects: int) -> Iterator[str]:
    """Median Dice of each person: the figures that the generator is held to."""
    for grade in GRADES:
        scores = []
        for seed in range(100, 100 + subjects):
            phantom = make_thigh(seed, grade=grade, shape=(5, 256, 256), spacing=(35, 1.5625, 1.5625), thickness_mm=10)
            scores.append(dices(phantom))
        low, middle, high = np.percentile(scores, (0, 50, 100))
        yield f"| {grade} | {middle:.2f} | {low:.2f} to {high:.2f} |"


def dices(phantom: Phantom) -> float:
    image = render(phantom, Contrast.T1W)
    body, muscle = body_mask(image), phantom.anatomy.is_muscle
    return float(np.median([literal_dice(image.voxels[k], body[k], muscle[k]) for k in range(len(muscle))]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--subjects", type=int, default=6)
    options = parser.parse_args()
    print(f"Generator version {GENERATOR_VERSION}, {options.subjects} people a grade.\n")

    start = time.perf_counter()
    phantom = make_thigh(0, grade="severe")
    pair = [render(phantom, contrast) for contrast in (Contrast.T1W, Contrast.CT)]
    print(f"One pair (T1w and CT, {pair[0].grid.shape}): {time.perf_counter() - start:.2f} s\n")
    share = phantom.anatomy.fractions[Tissue.MUSCLE].sum() * phantom.grid.voxel_volume_mm3 / 1000
    print(f"Muscle of that phantom: {share:.0f} ml\n")

    print("| grade | median Dice | people |\n|---|---|---|", *spread(2 * options.subjects), sep="\n", end="\n\n")
    print(HEADER, "|---|---|---|---|---|---|---|", *phantom_rows(options.subjects), sep="\n")
    greys = list(phantom_greys(options.subjects))
    if options.real.is_dir():
        print(*real_rows(options.real), sep="\n")
        greys += sarcoma_rows(options.real)
    else:
        print(f"\nNo real scans in {options.real}: that part is left out.")
    print("\n| scan | slices | fat | muscle | contrast / noise in fat | ... in muscle |\n|---|---|---|---|---|---|")
    print(*greys, sep="\n")


if __name__ == "__main__":
    main()
