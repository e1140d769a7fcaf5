"""What the commands print: results on stdout, messages and progress on stderr."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from musclekit import registry

if TYPE_CHECKING:
    import pandas as pd

    from musclekit.workflows import BatchOutcome, OnProgress

__all__ = ["print_batch", "print_info", "print_method", "print_methods", "print_pairs", "print_scores", "progress_bar"]


@contextmanager
def progress_bar(title: str, *, quiet: bool) -> Iterator[OnProgress | None]:
    """Show a bar on stderr and yield the function that moves it: ``move(done, total, what)``; None when quiet."""
    if quiet:
        yield None
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[what]}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, what="")

        def move(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, what=what)

        yield move


def _print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def _show(table: Table) -> None:
    Console().print(table)


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


def print_methods(*, as_json: bool) -> None:
    """Print every registered method."""
    entries = [registry.entry(name) for name in registry.names()]
    if as_json:
        _print_json([{"name": e.name, "kind": e.kind, "summary": e.summary, "needs": e.needs} for e in entries])
        return
    table = Table("name", "kind", "what it does", "needs")
    for item in entries:
        table.add_row(item.name, item.kind, item.summary, item.needs)
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
