"""Train a segmenter on the labelled scans of a manifest: once, or fold by fold with scores of the cases left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from musclekit.errors import InputError, LeakError
from musclekit.image import Case
from musclekit.phantom import LegPlanes, SliceRange, leg_planes
from musclekit.report import Failure, Report, Table, loss_curves, variance_against_dice, write_report
from musclekit.workflows.cases import ManifestCases, open_cases
from musclekit.workflows.divisions import Division, divisions_of, parts_of
from musclekit.workflows.out_of_fold import CALIBRATION, SCORES, LeftOut, fold_folder, left_out_of_folds
from musclekit.workflows.outcome import OnProgress
from musclekit.workflows.record import RunRecord, check_folder, file_hash, versions
from musclekit.workflows.segment import noted_warnings

if TYPE_CHECKING:
    from musclekit.neural.cards import SegmenterCard
    from musclekit.neural.labelled import LabelledScan
    from musclekit.neural.training.segmentation import TrainedSegmenter
    from musclekit.neural.training.segmenter_plan import SegmenterPlan

__all__ = ["SegmenterOutcome", "train_segmenter_on_manifest"]


@dataclass(frozen=True)
class SegmenterOutcome:
    """What a training gave.

    Parameters
    ----------
    networks : tuple of Path
        The checkpoint, or that of each fold.
    report : Path
        The HTML report.
    epochs_done, epochs : int
        Of those in the plan; of the last fold.
    best_epoch : int
        Whose weights are kept; of the last fold.
    scores, calibration : Path or None
        Scores of the cases left out of each fold, and what their uncertainty tells of the Dice to be expected.
    failures : tuple of Failure
        Cases left out of a fold that its network could not segment, each with its reason.
    warnings : tuple of str
        What was left out or dropped.
    """

    networks: tuple[Path, ...]
    report: Path
    epochs_done: int
    epochs: int
    best_epoch: int
    scores: Path | None
    calibration: Path | None
    failures: tuple[Failure, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "networks": [str(path) for path in self.networks],
            "report": str(self.report),
            "epochs done": self.epochs_done,
            "epochs": self.epochs,
            "best epoch": self.best_epoch,
            "scores": None if self.scores is None else str(self.scores),
            "calibration": None if self.calibration is None else str(self.calibration),
            "failures": [f"{one.name}: {one.message}" for one in self.failures],
            "warnings": list(self.warnings),
        }


def train_segmenter_on_manifest(
    plan: Path,
    manifest: Path | None,
    out: Path,
    *,
    label_set_name: str | None = None,
    folds: str | None = None,
    start: str | None = None,
    device: str = "cpu",
    jobs: int | None = None,
    until: int | None = None,
    progress: OnProgress | None = None,
) -> SegmenterOutcome:
    """Train a segmenter on the labelled scans of a manifest.

    Parameters
    ----------
    plan : Path
        TOML: labels, contrasts, view, network, loss, schedule.
    manifest : Path, optional
        CSV of the scans, that of the plan if left out.
    out : Path
        Folder to write to. A training of the same plan and scans that stopped there is gone on with; a folder of
        another one is refused.
    label_set_name : str, optional
        What the ids of the label maps mean, where neither the manifest nor a table beside them says so.
    folds : str, optional
        A number, or ``"leave-one-out"``: subjects are dealt to so many folds, and for each one a network is trained on
        the others.
    start : str, optional
        Checkpoint to start from, a file or the name of weights that ship; that of the plan if left out.
    device : str
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; one that is not there is an error.
    jobs : int, optional
        Processors to work with; all of them if left out.
    until : int, optional
        Epoch after which to stop for now.
    progress : callable, optional
        Called as work goes on with (steps done, all the steps, losses of the moment).

    Returns
    -------
    SegmenterOutcome
        Written beside what `musclekit.neural.training.segmentation.train_segmenter` writes: ``report.html``,
        ``report.json``, ``run.json``. With folds each has a folder ``fold-<name>``, and there are ``folds.csv``,
        ``scores.csv`` of every case by the network that did not learn from it, and for a network with dropout
        ``uncertainty.csv`` and ``calibration.json``.

    Raises
    ------
    InputError
        If plan, manifest, checkpoint or a scan cannot be used, labels cannot be mapped, a label is shown by no case
        trained on, the device is not there, or the folder holds another training.
    LeakError
        If the network to start from learnt from somebody by whom an epoch is chosen, or who is left out of a fold.
    TrainingError
        If a loss is no finite number; the last whole epoch is kept.
    OutputError
        If a file cannot be written.
    """
    from musclekit.neural import resolve_device
    from musclekit.neural.labelled import check_classes
    from musclekit.neural.synthesis import check_leg_classes
    from musclekit.neural.training.ranks import is_first_process
    from musclekit.neural.training.segmentation import NETWORK, train_segmenter
    from musclekit.neural.training.segmenter_plan import check_segmenter_plan, read_segmenter_plan
    from musclekit.neural.training.start import Start

    started = datetime.now(UTC)
    what = read_segmenter_plan(plan)
    if start is not None:
        what = replace(what, start=start)
        check_segmenter_plan(what)
    manifest = manifest or what.cases
    if manifest is None:
        raise InputError(f'{plan}: which scans? Name their manifest with --cases, or as cases = "..." in the plan')
    # What cannot work is said before scans are opened, which takes minutes.
    resolve_device(device)
    check_folder(out, "train", {"folds": folds})
    if folds is not None and what.synthesis is not None:
        raise InputError("folds score scans, and a plan with synthesis learns from label maps: set validation_share")
    cases = open_cases(manifest, label_set_name)
    train, validation = parts_of(cases, what)
    divisions = divisions_of(train, validation, cases, what, folds)
    if what.start is not None:
        _check_left_out(divisions, cases, Start(what.start).card)
    used = [*train, *validation]
    # Scans are hashed once, for the record of the beginning and that of the end.
    record = _record(plan, manifest, cases, used, what, folds, device, started) if is_first_process() else None
    with noted_warnings() as notes:
        multiple = what.size_needs.multiple
        legs: dict[str, tuple[LegPlanes, ...]] = {}
        scans: dict[str, tuple[LabelledScan, ...]] = {}
        for case_id in used:
            if what.synthesis is None:
                scans[case_id] = _scans(cases.open(case_id), what, multiple)
            else:
                legs[case_id], scans[case_id] = _synthetic(cases, case_id, what, what.synthesis)
        notes += _remarks(cases, scans)
        for name, division in divisions.items():
            where = f"fold '{name}': the cases to train on" if name else "the cases to train on"
            if what.synthesis is None:
                check_classes(_of(scans, division.train), what.labels, where)
            else:
                check_leg_classes(_legs_of(legs, division.train), what.labels, where)
        if record is not None:
            # From the first step on the folder says what it holds: in an interrupted one nothing else is trained.
            record.write(out / "run.json")
        trained = {
            name: train_segmenter(
                what,
                _of(scans, division.train),
                fold_folder(out, name),
                validation=_of(scans, division.validation),
                legs=_legs_of(legs, division.train),
                device=device,
                threads=jobs,
                until=until,
                progress=_told(progress, n, len(divisions)),
            )
            for n, (name, division) in enumerate(divisions.items())
        }
        tables = LeftOut()
        finished = all(one.stopped_early or one.epochs_done == what.schedule.epochs for one in trained.values())
        if folds is not None and finished and is_first_process():
            tables = left_out_of_folds(divisions, cases, what, out, device)
    if record is not None:
        write_report(_report(what, divisions, scans, trained, notes, started, tables), out / "report.html")
        told = dict(record.parameters) | {"warnings": list(notes)}
        replace(record, parameters=told).write(out / "run.json")
    last = list(trained.values())[-1]
    return SegmenterOutcome(
        tuple(fold_folder(out, name) / NETWORK for name in trained),
        out / "report.html",
        last.epochs_done,
        what.schedule.epochs,
        last.best_epoch,
        None if tables.scores is None else out / SCORES,
        None if tables.calibration is None else out / CALIBRATION,
        tables.failures,
        tuple(notes),
    )


def _check_left_out(divisions: Mapping[str, Division], cases: ManifestCases, start: SegmenterCard) -> None:
    """Refuse to score somebody by a network that started from one which learnt from that person."""
    seen = {*start.training_subjects, *start.validation_subjects}
    for name, division in divisions.items():
        for case_id in division.test:
            if cases.subjects[case_id] in seen:
                raise LeakError(
                    f"fold '{name}': the network to start from ('{start.name}') learnt from subject "
                    f"'{cases.subjects[case_id]}', who is left out to be scored"
                )


def _told(progress: OnProgress | None, n: int, folds: int) -> OnProgress | None:
    """Tell how far a fold is as part of all of them."""
    if progress is None or folds == 1:
        return progress

    def told(done: float, total: float, text: str) -> None:
        progress(n * total + done, folds * total, f"fold {n + 1}/{folds}, {text}")

    return told


def _scans(case: Case, plan: SegmenterPlan, multiple: int) -> tuple[LabelledScan, ...]:
    from musclekit.neural.labelled import labelled_views

    return labelled_views(
        [case],
        plan.labels,
        plan.view,
        plan.windows,
        multiple=multiple,
        unlabelled_is_background=plan.unlabelled_is_background,
    )


def _synthetic(
    cases: ManifestCases, case_id: str, plan: SegmenterPlan, how: SliceRange
) -> tuple[tuple[LegPlanes, ...], tuple[LabelledScan, ...]]:
    """Return the legs of a label map, and slices of them that stand for it."""
    from musclekit.neural.synthesis import synthetic_scan

    subject, labels = cases.subjects[case_id], cases.open_labels(case_id)
    try:
        legs = leg_planes(labels, subject, spacing_mm=how.step_mm, side=cases.side_of(case_id))
    except InputError as problem:
        raise type(problem)(f"case '{case_id}': {problem}") from problem
    return legs, (synthetic_scan(case_id, subject, legs, plan.labels, how, plan.seed),)


def _legs_of(legs: Mapping[str, tuple[LegPlanes, ...]], ids: Sequence[str]) -> list[LegPlanes]:
    return [leg for case_id in ids for leg in legs.get(case_id, ())]


def _of(scans: Mapping[str, tuple[LabelledScan, ...]], ids: Sequence[str]) -> list[LabelledScan]:
    return [scan for case_id in ids for scan in scans[case_id]]


def _remarks(cases: ManifestCases, scans: Mapping[str, tuple[LabelledScan, ...]]) -> list[str]:
    """Say what was left out, and what of the labels has no place in the network's set."""
    lines = []
    without = [rows[0].case_id for rows in cases.rows if not cases.annotated(rows[0].case_id)]
    if without:
        lines.append(f"{len(without)} of {len(cases)} cases have no label map and are left out: {_some(without)}")
    for case_id, of_case in scans.items():
        lines += [f"case '{case_id}': {line}" for scan in of_case for line in scan.warnings]
    dropped = {case_id: of_case[0].dropped for case_id, of_case in scans.items() if of_case[0].dropped}
    for labels in dict.fromkeys(dropped.values()):
        ids = [case_id for case_id, others in dropped.items() if others == labels]
        lines.append(
            f"labels without a place in the network's set are background to it: {', '.join(labels)}; in {len(ids)} "
            f"cases: {_some(ids)}"
        )
    return lines


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")


def _report(
    plan: SegmenterPlan,
    divisions: Mapping[str, Division],
    scans: Mapping[str, tuple[LabelledScan, ...]],
    trained: Mapping[str, TrainedSegmenter],
    warnings: Sequence[str],
    started: datetime,
    tables: LeftOut,
) -> Report:
    learnt = [
        {
            "fold": name or "all",
            "cases trained on": len(division.train),
            "subjects": len({scan.subject for scan in _of(scans, division.train)}),
            "slices": sum(len(view.image) for scan in _of(scans, division.train) for view in scan.views),
            "validation cases": len(division.validation),
            "epochs": trained[name].epochs_done,
            "epoch kept": trained[name].best_epoch,
        }
        for name, division in divisions.items()
    ]
    shown = [Table("Trainings", pd.DataFrame(learnt), "What was learnt from, and which epoch's weights are kept.")]
    if tables.scores is not None:
        shown.append(
            Table(
                "Cases left out",
                summarised(tables.scores),
                "Each case segmented by the network that did not learn from it; medians over cases and legs.",
            )
        )
    if tables.uncertainty is not None:
        shown.append(Table("Uncertainty", tables.uncertainty, "PSV: mean predictive variance of a structure."))
    figures = []
    if tables.uncertainty is not None and np.isfinite(tables.uncertainty[["psv", "dice"]]).all(axis=1).any():
        figures.append(variance_against_dice(tables.uncertainty))
    for name, one in trained.items():
        for figure in loss_curves(pd.DataFrame(one.rows)):
            figures.append(replace(figure, title=f"{figure.title}, fold {name}") if name else figure)
    return Report(
        "Training of a segmenter",
        subtitle=f"{plan.network['name']}, {plan.labels.name}",
        date=started.date().isoformat(),
        tiles={"Networks": len(trained), "Epochs, at most": plan.schedule.epochs, "Warnings": len(warnings)},
        tables=shown,
        figures=figures,
        failures=tables.failures,
        warnings=warnings,
        parameters={"plan": plan.as_data(), "versions": versions()},
    )


def summarised(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the median Dice and surface distance of each structure, over whole volumes."""
    whole = scores[scores["slice"].isna() & scores["metric"].isin(["dice", "asd"])]
    table = whole.pivot_table(index="label", columns="metric", values="value", aggfunc="median", sort=False)
    return table.reset_index().rename(columns={"label": "structure"})


def _record(
    plan: Path,
    manifest: Path,
    cases: ManifestCases,
    used: Sequence[str],
    what: SegmenterPlan,
    folds: str | None,
    device: str,
    started: datetime,
) -> RunRecord:
    inputs: list[dict[str, Any]] = [
        {"name": name, "path": str(path), "sha256": file_hash(path)}
        for name, path in (("plan", plan), ("manifest", manifest))
    ]
    for rows in cases.rows:
        if rows[0].case_id in used:
            inputs += [
                {"name": row.case_id, "path": str(path), "sha256": file_hash(path)}
                for row in rows
                for path in (row.image, row.labels)
                if path is not None
            ]
    parameters = {"plan": what.as_data(), "folds": folds}
    return RunRecord("train", parameters, inputs, device, started)
