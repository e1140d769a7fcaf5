"""The commands. Workflows are imported when a command runs: ``--help`` answers at once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from musclekit.cli import studies, training
from musclekit.cli.guard import SOME_FAILED, Debug, guarded
from musclekit.cli.options import (
    AsJson,
    Jobs,
    LabelSetName,
    Modality,
    ModalityChoice,
    Out,
    Quiet,
    Scans,
    Series,
    Settings,
    Side,
    SideChoice,
    Strict,
    words,
)

if TYPE_CHECKING:
    from musclekit.image import Contrast

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Segment and measure thigh muscle in MR and CT. Research software, not a medical device.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from musclekit import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    Debug.on = debug
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s: %(message)s")
    # Libraries that are talkative at debug level say nothing about musclekit's own work.
    for name in ("matplotlib", "PIL"):
        logging.getLogger(name).setLevel(logging.WARNING)


@app.command()
@guarded
def segment(
    scans: Scans,
    out: Out,
    method: Annotated[str, typer.Option("--method", help="A segmenter; see `musclekit methods`.")] = "thigh",
    translator: Annotated[
        str | None, typer.Option("--translator", help="A translator to put before it; see `musclekit methods`.")
    ] = None,
    settings: Settings = None,
    modality: Modality = ModalityChoice.AUTO,
    series: Series = None,
    side: Side = None,
    cases: Annotated[
        Path | None, typer.Option("--cases", help="Manifest of annotated cases, for a method that learns from them.")
    ] = None,
    cases_label_set: Annotated[
        str | None,
        typer.Option(
            "--cases-label-set",
            help="What the ids of the label maps of --cases mean; read from the label tables beside them if left out.",
        ),
    ] = None,
    label_set: Annotated[
        str | None,
        typer.Option(
            "--label-set", help="To write labels in: muscle, functional-3, thigh-4, huashan-11 ...; else the method's."
        ),
    ] = None,
    strict: Strict = False,
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", help="calibration.json of `train --folds`: tells the Dice to expect."),
    ] = None,
    jobs: Jobs = 1,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Segment scans: label maps, tables, pictures and one report."""
    from musclekit.cli.output import print_batch
    from musclekit.cli.progress import progress_bar
    from musclekit.cli.values import parse_settings
    from musclekit.workflows import compose_method, segment_scans

    description = compose_method(method, translator, parse_settings(settings or []))
    with progress_bar("segmenting", quiet=quiet) as progress:
        batch = segment_scans(
            scans,
            out,
            method=description,
            contrast=_contrast(modality),
            series=series,
            side=_side(side),
            cases=cases,
            cases_label_set=cases_label_set,
            label_set_name=label_set,
            strict=strict,
            calibration=calibration,
            jobs=jobs,
            progress=progress,
        )
    print_batch(batch, as_json=as_json)
    if batch.failed:
        raise typer.Exit(SOME_FAILED)


@app.command()
@guarded
def translate(
    scans: Scans,
    out: Out,
    method: Annotated[str, typer.Option("--method", help="A translator; see `musclekit methods`.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, repeatable; checkpoint=FILE for a trained network.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Where a trained network runs: cpu, cuda, cuda:1, mps.")
    ] = None,
    modality: Modality = ModalityChoice.AUTO,
    series: Series = None,
    strict: Strict = False,
    jobs: Jobs = 1,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Translate scans: images on their own grids, and the checks of what was changed."""
    from musclekit.cli.output import print_batch
    from musclekit.cli.progress import progress_bar
    from musclekit.cli.values import parse_settings
    from musclekit.workflows import compose_translator, translate_scans

    description = compose_translator(method, parse_settings(settings or []), device)
    with progress_bar("translating", quiet=quiet) as progress:
        batch = translate_scans(
            scans,
            out,
            method=description,
            contrast=_contrast(modality),
            series=series,
            strict=strict,
            jobs=jobs,
            progress=progress,
        )
    print_batch(batch, as_json=as_json)
    if batch.failed:
        raise typer.Exit(SOME_FAILED)


@app.command()
@guarded
def measure(
    scan: Annotated[Path, typer.Argument(help="The scan that the labels belong to.")],
    labels: Annotated[Path, typer.Argument(help="The label map, on the scan's grid.")],
    out: Out,
    label_set: LabelSetName = None,
    fat: Annotated[Path | None, typer.Option("--fat", help="Dixon fat image, for the fat fraction.")] = None,
    water: Annotated[Path | None, typer.Option("--water", help="Dixon water image, for the fat fraction.")] = None,
    modality: Modality = ModalityChoice.AUTO,
    series: Series = None,
    side: Side = None,
    as_json: AsJson = False,
) -> None:
    """Measure a label map: volumes, areas, HU classes, fat fraction, asymmetry, coverage."""
    from musclekit.cli.output import print_batch
    from musclekit.workflows import measure_scan

    batch = measure_scan(
        scan,
        labels,
        out,
        label_set_name=label_set,
        fat=fat,
        water=water,
        contrast=_contrast(modality),
        series=series,
        side=_side(side),
    )
    print_batch(batch, as_json=as_json)


app.command()(studies.evaluate)
app.command()(studies.compare)
app.command()(studies.summarise)
app.command()(studies.agree)
app.command()(studies.search)
app.command()(training.train)
app.command()(training.adapt)


@app.command()
@guarded
def demo(
    out: Out = Path("demo"),
    subjects: Annotated[int, typer.Option("--subjects", min=1, help="Phantom subjects a grade.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the phantoms.")] = 1,
    quiet: Quiet = False,
) -> None:
    """Show what musclekit does without any data: phantoms, methods with and without translation, scores, report."""
    from musclekit.cli.output import print_scores
    from musclekit.cli.progress import progress_bar
    from musclekit.workflows import run_demo

    with progress_bar("demo", quiet=quiet) as progress:
        result = run_demo(out, subjects=subjects, seed=seed, progress=progress)
    print_scores(result.scores)
    typer.echo(f"scores: {result.scores_path}")
    typer.echo(f"report: {result.report_path}")


@app.command()
@guarded
def phantom(
    out: Out,
    subjects: Annotated[int, typer.Option("--subjects", min=1, help="How many people.")] = 4,
    modality: Annotated[str, typer.Option("--modality", help="Any of mr, ct, dixon; comma-separated.")] = "mr",
    grade: Annotated[
        str, typer.Option("--grade", help="Any of healthy, minor, moderate, severe; comma-separated, dealt in turn.")
    ] = "healthy,severe",
    slices: Annotated[int, typer.Option("--slices", min=1, help="Slices of each volume.")] = 20,
    size: Annotated[int, typer.Option("--size", min=16, help="Rows and columns of each slice.")] = 256,
    leg: Annotated[
        str, typer.Option("--leg", help="both, left, right, or alternate: left and right in turn.")
    ] = "both",
    label_set: Annotated[
        str | None,
        typer.Option(
            "--label-set", help="Of the label maps: muscle, tissue, thigh-11 ...; all structures if left out."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same cohort.")] = 0,
    prefix: Annotated[
        str, typer.Option("--prefix", help="What names begin with; give people that a network learns from another one.")
    ] = "sub",
    quiet: Quiet = False,
) -> None:
    """Write a synthetic cohort with exact truth and a manifest."""
    from musclekit.cli.progress import progress_bar
    from musclekit.workflows import write_phantoms

    with progress_bar("phantoms", quiet=quiet) as progress:
        manifest = write_phantoms(
            out,
            subjects=subjects,
            modalities=words(modality),
            grades=words(grade),
            slices=slices,
            size=size,
            leg=leg,
            reference=label_set,
            seed=seed,
            prefix=prefix,
            progress=progress,
        )
    typer.echo(f"manifest: {manifest}")


@app.command()
@guarded
def methods(
    name: Annotated[str | None, typer.Argument(help="One method, to see its parameters.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the methods and the weights that ship, or the parameters of one method, or the card of weights."""
    from musclekit.cli.output import print_card, print_method, print_methods
    from musclekit.weights import shipped

    if name is None:
        print_methods(as_json=as_json)
    elif name in shipped():
        print_card(shipped()[name], as_json=as_json)
    else:
        print_method(name, as_json=as_json)


@app.command()
@guarded
def info(as_json: AsJson = False) -> None:
    """Show versions, devices and what is installed."""
    from musclekit.cli.output import print_info
    from musclekit.workflows import collect_info

    print_info(collect_info(), as_json=as_json)


@app.command()
@guarded
def validate(
    file: Annotated[Path, typer.Argument(help="A manifest or score table (CSV), a plan (TOML) or a report (JSON).")],
    as_json: AsJson = False,
) -> None:
    """Check a manifest, a score table, a plan or a report against its schema, and everything it names."""
    from musclekit.cli.output import print_pairs
    from musclekit.workflows import validate_file

    print_pairs(validate_file(file), as_json=as_json)


def _contrast(choice: ModalityChoice) -> Contrast | None:
    from musclekit.image import Contrast

    return None if choice is ModalityChoice.AUTO else Contrast(choice.value)


def _side(choice: SideChoice | None) -> Literal["left", "right"] | None:
    return None if choice is None else ("left" if choice is SideChoice.LEFT else "right")
