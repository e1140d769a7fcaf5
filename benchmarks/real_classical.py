"""What the classical methods reach on real scans, fitted on other people: a table of docs/real_data.md.

    python -m benchmarks.real_classical --data ../shared/data -o runs/real_classical [--jobs 2] [--write]

Three people (`huashan` 001 and 003, `qmritools`), water images, each leg a case, each of its slices a row; folds by
subject, so that a person is segmented by what was learnt from the two others, and the parameters are chosen on those.
The labels are the output of other networks: every Dice here is agreement with a network.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.classical import put_between
from musclekit import io
from musclekit.anatomy import body_mask, leg_frame, leg_image, split_legs
from musclekit.evaluation.search import Plan, read_plan, search
from musclekit.image import Case, Contrast, Image, LabelMap
from musclekit.labels import label_mapping, label_set

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "real_data.md"

#: Subject, image, reference beside it, and the reference's label set.
SCANS = (
    ("huashan 001", "huashan/Thigh_001_water.nii.gz", "huashan/Thigh_001_dseg.nii.gz", "huashan-11"),
    ("huashan 003", "huashan/Thigh_003_water.nii.gz", "huashan/Thigh_003_dseg.nii.gz", "huashan-11"),
    ("qmritools", "qmritools/thigh_image.nii.gz", "qmritools/thigh_dseg.nii.gz", "qmritools-sided"),
)

METHODS = {"gmm": "GMM", "gc_gmm": "GC, unary GMM", "gc": "GC, unary learnt", "spgc": "SPGC"}

#: Methods whose unary is learnt from annotated cases.
LEARN_GREY = ("gc", "spgc")

#: Slices with less labelled muscle say nothing: there the labels stop, not the muscle.
LEAST_MUSCLE_MM2 = 2000.0


def legs_of(data: Path, scan: tuple[str, str, str, str], set_name: str) -> list[Case]:
    """Both legs of a person, each a case, cut to the slices whose muscle is labelled."""
    subject, image_file, labels_file, own = scan
    image = io.read(data / image_file, contrast=Contrast.WATER)
    labels = io.read_labels(data / labels_file, label_set(own))
    return leg_cases(subject, image, labels.mapped(label_mapping(labels.label_set, label_set(set_name))))


def leg_cases(subject: str, image: Image, labels: LabelMap, shown: Image | None = None) -> list[Case]:
    """Cut image and labels into legs; of an image that is ``shown`` instead, where the legs of the first one are."""
    cases = []
    for leg in split_legs(image, body_mask(image)):
        frame = leg_frame(leg, image.grid)
        alone = leg_image(shown or image, leg, frame)
        reference = frame.apply_labels(labels.with_voxels(np.where(leg.mask, labels.voxels, 0)))
        area = reference.mask().sum(axis=(1, 2)) * np.prod(alone.grid.spacing[1:])
        planes = np.flatnonzero(area >= LEAST_MUSCLE_MM2)
        first, last = int(planes[0]), int(planes[-1]) + 1
        grid = alone.grid.crop((first, 0, 0), (last, *alone.grid.shape[1:]))
        name = f"{subject.replace(' ', '-')}_{leg.side}"
        cases.append(
            Case(
                id=name,
                subject=subject,
                images={alone.contrast: Image(alone.voxels[first:last], grid, alone.contrast)},
                reference=LabelMap(reference.voxels[first:last], grid, reference.label_set),
                side=leg.side,
            )
        )
    return cases


def slice_rows(folder: Path) -> pd.DataFrame:
    """Dice of each slice of the subjects left out."""
    scores = pd.read_csv(folder / "scores.csv")
    return scores[(scores["metric"] == "dice") & scores["slice"].notna() & scores["value"].notna()]


def muscle_table(out: Path, methods: Sequence[str]) -> list[str]:
    """Dice of all muscle, slice by slice, of each person."""
    lines = [
        "| left out | method | median slice Dice | quartiles | least | slices of both legs | parameters chosen |",
        "|---|---|---|---|---|---|---|",
    ]
    for subject in (scan[0] for scan in SCANS):
        for name in methods:
            rows = slice_rows(out / name)
            values = rows.loc[rows["subject"] == subject, "value"]
            folds = pd.read_csv(out / name / "folds.csv").set_index("fold").loc[subject]
            chosen = ", ".join(f"{key} {folds[key]}" for key in plan_of(name).grid)
            lines.append(
                f"| {subject} | {METHODS[name]} | {values.median():.2f} | {values.quantile(0.25):.2f} to"
                f" {values.quantile(0.75):.2f} | {values.min():.2f} | {len(values)} | {chosen} |"
            )
    return lines


def muscles_table(out: Path) -> list[str]:
    """Dice of each muscle by multi-atlas, of the whole leg, both legs of a person averaged."""
    scores = pd.read_csv(out / "multiatlas" / "scores.csv")
    rows = scores[(scores["metric"] == "dice") & scores["slice"].isna()]
    table = rows.pivot_table(index="label", columns="subject", values="value", aggfunc="mean", sort=False)
    subjects = [scan[0] for scan in SCANS]
    lines = [f"| muscle | {' | '.join(subjects)} |", "|---" * (len(subjects) + 1) + "|"]
    names = [name for name in label_set("thigh-11").names if name in table.index]
    for name in names:
        lines.append(f"| {name} | " + " | ".join(f"{table.loc[name, subject]:.2f}" for subject in subjects) + " |")
    means = " | ".join(f"{table.loc[names, subject].mean():.2f}" for subject in subjects)
    return [*lines, f"| mean | {means} |"]


def plan_of(name: str) -> Plan:
    """Read the plan of a method; what learns grey values may choose to read them slice by slice, for coils shade."""
    plan = read_plan(HERE / "plans" / f"{name}.toml")
    if name not in LEARN_GREY:
        return plan
    assert isinstance(plan.grid, Mapping)
    return replace(plan, grid={"unary__per": ["slice", "volume"], **plan.grid})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data", help="folder of the scans")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the searches")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    parser.add_argument("--methods", default=",".join([*METHODS, "multiatlas"]), help="names of the plans")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT.relative_to(HERE.parent)}")
    given = parser.parse_args()
    chosen = [name.strip() for name in given.methods.split(",")]
    # A mixture that doubts itself says so at every point of every fold, here and in the workers.
    warnings.simplefilter("ignore", UserWarning)
    os.environ["PYTHONWARNINGS"] = "ignore::UserWarning"
    for name in chosen:
        set_name = "thigh-11" if name == "multiatlas" else "muscle"
        cases = [case for scan in SCANS for case in legs_of(given.data, scan, set_name)]
        search(plan_of(name), cases, given.out / name, jobs=given.jobs)
        print(f"{name}: done", flush=True)
    tables = {}
    if binary := [name for name in chosen if name in METHODS]:
        tables["classical"] = muscle_table(given.out, binary)
    if "multiatlas" in chosen:
        tables["muscles"] = muscles_table(given.out)
    for name, lines in tables.items():
        print("\n".join(["", f"## {name}", "", *lines]))
        if given.write:
            put_between(DOCUMENT, name, lines)


if __name__ == "__main__":
    main()
