"""Figures of how far to trust a segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from musclekit.errors import SchemaError
from musclekit.report.drawing import (
    FAINT,
    METHOD_COLORS,
    WIDTH_IN,
    Figure,
    legend_below,
    legend_in,
    need,
    style,
    svg_of,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["reliability", "variance_against_dice", "variance_bars"]

#: By turns, once all colours are taken.
MARKERS = ("o", "^", "s", "D")
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


def variance_against_dice(table: pd.DataFrame) -> Figure:
    """Draw the Dice of each structure against its variance, as far as the network knows where it is wrong.

    Parameters
    ----------
    table : DataFrame
        ``structure``, ``psv`` and ``dice``, one row a structure of a leg, of scans that the network did not learn from.
        Rows without both are counted, not drawn.

    Returns
    -------
    Figure
        As Figure 6 of Hiasa et al. (2020). The line is that of least squares through all points.

    Raises
    ------
    SchemaError
        If a column is missing, or no row has both numbers.
    """
    from matplotlib.figure import Figure as Canvas

    need(table, ("structure", "psv", "dice"), "a figure of variance and Dice")
    known = table[np.isfinite(table[["psv", "dice"]].astype(float)).all(axis=1)]
    if known.empty:
        raise SchemaError("no structure has both a variance and a Dice: there is nothing to draw")
    names = list(dict.fromkeys(table["structure"]))
    psv, dice = known["psv"].to_numpy(float), known["dice"].to_numpy(float)
    with style():
        canvas = Canvas(figsize=(WIDTH_IN, 3.2 + legend_in(len(names), 2)))
        ax = canvas.subplots()
        for n, name in enumerate(names):
            mine = known["structure"].to_numpy() == name
            marker = MARKERS[n // len(METHOD_COLORS) % len(MARKERS)]
            color = METHOD_COLORS[n % len(METHOD_COLORS)]
            ax.plot(psv[mine], dice[mine], ls="", marker=marker, ms=3.6, color=color, alpha=0.75, mew=0, label=name)
        if np.ptp(psv) > 0:
            slope, intercept = np.polyfit(psv, dice, 1)
            ends = np.array([psv.min(), psv.max()])
            ax.plot(ends, intercept + slope * ends, color=FAINT, lw=1.4)
        ax.set(xlabel="PSV", ylabel="Dice")
        legend_below(canvas, ax, len(names), 2)
        svg = svg_of(canvas)
    caption = (
        "Each point is a structure of a leg that the network did not learn from; points of one person are not "
        "independent. Where they fall along a line, the variance foretells the Dice."
    )
    lost = len(table) - len(known)
    if lost:
        caption += f" {lost} of {len(table)} lack one of the two and are not drawn."
    alt = f"Dice from {dice.min():.2f} to {dice.max():.2f} against PSV from {psv.min():.3g} to {psv.max():.3g}."
    return Figure("Variance and Dice", svg, alt, caption)


def reliability(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw how often networks are right that say they are so sure.

    Parameters
    ----------
    curves : mapping of str to DataFrame
        By the name of a network, what `musclekit.uncertainty.calibration_curve` gives.

    Returns
    -------
    Figure
        On the diagonal a network is right as often as it says; below it, it is too sure of itself.

    Raises
    ------
    SchemaError
        If a column is missing, or there is no curve.
    """
    from matplotlib.figure import Figure as Canvas

    if not curves:
        raise SchemaError("there is no calibration curve to draw")
    told = []
    with style():
        canvas = Canvas(figsize=(WIDTH_IN, 3.6 + legend_in(len(curves), 2)))
        ax = canvas.subplots()
        ax.plot([0, 1], [0, 1], color=FAINT, lw=0.8)
        for n, (name, curve) in enumerate(curves.items()):
            need(curve, ("n", "confidence", "accuracy"), "a calibration curve")
            known = curve[curve["n"] > 0]
            color = METHOD_COLORS[n % len(METHOD_COLORS)]
            ax.plot(known["confidence"], known["accuracy"], color=color, marker="o", ms=4, lw=1.6, label=name)
            gap = float(np.average(known["confidence"] - known["accuracy"], weights=known["n"]))
            told.append(f"{name} {gap:+.3f}")
        ax.set(xlabel="probability of the most probable class", ylabel="share that is right", aspect="equal")
        legend_below(canvas, ax, len(curves), 2)
        svg = svg_of(canvas)
    caption = "Voxels by how sure the network is of them; below the line it is too sure of itself."
    return Figure("Calibration curve", svg, f"Confidence less accuracy, on the average: {'; '.join(told)}.", caption)
