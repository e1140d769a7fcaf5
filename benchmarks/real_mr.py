"""What the MR methods reach on the real scans beside the checkout: Markdown tables for docs/real_data.md.

    python -m benchmarks.real_mr --data ../shared/data

No labels are used by any method. The muscle labels of `huashan` and `qmritools` were made by another network, so a Dice
against them is agreement with that network; they hold 11 (and about 15) muscles, not the glutei and the others, which
is what the agreement near the hip is low for. For `sts` the yardstick is the CT of the same patient.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from musclekit import io
from musclekit.anatomy import body_mask
from musclekit.image import Contrast, Image, LabelMap
from musclekit.labels import label_set
from musclekit.metrics import dice
from musclekit.protocols import Segmenter
from musclekit.segmenters.mixture import MixtureSegmenter
from musclekit.segmenters.threshold import ThresholdSegmenter
from musclekit.segmenters.tissue import TissueSegmenter

Mask = NDArray[np.bool_]

METHODS: dict[str, Callable[[], Segmenter]] = {
    "gmm, exact, per slice": MixtureSegmenter.exact,
    "gmm, robust": MixtureSegmenter,
    "threshold": ThresholdSegmenter,
    "tissue": TissueSegmenter,
}

#: Scan, its contrast, the reference beside it, the reference's label set, the labels of it that are bone.
LABELLED = [
    ("huashan/Thigh_001_fat.nii.gz", Contrast.FAT, "huashan/Thigh_001_dseg.nii.gz", "huashan-11"),
    ("huashan/Thigh_003_fat.nii.gz", Contrast.FAT, "huashan/Thigh_003_dseg.nii.gz", "huashan-11"),
    ("huashan/Thigh_001_water.nii.gz", Contrast.WATER, "huashan/Thigh_001_dseg.nii.gz", "huashan-11"),
    ("huashan/Thigh_003_water.nii.gz", Contrast.WATER, "huashan/Thigh_003_dseg.nii.gz", "huashan-11"),
    ("qmritools/thigh_image.nii.gz", Contrast.MR, "qmritools/thigh_dseg.nii.gz", "qmritools-sided"),
]

#: An MR slice of `sts` can be compared with the CT where the two bodies agree this well, the image is not padding,
#: and it shows this much muscle.
SAME_BODY_DICE = 0.97
FILLED_SHARE = 0.95
LEAST_MUSCLE_MM2 = 1500.0


def muscles_of(reference: LabelMap) -> Mask:
    """Union of the muscles, bones left out."""
    bones = {name for name in reference.label_set.names if "femur" in name or "bone" in name or "ilium" in name}
    return reference.mask(*(name for name in reference.label_set.names if name not in bones))


def by_slice(found: Mask, reference: Mask, planes: list[int]) -> list[float]:
    return [dice(found[z], reference[z]) for z in planes]


def agreement(data: Path) -> list[str]:
    """Table of median and worst slice Dice over the slices that have labels."""
    lines = [
        "| scan | method | median slice Dice | quartiles | worst | slices | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for scan, contrast, labels, set_name in LABELLED:
        image = io.read(data / scan, contrast=contrast)
        muscles = muscles_of(io.read_labels(data / labels, label_set(set_name)))
        planes = [z for z in range(len(muscles)) if muscles[z].any()]
        for name, build in METHODS.items():
            start = time.perf_counter()
            found = build().segment(image).mask("muscle")
            taken = time.perf_counter() - start
            scores = by_slice(found, muscles, planes)
            low, median, high = np.quantile(scores, [0.25, 0.5, 0.75])
            lines.append(
                f"| {scan.removesuffix('.nii.gz')} | {name} | {median:.2f} | {low:.2f} to {high:.2f} |"
                f" {min(scores):.2f} | {len(planes)} | {taken:.1f} |"
            )
    return lines


def onto(grid_of: Image, mask: Mask, of: Image) -> Mask:
    """Bring a mask from the grid of one image to that of another: linear, cut at one half."""
    index = np.stack(np.indices(grid_of.grid.shape), axis=-1).reshape(-1, 3)
    there = of.grid.index(grid_of.grid.world(index)).T.reshape(3, *grid_of.grid.shape)
    resampled: NDArray[np.float32] = ndimage.map_coordinates(mask.astype(np.float32), there, order=1, cval=0.0)
    return resampled > 0.5


def with_ct(data: Path) -> list[str]:
    """Table of MR muscle against the muscle of the co-registered CT (-29 to 150 HU inside its compartment)."""
    lines = [
        "| patient | slices compared | " + " | ".join(METHODS) + " | worst slice, tissue |",
        "|---" * (len(METHODS) + 3) + "|",
    ]
    medians: dict[str, list[float]] = {name: [] for name in METHODS}
    for folder in sorted((data / "sts").glob("STS_*")):
        mr = io.read(folder / "MR_T1_image.nii.gz", contrast=Contrast.T1W)
        ct = io.read(folder / "CT_image.nii.gz", contrast=Contrast.CT)
        # The tumour's mask is read as an image: it is no label set of ours.
        tumour = io.read(folder / "MR_T1_mask.nii.gz", contrast=Contrast.MR).voxels > 0.5
        window = (ct.voxels >= -29) & (ct.voxels <= 150)
        muscle = onto(mr, TissueSegmenter().segment(ct).mask("muscle", "intermuscular fat") & window, ct)
        known = onto(mr, np.ones(ct.grid.shape, dtype=np.bool_), ct)
        ct_body, mr_body = onto(mr, body_mask(ct), ct), body_mask(mr)
        pixel = mr.grid.spacing[1] * mr.grid.spacing[2]
        planes = [
            z
            for z in range(len(mr.voxels))
            if not tumour[z].any()
            and np.mean(mr.voxels[z] > 0) >= FILLED_SHARE
            and np.count_nonzero(muscle[z] & mr_body[z]) * pixel >= LEAST_MUSCLE_MM2
            and dice(ct_body[z] & known[z], mr_body[z] & known[z]) >= SAME_BODY_DICE
        ]
        if not planes:
            lines.append(f"| {folder.name} | 0 |" + " |" * (len(METHODS) + 1))
            continue
        room = known & mr_body
        cells, worst = [], 0.0
        for name, build in METHODS.items():
            scores = by_slice(build().segment(mr).mask("muscle") & room, muscle & room, planes)
            medians[name].append(float(np.median(scores)))
            worst = min(scores)
            cells.append(f"{np.median(scores):.2f}")
        lines.append(f"| {folder.name} | {len(planes)} | " + " | ".join(cells) + f" | {worst:.2f} |")
    overall = " | ".join(f"{np.median(values):.2f}" if values else "" for values in medians.values())
    lines.append(f"| median of {len(medians['tissue'])} patients | | {overall} | |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the real scans")
    parser.add_argument("--without-ct", action="store_true", help="leave out the comparison with CT (minutes)")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        print(f"the real scans are not here ({arguments.data}); give their folder with --data")
        return
    logging.getLogger("musclekit").setLevel(logging.WARNING)
    # The exact GMM says of many slices that its components changed order: it is what this table is about.
    warnings.filterwarnings("ignore", message="gmm:", category=UserWarning)
    print("### Agreement with the labels of another network\n")
    print("\n".join(agreement(arguments.data)))
    if not arguments.without_ct:
        print("\n### Muscle in MR against muscle in the co-registered CT, slices without tumour\n")
        print("\n".join(with_ct(arguments.data)))


if __name__ == "__main__":
    main()
