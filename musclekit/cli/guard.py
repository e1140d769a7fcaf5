"""Whatever a command runs into becomes an exit code and one clear line."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import ParamSpec

import typer

from musclekit.errors import MusclekitError

__all__ = ["DONE", "FAULT", "INTERRUPTED", "REFUSED", "SOME_FAILED", "Debug", "guarded"]

#: 0 done; 1 some cases of a batch failed, each named; 2 bad usage, bad input or a refusal; 70 a fault of the program
#: (as in sysexits.h); 130 interrupted.
DONE, SOME_FAILED, REFUSED, FAULT, INTERRUPTED = 0, 1, 2, 70, 130

P = ParamSpec("P")


class Debug:
    """Whether tracebacks are shown (``musclekit --debug``); set once, before a command runs."""

    on = False


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Wrap a command: a MusclekitError ends it with one line and code 2, Ctrl-C with 130, any other fault with 70.

    With ``musclekit --debug`` the traceback is shown too.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except MusclekitError as problem:
            if Debug.on:
                traceback.print_exc()
            typer.echo(f"error: {problem}", err=True)
            raise typer.Exit(REFUSED) from None
        except MemoryError as problem:
            if Debug.on:
                traceback.print_exc()
            what = f"{problem}; work on fewer scans at once (--jobs), on smaller ones or at a larger spacing"
            typer.echo(f"error: there is too little memory: {what}", err=True)
            raise typer.Exit(REFUSED) from None
        except KeyboardInterrupt:
            typer.echo("interrupted; the files already written are whole", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except typer.Exit:
            raise
        except BrokenPipeError:
            # Whoever read the output has had enough, as `head` does; Python must not stumble over it at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(DONE) from None
        except Exception as problem:
            if Debug.on:
                traceback.print_exc()
            what = f"{type(problem).__name__}: {problem}"
            typer.echo(f"fault: {what}; this is a mistake in the program, `musclekit --debug` shows where", err=True)
            raise typer.Exit(FAULT) from None

    return run
