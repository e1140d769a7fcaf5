"""What a training says of itself: the losses of every epoch, and signs that it goes wrong."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from musclekit.errors import ParameterError
from musclekit.io import replacing

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["Row", "check_tensorboard", "collapse_warnings", "not_finite", "tensorboard", "write_losses"]

#: Numbers of one epoch by name; those of all epochs have the same names.
Row = Mapping[str, float]

#: A discriminator whose mean loss over an epoch is below has nothing more to teach.
WON = 0.01
#: The loss of edges, where it counts, has no cause to rise for so many epochs on end.
RISING = 5
#: Fakes whose grey values (-1 to 1) spread less within a slice, by the mean over an epoch, show nothing.
FLAT = 0.02


def write_losses(rows: Sequence[Row], path: Path) -> None:
    """Write one line an epoch as CSV, with every digit.

    Raises
    ------
    OutputError
        If it cannot be written; what stood there is as it was.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def not_finite(values: Row) -> str | None:
    """Name the first value that is NaN or infinite, with its value; None where all are finite."""
    return next((f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)), None)


def collapse_warnings(rows: Sequence[Row]) -> tuple[str, ...]:
    """Say, one line each, what went wrong for at least one epoch and when.

    Parameters
    ----------
    rows : sequence of mapping
        Of all epochs; ``discriminator_...`` are losses of discriminators, ``spread_...`` standard deviations within
        fakes, ``edge`` the loss of edges.
    """
    lines = []
    if rows and "edge" in rows[0] and (risen := _risen([row["edge"] for row in rows])):
        lines.append(
            f"the loss of edges rose for {RISING} epochs on end, up to epoch {int(rows[risen]['epoch'])}: fakes lose "
            "the anatomy of their images; a larger edge or cycle weight, or a lower learning rate"
        )
    for name in rows[0] if rows else ():
        kind, _, which = name.partition("_")
        epochs = [int(row["epoch"]) for row in rows if row[name] < (WON if kind == "discriminator" else FLAT)]
        if epochs and kind == "discriminator":
            lines.append(
                f"{_when(epochs)} the discriminator of the {which} could no longer be deceived (loss below {WON:g}): "
                "the generators learn nothing from it; train with a lower learning rate or a narrower discriminator"
            )
        if epochs and kind == "spread":
            lines.append(
                f"{_when(epochs)} fakes of the {which} were nearly constant (spread below {FLAT:g} of -1 to 1): the "
                "training collapsed; try another seed, a lower learning rate or a larger cycle weight"
            )
    return tuple(lines)


def _risen(values: Sequence[float]) -> int | None:
    """Return the place of the first value that ends so long a rise, if there is one."""
    rises = 0
    for n, (before, after) in enumerate(pairwise(values), start=1):
        rises = rises + 1 if after > before else 0
        if rises == RISING:
            return n
    return None


def _when(epochs: Sequence[int]) -> str:
    return f"in epoch {epochs[0]}" if len(epochs) == 1 else f"in {len(epochs)} epochs, first in {epochs[0]},"


def check_tensorboard() -> None:
    """Refuse to promise what a missing package would have to keep.

    Raises
    ------
    ParameterError
        If TensorBoard is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as problem:
        raise ParameterError(
            f"the plan says tensorboard = true, and TensorBoard is not installed ({problem}): "
            "pip install 'musclekit[tensorboard]', or leave it out; losses.csv holds the same numbers"
        ) from problem


@contextmanager
def tensorboard(folder: Path, *, wanted: bool, done: int) -> Iterator[SummaryWriter | None]:
    """Open TensorBoard's file of events where it is wanted.

    Parameters
    ----------
    folder : Path
        Where it belongs.
    wanted : bool
        Whether there shall be one at all; None is yielded otherwise.
    done : int
        Epochs that the file may hold; later ones, of a call that was cut short, are dropped.
    """
    if not wanted:
        yield None
        return
    check_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder), purge_step=done + 1)
    try:
        yield writer
    finally:
        writer.close()
