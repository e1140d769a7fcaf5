"""The commands for a study: evaluate, compare, summarise, agree, search."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from musclekit.cli.guard import SOME_FAILED, guarded
from musclekit.cli.options import AsJson, Jobs, LabelSetName, Out, Quiet, Settings, words
from musclekit.errors import ParameterError

__all__ = ["agree", "compare", "evaluate", "search", "summarise"]


class ModeChoice(StrEnum):
    """What ``--mode`` of a search takes."""

    NESTED = "nested"
    PAPER = "paper"


class TestChoice(StrEnum):
    """What ``--test`` takes."""

    WILCOXON = "wilcoxon"
    T = "t"


class CorrectionChoice(StrEnum):
    """What ``--correction`` takes."""

    HOLM = "holm"
    BONFERRONI = "bonferroni"


class LegsChoice(StrEnum):
    """What ``--legs`` takes."""

    MEAN = "mean"
    APART = "apart"


Metric = Annotated[str, typer.Option("--metric", help="dice, asd, hd95, volume_error ...")]
Label = Annotated[str | None, typer.Option("--label", help="One structure; all of them if left out.")]
Tables = Annotated[list[Path], typer.Argument(help="Score tables, or folders that hold a scores.csv.")]


@guarded
def evaluate(
    manifest: Annotated[Path, typer.Argument(help="Manifest (CSV) of cases with label maps.")],
    out: Out,
    method: Annotated[
        list[str] | None, typer.Option("--method", help="A segmenter, repeatable; see `musclekit methods`.")
    ] = None,
    plan: Annotated[Path | None, typer.Option("--plan", help="A plan (TOML) whose method is scored.")] = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Folder of label maps, <case_id>_dseg.nii.gz, to score.")
    ] = None,
    translator: Annotated[str | None, typer.Option("--translator", help="A translator to put before it.")] = None,
    settings: Settings = None,
    name: Annotated[str | None, typer.Option("--name", help="What the method is called in the table.")] = None,
    splits: Annotated[
        str,
        typer.Option(
            "--splits",
            help="none, leave-one-subject-out, manifest (its column split), or a number of folds of subjects.",
        ),
    ] = "none",
    cases: Annotated[
        Path | None, typer.Option("--cases", help="Manifest of annotated cases to fit on once, in place of --splits.")
    ] = None,
    metrics: Annotated[str | None, typer.Option("--metrics", help="Comma-separated: dice,asd,hd95 ...")] = None,
    label_set: LabelSetName = None,
    compared_in: Annotated[
        str | None, typer.Option("--compare-in", help="Label set to score in; the reference's if left out.")
    ] = None,
    keep_labels: Annotated[bool, typer.Option("--keep-labels", help="Keep the label maps, for pictures.")] = False,
    jobs: Jobs = 1,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score methods, or given label maps, over the cases of a manifest; resumes where it was stopped."""
    from musclekit.cli.output import print_evaluation
    from musclekit.cli.progress import progress_bar
    from musclekit.cli.values import parse_settings
    from musclekit.workflows import evaluate_methods, evaluate_predictions, methods_of

    wanted = None if metrics is None else words(metrics)
    if sum(bool(given) for given in (method, plan, predictions)) != 1:
        raise ParameterError("give one of --method, --plan and --predictions: what shall be scored?")
    if predictions is not None:
        if translator is not None or settings or splits != "none" or cases is not None or keep_labels:
            raise ParameterError("--predictions scores label maps as they are: no method can be set up or fitted")
        with progress_bar("scoring", quiet=quiet) as progress:
            result = evaluate_predictions(
                manifest,
                predictions,
                out,
                name=name,
                metrics=wanted,
                label_set_name=label_set,
                compared_in=compared_in,
                progress=progress,
            )
    else:
        methods = methods_of(method or [], plan, translator, parse_settings(settings or []), name)
        with progress_bar("evaluating", quiet=quiet) as progress:
            result = evaluate_methods(
                manifest,
                out,
                methods=methods,
                metrics=wanted,
                splits=splits,
                training=cases,
                jobs=jobs,
                label_set_name=label_set,
                compared_in=compared_in,
                keep_labels=keep_labels,
                progress=progress,
            )
    print_evaluation(result, as_json=as_json)
    if result.failures:
        raise typer.Exit(SOME_FAILED)


@guarded
def compare(
    scores: Tables,
    out: Out,
    metric: Metric = "dice",
    label: Label = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="Compare all others with this method; every pair if left out.")
    ] = None,
    test: Annotated[TestChoice, typer.Option("--test", help="Paired, two-sided.")] = TestChoice.WILCOXON,
    correction: Annotated[
        CorrectionChoice, typer.Option("--correction", help="For the number of tests.")
    ] = CorrectionChoice.HOLM,
    as_json: AsJson = False,
) -> None:
    """Compare methods pair by pair, by subject: difference with its interval, p, and what was left out."""
    from musclekit.cli.output import print_comparison
    from musclekit.workflows import compare_scores

    result = compare_scores(
        scores,
        out,
        metric=metric,
        label=label,
        baseline=baseline,
        test="wilcoxon" if test is TestChoice.WILCOXON else "t",
        correction="holm" if correction is CorrectionChoice.HOLM else "bonferroni",
    )
    print_comparison(result, as_json=as_json)


@guarded
def summarise(
    scores: Tables,
    out: Out,
    metric: Metric = "dice",
    label: Label = None,
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="The manifest of the cases: for --by, and for pictures of cases.")
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", help="Column that parts the cases: domain, grade, side, fold ...")
    ] = None,
    label_set: LabelSetName = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Sum up score tables: CSV, Markdown and LaTeX, box plots, Bland-Altman, best and worst cases."""
    from musclekit.cli.output import print_summary
    from musclekit.cli.progress import progress_bar
    from musclekit.workflows import summarise_scores

    with progress_bar("summing up", quiet=quiet) as progress:
        result = summarise_scores(
            scores,
            out,
            metric=metric,
            label=label,
            manifest=manifest,
            by=by,
            label_set_name=label_set,
            progress=progress,
        )
    print_summary(result, as_json=as_json)


@guarded
def agree(
    manifest: Annotated[Path, typer.Argument(help="Manifest (CSV) of cases with manual label maps.")],
    out: Out,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Folder of automatic label maps, <case_id>_dseg.nii.gz.")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="In place of them, a segmenter; see `musclekit methods`.")
    ] = None,
    translator: Annotated[str | None, typer.Option("--translator", help="A translator to put before it.")] = None,
    settings: Settings = None,
    name: Annotated[str | None, typer.Option("--name", help="What the automatic is called.")] = None,
    splits: Annotated[
        str,
        typer.Option(
            "--splits", help="For a method: none, leave-one-subject-out, manifest, or a number of folds of subjects."
        ),
    ] = "none",
    cases: Annotated[
        Path | None, typer.Option("--cases", help="Manifest of annotated cases to fit on once, in place of --splits.")
    ] = None,
    groups: Annotated[
        str, typer.Option("--groups", help="Label set to gather muscles in: functional-3, muscle, thigh-4 ...")
    ] = "functional-3",
    by: Annotated[
        str | None, typer.Option("--by", help="Column of the manifest that tells internal from external: split ...")
    ] = None,
    legs: Annotated[
        LegsChoice, typer.Option("--legs", help="One observation is a person's mean over legs, or each side apart.")
    ] = LegsChoice.MEAN,
    label_set: LabelSetName = None,
    jobs: Jobs = 1,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare automatic with manual volumes of functional groups: total, lean, fat; ICC, Bland-Altman."""
    from musclekit.cli.output import print_agreement
    from musclekit.cli.progress import progress_bar
    from musclekit.cli.values import parse_settings
    from musclekit.workflows import agree_on_volumes, methods_of

    if (predictions is None) == (method is None):
        raise ParameterError("give one of --method and --predictions: whose volumes shall be compared?")
    if predictions is not None and (translator is not None or settings or splits != "none" or cases is not None):
        raise ParameterError("--predictions takes label maps as they are: no method can be set up or fitted")
    chosen = None
    if method is not None:
        chosen = methods_of([method], None, translator, parse_settings(settings or []), name)
    with progress_bar("measuring", quiet=quiet) as progress:
        result = agree_on_volumes(
            manifest,
            out,
            predictions=predictions,
            method=chosen,
            name=name,
            splits=splits,
            training=cases,
            groups=groups,
            by=by,
            legs="mean" if legs is LegsChoice.MEAN else "apart",
            label_set_name=label_set,
            jobs=jobs,
            progress=progress,
        )
    print_agreement(result, as_json=as_json)
    if result.failures:
        raise typer.Exit(SOME_FAILED)


@guarded
def search(
    plan: Annotated[Path, typer.Argument(help="Plan (TOML): a method and the grid of its parameters.")],
    cases: Annotated[Path, typer.Option("--cases", help="Manifest of annotated cases.")],
    out: Out,
    mode: Annotated[
        ModeChoice, typer.Option("--mode", help="nested chooses without the subject scored; paper is optimistic.")
    ] = ModeChoice.NESTED,
    label_set: LabelSetName = None,
    jobs: Jobs = 1,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", help="Dask scheduler, tcp://host:port, whose workers do the work.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Search parameters by leave-one-subject-out, nested; resumes where it was stopped."""
    from musclekit.cli.output import print_search
    from musclekit.cli.progress import progress_bar
    from musclekit.workflows import search_parameters

    with progress_bar("searching", quiet=quiet) as progress:
        outcome = search_parameters(
            plan,
            cases,
            out,
            mode="nested" if mode is ModeChoice.NESTED else "paper",
            jobs=jobs,
            scheduler=scheduler,
            label_set_name=label_set,
            progress=progress,
        )
    print_search(outcome, as_json=as_json)
    if outcome.failures:
        raise typer.Exit(SOME_FAILED)
