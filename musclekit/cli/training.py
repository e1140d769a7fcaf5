"""The command that trains."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from musclekit.cli.guard import guarded
from musclekit.cli.options import AsJson, Out, Quiet

__all__ = ["train"]


@guarded
def train(
    plan: Annotated[Path, typer.Argument(help="Plan (TOML): domains, networks, loss, schedule.")],
    out: Out,
    cases: Annotated[
        Path | None, typer.Option("--cases", help="Manifest of the scans to learn from, if not that of the plan.")
    ] = None,
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
    """Train a translator on unpaired scans; resumes where it was stopped. Several GPUs: see docs/train.md."""
    from musclekit.cli.output import print_training
    from musclekit.cli.progress import progress_bar
    from musclekit.neural.training.ranks import is_first_process
    from musclekit.workflows import train_on_manifest

    # Of several processes one speaks.
    speaks = is_first_process()
    with progress_bar("training", quiet=quiet or not speaks) as progress:
        outcome = train_on_manifest(plan, cases, out, device=device, until=until, jobs=jobs, progress=progress)
    if speaks:
        print_training(outcome, as_json=as_json)
