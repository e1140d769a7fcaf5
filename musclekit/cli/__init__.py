"""The command line: parse, convert, call a workflow, print."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Entry point of the ``musclekit`` command; the exit codes are those of `musclekit.cli.guard`."""
    from musclekit.cli.app import app

    app(prog_name="musclekit")
