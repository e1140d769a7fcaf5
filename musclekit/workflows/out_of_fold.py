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
from musclekit.evaluation.harness import noting
from musclekit.image import Case, Image
from musclekit.labels import LabelSet
from musclekit.report import Failure
from musclekit.segmenters.network import NetworkSegmenter
from musclekit.uncertainty import DiceCalibration, fit_dice_calibration
from musclekit.workflows.cases import ManifestCases
from musclekit.workflows.divisions import Division, folder_name
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
    """Return the folder of a fold; that of the training itself where there are no folds."""
    return out / folder_name(fold) if fold else out


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
    answers: list[_Answer] = []
    rows: list[dict[str, str]] = []
    notes: list[str] = []
    for name, division in divisions.items():
        rows += [{"case_id": case_id, "subject": cases.subjects[case_id], "fold": name} for case_id in division.test]
        segmenter = NetworkSegmenter(checkpoint=str(fold_folder(out, name) / NETWORK), device=device, samples=samples)
        for case_id in division.test:
            case = cases.open(case_id)
            # A network of several contrasts segments each image of them.
            for image in (case.images[contrast] for contrast in plan.contrasts if contrast in case.images):
                method = (
                    segmenter.card.name if len(plan.contrasts) == 1 else f"{segmenter.card.name} on {image.contrast}"
                )
                with noting(notes, f"fold '{name}', case '{case_id}'"):
                    answers.append(_answer(for_side(segmenter, case.side), case, image, method, name, plan.labels))
    for note in notes:
        warnings.warn(note, stacklevel=2)
    failures = tuple(answer.failure for answer in answers if answer.failure is not None)
    uncertainty = [answer.uncertainty for answer in answers if answer.uncertainty is not None]
    write_table(pd.DataFrame(rows), out / FOLDS)
    table = pd.concat([answer.scores for answer in answers], ignore_index=True)
    write_scores(table, out / SCORES)
    if not uncertainty:
        return LeftOut(table, failures=failures)
    trust = _with_dice(pd.concat(uncertainty, ignore_index=True), table)
    write_table(trust, out / UNCERTAINTY)
    pairs = trust.rename(columns={"structure": "label"})
    try:
        calibration = fit_dice_calibration(pairs, model=segmenter.card.family, n_samples=samples)
    except InputError as problem:
        warnings.warn(f"the Dice cannot be foretold, and {CALIBRATION} is not written: {problem}", stacklevel=2)
        return LeftOut(table, trust, failures=failures)
    if calibration.unrelated:
        names = ", ".join(calibration.unrelated)
        warnings.warn(f"their variance foretells nothing of their Dice: {names}", stacklevel=2)
    calibration.save(out / CALIBRATION)
    return LeftOut(table, trust, calibration, failures)


@dataclass(frozen=True)
class _Answer:
    """What one image gives: scores, uncertainty where the network is sampled, or why there is none."""

    scores: pd.DataFrame
    uncertainty: pd.DataFrame | None = None
    failure: Failure | None = None


def _answer(segmenter: NetworkSegmenter, case: Case, image: Image, method: str, fold: str, labels: LabelSet) -> _Answer:
    who = {"case_id": case.id, "subject": case.subject, "method": method, "fold": fold}
    try:
        if not segmenter.is_uncertain:
            return _Answer(score_case(segmenter.segment(image), case, method=method, fold=fold))
        prediction = segmenter.predict(image)
        table = uncertainty_table(prediction, image, side=case.side).assign(**who)
        return _Answer(score_case(prediction.labels, case, method=method, fold=fold), table)
    except MusclekitError as problem:
        lost = failed(str(problem), case_id=case.id, subject=case.subject, method=method, fold=fold, label_set=labels)
        return _Answer(lost, failure=Failure(f"{case.id}, {method}", str(problem)))


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
