"""From labelled scans of one modality to a segmenter of another, stage by stage; what is done is not done again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from musclekit.errors import InputError, ParameterError
from musclekit.io import replacing
from musclekit.report import write_report
from musclekit.workflows.adapt_report import adaptation_report, images_sheet, judged_sheet, stage_notes, stage_states
from musclekit.workflows.adapt_stages import (
    STAGES,
    Parts,
    Run,
    Stage,
    check_beginning,
    judge_target,
    learn_translation,
    parts_of,
    prepare_images,
    start_of,
    tune_segmenter,
)
from musclekit.workflows.cases import ManifestCases, open_cases
from musclekit.workflows.outcome import OnProgress
from musclekit.workflows.record import RunRecord, check_folder, file_hash
from musclekit.workflows.segment import noted_warnings

__all__ = ["AdaptOutcome", "adapt_segmenter"]


@dataclass(frozen=True)
class AdaptOutcome:
    """What an adaptation gave.

    Parameters
    ----------
    folder : Path
        Of the run.
    segmenter : Path, optional
        The last checkpoint there is: of stage 2, or of stage 1.
    report : Path
        The HTML report.
    stages : dict of str to str
        How far each stage is.
    warnings : tuple of str
        What a reader has to know.
    """

    folder: Path
    segmenter: Path | None
    report: Path
    stages: dict[str, str]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "folder": str(self.folder),
            "segmenter": None if self.segmenter is None else str(self.segmenter),
            "report": str(self.report),
            "stages": dict(self.stages),
            "warnings": list(self.warnings),
        }


def adapt_segmenter(
    plan: Path,
    manifest: Path | None,
    out: Path,
    *,
    label_set_name: str | None = None,
    stage: Stage | None = None,
    device: str = "cpu",
    jobs: int | None = None,
    until: int | None = None,
    progress: OnProgress | None = None,
) -> AdaptOutcome:
    """Adapt a segmenter to another modality (Yang et al., single slice thigh CT muscle group segmentation).

    Parameters
    ----------
    plan : Path
        TOML: which scans, networks, losses, schedules.
    manifest : Path, optional
        CSV of the scans, that of the plan if left out. Its free columns ``margin_mm`` (labels of the case end so far
        inside their muscle) and ``slices`` (only these are meant) are taken into account.
    out : Path
        Folder to write to. A run of the same plan and scans is gone on with; another one is refused.
    label_set_name : str, optional
        What the ids of the label maps mean, if the manifest does not say so.
    stage : {"images", "joint", "judge", "tune"}, optional
        The only one to run; those before it must be done. All of them if left out.
    device : str
        Where networks compute.
    jobs : int, optional
        Processors to work with; all of them if left out.
    until : int, optional
        Epoch of a stage that learns after which to stop for now.
    progress : callable, optional
        Called with (done, all of it, what is being done).

    Returns
    -------
    AdaptOutcome
        Written are ``images/`` (arrays, tables and a sheet of what is learnt from), ``joint/`` (stage 1: segmenter and
        translators), ``judged/`` (``ranking.csv``, labels of easy images, sheets), ``tuned/`` (stage 2: the segmenter),
        ``report.html`` and ``run.json``.

    Raises
    ------
    InputError
        If plan, manifest or a scan cannot be used, a stage before the one asked for is not done, or the folder holds
        another run.
    LeakError
        If somebody who is learnt from, or whom the segmenter to start from learnt from, stands in the validation.
    TrainingError
        If a loss is no finite number; the last whole epoch is kept.
    OutputError
        If a file cannot be written.
    """
    from musclekit.neural import resolve_device
    from musclekit.neural.adaptation.plan import read_adapt_plan

    started = datetime.now(UTC)
    if stage is not None and stage not in STAGES:
        raise ParameterError(f"a stage is one of {', '.join(STAGES)}, not '{stage}'")
    what = read_adapt_plan(plan)
    manifest = manifest or what.cases
    if manifest is None:
        raise InputError(f'{plan}: which scans? Name their manifest with --cases, or as cases = "..." in the plan')
    resolve_device(device)
    check_folder(out, "adapt", {})
    cases = open_cases(manifest, label_set_name)
    parts = parts_of(cases, what)
    run = Run(what, out, device, jobs, until, progress)
    check_beginning(run, cases, parts)
    with noted_warnings() as notes:
        for name in (stage,) if stage is not None else STAGES:
            _do(run, name, cases, parts)
            if not run.is_done(name):
                break
    warnings = (*stage_notes(run), *notes)
    write_report(adaptation_report(run, warnings, started), out / "report.html")
    _record(plan, manifest, cases, parts, run, warnings, started).write(out / "run.json")
    return AdaptOutcome(out, _segmenter(run), out / "report.html", stage_states(run), warnings)


def _do(run: Run, stage: Stage, cases: ManifestCases, parts: Parts) -> None:
    """Do a stage, as far as it is not done, and draw what it gave."""
    if stage == "images":
        prepare_images(run, cases, parts)
        for name in ("source", "target"):
            _draw(run.folder(stage) / f"{name}.png", images_sheet(run, name))
    elif stage == "joint":
        learn_translation(run)
    elif stage == "judge":
        judge_target(run)
        _draw(run.folder(stage) / "judged.png", judged_sheet(run))
    else:
        tune_segmenter(run)


def _draw(path: Path, png: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(png)


def _segmenter(run: Run) -> Path | None:
    """Return the last checkpoint of a segmenter that there is."""
    tuned = run.folder("tune") / "segmenter.pt"
    found = [path for path in (tuned, start_of(run)) if path.is_file()]
    return found[0] if found else None


def _record(
    plan: Path,
    manifest: Path,
    cases: ManifestCases,
    parts: Parts,
    run: Run,
    warnings: Sequence[str],
    started: datetime,
) -> RunRecord:
    inputs: list[dict[str, Any]] = [
        {"name": name, "path": str(path), "sha256": file_hash(path)}
        for name, path in (("plan", plan), ("manifest", manifest))
    ]
    part_of = {case_id: part for part in ("source", "target", "validation") for case_id in getattr(parts, part)}
    for rows in cases.rows:
        for row in rows:
            if row.case_id in part_of and row.image is not None:
                inputs.append(
                    {
                        "name": row.case_id,
                        "part": part_of[row.case_id],
                        "path": str(row.image),
                        "sha256": file_hash(row.image),
                    }
                )
    told = {"plan": run.plan.as_data(), "warnings": list(warnings)}
    return RunRecord("adapt", told, inputs, run.device, started)
