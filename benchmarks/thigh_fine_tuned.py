"""The segmenter of any contrast, taught further by real labelled scans: one person left out at a time.

    python -m benchmarks.thigh_fine_tuned --data ../shared/data -o runs/thigh_fine_tuned [--epochs 10] [--write]

Each of three people is segmented by a network that started from the weights that ship and learnt from the scans of the
two others, whose labels were made by other networks. What is trained is not shipped. A training that was done before
is not done again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.classical import put_between
from benchmarks.real_unets import LABELS, REAL, in_set, table_of, write_manifest
from benchmarks.toml import toml_of
from musclekit import io
from musclekit.image import Contrast
from musclekit.labels import label_set
from musclekit.metrics import dice
from musclekit.registry import build
from musclekit.segmenters.thigh import WEIGHTS
from musclekit.workflows.train_segmenter import train_segmenter_on_manifest

DOCUMENT = Path(__file__).parents[1] / "docs" / "results_any_contrast.md"


def plan_of(epochs: int) -> dict[str, object]:
    """Return the plan: the network and the view of the weights that ship, and a small rate."""
    return {
        "kind": "train",
        "task": "segment",
        "seed": 1,
        "start": WEIGHTS,
        "labels": LABELS,
        "contrasts": ["fat", "water"],
        "view": {"kind": "leg", "spacing_mm": 2.0, "size": [96, 96]},
        "network": {"name": "unet-2d", "width": 16, "levels": 5, "norm": "instance"},
        "schedule": {"epochs": epochs, "steps": 50, "batch": 8, "optimiser": "adamw", "learning_rate": 3e-4},
        "augmentation": {"rotation_deg": 15, "scale": 0.15, "shear_deg": 8, "shift": 0.05},
        "precision": "bfloat16",
        "data": "huashan (Apache-2.0), qmritools (BSD 3-clause)",
    }


def train(data: Path, out: Path, left_out: str, epochs: int, jobs: int) -> Path:
    """Train without a person."""
    folder = out / f"without_{left_out}"
    if not (folder / "report.html").exists():
        manifest, plan = out / f"without_{left_out}.csv", out / "plan.toml"
        write_manifest(manifest, data, out, "real", left_out)
        plan.write_text(toml_of(plan_of(epochs)), encoding="utf-8")
        train_segmenter_on_manifest(plan, manifest, folder, jobs=jobs)
    return folder / "network.pt"


def scores(data: Path, out: Path, epochs: int, jobs: int) -> pd.DataFrame:
    """Agreement on the person left out, image by image and muscle by muscle, before and after."""
    rows = []
    for path, contrast, person, labels, meaning in REAL:
        scan = io.read(data / path, contrast=Contrast(contrast))
        reference = in_set(io.read_labels(data / labels, label_set(meaning)))
        planes = np.flatnonzero(reference.mask().any(axis=(1, 2)))
        # Slice by slice, every slice: as the network that was taught further is asked.
        methods = {
            "label maps alone": build("unet-2d", checkpoint=WEIGHTS),
            "and real scans": build("unet-2d", checkpoint=str(train(data, out, person, epochs, jobs))),
        }
        for arm, method in methods.items():
            found = in_set(method.segment(scan))
            union = float(np.median([dice(found.mask()[z], reference.mask()[z]) for z in planes]))
            each = {one.name: dice(found.mask(one.name), reference.mask(one.name)) for one in reference.label_set}
            rows.append({"arm": arm, "person": person, "image": contrast, "union": union} | each)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT.name}")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    found = scores(given.data, given.out, given.epochs, given.jobs)
    found.to_csv(given.out / "agreement.csv", index=False)
    print("\n".join(table_of(found)))
    if given.write:
        put_between(DOCUMENT, "fine-tuned", table_of(found))


if __name__ == "__main__":
    main()
