"""A segmenter of any contrast from label maps alone, and how it agrees with the labels of real scans.

    python -m benchmarks.thigh --data ../shared/data -o runs/thigh [--jobs 2] [--until 10] [--check-only]

It learns from the 35 label maps of `huashan_labels` but one: number 003 may be a person whose images it is checked on.
No image is learnt from, and none chooses anything. The labels of the images were made by other networks: a Dice against
them is agreement with those. A training that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from pathlib import Path

import numpy as np

from benchmarks.real_unets import REAL, in_set
from musclekit import io
from musclekit.image import Contrast
from musclekit.labels import label_set
from musclekit.metrics import dice
from musclekit.registry import build
from musclekit.workflows.phantoms import write_phantoms
from musclekit.workflows.train_segmenter import train_segmenter_on_manifest

PLAN = Path(__file__).with_name("thigh.toml")
#: Whose label maps are left out: images of huashan-003 are checked on.
LEFT_OUT = ("THIGH_003",)
#: Digital people beside the 31 real ones, who have shapes of their own.
PHANTOMS = 4


def subject_of(name: str) -> str:
    """Return the person of a label map by its name; one number is taken for one person, whatever the contrast."""
    source, *_, number, _ = name.split("_")
    if source == "MyoSegmenTUM":
        return f"myosegmentum-{name.split('_')[2]}"
    return f"{'helsinki' if source == 'Helsinki' else 'huashan'}-{number}"


def write_manifest(data: Path, path: Path) -> None:
    """Write the manifest of the label maps: of real people, and of `PHANTOMS` digital ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    phantoms = path.parent / "phantoms"
    write_phantoms(phantoms, subjects=PHANTOMS, grades=("healthy",), slices=12, seed=3, prefix="digital")
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["case_id", "subject", "labels", "label_set"])
        for file in sorted((data / "huashan_labels").glob("*.nii.gz")):
            name = file.name.removesuffix(".nii.gz")
            if not any(part in name for part in LEFT_OUT):
                table.writerow([name, subject_of(name), file.resolve(), "huashan-11"])
        for file in sorted(phantoms.glob("*_dseg.nii.gz")):
            name = file.name.removesuffix("_dseg.nii.gz")
            table.writerow([name, name, file.resolve(), "thigh-full-sided"])


def check(checkpoint: Path, data: Path) -> list[str]:
    """Return the rows of a table: agreement with the labels of the real scans."""
    method = build("unet-2d", checkpoint=str(checkpoint))
    muscles = label_set("thigh-11")
    lines = ["| scan | union, median slice | mean of 11 | " + " | ".join(m.abbreviation for m in muscles) + " |",
             "|---" * (3 + len(muscles)) + "|"]  # fmt: skip
    for image, contrast, person, labels, meaning in REAL:
        scan = io.read(data / image, contrast=Contrast(contrast))
        reference = in_set(io.read_labels(data / labels, label_set(meaning)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found = in_set(method.segment(scan))
        union = [dice(found.mask()[z], reference.mask()[z]) for z in np.flatnonzero(reference.mask().any(axis=(1, 2)))]
        each = [dice(found.mask(muscle.name), reference.mask(muscle.name)) for muscle in muscles]
        values = [float(np.median(union)), float(np.mean(each)), *each]
        lines.append(f"| {person}, {contrast} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=None)
    parser.add_argument("--until", type=int, default=None)
    parser.add_argument("--check-only", action="store_true")
    given = parser.parse_args()
    if not given.check_only:
        write_manifest(given.data, given.out / "label_maps.csv")
        train_segmenter_on_manifest(
            PLAN, given.out / "label_maps.csv", given.out / "training", jobs=given.jobs, until=given.until,
            progress=lambda done, total, text: print(f"\r{100 * done / total:.1f} % {text}", end="", flush=True),
        )  # fmt: skip
    print("\n" + "\n".join(check(given.out / "training" / "network.pt", given.data)))


if __name__ == "__main__":
    main()
