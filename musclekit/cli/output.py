"""What the commands print: results on stdout, messages and progress on stderr."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from musclekit import registry
from musclekit.weights import ShippedWeights, shipped

if TYPE_CHECKING:
    import pandas as pd

    from musclekit.report import Failure
    from musclekit.workflows import (
        AdaptOutcome,
        AgreementResult,
        BatchOutcome,
        ComparisonResult,
        EvaluationResult,
        SearchOutcome,
        SegmenterOutcome,
        SummaryResult,
        TrainOutcome,
    )

__all__ = [
    "print_agreement",
    "print_batch",
    "print_comparison",
    "print_evaluation",
    "print_info",
    "print_method",
    "print_methods",
    "print_pairs",
    "print_scores",
    "print_search",
    "print_summary",
]


def _print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


#: How wide a table may be where nobody says: in a file or a pipe.
PIPE_WIDTH = 200


def _show(table: Table) -> None:
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    console.print(table)


def print_batch(batch: BatchOutcome, *, as_json: bool) -> None:
    """Print what became of each scan, and where the report lies."""
    # One line a message, however long, and names as they are: no wrapping, no markup.
    for warning in batch.warnings:
        typer.echo(f"{typer.style('warning', fg='yellow')} {warning}", err=True)
    for scan in batch.scans:
        for warning in scan.warnings:
            typer.echo(f"{typer.style('warning', fg='yellow')} {scan.name}: {warning}", err=True)
        if scan.status == "failed":
            typer.echo(f"{typer.style('failed', fg='red')} {scan.name}: {scan.message}", err=True)
    if as_json:
        _print_json(batch.as_dict())
        return
    for scan in batch.scans:
        if scan.folder is not None:
            typer.echo(f"{scan.name}: {scan.folder}")
    typer.echo(f"report: {batch.report}")


def print_scores(scores: pd.DataFrame) -> None:
    """Print the median Dice of each method in each group."""
    dice = scores[(scores["metric"] == "dice") & (scores["slice"].isna())]
    table = Table("method", "group", "label", "n", "median Dice", title="agreement with the exact truth")
    for (method, group, label), rows in dice.groupby(["method", "group", "label"], sort=False):
        table.add_row(str(method), str(group), str(label), str(len(rows)), f"{rows['value'].median():.3f}")
    _show(table)


def print_evaluation(result: EvaluationResult, *, as_json: bool) -> None:
    """Print the median of every metric, what failed, and where the files lie."""
    _print_notes(result.warnings, result.failures)
    if as_json:
        _print_json(
            {
                "scores": str(result.scores_path),
                "report": str(result.report_path),
                "warnings": list(result.warnings),
                "failures": [{"name": item.name, "message": item.message} for item in result.failures],
                "summary": _records(result.summary),
            }
        )
        return
    _show_summary(result.summary)
    typer.echo(f"scores: {result.scores_path}")
    typer.echo(f"report: {result.report_path}")


def print_comparison(result: ComparisonResult, *, as_json: bool) -> None:
    """Print the difference of each pair of methods, with its interval and p."""
    _print_notes(result.warnings, ())
    if as_json:
        _print_json({"table": str(result.table_path), "report": str(result.report_path),
                     "comparison": _records(result.table)})  # fmt: skip
        return
    table = Table("structure", "method", "baseline", "n", "difference", "interval", "p", "p corrected", "left out")
    for row in result.table.to_dict("records"):
        lost = [f"{row[why]} {why}" for why in ("failed", "unpaired", "undefined", "infinite") if row[why]]
        interval = f"{row['low']:+.3g} to {row['high']:+.3g}"
        numbers = (f"{row['difference']:+.3g}", interval, f"{row['p']:.3g}", f"{row['p_corrected']:.3g}")
        cells = (row["label"], row["method"], row["baseline"], row["n"], *numbers, ", ".join(lost))
        table.add_row(*(escape(str(cell)) for cell in cells))
    _show(table)
    typer.echo(f"table: {result.table_path}")
    typer.echo(f"report: {result.report_path}")


def print_agreement(result: AgreementResult, *, as_json: bool) -> None:
    """Print ICC, bias and limits of agreement of each group and volume, what failed, and where the files lie."""
    _print_notes(result.warnings, result.failures)
    if as_json:
        _print_json(
            {
                "folder": str(result.folder),
                "report": str(result.report_path),
                "warnings": list(result.warnings),
                "failures": [{"name": item.name, "message": item.message} for item in result.failures],
                "agreement": _records(result.agreement),
                "overlap": _records(result.overlap),
            }
        )
        return
    table = Table(
        "set", "group", "side", "volume", "persons", "ICC(2,1)", "ICC(3,1)", "bias, mL", "limits, mL", "left out"
    )
    for row in result.agreement.to_dict("records"):
        limits = "-" if row["lower_ml"] != row["lower_ml"] else f"{row['lower_ml']:+.4g} to {row['upper_ml']:+.4g}"
        iccs = ("-" if row[name] != row[name] else f"{row[name]:.3f}" for name in ("icc_2_1", "icc_3_1"))
        numbers = (*iccs, "-" if row["bias_ml"] != row["bias_ml"] else f"{row['bias_ml']:+.4g}", limits)
        about = (row["set"], row["group"], row["side"], row["quantity"].removesuffix("_ml"), row["subjects"])
        table.add_row(*(escape(str(cell)) for cell in (*about, *numbers, row["left_out"])))
    _show(table)
    typer.echo(f"volumes: {result.folder / 'volumes.csv'}")
    typer.echo(f"agreement: {result.folder / 'agreement.csv'}")
    typer.echo(f"report: {result.report_path}")


def print_summary(result: SummaryResult, *, as_json: bool) -> None:
    """Print the table of the metric asked for."""
    _print_notes(result.warnings, ())
    if as_json:
        _print_json({"report": str(result.report), "summary": _records(result.summary)})
        return
    _show_frame(result.table)
    typer.echo(f"report: {result.report}")


def print_search(outcome: SearchOutcome, *, as_json: bool) -> None:
    """Print the chosen parameters of each fold, the scores, and where the report lies."""
    from musclekit.report import summary_table

    _print_notes(outcome.warnings, outcome.failures)
    if as_json:
        _print_json({**outcome.result.summary, "report": str(outcome.report)})
        return
    _show_frame(outcome.result.folds)
    scores = outcome.result.scores
    _show_summary(summary_table(scores[scores["metric"].isin([outcome.result.summary["metric"], ""])]))
    typer.echo(f"scores: {outcome.result.folder / 'scores.csv'}")
    typer.echo(f"report: {outcome.report}")


def print_training(outcome: TrainOutcome, *, as_json: bool) -> None:
    """Print how far a training is, and where its translators lie."""
    _print_notes(outcome.warnings, ())
    if as_json:
        _print_json(outcome.as_dict())
        return
    typer.echo(f"epochs: {outcome.epochs_done} of {outcome.epochs}")
    typer.echo(f"there: {outcome.forward}")
    typer.echo(f"back: {outcome.backward}")
    typer.echo(f"losses: {outcome.losses}")
    typer.echo(f"report: {outcome.report}")


def print_segmenter_training(outcome: SegmenterOutcome, *, as_json: bool) -> None:
    """Print how far the training of a segmenter is, and where its checkpoints lie."""
    _print_notes(outcome.warnings, outcome.failures)
    if as_json:
        _print_json(outcome.as_dict())
        return
    typer.echo(f"epochs: {outcome.epochs_done} of {outcome.epochs}, kept: {outcome.best_epoch}")
    for path in outcome.networks:
        typer.echo(f"network: {path}")
    for name, file in (("scores", outcome.scores), ("calibration", outcome.calibration)):
        if file is not None:
            typer.echo(f"{name}: {file}")
    typer.echo(f"report: {outcome.report}")


def _print_notes(warnings: Sequence[str], failures: Sequence[Failure]) -> None:
    for warning in warnings:
        typer.echo(f"{typer.style('warning', fg='yellow')} {warning}", err=True)
    for failure in failures:
        typer.echo(f"{typer.style('failed', fg='red')} {failure.name}: {failure.message}", err=True)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain data; what is no number is null, what is infinite a text."""
    from musclekit.report import plain

    return [dict(zip(map(str, frame.columns), map(plain, row), strict=True)) for row in frame.itertuples(index=False)]


def _show_summary(summary: pd.DataFrame) -> None:
    table = Table("method", "structure", "metric", "median", "quartiles", "n", "not in n")
    for row in summary.to_dict("records"):
        lost = [f"{row[why]} {why}" for why in ("undefined", "infinite", "failed") if row[why]]
        unit = f" {row['unit']}" if row["unit"] else ""
        median = f"{row['median']:.3f}{unit}" if row["n"] else "-"
        quartiles = f"{row['q1']:.3f} to {row['q3']:.3f}" if row["n"] else "-"
        cells = (row["method"], row["label"], row["metric"], median, quartiles, row["n"], ", ".join(lost))
        table.add_row(*(escape(str(cell)) for cell in cells))
    _show(table)


def _show_frame(frame: pd.DataFrame) -> None:
    table = Table(*(escape(str(name)) for name in frame.columns))
    for row in frame.itertuples(index=False, name=None):
        cells = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in row)
        table.add_row(*map(escape, cells))
    _show(table)


def print_adaptation(outcome: AdaptOutcome, *, as_json: bool) -> None:
    """Print how far each stage is, and where the segmenter lies."""
    _print_notes(outcome.warnings, ())
    if as_json:
        _print_json(outcome.as_dict())
        return
    for stage, state in outcome.stages.items():
        typer.echo(f"{stage}: {state}")
    if outcome.segmenter is not None:
        typer.echo(f"segmenter: {outcome.segmenter}")
    typer.echo(f"report: {outcome.report}")


def print_methods(*, as_json: bool) -> None:
    """Print every registered method, and the weights that ship."""
    rows = [(e.name, str(e.kind), e.summary, e.needs) for e in map(registry.entry, registry.names())]
    rows += [(weights.name, "weights", weights.summary, "nothing") for weights in shipped().values()]
    if as_json:
        _print_json([dict(zip(("name", "kind", "summary", "needs"), row, strict=True)) for row in rows])
        return
    table = Table("name", "kind", "what it does", "needs")
    for row in rows:
        table.add_row(*row)
    _show(table)


def print_card(weights: ShippedWeights, *, as_json: bool) -> None:
    """Print the card of weights that ship."""
    card = weights.card
    if as_json:
        _print_json(card)
        return
    typer.echo(f"{weights.name} (weights): {weights.summary}\n")
    table = Table("card", "")
    for key, value in card.items():
        table.add_row(key, "\n".join(map(str, value)) if isinstance(value, list) else str(value))
    _show(table)


def print_method(name: str, *, as_json: bool) -> None:
    """Print the parameters of one method with their defaults."""
    item = registry.entry(name)
    given = registry.parameters(name)
    defaults = {key: None if value is inspect.Parameter.empty else value for key, value in given.items()}
    if as_json:
        _print_json({"name": item.name, "kind": item.kind, "summary": item.summary, "parameters": defaults})
        return
    typer.echo(f"{item.name} ({item.kind}): {item.summary}\n")
    typer.echo(inspect.cleandoc(item.load().__doc__ or ""))
    table = Table("parameter", "default")
    for key, value in given.items():
        table.add_row(key, "required" if value is inspect.Parameter.empty else str(value))
    if given:
        _show(table)


def print_info(found: Mapping[str, Any], *, as_json: bool) -> None:
    """Print versions and devices."""
    if as_json:
        _print_json(found)
        return
    for section, content in found.items():
        table = Table(section, "", show_header=True)
        for key, value in content.items():
            table.add_row(str(key), str(value))
        _show(table)


def print_pairs(found: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what a check found."""
    if as_json:
        _print_json(found)
        return
    for key, value in found.items():
        typer.echo(f"{key}: {value}")
