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
from benchmarks.trust_tables import psv_table, true_volumes
from benchmarks.unets import Study, write_cohorts
from benchmarks.unets_tables import write_figures
from musclekit import io
from musclekit.anatomy import body_mask, split_legs
from musclekit.errors import MusclekitError
from musclekit.evaluation import read_scores
from musclekit.image import Contrast
from musclekit.io import read_manifest, write_manifest
from musclekit.labels import label_mapping, label_set
from musclekit.metrics import dice
from musclekit.protocols import UncertainSegmenter
from musclekit.registry import build
from musclekit.report import reliability, variance_against_dice
from musclekit.statistics import bootstrap_by_subject, pearson
from musclekit.uncertainty import (
    calibration_curve,
    error_agreement,
    expected_calibration_error,
    structure_variance,
    uncertainty_inside_outside,
)
from musclekit.workflows.cases import open_cases
from musclekit.workflows.train_segmenter import train_segmenter_on_manifest

DOCUMENT = Path(__file__).parents[1] / "docs" / "results_unets.md"
ARM = "bayesian-unet"
FOLDS = 4
SAMPLES = 20
#: What is found of a patient, or why nothing was.
SEEN = ["patient", "unknown side", "inside", "outside", "psv", "violation", "found", "lost"]
#: Muscle and what is as dense.
SOFT_HU = (-29, 150)


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


def asked(method: UncertainSegmenter, cases: list[Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How well the variance finds the errors, and how honest the probabilities are, case by case; and the curve."""
    rows, curves = [], []
    for case in cases:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            prediction = method.predict(case.image)
        body = body_mask(case.image)
        mean = prediction.mean
        found = mean.labels()
        # The labels of the phantoms are written as one of two sets that are one anatomy.
        reference = case.reference.mapped(label_mapping(case.reference.label_set, found.label_set))
        muscle = (found.voxels > 0) | (reference.voxels > 0)
        near = error_agreement(prediction.variance, found, reference, muscle)
        confidence, correct = mean.voxels.max(axis=0), found.voxels == reference.voxels
        curves.append(calibration_curve(confidence, correct, region=body))
        psv = structure_variance(prediction.labels, prediction.variance)
        of_labels = [dice(prediction.labels.mask(name), reference.mask(name)) for name in psv["structure"]]
        rows.append(
            {
                "case": case.id,
                "subject": case.subject,
                "auc in the body": error_agreement(prediction.variance, found, reference, body).auc,
                "auc in muscle": near.auc,
                "wrong": near.mean_wrong,
                "right": near.mean_right,
                "ece": expected_calibration_error(confidence, correct, region=body),
                "dice": float(np.mean(of_labels)),
            }
        )
    return pd.DataFrame(rows), pooled(curves)


def pooled(curves: list[pd.DataFrame]) -> pd.DataFrame:
    """One curve of the voxels of all cases."""
    every = pd.concat(curves, ignore_index=True)
    weighted = every.assign(**{name: every[name].fillna(0) * every["n"] for name in ("confidence", "accuracy")})
    table = weighted.groupby(["low", "high"], as_index=False)[["n", "confidence", "accuracy"]].sum()
    share = table["n"].replace(0, np.nan)
    return table.assign(confidence=table["confidence"] / share, accuracy=table["accuracy"] / share)


def samplers(study: Study, folder: Path) -> tuple[list[str], dict[str, pd.DataFrame]]:
    """Monte Carlo dropout of one network beside the ensemble of four, on people of the other scanner."""
    checkpoints = [str(folder / f"fold-{n + 1}" / "network.pt") for n in range(FOLDS)]
    methods = {
        f"dropout, {SAMPLES} samples": build(ARM, checkpoint=checkpoints[0], samples=SAMPLES),
        f"dropout, {FOLDS} samples": build(ARM, checkpoint=checkpoints[0], samples=FOLDS),
        f"ensemble of {FOLDS}": build("ensemble", checkpoints=checkpoints),
    }
    cases = open_cases(study.manifest("external"))
    tested = [cases.open(rows[0].case_id) for rows in cases.rows]
    lines = [
        "| answers | Dice | 95 % | AUC in muscle | 95 % | AUC in the body | variance, wrong and right voxels | ECE | "
        "95 % |",
        "|---" * 9 + "|",
    ]
    curves = {}
    for name, method in methods.items():
        stem = name.replace(", ", "_").replace(" ", "_")
        files = [folder / f"{stem}.csv", folder / f"{stem}_curve.csv"]
        if not all(file.exists() for file in files):
            for found, file in zip(asked(method, tested), files, strict=True):
                found.to_csv(file, index=False)
        table, curves[name] = (pd.read_csv(file) for file in files)
        lines.append(
            f"| {name} | {_over_people(table, 'dice')} | {_over_people(table, 'auc in muscle')} | "
            f"{table['auc in the body'].median():.3f} | {table['wrong'].median():.3f}, {table['right'].median():.4f} | "
            f"{_over_people(table, 'ece')} |"
        )
    return lines, curves


def _over_people(table: pd.DataFrame, column: str) -> str:
    found = bootstrap_by_subject(table[column], list(table["subject"]))
    return f"{found.estimate:.3f} | {found.interval.low:.3f} to {found.interval.high:.3f}"


def real_ct(data: Path, folder: Path) -> list[str]:
    """Variance inside and outside the tumours of the real patients, and what PSV says of the failures to be seen."""
    file = folder / "sts.csv"
    if not file.exists():
        method = build(ARM, checkpoint=str(folder / "fold-1" / "network.pt"), samples=SAMPLES)
        rows = []
        for path in sorted(data.glob("sts/STS_*/CT_image.nii.gz")):
            try:
                rows.append(seen_in(path, method))
            except MusclekitError as problem:
                rows.append({"patient": path.parent.name, "lost": str(problem)})
            print(rows[-1], flush=True)
        pd.DataFrame(rows).reindex(columns=SEEN).to_csv(file, index=False)
    table = pd.read_csv(file)
    lost = table.loc[table["lost"].notna(), "patient"].tolist() if "lost" in table else []
    both = table.dropna(subset=["inside", "outside"])
    difference = bootstrap_by_subject(both["inside"] - both["outside"], list(both["patient"]))
    larger = int((both["inside"] > both["outside"]).sum())
    known = table.dropna(subset=["psv", "violation"])
    r = pearson(known["psv"], known["violation"])
    lines = [
        f"- {len(table)} patients; {int(table['unknown side'].eq(True).sum())} scans show one leg whose side nobody "
        f"told the network, which it takes for a right one.{f' Failed: {chr(44).join(lost)}.' if lost else ''}",
        f"- Soft tissue (-29 to 150 HU) of the legs in the slices that show the tumour, {len(both)} patients: median "
        f"variance inside the tumour {both['inside'].median():.3f}, outside {both['outside'].median():.3f}; median "
        f"difference {difference.estimate:+.3f} ({difference.interval.low:+.3f} to {difference.interval.high:+.3f}), "
        f"larger inside in {larger}.",
        f"- Slices without tumour, {len(known)} patients: of the voxels called muscle a median of "
        f"{100 * known['violation'].median():.0f} % ({100 * known['violation'].min():.0f} to "
        f"{100 * known['violation'].max():.0f} %) lie above 150 or below -30 HU and are bone, fat or air. Their share "
        f"against the PSV of all muscles in the same slices: r = {r.estimate:+.2f} ({r.interval.low:+.2f} to "
        f"{r.interval.high:+.2f}).",
    ]
    return lines


def seen_in(path: Path, method: UncertainSegmenter) -> dict[str, Any]:
    """What one patient shows."""
    image = io.read(path, contrast=Contrast.CT)
    tumour = io.read_labels(path.with_name("CT_mask.nii.gz"), label_set("muscle")).voxels > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        prediction = method.predict(image)
    legs = split_legs(image, body_mask(image))
    in_legs = np.logical_or.reduce([leg.mask for leg in legs])
    shown = tumour.any(axis=(1, 2))[:, None, None]
    # Fat and air vary little: beside them any tissue would.
    soft = in_legs & (image.voxels >= SOFT_HU[0]) & (image.voxels <= SOFT_HU[1])
    apart = uncertainty_inside_outside(prediction.variance, tumour, soft & shown)
    free = prediction.labels.with_voxels(np.where(shown, 0, prediction.labels.voxels))
    # Of these nobody needs a reference: what is bone or fat and called muscle.
    hu = image.voxels[free.mask()]
    psv = structure_variance(free, prediction.variance)
    sizes = psv["voxels"].to_numpy()
    return {
        "patient": path.parent.name,
        "unknown side": any(leg.side is None for leg in legs),
        "inside": apart.inside,
        "outside": apart.outside,
        "psv": float(np.average(psv["psv"].fillna(0), weights=sizes)) if sizes.any() else np.nan,
        "violation": float(((hu > 150) | (hu < -30)).mean()) if hu.size else np.nan,
        "found": int((sizes > 0).sum()),
    }


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
    volumes = true_volumes(read_scores(folder / "scores.csv"))
    trust = trust.merge(volumes, on=["case_id", "structure", "side"], how="left")
    parts = {"psv": psv_table(trust, ARM, SAMPLES)}
    parts["samplers"], curves = samplers(study, folder)
    if given.data is not None:
        parts["sts"] = real_ct(given.data, folder)
    for marker, lines in parts.items():
        print("\n".join(lines), "\n")
        if given.write:
            put_between(DOCUMENT, marker, lines)
    if given.write:
        write_figures({"psv": variance_against_dice(trust), "reliability": reliability(curves)})


if __name__ == "__main__":
    main()
