"""Figures of how far to trust a segmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from musclekit.report.drawing import WIDTH_IN, Figure, need, style, svg_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["variance_bars"]

SIDE_COLORS = {"right": "#2a78b5", "left": "#d1662a", "": "#5f7f6b"}


def variance_bars(table: pd.DataFrame) -> Figure:
    """Draw the variance of each structure, the least certain one on top.

    Parameters
    ----------
    table : DataFrame
        ``structure``, ``side`` and ``psv``, one row a structure of a leg; one without a voxel has no variance and is
        named in the caption.

    Returns
    -------
    Figure

    Raises
    ------
    SchemaError
        If a column is missing.
    """
    from matplotlib.figure import Figure as Canvas

    need(table, ("structure", "side", "psv"), "a figure of uncertainty")
    names = [f"{structure} {side}".strip() for structure, side in zip(table["structure"], table["side"], strict=True)]
    found = table.assign(name=names).dropna(subset="psv").sort_values("psv", kind="stable")
    absent = [name for name, psv in zip(names, table["psv"], strict=True) if not np.isfinite(psv)]
    with style():
        canvas = Canvas(figsize=(WIDTH_IN, 0.9 + 0.22 * max(1, len(found))))
        ax = canvas.subplots()
        colors = [SIDE_COLORS.get(str(side), SIDE_COLORS[""]) for side in found["side"]]
        ax.barh(np.arange(len(found)), found["psv"], color=colors, height=0.7)
        ax.set_yticks(np.arange(len(found)), list(found["name"]))
        ax.grid(axis="y", visible=False)
        ax.set(xlabel="PSV", ylim=(-0.6, max(1, len(found)) - 0.4))
        canvas.tight_layout()
        svg = svg_of(canvas)
    doubted = list(zip(found["name"], found["psv"], strict=True))[::-1][:3]
    least = ", ".join(f"{name} {psv:.3g}" for name, psv in doubted) or "none"
    caption = (
        "Predictive structure-wise variance (PSV), the mean variance of the network's answers inside each structure: "
        "look first at those on top."
    )
    if absent:
        caption += f" Not found, and so without a variance: {', '.join(absent)}."
    return Figure("Which structures to doubt", svg, f"Variance by structure; largest: {least}.", caption)
