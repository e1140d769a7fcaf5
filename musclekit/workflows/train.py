"""Train a translator on the scans of a manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from musclekit.errors import InputError, SegmentationError
from musclekit.image import Case
from musclekit.io import ManifestRow, group_rows, load_case, read_manifest
from musclekit.report import Report, Table, loss_curves, plain, write_report
from musclekit.segmenters.tissue import TissueSegmenter
from musclekit.translators.domains import compare_domains
from musclekit.workflows.outcome import OnProgress
from musclekit.workflows.record import RunRecord, check_folder, file_hash, versions, write_json
from musclekit.workflows.segment import noted_warnings

if TYPE_CHECKING:
    from musclekit.neural.slices import DomainSlices
    from musclekit.neural.training.plan import DomainPlan, TrainPlan
    from musclekit.neural.training.translation import Trained

__all__ = ["TrainOutcome", "train_on_manifest"]

#: Where stands how the domains differ.
DIFFERENCE = "domains.json"


@dataclass(frozen=True)
class TrainOutcome:
    """What a training gave.

    Parameters
    ----------
    forward, backward : Path
        Checkpoints of the translators there and back.
    losses : Path
        Table of the losses, one line an epoch.
    report : Path
        The HTML report.
    epochs_done, epochs : int
        Of those in the plan.
    warnings : tuple of str
        How the domains differ, which slices were left out, signs that the training went wrong.
    """

    forward: Path
    backward: Path
    losses: Path
    report: Path
    epochs_done: int
    epochs: int
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "forward": str(self.forward),
            "backward": str(self.backward),
            "losses": str(self.losses),
            "report": str(self.report),
            "epochs done": self.epochs_done,
            "epochs": self.epochs,
            "warnings": list(self.warnings),
        }


def train_on_manifest(
    plan: Path,
    manifest: Path | None,
    out: Path,
    *,
    device: str = "cpu",
    jobs: int | None = None,
    until: int | None = None,
    progress: OnProgress | None = None,
) -> TrainOutcome:
    """Train a translator, and the way back, on the scans of a manifest.

    Parameters
    ----------
    plan : Path
        TOML: domains, networks, loss, schedule.
    manifest : Path, optional
        CSV of the scans, that of the plan if left out; its column ``domain`` says which belong where, if the plan
        names grades.
    out : Path
        Folder to write to. A training of the same plan and scans that stopped there is gone on with; a folder of
        another one is refused.
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
    TrainOutcome
        Written beside what `musclekit.neural.training.translation.train_translator` writes: ``report.html``,
        ``report.json``, ``domains.json`` and ``run.json``.

    Raises
    ------
    InputError
        If plan, manifest or a scan cannot be used, a domain is empty or shows one person only, the device is not there,
        or the folder holds another training.
    TrainingError
        If a loss is no finite number; the last whole epoch is kept.
    OutputError
        If a file cannot be written.
    """
    from musclekit.neural import resolve_device
    from musclekit.neural.training.log import check_tensorboard
    from musclekit.neural.training.plan import read_train_plan
    from musclekit.neural.training.ranks import is_first_process
    from musclekit.neural.training.translation import BACKWARD, FORWARD, LOSSES, STATE, train_translator

    started = datetime.now(UTC)
    what = read_train_plan(plan)
    manifest = manifest or what.cases
    if manifest is None:
        raise InputError(f'{plan}: which scans? Name their manifest with --cases, or as cases = "..." in the plan')
    # What cannot work is said before scans are opened, which takes minutes.
    resolve_device(device)
    if what.tensorboard:
        check_tensorboard()
    check_folder(out, "train", {})
    chosen = _chosen(manifest, what)
    with noted_warnings() as notes:
        source, target = (_slices(cases, what, name) for cases, name in zip(chosen, ("source", "target"), strict=True))
        compared: list[str] = []
        if is_first_process():
            compared = _compared(chosen, what, out / DIFFERENCE, known=(out / STATE).exists())
        trained = train_translator(
            what, source, target, out, device=device, threads=jobs, until=until, progress=progress
        )
    left_out = [f"{name}: {line}" for name, of in (("source", source), ("target", target)) for line in of.warnings()]
    warnings = (*compared, *left_out, *notes, *trained.warnings)
    if is_first_process():
        write_report(_report(what, source, target, trained, warnings, started), out / "report.html")
        _record(plan, manifest, chosen, what, device, warnings, started).write(out / "run.json")
    return TrainOutcome(
        out / FORWARD,
        out / BACKWARD,
        out / LOSSES,
        out / "report.html",
        trained.epochs_done,
        what.schedule.epochs,
        warnings,
    )


@dataclass(frozen=True)
class _Cases:
    """Cases of one domain, opened one at a time, as often as they are asked for."""

    rows: tuple[tuple[ManifestRow, ...], ...]

    def __iter__(self) -> Iterator[Case]:
        # Label maps have no part in it: a translator learns from grey values alone.
        return (load_case(rows) for rows in self.rows)


def _chosen(manifest: Path, plan: TrainPlan) -> tuple[_Cases, _Cases]:
    """Return the cases of source and target."""
    rows = group_rows(read_manifest(manifest))
    splits = sorted({case[0].split for case in rows if case[0].split is not None})
    if plan.split is None and len(splits) > 1:
        raise InputError(
            f"{manifest}: its column split parts the subjects ({', '.join(splits)}); say in the plan which are trained "
            f'on, as split = "{splits[-1]}"'
        )
    trained_on = [case for case in rows if plan.split is None or case[0].split == plan.split]
    if not trained_on:
        raise InputError(f"{manifest}: no case is in split '{plan.split}'; there are: {', '.join(splits) or 'none'}")
    source, target = (
        _Cases(tuple(case for case in trained_on if _belongs(case, side))) for side in (plan.source, plan.target)
    )
    names = [{case[0].case_id for case in cases.rows} for cases in (source, target)]
    if plan.source.contrast is plan.target.contrast and (shared := sorted(names[0] & names[1])):
        raise InputError(
            f"{manifest}: case '{shared[0]}' is in the source and in the target: give each domain a name, or grades, "
            "that the other has not"
        )
    for name, side, cases in (("source", plan.source, source), ("target", plan.target, target)):
        if not cases.rows:
            raise InputError(f"{manifest}: the {name} domain is empty: {_sought(side, trained_on)}")
    return source, target


def _belongs(case: Sequence[ManifestRow], side: DomainPlan) -> bool:
    # An image of unknown contrast is opened: if it is another one, that is said then.
    if not any(row.modality in (None, side.contrast) for row in case):
        return False
    if side.grades:
        return case[0].extra.get("grade") in side.grades
    return side.name is None or case[0].domain == side.name


def _sought(side: DomainPlan, rows: Sequence[Sequence[ManifestRow]]) -> str:
    """Say what was looked for, and what there is instead."""
    column, wanted = ("grade", side.grades) if side.grades else ("domain", (side.name,) if side.name else ())
    of_contrast = [case for case in rows if any(row.modality in (None, side.contrast) for row in case)]
    if not of_contrast:
        there = sorted({str(row.modality) for case in rows for row in case})
        return f"no image has modality {side.contrast}; there are: {', '.join(there)}"
    found = {case[0].extra.get("grade") if side.grades else case[0].domain for case in of_contrast}
    there = sorted(value for value in found if value)
    return (
        f"no {side.contrast} image has {' or '.join(map(str, wanted))} in the column {column}; there are: "
        f"{', '.join(there) or 'none'}"
    )


def _slices(cases: _Cases, plan: TrainPlan, name: str) -> DomainSlices:
    from musclekit.neural.slices import domain_slices

    side = plan.source if name == "source" else plan.target
    return domain_slices(
        cases,
        side.scaling,
        plan.slices,
        name=name,
        per_leg=plan.per_leg,
        contrast=side.contrast,
        allow_single_subject=plan.allow_single_subject,
    )


def _compared(chosen: tuple[_Cases, _Cases], plan: TrainPlan, path: Path, *, known: bool) -> list[str]:
    """Return what is to be said of the difference between the domains; a training that is gone on with knows it."""
    if known and path.is_file():
        return [str(line) for line in json.loads(path.read_text(encoding="utf-8"))["warnings"]]
    try:
        found = compare_domains(
            *chosen, TissueSegmenter(), source_contrast=plan.source.contrast, target_contrast=plan.target.contrast
        )
    except (InputError, SegmentationError) as problem:
        differences, warnings = [], [f"the compartments of the domains could not be compared: {problem}"]
    else:
        differences, warnings = [vars(one) for one in found.differences], list(found.warnings())
    write_json(plain({"differences": differences, "warnings": warnings}), path)
    return warnings


def _report(
    plan: TrainPlan,
    source: DomainSlices,
    target: DomainSlices,
    trained: Trained,
    warnings: Sequence[str],
    started: datetime,
) -> Report:
    domains = [
        {"domain": name, "what": str(side), "subjects": len(set(of.subjects)), "slices": len(of.slices)}
        for name, side, of in (("source", plan.source, source), ("target", plan.target, target))
    ]
    losses = pd.DataFrame(trained.rows)
    return Report(
        "Training of a translator",
        subtitle=f"{plan.source} to {plan.target}, and back",
        date=started.date().isoformat(),
        tiles={"Epochs": trained.epochs_done, "of": plan.schedule.epochs, "Warnings": len(warnings)},
        tables=[
            Table("Domains", pd.DataFrame(domains), "What was learnt from."),
            Table("Losses", losses, "Means over each epoch; the same numbers, with every digit, as losses.csv."),
        ],
        figures=loss_curves(losses),
        warnings=warnings,
        parameters={"plan": plan.as_data(), "versions": versions()},
    )


def _record(
    plan: Path,
    manifest: Path,
    chosen: tuple[_Cases, _Cases],
    what: TrainPlan,
    device: str,
    warnings: Sequence[str],
    started: datetime,
) -> RunRecord:
    inputs: list[dict[str, Any]] = [
        {"name": name, "path": str(path), "sha256": file_hash(path)}
        for name, path in (("plan", plan), ("manifest", manifest))
    ]
    for domain, cases in zip(("source", "target"), chosen, strict=True):
        for case in cases.rows:
            inputs += [
                {"name": row.case_id, "domain": domain, "path": str(row.image), "sha256": file_hash(row.image)}
                for row in case
                if row.image is not None
            ]
    return RunRecord("train", {"plan": what.as_data(), "warnings": list(warnings)}, inputs, device, started)
