"""Networks trained on the few real labelled scans beside the checkout, on phantoms, and on both: for docs/real_data.md.

    python -m benchmarks.real_unets --data ../shared/data -o runs/real_unets [--epochs 40] [--write]

Three people have labelled images: two of `huashan` (fat and water images) and the volunteer of `qmritools` (one image,
in which muscle is bright, as in a water image). Each is left out in turn. Their labels were made by other networks, so
a Dice against them is agreement with those networks. What was trained before is not trained again.
"""

from __future__ import annotations

import argparse
import csv
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.classical import put_between
from benchmarks.toml import toml_of
from musclekit import io
from musclekit.image import Contrast, LabelMap
from musclekit.labels import label_mapping, label_set
from musclekit.metrics import dice
from musclekit.registry import build
from musclekit.workflows import write_phantoms
from musclekit.workflows.train_segmenter import train_segmenter_on_manifest

DOCUMENT = Path(__file__).parents[1] / "docs" / "real_data.md"
LABELS = "thigh-11"
#: Image, its contrast, person, labels, and what their ids mean.
REAL = [
    ("huashan/Thigh_001_fat.nii.gz", "fat", "huashan-001", "huashan/Thigh_001_dseg.nii.gz", "huashan-11"),
    ("huashan/Thigh_001_water.nii.gz", "water", "huashan-001", "huashan/Thigh_001_dseg.nii.gz", "huashan-11"),
    ("huashan/Thigh_003_fat.nii.gz", "fat", "huashan-003", "huashan/Thigh_003_dseg.nii.gz", "huashan-11"),
    ("huashan/Thigh_003_water.nii.gz", "water", "huashan-003", "huashan/Thigh_003_dseg.nii.gz", "huashan-11"),
    ("qmritools/thigh_image.nii.gz", "water", "qmritools", "qmritools/thigh_dseg.nii.gz", "qmritools-sided"),
]
PEOPLE = tuple(dict.fromkeys(person for _, _, person, _, _ in REAL))
PHANTOMS = {
    "subjects": 24,
    "modalities": ("dixon",),
    "grades": ["healthy", "minor", "moderate", "severe"],
    "slices": 16,
    "seed": 31,
    "prefix": "phantom",
    "reference": LABELS,
}
ARMS = ("real", "phantoms", "both")


def plan_of(epochs: int) -> dict[str, object]:
    return {
        "kind": "train",
        "task": "segment",
        "seed": 1,
        "labels": LABELS,
        "contrasts": ["fat", "water"],
        "view": {"kind": "leg", "spacing_mm": 2.0, "size": [112, 112]},
        "network": {"name": "unet-2d", "width": 16, "levels": 5, "dropout": 0.1},
        "schedule": {"epochs": epochs, "steps": 100, "batch": 8, "learning_rate": 2e-3},
        "augmentation": {"rotation_deg": 20, "scale": 0.2, "shear_deg": 8, "shift": 0.05},
        "data": "huashan (Apache-2.0), qmritools (BSD 3-clause), phantoms",
    }


def write_manifest(path: Path, data: Path, phantoms: Path, arm: str, left_out: str) -> None:
    """Write what an arm learns from when a person is left out."""
    rows = []
    if arm != "phantoms":
        for image, contrast, person, labels, meaning in REAL:
            if person != left_out:
                rows.append([person, person, data / image, data / labels, contrast, meaning])
    if arm != "real":
        with (phantoms / "manifest.csv").open(encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                rows.append([row["case_id"], row["subject"], phantoms / row["image"], phantoms / row["labels"],
                             row["modality"], LABELS])  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["case_id", "subject", "image", "labels", "modality", "label_set"])
        # What a network learns first stays the same: a case's rows stand together.
        table.writerows([[*row[:2], row[2].resolve(), row[3].resolve(), *row[4:]] for row in rows])


def train(data: Path, out: Path, arm: str, left_out: str, epochs: int, jobs: int) -> Path:
    """Train an arm with a person left out; the phantoms alone need one training for all."""
    folder = out / (arm if arm == "phantoms" else f"{arm}_without_{left_out}")
    if not (folder / "report.html").exists():
        manifest, plan = out / "manifests" / f"{folder.name}.csv", out / "plan.toml"
        write_manifest(manifest, data, out / "cohort", arm, left_out)
        plan.write_text(toml_of(plan_of(epochs)), encoding="utf-8")
        train_segmenter_on_manifest(plan, manifest, folder, jobs=jobs)
    return folder / "network.pt"


def in_set(labels: LabelMap) -> LabelMap:
    target = label_set(LABELS)
    return labels.mapped(label_mapping(labels.label_set, target))


def scores(data: Path, out: Path, arm: str, epochs: int, jobs: int) -> pd.DataFrame:
    """Agreement on the person left out, image by image and muscle by muscle."""
    rows = []
    for image, contrast, person, labels, meaning in REAL:
        checkpoint = train(data, out, arm, person, epochs, jobs)
        scan = io.read(data / image, contrast=Contrast(contrast))
        reference = in_set(io.read_labels(data / labels, label_set(meaning)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            prediction = build("unet-2d", checkpoint=str(checkpoint), samples=10).predict(scan)
        found = prediction.labels
        of_slices = [dice(found.mask()[z], reference.mask()[z]) for z in range(len(reference.voxels))
                     if reference.voxels[z].any()]  # fmt: skip
        row = {"arm": arm, "person": person, "image": contrast, "union": float(np.median(of_slices))}
        row |= {label.name: dice(found.mask(label.name), reference.mask(label.name)) for label in reference.label_set}
        rows.append(row)
        print(arm, person, contrast, f"union {row['union']:.3f}", flush=True)
    return pd.DataFrame(rows)


def table_of(found: pd.DataFrame) -> list[str]:
    muscles = [label.name for label in label_set(LABELS)]
    lines = [
        "| trained on | person left out | image | union, median slice | mean of 11 | "
        + " | ".join(label.abbreviation for label in label_set(LABELS)) + " |",
        "|---" * (5 + len(muscles)) + "|",
    ]  # fmt: skip
    for row in found.to_dict("records"):
        values = [row["union"], float(np.mean([row[name] for name in muscles])), *(row[name] for name in muscles)]
        lines.append(f"| {row['arm']} | {row['person']} | {row['image']} | "
                     + " | ".join(f"{value:.2f}" for value in values) + " |")  # fmt: skip
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if not (given.out / "cohort" / "manifest.csv").exists():
        write_phantoms(given.out / "cohort", **PHANTOMS)
    found = pd.concat([scores(given.data, given.out, arm, given.epochs, given.jobs) for arm in ARMS])
    found.to_csv(given.out / "agreement.csv", index=False)
    lines = table_of(found)
    print("\n".join(lines))
    if given.write:
        put_between(DOCUMENT, "networks", lines)


if __name__ == "__main__":
    main()
