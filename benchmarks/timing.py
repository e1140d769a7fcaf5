"""What every benchmark needs: a timer, an input made by the phantom, a table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from musclekit.image import Contrast, Image, LabelMap
from musclekit.phantom import make_thigh, render


@dataclass(frozen=True)
class Row:
    """One line of the table: an operation, and a peer on the same input in the same run."""

    operation: str
    ours_s: float
    at_most_s: float | None
    peer: str
    peer_s: float | None
    note: str = ""


def seconds(work: Callable[[], object], repeat: int = 5) -> float:
    """Median wall time of a call, after one that does not count."""
    work()
    taken = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def once(work: Callable[[], object]) -> float:
    """Wall time of one call, for peers that take long."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@cache
def ct(planes: int) -> tuple[Image, LabelMap]:
    """A CT of both thighs, 512x512, with 28 labels."""
    phantom = make_thigh(5, shape=(planes, 512, 512), spacing=(3.0, 0.78, 0.78), supersampling=(1, 1, 1))
    return render(phantom, Contrast.CT), phantom.labels


def table(rows: Sequence[Row]) -> str:
    """Markdown table of rows."""
    lines = [
        "| operation | ours (s) | at most (s) | peer | peer (s) | peer / ours | note |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        limit = "" if row.at_most_s is None else f"{row.at_most_s:g}"
        peer_s = "" if row.peer_s is None else f"{row.peer_s:.3g}"
        ratio = "" if row.peer_s is None else f"{row.peer_s / row.ours_s:.1f}x"
        lines.append(f"| {row.operation} | {row.ours_s:.3g} | {limit} | {row.peer} | {peer_s} | {ratio} | {row.note} |")
    return "\n".join(lines)
