"""The cases left out of each fold, segmented and scored by the network that did not learn from them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from musclekit.compose import for_side
from musclekit.errors import InputError, MusclekitError
from musclekit.evaluation import failed, score_case, write_scores
from musclekit.report import Failure
from musclekit.segmenters.network import NetworkSegmenter
from musclekit.uncertainty import DiceCalibration, fit_dice_calibration
from musclekit.workflows.cases import ManifestCases
from musclekit.workflows.divisions import Division
from musclekit.workflows.numbers import write_table
from musclekit.workflows.trust import uncertainty_table

if TYPE_CHECKING:
    from musclekit.neural.training.segmenter_plan import SegmenterPlan

__all__ = ["CALIBRATION", "FOLDS", "SCORES", "UNCERTAINTY", "LeftOut", "fold_folder", "left_out_of_folds"]

#: Samples of a network with dropout where its uncertainty is calibrated.
SAMPLES = 20
#: Files of a training in folds.
FOLDS, SCORES, UNCERTAINTY, CALIBRATION = "folds.csv", "scores.csv", "uncertainty.csv", "calibration.json"


@dataclass(frozen=True)
class LeftOut:
    """What the cases left out of each fold give.

    Parameters
    ----------
    scores : DataFrame or None
        Score table; None where there were no folds.
    uncertainty : DataFrame or None
        PSV and Dice of each structure of each leg; None of a network that cannot be sampled.
    calibration : DiceCalibration or None
        What the one foretells of the other, if anything.
    failures : tuple of Failure
        Cases that could not be segmented.
    """

    scores: pd.DataFrame | None = None
    uncertainty: pd.DataFrame | None = None
    calibration: DiceCalibration | None = None
    failures: tuple[Failure, ...] = ()


def fold_folder(out: Path, fold: str) -> Path:
    """Return the folder of a fold; a slash in the name of a subject makes no folder."""
    return out / f"fold-{fold.replace('/', '_')}" if fold else out


def left_out_of_folds(
    divisions: Mapping[str, Division], cases: ManifestCases, plan: SegmenterPlan, out: Path, device: str
) -> LeftOut:
    """Segment and score every case by the network that did not learn from it.

    Parameters
    ----------
    divisions : mapping of str to Division
        By the name of the fold.
    cases : ManifestCases
        Of the manifest.
    plan : SegmenterPlan
        Of all the networks.
    out : Path
        Folder with the folders of the folds; ``folds.csv``, ``scores.csv``, ``uncertainty.csv`` and
        ``calibration.json`` are written to it.
    device : str
        Where the networks run.

    Returns
    -------
    LeftOut

    Warns
    -----
    UserWarning
        If there is no calibration to be had, or it foretells nothing of some structures.
    """
    from musclekit.neural.networks import can_be_sampled
    from musclekit.neural.training.segmentation import NETWORK

    samples = SAMPLES if can_be_sampled(plan.build()) else 0
    scores, uncertainty = [], []
    rows = []
    failures: list[Failure] = []
    for name, division in divisions.items():
        rows += [{"case_id": case_id, "subject": cases.subjects[case_id], "fold": name} for case_id in division.test]
        segmenter = NetworkSegmenter(checkpoint=str(fold_folder(out, name) / NETWORK), device=device, samples=samples)
        for case_id in division.test:
            case = cases.open(case_id)
            told = for_side(segmenter, case.side)
            # A network of several contrasts segments each image of them.
            for image in (case.images[contrast] for contrast in plan.contrasts if contrast in case.images):
                method = segmenter.card.name
                if len(plan.contrasts) > 1:
                    method += f" on {image.contrast}"
                try:
                    if samples:
                        prediction = told.predict(image)
                        labels = prediction.labels
                        table = uncertainty_table(prediction, image, side=case.side)
                        uncertainty.append(
                            table.assign(case_id=case_id, subject=case.subject, fold=name, method=method)
                        )
                    else:
                        labels = told.segment(image)
                    scores.append(score_case(labels, case, method=method, fold=name))
                except MusclekitError as problem:
                    failures.append(Failure(f"{case_id}, {method}", str(problem)))
                    scores.append(
                        failed(
                            str(problem),
                            case_id=case_id,
                            subject=case.subject,
                            method=method,
                            fold=name,
                            label_set=plan.labels,
                        )
                    )
    write_table(pd.DataFrame(rows), out / FOLDS)
    table = pd.concat(scores, ignore_index=True)
    write_scores(table, out / SCORES)
    if not uncertainty:
        return LeftOut(table, failures=tuple(failures))
    trust = _with_dice(pd.concat(uncertainty, ignore_index=True), table)
    write_table(trust, out / UNCERTAINTY)
    pairs = trust.rename(columns={"structure": "label"})
    try:
        calibration = fit_dice_calibration(pairs, model=segmenter.card.family, n_samples=samples)
    except InputError as problem:
        warnings.warn(f"the Dice cannot be foretold, and {CALIBRATION} is not written: {problem}", stacklevel=2)
        return LeftOut(table, trust, failures=tuple(failures))
    if calibration.unrelated:
        names = ", ".join(calibration.unrelated)
        warnings.warn(f"their variance foretells nothing of their Dice: {names}", stacklevel=2)
    calibration.save(out / CALIBRATION)
    return LeftOut(table, trust, calibration, tuple(failures))


def _with_dice(uncertainty: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Put the Dice of each structure of each leg beside its uncertainty."""
    dice = scores[(scores["metric"] == "dice") & scores["slice"].isna()]
    keys = ["case_id", "method", "structure", "side"]
    dice = dice.rename(columns={"label": "structure", "value": "dice"})[[*keys, "dice"]]
    # Scores call a leg whose side nobody knows by that name, where other tables leave it out.
    sides = dice["side"].fillna("").replace("unknown", "")
    keyed = uncertainty.assign(side=uncertainty["side"].fillna(""))
    merged = keyed.merge(dice.assign(side=sides), on=keys, how="left")
    first = ["case_id", "subject", "fold", "method", "structure", "side"]
    return merged[[*first, *(column for column in merged.columns if column not in first)]]
