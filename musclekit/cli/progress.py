"""Progress bars on stderr, with a time left that follows the work really done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

__all__ = ["progress_bar", "seconds_left"]


def seconds_left(samples: Sequence[tuple[float, float]], total: float) -> float | None:
    """Return how long the rest will take, at the rate of the later half of the time that has passed.

    What a resumed run finds done already is told at once, at the start, and what is worked out only once makes the
    first units slow: both would mislead a rate over the whole run.

    Parameters
    ----------
    samples : sequence of (float, float)
        Second and work done, in order of time, the start among them.
    total : float
        All the work.

    Returns
    -------
    float or None
        Seconds; None while nothing has been done that a rate could be taken from.
    """
    if not samples:
        return None
    began, (now, done) = samples[0][0], samples[-1]
    if done >= total:
        return 0.0
    half = began + (now - began) / 2
    then, before = next(sample for sample in reversed(samples) if sample[0] <= half)
    if done <= before or now <= then:
        then, before = samples[0]
    return (total - done) * (now - then) / (done - before) if done > before and now > then else None


class _TimeLeft(ProgressColumn):
    """What `seconds_left` said at the last step, running down until the next."""

    def render(self, task: Task) -> Text:
        left, said_at = task.fields["left"], task.fields["said_at"]
        if left is None:
            return Text("-:--:--", style="progress.remaining")
        seconds = max(0, round(left - (time.monotonic() - said_at)))
        clock = f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        return Text(f"{clock} left", style="progress.remaining")


@contextmanager
def progress_bar(title: str, *, quiet: bool) -> Iterator[Callable[[float, float, str], None] | None]:
    """Show a bar on stderr and yield the function that moves it: ``move(done, total, what)``; None when quiet.

    Work done and all the work may be any numbers, such as weights: the bar shows percent.
    """
    if quiet:
        yield None
        return
    # What was done last may be long: it is cut, never the numbers.
    rest = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=16),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        _TimeLeft(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[what]}", markup=False, table_column=rest),
    )
    samples = [(time.monotonic(), 0.0)]
    with Progress(*columns, console=Console(stderr=True), expand=True) as bar:
        task = bar.add_task(title, total=None, what="", left=None, said_at=samples[0][0])

        def move(done: float, total: float, what: str) -> None:
            now = time.monotonic()
            samples.append((now, done))
            bar.update(task, completed=done, total=total, what=what, left=seconds_left(samples, total), said_at=now)

        try:
            yield move
        except BaseException:
            # A bar that never moved says nothing beside the error that follows.
            bar.live.transient = len(samples) == 1
            raise
