"""Figures of a report, as SVG: areas along the thigh, Hounsfield units, fat fractions.

Each function takes plain data and returns a `Figure`: the drawing, and the words that go with it. Drawings are the
same bytes for the same data; in a report they take on light or dark as the page does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from musclekit.image import Contrast, Image, LabelMap
from musclekit.quantify import HU_CLASSES, Measures
from musclekit.report.drawing import (
    FAINT,
    INK,
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

__all__ = [
    "csa_profile",
    "fat_fraction_bars",
    "hu_histogram",
    "readable",
    "scan_figures",
]

#: Weights of red, green and blue in the lightness of a colour, and the range that lines keep to.
LUMINANCE = np.array([0.30, 0.59, 0.11])
LEAST_LIGHT, MOST_LIGHT = 0.30, 0.68
CLASS_COLORS = {"fat": "#d9a21b", "low": "#d98880", "normal": "#b03a2e"}
#: Mean of the voxels' ratios, and ratio of the sums, in the table of structures.
FAT_FRACTION_COLUMNS = ("fat_fraction_voxel_mean", "fat_fraction_of_sums")
SIDE_COLORS = {"right": "#2a78b5", "left": "#d1662a", "": "#5f7f6b"}


def _sides(table: pd.DataFrame) -> list[str]:
    found = set(table["side"].fillna("").astype(str))
    return [side for side in ("right", "left") if side in found] + sorted(found - {"right", "left"})


def _side_title(side: str) -> str:
    return {"": "both sides", "unknown": "side unknown"}.get(side, side)


def readable(color: str) -> str:
    """Return the colour, made darker or lighter until a line of it can be seen on white and on black."""
    rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    light = float(rgb @ LUMINANCE)
    if light > MOST_LIGHT:
        rgb = rgb * (MOST_LIGHT / light)
    elif light < LEAST_LIGHT:
        rgb = 1 - (1 - rgb) * ((1 - LEAST_LIGHT) / (1 - light))
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def csa_profile(slices: pd.DataFrame, colors: Mapping[str, str]) -> Figure:
    """Draw the cross-sectional area of every structure along the thigh, one panel a side.

    Parameters
    ----------
    slices : DataFrame
        One row a structure, side and slice: columns ``structure``, ``side``, ``level_mm``, ``csa_mm2`` and
        ``status``. A slice whose area is not known (NaN) is a gap in the line.
    colors : mapping of str to str
        Structure to ``#rrggbb``, in the order of the legend. Structures that are not in it are not drawn.

    Returns
    -------
    Figure

    Raises
    ------
    SchemaError
        If a column is missing.
    """
    from matplotlib.figure import Figure as Canvas

    need(slices, ("structure", "side", "level_mm", "csa_mm2", "status"), "the figure of areas")
    shown = slices[slices["structure"].isin(list(colors))]
    sides = _sides(shown)
    names = [name for name in colors if shown.loc[shown["structure"] == name, "csa_mm2"].notna().any()]
    with style():
        canvas = Canvas(figsize=(WIDTH_IN, 0.5 + 2.2 * max(1, len(sides)) + legend_in(len(names), 2)))
        axes = canvas.subplots(max(1, len(sides)), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for ax, side in zip(axes, sides, strict=False):
            for name in names:
                rows = shown[(shown["structure"] == name) & (shown["side"] == side)].sort_values("level_mm")
                level, area = rows["level_mm"], rows["csa_mm2"] / 100
                look = {"color": readable(colors[name]), "lw": 1.7, "marker": "o", "ms": 2.4 if len(rows) < 40 else 0}
                ax.plot(level, area, alpha=0.45, **look)
                ax.plot(level, area.where(rows["status"] != "cut"), label=name, **look)
            ax.set_title(_side_title(side), loc="left")
            ax.set_ylabel("area (cm²)")
            ax.set_ylim(bottom=0)
        axes[-1].set_xlabel("level, from the foot towards the head (mm)")
        legend_below(canvas, axes[0], len(names), 2)
        svg = svg_of(canvas)
    return Figure(
        "Area along the thigh",
        svg,
        f"Lines of cross-sectional area against level for {', '.join(names)}; {', '.join(map(_side_title, sides))}.",
        "Slice by slice; a gap is a slice without the structure. Pale: the border of the field of view cuts it.",
    )


def hu_histogram(values: Mapping[str, ArrayLike]) -> Figure:
    """Draw how Hounsfield units are distributed in muscle, over the classes fat, low attenuation and normal.

    Parameters
    ----------
    values : mapping of str to array_like
        Hounsfield units of the voxels of each group (``"right"``, ``"left"``, or any other name).

    Returns
    -------
    Figure
    """
    from matplotlib.figure import Figure as Canvas

    edges = np.arange(-200.5, 200, 10)  # between whole numbers, which is what most scans hold
    with style():
        canvas = Canvas(figsize=(WIDTH_IN, 3.2))
        ax = canvas.subplots()
        for name, (low, high) in HU_CLASSES.items():
            # The measures round to whole HU, so that a class reaches half a unit beyond its bounds.
            ax.axvspan(low - 0.5, high + 0.5, color=CLASS_COLORS[name], alpha=0.16, lw=0)
            where = (low + high) / 2
            ax.text(where, 1.02, name, ha="center", fontsize=9, color=FAINT, transform=ax.get_xaxis_transform())
        medians = []
        others = iter(METHOD_COLORS[2:])
        for group, given in values.items():
            hu = np.asarray(given, dtype=np.float64).ravel()
            if not hu.size:
                continue
            share = np.histogram(hu, edges)[0] / hu.size * 100
            color = SIDE_COLORS.get(group) or next(others, FAINT)
            ax.stairs(share, edges, color=color, lw=1.8, label=_side_title(group))
            medians.append(f"{group} {np.median(hu):.0f} HU".strip())
        ax.set(xlim=(-200, 200), ylim=(0, None), xlabel="Hounsfield units", ylabel="voxels per 10 HU (%)")
        ax.set_xticks([-190, -100, -30, 30, 100, 150])
        if len(medians) > 1:
            ax.legend(loc="upper left")
        canvas.tight_layout()
        svg = svg_of(canvas)
    return Figure(
        "Hounsfield units of muscle",
        svg,
        f"Histogram of Hounsfield units; median {', '.join(medians) or 'not known'}.",
        f"Median: {', '.join(medians)}. Values beyond the axis count in the total." if medians else "",
    )


def fat_fraction_bars(structures: pd.DataFrame, colors: Mapping[str, str]) -> Figure:
    """Draw the fat fraction of every structure, left beside right.

    Parameters
    ----------
    structures : DataFrame
        One row a structure and side: columns ``structure``, ``side``, ``fat_fraction_voxel_mean`` and
        ``fat_fraction_of_sums``, as fractions.
    colors : mapping of str to str
        Structure to ``#rrggbb``; its order is that of the bars.

    Returns
    -------
    Figure

    Raises
    ------
    SchemaError
        If a column is missing.
    """
    from matplotlib.figure import Figure as Canvas

    mean, sums = FAT_FRACTION_COLUMNS
    need(structures, ("structure", "side", mean, sums), "the figure of fat fractions")
    rows = structures[structures[mean].notna()]
    names = [name for name in colors if (rows["structure"] == name).any()]
    sides = _sides(rows)
    thick = 0.8 / max(1, len(sides))
    with style():
        canvas = Canvas(figsize=(WIDTH_IN, 1.1 + 0.2 * len(names) * max(1.3, len(sides))))
        ax = canvas.subplots()
        for n, side in enumerate(sides):
            here = rows[rows["side"].fillna("") == side].set_index("structure").reindex(names)
            at = np.arange(len(names)) + (n - (len(sides) - 1) / 2) * thick
            color = SIDE_COLORS.get(side, FAINT)
            ax.barh(at, here[mean] * 100, height=thick * 0.9, color=color, label=_side_title(side))
            ax.plot(here[sums] * 100, at, ls="", marker="D", ms=4, mfc="none", mec=INK, mew=1)
        ax.plot([], [], ls="", marker="D", ms=4, mfc="none", mec=INK, mew=1, label="ratio of sums")
        ax.set_yticks(np.arange(len(names)), names)
        ax.invert_yaxis()
        ax.grid(visible=False, axis="y")
        ax.set(xlabel="fat fraction (%)", xlim=(0, None))
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0)
        canvas.tight_layout()
        svg = svg_of(canvas)
    return Figure(
        "Fat fraction",
        svg,
        f"Bars of the fat fraction of {', '.join(names)}; {', '.join(map(_side_title, sides))}.",
        "Bars: mean of F/(F+W) over the voxels. Diamonds: sum of F over sum of F+W.",
    )


#: Labels that are not muscle, and so have no part in its Hounsfield units.
NOT_MUSCLE = frozenset({"cortical bone", "marrow", "bone", "ilium", "femur", "pelvis", "sacrum", "subcutaneous fat"})
#: Colours of what is measured beside the labels.
UNION_COLORS = {"compartment": "#2f8f83", "bone": "#8a8d91"}


def scan_figures(measures: Measures, labels: LabelMap, image: Image) -> list[Figure]:
    """Draw what the measures of one scan have to show.

    Parameters
    ----------
    measures : Measures
        Its numbers.
    labels : LabelMap
        What was measured; the figures have the colours of its set.
    image : Image
        Grey values, on the grid of the labels.

    Returns
    -------
    list of Figure
        Area along the thigh where there is more than one slice; Hounsfield units of muscle for CT; fat fractions
        where they were measured. Nothing to show makes no figure.
    """
    colors = {label.name: label.color for label in labels.label_set}
    colors |= {name: color for name, color in UNION_COLORS.items() if name not in colors}
    found = []
    if measures.slices["csa_mm2"].notna().any() and measures.slices["level_mm"].nunique() > 1:
        found.append(csa_profile(measures.slices, colors))
    if image.contrast is Contrast.CT:
        muscle = [label for label in labels.label_set if label.name not in NOT_MUSCLE]
        values = {
            side or "": image.voxels[np.isin(labels.voxels, [label.id for label in muscle if label.side == side])]
            for side in ("right", "left", None)
        }
        if any(hu.size for hu in values.values()):
            figure = hu_histogram({side: hu for side, hu in values.items() if hu.size})
            names = list(dict.fromkeys(label.name for label in muscle))
            what = " and ".join(names) if len(names) < 3 else "all muscles"
            found.append(replace(figure, caption=f"Voxels of {what}. {figure.caption}"))
    mean, _ = FAT_FRACTION_COLUMNS
    if mean in measures.structures and measures.structures[mean].notna().any():
        found.append(fat_fraction_bars(measures.structures, colors))
    return found
