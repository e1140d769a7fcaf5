"""Does a Bayesian U-Net know where it is wrong? On phantoms and on real CT: tables of docs/results_unets.md.

    python -m benchmarks.unets_uncertainty -o runs/unets [--data ../shared/data] [--epochs 15] [--write]

Four folds over the people of `benchmarks.unets`, 18 to learn from and 6 to be scored, as Hiasa et al. do; the four
networks together are the deep ensemble, on the people of the other scanner. On the real CT of `sts` (the public
patients of the second test of Hiasa et al.) there are no muscle labels: what can be known is whether the variance is
larger inside the tumours, and whether PSV ranks the failures that need no label to be seen.
"""

from __future__ import annotations

import argparse
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.classical import put_between
from benchmarks.toml import toml_of
from benchmarks.unets import Study, write_cohorts
from benchmarks.unets_tables import write_figures
from musclekit import io
from musclekit.anatomy import body_mask
from musclekit.image import Contrast
from musclekit.io import read_manifest, write_manifest
from musclekit.labels import label_mapping, label_set
from musclekit.metrics import dice
from musclekit.protocols import UncertainSegmenter
from musclekit.registry import build
from musclekit.report import variance_against_dice
from musclekit.statistics import partial_correlation, pearson
from musclekit.uncertainty import (
    error_agreement,
    expected_calibration_error,
    fit_dice_calibration,
    structure_variance,
    uncertainty_inside_outside,
)
from musclekit.workflows.cases import open_cases
from musclekit.workflows.train_segmenter import train_segmenter_on_manifest

DOCUMENT = Path(__file__).parents[1] / "docs" / "results_unets.md"
ARM = "bayesian-unet"
FOLDS = 4
SAMPLES = 20


def train_folds(study: Study, epochs: int) -> Path:
    """Train the four folds, or go on with them, and return their folder."""
    folder = study.out / study.tier / "folds"
    if (folder / "calibration.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    manifest = study.out / "internal" / "folds.csv"

    write_manifest([replace(row, split=None) for row in read_manifest(study.manifest("internal"))], manifest)
    plan = {name: value for name, value in study.plan(ARM).items() if name not in ("split", "validation_split")}
    plan["schedule"] = {**plan["schedule"], "epochs": epochs}
    path = study.out / study.tier / "folds.toml"
    path.write_text(toml_of(plan), encoding="utf-8")
    train_segmenter_on_manifest(path, manifest, folder, folds=str(FOLDS), jobs=1)
    return folder


def psv_against_dice(trust: pd.DataFrame) -> list[str]:
    """Correlation of PSV and Dice, over all structures and in each, and with the size partialled out."""
    lines = [
        "| structure | n | r | 95 % | r, size partialled out | 95 % | error of the predicted Dice |",
        "|---|---|---|---|---|---|---|",
    ]
    errors = predicted_errors(trust)
    for name, part in [("all", trust), *trust.groupby("structure", sort=False)]:
        known = part.dropna(subset=["psv", "dice"])
        r = pearson(known["psv"], known["dice"])
        partial = partial_correlation(known["psv"], known["dice"], np.log(known["voxels"]))
        mine = errors if name == "all" else errors[errors["structure"] == name]
        lines.append(
            f"| {name} | {len(known)} | {r.estimate:+.2f} | {r.interval.low:+.2f} to {r.interval.high:+.2f} | "
            f"{partial.estimate:+.2f} | {partial.interval.low:+.2f} to {partial.interval.high:+.2f} | "
            f"{mine['error'].mean():.3f} |"
        )
    return lines


def predicted_errors(trust: pd.DataFrame) -> pd.DataFrame:
    """Distance of the predicted Dice from the Dice, each fold predicted by lines through the other folds."""
    rows = []
    for fold in sorted(set(trust["fold"])):
        others = trust[trust["fold"] != fold].rename(columns={"structure": "label"})
        calibration = fit_dice_calibration(others, model=ARM, n_samples=SAMPLES)
        for row in trust[trust["fold"] == fold].dropna(subset=["psv", "dice"]).to_dict("records"):
            told = calibration.predict(row["structure"], row["psv"])
            rows.append({"structure": row["structure"], "error": abs(told.value - row["dice"])})
    return pd.DataFrame(rows)


def asked(method: UncertainSegmenter, cases: list[Any]) -> pd.DataFrame:
    """How well the variance finds the errors, and how honest the probabilities are, case by case."""
    rows = []
    for case in cases:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            prediction = method.predict(case.image)
        body = body_mask(case.image)
        # The labels of the phantoms are written as one of two sets that are one anatomy.
        reference = case.reference.mapped(label_mapping(case.reference.label_set, prediction.labels.label_set))
        found = error_agreement(prediction.variance, prediction.labels, reference, body)
        confidence = prediction.mean.voxels.max(axis=0)
        correct = prediction.labels.voxels == reference.voxels
        psv = structure_variance(prediction.labels, prediction.variance)
        of_labels = [dice(prediction.labels.mask(name), reference.mask(name)) for name in psv["structure"]]
        rows.append(
            {
                "case": case.id,
                "auc": found.auc,
                "wrong": found.mean_wrong,
                "right": found.mean_right,
                "ece": expected_calibration_error(confidence, correct, region=body),
                "dice": float(np.mean(of_labels)),
                "r": pearson(psv["psv"].to_numpy()[np.isfinite(psv["psv"])],
                             np.array(of_labels)[np.isfinite(psv["psv"])]).estimate,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def samplers(study: Study, folder: Path) -> list[str]:
    """Monte Carlo dropout of one network beside the ensemble of four, on people of the other scanner."""
    checkpoints = [str(folder / f"fold-{n + 1}" / "network.pt") for n in range(FOLDS)]
    methods = {
        f"dropout, {SAMPLES} samples": build(ARM, checkpoint=checkpoints[0], samples=SAMPLES),
        f"ensemble of {FOLDS}": build("ensemble", checkpoints=checkpoints),
    }
    cases = open_cases(study.manifest("external"))
    tested = [cases.open(rows[0].case_id) for rows in cases.rows]
    lines = [
        "| answers | Dice | AUC, variance for errors | variance, wrong and right voxels | ECE | r of PSV and Dice |",
        "|---|---|---|---|---|---|",
    ]
    for name, method in methods.items():
        table = asked(method, tested)
        table.to_csv(folder / f"{name.split(',')[0].replace(' ', '_')}.csv", index=False)
        lines.append(
            f"| {name} | {table['dice'].median():.3f} | {table['auc'].median():.3f} | {table['wrong'].median():.3f}, "
            f"{table['right'].median():.4f} | {table['ece'].median():.3f} | {table['r'].median():+.2f} |"
        )
    return lines


def real_ct(data: Path, folder: Path) -> list[str]:
    """Variance inside and outside the tumours of the real patients, and what PSV says of the failures to be seen."""
    method = build(ARM, checkpoint=str(folder / "fold-1" / "network.pt"), samples=SAMPLES)
    muscles = label_set("thigh-11")
    rows = []
    for path in sorted(data.glob("sts/STS_*/CT_image.nii.gz")):
        image = io.read(path, contrast=Contrast.CT)
        tumour = io.read_labels(path.with_name("CT_mask.nii.gz"), label_set("muscle")).voxels > 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            prediction = method.predict(image)
        body = body_mask(image)
        apart = uncertainty_inside_outside(prediction.variance, tumour, body)
        labelled = prediction.labels.mask()
        free = ~tumour.any(axis=(1, 2))
        # Of these nobody needs a reference: bone and fat that are called muscle.
        hu = image.voxels[labelled & free[:, None, None]]
        violation = float(((hu > 150) | (hu < -30)).mean()) if hu.size else np.nan
        psv = structure_variance(prediction.labels, prediction.variance)
        sizes = psv["voxels"].to_numpy()
        rows.append(
            {
                "patient": path.parent.name,
                "inside": apart.inside,
                "outside": apart.outside,
                "psv": float(np.average(psv["psv"].fillna(0), weights=sizes)) if sizes.any() else np.nan,
                "violation": violation,
                "found": int((psv["voxels"] > 0).sum()),
            }
        )
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table.to_csv(folder / "sts.csv", index=False)
    known = table.dropna(subset=["psv", "violation"])
    r = pearson(known["psv"], known["violation"])
    larger = int((table["inside"] > table["outside"]).sum())
    return [
        f"- {len(table)} patients. Median variance inside the tumour {table['inside'].median():.3f}, elsewhere in the "
        f"body {table['outside'].median():.3f}; larger inside in {larger} of {len(table)}.",
        f"- Voxels called muscle above 150 or below -30 HU in slices without tumour: median "
        f"{100 * known['violation'].median():.0f} % ({100 * known['violation'].min():.0f} to "
        f"{100 * known['violation'].max():.0f} %). PSV over all {len(muscles)} muscles against this share: r = "
        f"{r.estimate:+.2f} ({r.interval.low:+.2f} to {r.interval.high:+.2f}).",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    study = Study(given.out)
    write_cohorts(study)
    folder = train_folds(study, given.epochs)
    trust = pd.read_csv(folder / "uncertainty.csv")
    parts = {"psv": psv_against_dice(trust), "samplers": samplers(study, folder)}
    if given.data is not None:
        parts["sts"] = real_ct(given.data, folder)
    for marker, lines in parts.items():
        print("\n".join(lines), "\n")
        if given.write:
            put_between(DOCUMENT, marker, lines)
    if given.write:
        write_figures({"psv": variance_against_dice(trust)})


if __name__ == "__main__":
    main()
