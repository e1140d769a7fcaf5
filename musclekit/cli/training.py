"""The commands that train."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from musclekit.cli.guard import SOME_FAILED, guarded
from musclekit.cli.options import AsJson, LabelSetName, Out, Quiet
from musclekit.errors import ParameterError

__all__ = ["adapt", "train"]


class StageChoice(StrEnum):
    """What ``--stage`` takes."""

    IMAGES = "images"
    JOINT = "joint"
    JUDGE = "judge"
    TUNE = "tune"


@guarded
def train(
    plan: Annotated[Path, typer.Argument(help="Plan (TOML) of a translator or a segmenter.")],
    out: Out,
    cases: Annotated[
        Path | None, typer.Option("--cases", help="Manifest of the scans to learn from, if not that of the plan.")
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(
            "--folds",
            help="A number of folds of subjects, or leave-one-out: a segmenter for each, and scores of those left out.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            help="Checkpoint of a segmenter whose weights to start from: a file, or the name of weights that ship.",
        ),
    ] = None,
    label_set: LabelSetName = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, mps; see `musclekit info`.")] = "cpu",
    until: Annotated[
        int | None, typer.Option("--until", min=1, help="Epoch to stop after for now; the same command goes on.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Processors to work with; all of them if left out.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a segmenter on labelled scans, or a translator on unpaired ones; resumes where it was stopped.

    Several GPUs: see docs/train.md.
    """
    from musclekit.cli.output import print_segmenter_training, print_training
    from musclekit.cli.progress import progress_bar
    from musclekit.io import read_toml
    from musclekit.neural.training.ranks import is_first_process
    from musclekit.workflows import train_on_manifest, train_segmenter_on_manifest

    # Of several processes one speaks.
    speaks = is_first_process()
    segments = read_toml(plan).get("task") == "segment"
    if not segments and (folds is not None or start is not None or label_set is not None):
        raise ParameterError(
            "--folds, --start and --label-set are for segmenters; a translator learns from unlabelled scans"
        )
    with progress_bar("training", quiet=quiet or not speaks) as progress:
        if segments:
            trained = train_segmenter_on_manifest(
                plan,
                cases,
                out,
                label_set_name=label_set,
                folds=folds,
                start=start,
                device=device,
                until=until,
                jobs=jobs,
                progress=progress,
            )
        else:
            outcome = train_on_manifest(plan, cases, out, device=device, until=until, jobs=jobs, progress=progress)
    if speaks and segments:
        print_segmenter_training(trained, as_json=as_json)
        if trained.failures:
            raise typer.Exit(SOME_FAILED)
    elif speaks:
        print_training(outcome, as_json=as_json)


@guarded
def adapt(
    plan: Annotated[Path, typer.Argument(help="Plan (TOML): which labelled scans, which scans to adapt to, how.")],
    out: Out,
    cases: Annotated[
        Path | None, typer.Option("--cases", help="Manifest of the scans, if not that of the plan.")
    ] = None,
    stage: Annotated[
        StageChoice | None,
        typer.Option("--stage", help="The only stage to run; all that are not done, one after the other, if left out."),
    ] = None,
    label_set: LabelSetName = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, mps; see `musclekit info`.")] = "cpu",
    until: Annotated[
        int | None, typer.Option("--until", min=1, help="Epoch to stop after for now; the same command goes on.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Processors to work with; all of them if left out.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """From labelled MR and unlabelled CT to a CT segmenter, stage by stage; resumes where it was stopped."""
    from musclekit.cli.output import print_adaptation
    from musclekit.cli.progress import progress_bar
    from musclekit.workflows import adapt_segmenter

    with progress_bar("adapting", quiet=quiet) as progress:
        outcome = adapt_segmenter(
            plan,
            cases,
            out,
            label_set_name=label_set,
            stage=None if stage is None else stage.value,
            device=device,
            jobs=jobs,
            until=until,
            progress=progress,
        )
    print_adaptation(outcome, as_json=as_json)
