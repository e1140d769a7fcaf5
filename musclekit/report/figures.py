"""Figures of a report, as SVG: areas along the thigh, Hounsfield units, fat fractions, scores.

Each function takes plain data and returns a `Figure`: the drawing, and the words that go with it. Drawings are the
same bytes for the same data; in a report they take on light or dark as the page does.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from musclekit.errors import SchemaError
from musclekit.image import Contrast, Image, LabelMap
from musclekit.quantify import HU_CLASSES, Measures

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

__all__ = [
    "FAINT",
    "GRID",
    "INK",
    "Figure",
    "csa_profile",
    "fat_fraction_bars",
    "hu_histogram",
    "readable",
    "scan_figures",
    "score_strips",
]

#: Colours of lettering and lines. They occur in nothing else, so that a dark page can exchange them.
INK = "#1d2329"
FAINT = "#5b6570"
GRID = "#d5dae0"

#: Width of a figure that fits twice on a desktop page and once, at its size, on a phone held upright.
WIDTH_IN = 5.0
#: Weights of red, green and blue in the lightness of a colour, and the range that lines keep to.
LUMINANCE = np.array([0.30, 0.59, 0.11])
LEAST_LIGHT, MOST_LIGHT = 0.30, 0.68
CLASS_COLORS = {"fat": "#d9a21b", "low": "#d98880", "normal": "#b03a2e"}
#: Mean of the voxels' ratios, and ratio of the sums, in the table of structures.
FAT_FRACTION_COLUMNS = ("fat_fraction_voxel_mean", "fat_fraction_of_sums")
SIDE_COLORS = {"right": "#2a78b5", "left": "#d1662a", "": "#5f7f6b"}
#: Readable on white and on black; told apart by people who see red and green alike.
METHOD_COLORS = ("#2a78b5", "#d1662a", "#2e9e77", "#b0559b", "#8a8d1e", "#7a6fd0", "#c2405a", "#6f7a85")


@dataclass(frozen=True)
class Figure:
    """A drawing and the words that go with it.

    Parameters
    ----------
    title : str
        What is shown.
    svg : str
        The drawing: a whole SVG document, without references to anything outside it.
    alt : str
        What a reader who cannot see it needs to know.
    caption : str
        How to read it.
    """

    title: str
    svg: str
    alt: str
    caption: str = ""


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "musclekit",
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
            "font.size": 10,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": FAINT,
            "axes.facecolor": "none",
            "figure.facecolor": "none",
            "savefig.facecolor": "none",
            "axes.titlesize": 10,
            "axes.titlecolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.grid": True,
            "grid.color": GRID,
            "grid.linewidth": 0.7,
            "xtick.color": FAINT,
            "ytick.color": FAINT,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "text.parse_math": False,
        }
    ):
        yield


def _svg(canvas: Canvas) -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    render: Any = FigureCanvasSVG(canvas)
    render.print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    # The XML prologue names a DTD on the network and the metadata vocabularies on others; a drawing needs neither.
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    return text


def _legend_in(count: int, columns: int) -> float:
    """Height in inches of a legend of so many names."""
    return 0.2 * math.ceil(count / columns) + 0.1


def _legend_below(canvas: Canvas, ax: Axes, count: int, columns: int) -> None:
    """Set the names under the axes, over the whole width, and the axes above them."""
    handles, labels = ax.get_legend_handles_labels()
    canvas.legend(handles, labels, loc="lower left", ncols=columns, bbox_to_anchor=(0.01, 0), columnspacing=1.6)
    canvas.tight_layout(rect=(0, _legend_in(count, columns) / canvas.get_size_inches()[1], 1, 1))


def _need(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise SchemaError(f"{what} needs the column{'s' * (len(missing) > 1)} {', '.join(missing)}")


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

    _need(slices, ("structure", "side", "level_mm", "csa_mm2", "status"), "the figure of areas")
    shown = slices[slices["structure"].isin(list(colors))]
    sides = _sides(shown)
    names = [name for name in colors if shown.loc[shown["structure"] == name, "csa_mm2"].notna().any()]
    with _style():
        canvas = Canvas(figsize=(WIDTH_IN, 0.5 + 2.2 * max(1, len(sides)) + _legend_in(len(names), 2)))
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
        _legend_below(canvas, axes[0], len(names), 2)
        svg = _svg(canvas)
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
    with _style():
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
        svg = _svg(canvas)
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
    _need(structures, ("structure", "side", mean, sums), "the figure of fat fractions")
    rows = structures[structures[mean].notna()]
    names = [name for name in colors if (rows["structure"] == name).any()]
    sides = _sides(rows)
    thick = 0.8 / max(1, len(sides))
    with _style():
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
        svg = _svg(canvas)
    return Figure(
        "Fat fraction",
        svg,
        f"Bars of the fat fraction of {', '.join(names)}; {', '.join(map(_side_title, sides))}.",
        "Bars: mean of F/(F+W) over the voxels. Diamonds: sum of F over sum of F+W.",
    )


def score_strips(
    scores: pd.DataFrame,
    metric: str,
    *,
    label: str | None = None,
    group: Mapping[str, str] | None = None,
    methods: Sequence[str] | None = None,
    title: str | None = None,
    axis_label: str | None = None,
) -> Figure:
    """Draw every score of a metric as a point, by method and group, with median and quartiles.

    Parameters
    ----------
    scores : DataFrame
        Tidy score table: columns ``case_id``, ``method``, ``metric``, ``value``, and ``label`` if one is asked for.
    metric : str
        Which of its metrics.
    label : str, optional
        Which of its structures; all of them, each score a point, where not given.
    group : mapping of str to str, optional
        Case id to group, as the grade; groups stand in the order in which the mapping first names them. One group
        where not given.
    methods : sequence of str, optional
        Which methods, in which order; all of them, as they first appear, where not given.
    title : str, optional
        Title of the figure; the metric and the label where not given.
    axis_label : str, optional
        What stands at the value axis, with its unit; the metric where not given.

    Returns
    -------
    Figure
        A score that is not finite is not drawn; the caption counts them.

    Raises
    ------
    SchemaError
        If a column is missing, or no row has the metric or the label.
    """
    from matplotlib.figure import Figure as Canvas

    wanted = {"metric": metric} | ({} if label is None else {"label": label})
    _need(scores, ("case_id", "method", "value", *wanted), "the figure of scores")
    rows = scores
    for column, name in wanted.items():
        known = ", ".join(sorted(set(rows[column].dropna().astype(str)))) or "none"
        rows = rows[rows[column] == name]
        if rows.empty:
            raise SchemaError(f"no score of the {column} '{name}' to draw; the table holds: {known}")
    names = list(methods) if methods is not None else list(dict.fromkeys(rows["method"]))
    groups = list(dict.fromkeys(group.values())) if group is not None else [""]
    belongs = rows["case_id"].map(group) if group is not None else rows["case_id"].map(lambda _: "")
    value = rows["value"].astype(float)
    finite = np.isfinite(value)
    wide = 0.8 / len(names)
    medians = []
    with _style():
        width = max(WIDTH_IN, 1.2 + 0.28 * len(groups) * len(names))
        canvas = Canvas(figsize=(width, 3.0 + _legend_in(len(names), 3)))
        ax = canvas.subplots()
        for n, name in enumerate(names):
            color = METHOD_COLORS[n % len(METHOD_COLORS)]
            for k, part in enumerate(groups):
                found = value[finite & (rows["method"] == name) & (belongs == part)].to_numpy()
                at = k + (n - (len(names) - 1) / 2) * wide
                if found.size:
                    _strip(ax, at, np.sort(found), 0.8 * wide, color)
                    medians.append(f"{name}{' ' + part if part else ''} {np.median(found):.3g}")
            ax.plot([], [], color=color, lw=5, label=name)
        ax.set_xticks(range(len(groups)), groups)
        ax.set_xlim(-0.55, len(groups) - 0.45)
        ax.grid(visible=False, axis="x")
        ax.set_ylabel(axis_label or metric)
        _legend_below(canvas, ax, len(names), 3)
        svg = _svg(canvas)
    missing = int((~finite).sum())
    caption = "Each point is a score; the bar is the median, the box the quartiles."
    if missing:
        caption += f" {missing} of {len(rows)} scores are not numbers (failed or empty) and are not drawn."
    shown = " of ".join(wanted.values())
    return Figure(title or shown, svg, f"{axis_label or shown}, medians: {'; '.join(medians)}.", caption)


def _strip(ax: Axes, at: float, values: np.ndarray, width: float, color: str) -> None:
    """Draw points spread over the width in the order of their values, so that the drawing needs no random numbers."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    ax.bar(at, high - low, bottom=low, width=width, color=color, alpha=0.25, lw=0)
    ax.plot([at - width / 2, at + width / 2], [middle, middle], color=color, lw=2.2, solid_capstyle="butt")
    golden = (np.arange(values.size) * 0.618034) % 1 - 0.5
    ax.plot(at + 0.7 * width * golden, values, ls="", marker="o", ms=3.2, color=color, alpha=0.75, mew=0)


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
