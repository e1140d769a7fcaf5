"""Volumes of functional groups by networks beside the true ones: tables of docs/results_unets.md.

    python -m benchmarks.unets_agreement -o runs/unets [--arms dense-unet,manet,segformer] [--write]

After `benchmarks.unets`, whose networks and people these are: Kim et al. (2024) compare three networks by the ICC of
the volumes of extensors, flexors and adductors, on people of their own hospital and of another one. What was measured
before is not measured again.
"""

from __future__ import annotations

import argparse
import os
import warnings
from dataclasses import replace
from pathlib import Path

import pandas as pd

from benchmarks.classical import put_between
from benchmarks.unets import DOCUMENT, Study
from musclekit.io import read_manifest, write_manifest
from musclekit.workflows import agree_on_volumes, methods_of

#: The networks of Kim et al.
ARMS = "dense-unet,manet,segformer"
#: What parts the people.
SET = "scanner"
QUANTITIES = {"total_ml": "total", "lean_ml": "lean", "fat_ml": "fat"}


def write_people(study: Study) -> Path:
    """Write the manifest of all who are to be tested, of both scanners."""
    path = study.out / "tested.csv"
    rows = []
    for cohort in ("internal", "external"):
        manifest = study.manifest(cohort)
        rows += [
            replace(row, split=None, extra={**row.extra, SET: cohort})
            for row in read_manifest(manifest)
            if row.split == "test"
        ]
    write_manifest(rows, path)
    return path


def measure(study: Study, arm: str, people: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return agreement and overlap of an arm."""
    folder = study.out / study.tier / f"{arm}_{study.seed}_volumes"
    if not (folder / "report.html").exists():
        method = methods_of([arm], None, None, {"checkpoint": str(study.training(arm) / "network.pt")})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            agree_on_volumes(people, folder, method=method, by=SET)
    return pd.read_csv(folder / "agreement.csv"), pd.read_csv(folder / "overlap.csv")


def agreement_rows(arm: str, found: pd.DataFrame) -> list[str]:
    lines = []
    for row in found.to_dict("records"):
        lines.append(
            f"| {row['set']} | {row['group']} | {QUANTITIES[row['quantity']]} | {arm} | {row['subjects']} | "
            f"{row['icc_2_1']:.3f} | {row['icc_2_1_low']:.3f} to {row['icc_2_1_high']:.3f} | {row['icc_3_1']:.3f} | "
            f"{row['bias_ml']:+.1f} | {row['bias_low']:+.1f} to {row['bias_high']:+.1f} | "
            f"{row['lower_ml']:+.1f} to {row['upper_ml']:+.1f} | {row['reference_mean_ml']:.0f} |"
        )
    return lines


def overlap_rows(arm: str, found: pd.DataFrame) -> list[str]:
    table = found.pivot_table(index=["set", "group"], columns="metric", values="mean", sort=False)
    return [
        f"| {row['set']} | {row['group']} | {arm} | {row['dice']:.3f} | {row['sensitivity']:.3f} | "
        f"{row['specificity']:.4f} | {row['accuracy']:.4f} |"
        for row in table.reset_index().to_dict("records")
    ]


def gathered(lines: list[str]) -> list[str]:
    """Rows of one set, group and volume together, in the order in which they first come."""
    keys = ["|".join(line.split("|")[1:3]) for line in lines]
    order = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    return [line for _, line in sorted(zip(keys, lines, strict=True), key=lambda pair: order[pair[0]])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--arms", default=ARMS)
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT.name}")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    study = Study(given.out)
    people = write_people(study)
    volumes: list[str] = []
    masks: list[str] = []
    for arm in given.arms.split(","):
        agreement, overlap = measure(study, arm, people)
        volumes += agreement_rows(arm, agreement)
        masks += overlap_rows(arm, overlap)
    tables = {
        "volumes": [
            "| scanner | group | volume | network | people | ICC(2,1) | 95 % | ICC(3,1) | bias, mL | 95 % | limits of "
            "agreement, mL | true mean, mL |",
            "|---" * 12 + "|",
            *gathered(volumes),
        ],
        "masks": [
            "| scanner | group | network | Dice | sensitivity | specificity | accuracy |",
            "|---" * 7 + "|",
            *gathered(masks),
        ],
    }
    for marker, lines in tables.items():
        print("\n".join([marker, *lines, ""]))
        if given.write:
            put_between(DOCUMENT, marker, lines)


if __name__ == "__main__":
    main()
