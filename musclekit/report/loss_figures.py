"""Figures of a training: how its losses went, epoch by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from musclekit.report.drawing import METHOD_COLORS, WIDTH_IN, Figure, legend_below, legend_in, need, style, svg_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["loss_curves"]

#: Beginnings of columns, what they hold, and how it is read.
_GROUPS = {
    "weighted_": ("Loss", "Each term times its weight: what was made smaller, all terms together."),
    "validation_": ("Score on the validation cases", "By it the epoch is chosen whose weights are kept."),
    "discriminator_": (
        "Loss of the discriminators",
        "One near 0 can no longer be deceived, and teaches nothing; 0.25 is that of one that cannot tell (lsgan).",
    ),
}
COLUMNS = 3


def loss_curves(losses: pd.DataFrame) -> list[Figure]:
    """Draw the losses over the epochs.

    Parameters
    ----------
    losses : DataFrame
        ``epoch``, and columns that begin with ``weighted_``, ``validation_`` or ``discriminator_``.

    Returns
    -------
    list of Figure
        One of the terms, one of the score on validation cases, one of discriminators, as far as there are such columns.

    Raises
    ------
    SchemaError
        If there is no column ``epoch``.
    """
    need(losses, ("epoch",), "a figure of losses")
    found = {start: [name for name in losses.columns if name.startswith(start)] for start in _GROUPS}
    return [_curves(losses, start, columns) for start, columns in found.items() if columns]


def _curves(losses: pd.DataFrame, start: str, columns: list[str]) -> Figure:
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import MaxNLocator

    title, caption = _GROUPS[start]
    with style():
        canvas = Canvas(figsize=(WIDTH_IN, 2.8 + legend_in(len(columns), COLUMNS)))
        ax = canvas.subplots()
        for name, color in zip(columns, METHOD_COLORS, strict=False):
            # A single epoch is a point.
            ax.plot(
                losses["epoch"], losses[name], color=color, lw=1.6, marker="o", ms=2.5, label=name.removeprefix(start)
            )
        ax.set(ylim=(0, None), xlabel="epoch", ylabel="loss")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend_below(canvas, ax, len(columns), COLUMNS)
        svg = svg_of(canvas)
    last = losses.iloc[-1]
    ends = ", ".join(f"{name.removeprefix(start)} {last[name]:.3g}" for name in columns)
    return Figure(title, svg, f"{title} over {len(losses)} epochs; at the end {ends}.", caption)
