"""What the method `tissue` reaches on real CT without labels: one row a patient, each criterion beside its limit.

The scans are those of `../shared/data/sts` (26 patients with a sarcoma of the thigh or hip, low-dose CT, cropped around
the tumour). There are no labels of muscle or bone, so what is checked follows from Hounsfield units alone. Run as
``python benchmarks/real_ct.py [--data DIR]``; the table is Markdown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from musclekit.anatomy import Leg, body_mask, split_legs
from musclekit.image import Contrast, Image, LabelMap
from musclekit.io import read
from musclekit.segmenters.tissue import TissueSegmenter

Mask = NDArray[np.bool_]

DATA = Path(__file__).parents[2] / "shared" / "data"

#: Name of each criterion, its column, and whether the figure must lie above or below the limit.
LIMITS: Mapping[str, tuple[str, str, float]] = {
    "bone_held": ("bone > 300 HU held", ">=", 0.95),
    "bone_excess": ("bone / filled", "<=", 1.5),
    "single_shaft": ("one shaft a slice", ">=", 0.95),
    "muscle_hu_low": ("muscle median HU", ">=", 20.0),
    "muscle_hu_high": ("muscle median HU", "<=", 70.0),
    "lean_held": ("lean held", ">=", 0.95),
    "fat_inside": ("fat inside", "<=", 0.10),
}

BONE_HU, METAL_HU = 300.0, 2200.0
LEAN_HU = (-29.0, 150.0)
FAT_HU = -30.0
UNDER_SKIN_MM = 5.0

#: Gaps of thin cortices that are closed before the reference bone is filled.
GAP_MM = 3.0

#: A slice counts as infiltrated where lean tissue fills less than this of its closing by a disk of that radius.
INFILTRATED, ENVELOPE_MM = 0.8, 16.0


@dataclass(frozen=True)
class Figures:
    """What was measured on one scan; shares are 0 to 1, nan where there is nothing to measure.

    `plain_excess` is bone over the voxels above 300 HU filled without closing gaps; `lean_held_raw` counts the lean
    voxels inside bone too; `fat_everywhere` and `fat_off_tumour` are over all slices, and over those that the tumour's
    contour leaves free.
    """

    bone_held: float
    bone_excess: float
    plain_excess: float
    single_shaft: float
    muscle_hu: float
    lean_held: float
    lean_held_raw: float
    fat_inside: float
    fat_everywhere: float
    fat_off_tumour: float
    lean_slices: str

    def failed(self) -> tuple[str, ...]:
        """Names of the criteria that are not met; one that cannot be measured is."""
        values = {name: getattr(self, name.removesuffix("_low").removesuffix("_high")) for name in LIMITS}
        return tuple(
            name
            for name, (_, sign, limit) in LIMITS.items()
            if not np.isnan(values[name]) and not (values[name] >= limit if sign == ">=" else values[name] <= limit)
        )


def patients(data: Path) -> list[Path]:
    """Folders of the patients who have a CT."""
    return sorted(path.parent for path in (data / "sts").glob("*/CT_image.nii.gz"))


def read_patient(folder: Path) -> tuple[Image, Mask]:
    """CT and tumour of a patient."""
    image = read(folder / "CT_image.nii.gz", contrast=Contrast.CT)
    tumour = read(folder / "CT_mask.nii.gz", contrast=Contrast.MR).voxels > 0.5
    return image, tumour


def criteria(image: Image, body: Mask, labels: LabelMap, tumour: Mask, legs: Sequence[Leg]) -> Figures:
    """Measure one label map of the set ``tissue``."""
    hu = image.voxels
    pixel = image.grid.spacing[1]
    ids = {label.name: label.id for label in labels.label_set}
    bone = np.isin(labels.voxels, (ids["cortical bone"], ids["marrow"]))
    muscle = labels.voxels == ids["muscle"]
    compartment = muscle | (labels.voxels == ids["intermuscular fat"])
    dense = dense_bone(hu, body)
    filled = filled_planes(dense, GAP_MM / pixel)
    lean = body & (hu >= LEAN_HU[0]) & (hu <= LEAN_HU[1]) & (depth_mm(body, pixel) >= UNDER_SKIN_MM)
    soft = lean & ~(filled | bone)
    fat = compartment & (hu < FAT_HU)
    sound = lean_slices(hu, body, filled, pixel)
    free = ~tumour.any(axis=(1, 2))
    return Figures(
        bone_held=share(bone & dense, dense),
        bone_excess=share(bone, filled),
        plain_excess=share(bone, filled_planes(dense, 0)),
        single_shaft=single_shafts(bone, dense, legs, pixel),
        muscle_hu=float(np.median(hu[muscle])) if muscle.any() else np.nan,
        lean_held=share(compartment & soft, soft),
        lean_held_raw=share(compartment & lean, lean),
        fat_inside=share(fat[sound], compartment[sound]),
        fat_everywhere=share(fat, compartment),
        fat_off_tumour=share(fat[free], compartment[free]),
        lean_slices=f"{np.count_nonzero(sound)}/{len(sound)}",
    )


def share(part: Mask, whole: Mask) -> float:
    total = np.count_nonzero(whole)
    return np.count_nonzero(part) / total if total else np.nan


def dense_bone(hu: NDArray[np.float32], body: Mask) -> Mask:
    """Body voxels above 300 HU without implants and without contrast medium, which is even: sd below 15 % of mean."""
    dense = body & (hu > BONE_HU) & (hu < METAL_HU)
    pieces, n = ndimage.label(body & (hu > 250) & (hu < METAL_HU), np.ones((3, 3, 3)))
    if n == 0:
        return dense
    index = np.arange(1, n + 1)
    mean, spread = ndimage.mean(hu, pieces, index), ndimage.standard_deviation(hu, pieces, index)
    even = (spread < 0.15 * mean) & (ndimage.sum_labels(pieces > 0, pieces, index) > 50)
    return dense & ~np.concatenate([[False], even])[pieces]


def filled_planes(dense: Mask, gap: float) -> Mask:
    """Holes filled plane by plane, after gaps up to twice `gap` pixels are closed."""
    size = 2 * int(np.ceil(gap)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    planes = []
    for plane in dense:
        wide = np.pad(plane, size).astype(np.uint8)
        closed = ndimage.binary_fill_holes(cv2.morphologyEx(wide, cv2.MORPH_CLOSE, kernel))
        planes.append(closed[size:-size, size:-size] | plane)
    return np.stack(planes)


def depth_mm(body: Mask, pixel: float) -> NDArray[np.float32]:
    """Distance from the skin; the edge of the picture is none."""
    planes = []
    for plane in body:
        wide = np.pad(plane, 1, mode="edge").astype(np.uint8)
        full = np.full(plane.shape, np.inf, dtype=np.float32)
        planes.append(full if wide.all() else cv2.distanceTransform(wide, cv2.DIST_L2, 5)[1:-1, 1:-1] * pixel)
    return np.stack(planes)


def lean_slices(hu: NDArray[np.float32], body: Mask, bone: Mask, pixel: float) -> NDArray[np.bool_]:
    """Slices in which lean tissue fills most of its envelope."""
    radius = round(ENVELOPE_MM / pixel)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    depth = depth_mm(body, pixel)
    found = []
    for z, plane in enumerate(hu):
        lean = (cv2.medianBlur(plane, 5) >= FAT_HU) & body[z] & (depth[z] > 3) & ~bone[z]
        lean = cv2.morphologyEx(lean.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)) > 0
        wide = np.pad(lean | bone[z], radius, mode="edge").astype(np.uint8)
        closed = cv2.morphologyEx(wide, cv2.MORPH_CLOSE, kernel)[radius:-radius, radius:-radius] > 0
        found.append(bool(lean.any()) and share(lean, closed & ~bone[z]) >= INFILTRATED)
    return np.array(found)


def single_shafts(bone: Mask, dense: Mask, legs: Sequence[Leg], pixel: float) -> float:
    """Share of the slices that show a shaft, a leg, in which the bone mask is one piece."""
    alone = seen = 0
    for leg in legs:
        for z in range(len(bone)):
            if not is_shaft(dense[z] & leg.mask[z], pixel):
                continue
            seen += 1
            alone += cv2.connectedComponents((bone[z] & leg.mask[z]).astype(np.uint8), connectivity=8)[0] == 2
    return alone / seen if seen else np.nan


def is_shaft(dense: Mask, pixel: float) -> bool:
    """One round tube of cortex, 100 to 1300 mm2 with its marrow, and nothing else dense of 5 mm2 (another bone)."""
    plane = ndimage.binary_fill_holes(dense).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(plane, connectivity=8)
    large = stats[1:][stats[1:, cv2.CC_STAT_AREA] * pixel**2 >= 5]
    if len(large) != 1:
        return False
    width, height, area = (int(large[0, k]) for k in (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_AREA))
    hollow = np.count_nonzero(dense) < 0.95 * area
    return (
        100 <= area * pixel**2 <= 1300
        and area > 0.6 * width * height
        and max(width, height) < 1.6 * min(width, height)
        and hollow
    )


def table(figures: Mapping[str, Figures | str], taken: Mapping[str, float]) -> str:
    """Markdown, one row a patient; a criterion that is not met is bold."""
    columns = (
        "patient",
        "bone > 300 HU held (>= 0.95)",
        "bone / filled (<= 1.5)",
        "bone / filled, gaps open",
        "one shaft a slice (>= 0.95)",
        "muscle, median HU (20 to 70)",
        "lean held, bone aside (>= 0.95)",
        "lean held, all",
        "fat inside, lean slices (<= 0.10)",
        "fat inside, all slices",
        "fat inside, off the tumour",
        "lean slices",
        "s",
        "",
    )
    rows = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for name, found in figures.items():
        if isinstance(found, str):
            rows.append(f"| {name} | {found} |" + " |" * (len(columns) - 2))
            continue
        failed = found.failed()

        def cell(value: float, *names: str, failed: tuple[str, ...] = failed, digits: int = 3) -> str:
            if np.isnan(value):
                return "-"
            return f"**{value:.{digits}f}**" if set(names) & set(failed) else f"{value:.{digits}f}"

        cells = [
            cell(found.bone_held, "bone_held"),
            cell(found.bone_excess, "bone_excess", digits=2),
            cell(found.plain_excess, digits=2),
            cell(found.single_shaft, "single_shaft", digits=2),
            cell(found.muscle_hu, "muscle_hu_low", "muscle_hu_high", digits=0),
            cell(found.lean_held, "lean_held"),
            cell(found.lean_held_raw),
            cell(found.fat_inside, "fat_inside"),
            cell(found.fat_everywhere),
            cell(found.fat_off_tumour),
            found.lean_slices,
            f"{taken[name]:.1f}",
            "fail" if failed else "pass",
        ]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def totals(figures: Mapping[str, Figures | str]) -> str:
    """How many patients meet each criterion, and all of them; and all of them when measured most strictly."""
    ran = [found for found in figures.values() if isinstance(found, Figures)]
    lines = [f"- ran: {len(ran)} of {len(figures)}"]
    for name, (title, sign, limit) in LIMITS.items():
        met = sum(name not in found.failed() for found in ran)
        lines.append(f"- {title} {sign} {limit:g}: {met} of {len(figures)}")
    lines.append(f"- all of these: {sum(not found.failed() for found in ran)} of {len(figures)}")
    strict = sum(
        not found.failed()
        and found.plain_excess <= 1.5
        and found.lean_held_raw >= 0.95
        and max(found.fat_everywhere, found.fat_off_tumour) <= 0.10
        for found in ran
    )
    lines.append(f"- and also with gaps open, lean voxels inside bone counted, fat in every slice: {strict}")
    return "\n".join(lines)


def measure(data: Path) -> tuple[dict[str, Figures | str], dict[str, float]]:
    """Segment and measure every patient; what went wrong stands in place of the figures."""
    figures: dict[str, Figures | str] = {}
    taken: dict[str, float] = {}
    for folder in patients(data):
        image, tumour = read_patient(folder)
        start = time.perf_counter()
        try:
            labels = TissueSegmenter().segment(image)
        except Exception as problem:  # a row, not a stop: the table says what failed
            figures[folder.name] = f"{type(problem).__name__}: {problem}"
            continue
        taken[folder.name] = time.perf_counter() - start
        body = body_mask(image)
        figures[folder.name] = criteria(image, body, labels, tumour, split_legs(image, body))
    return figures, taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder that holds sts/ (default: %(default)s)")
    data = parser.parse_args().data
    if not patients(data):
        print(f"skipped: no real CT under {data}/sts")
        return
    figures, taken = measure(data)
    print(table(figures, taken))
    print()
    print(totals(figures))


if __name__ == "__main__":
    main()
