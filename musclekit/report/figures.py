"""Figures of a report, as SVG: areas along the thigh, Hounsfield units, fat fractions, scores.

Each function takes plain data and returns a `Figure`: the drawing, and the words that go with it. Drawings are the
same bytes for the same data; in a report they take on light or dark as the page does.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from musclekit.errors import SchemaError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

__all__ = ["FAINT", "GRID", "INK", "Figure", "csa_profile", "fat_fraction_bars", "hu_histogram", "score_strips"]

#: Colours of lettering and lines. They occur in nothing else, so that a dark page can exchange them.
INK = "#1d2329"
FAINT = "#5b6570"
GRID = "#d5dae0"

#: Fat, low-attenuation muscle and normal muscle, in HU; the bounds are those of the measures.
HU_CLASSES = (
    (-190, -30, "fat", "#d9a21b"),
    (-30, 30, "low attenuation", "#d98880"),
    (30, 150, "normal", "#b03a2e"),
)
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


def _need(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise SchemaError(f"{what} needs the column{'s' * (len(missing) > 1)} {', '.join(missing)}")


def _sides(table: pd.DataFrame) -> list[str]:
    found = set(table["side"].fillna("").astype(str))
    return [side for side in ("right", "left") if side in found] + sorted(found - {"right", "left"})


def _side_title(side: str) -> str:
    return {"": "both sides", "unknown": "side unknown"}.get(side, side)


def csa_profile(slices: pd.DataFrame, colors: Mapping[str, str]) -> Figure:
    """Draw the cross-sectional area of every structure along the thigh, one panel a side.

    Parameters
    ----------
    slices : DataFrame
        One row a structure, side and slice: columns ``structure``, ``side``, ``level_mm``, ``csa_mm2``. A slice whose
        area is not known (NaN) is a gap in the line.
    colors : mapping of str to str
        Structure to ``#rrggbb``, in the order of the legend.

    Returns
    -------
    Figure

    Raises
    ------
    SchemaError
        If a column is missing.
    """
    from matplotlib.figure import Figure as Canvas

    _need(slices, ("structure", "side", "level_mm", "csa_mm2"), "the area along the thigh")
    sides = _sides(slices)
    names = [name for name in colors if (slices["structure"] == name).any()]
    legend_rows = -(-len(names) // 3)
    with _style():
        canvas = Canvas(figsize=(4.6 * len(sides) if len(sides) > 1 else 5.6, 3.1 + 0.19 * legend_rows))
        axes = canvas.subplots(1, len(sides), sharex=True, sharey=True, squeeze=False)[0]
        for ax, side in zip(axes, sides, strict=True):
            for name in names:
                rows = slices[(slices["structure"] == name) & (slices["side"].fillna("") == side)]
                rows = rows.sort_values("level_mm")
                ax.plot(
                    rows["level_mm"], rows["csa_mm2"] / 100, color=colors[name], lw=1.8, marker="o", ms=2.6, label=name
                )
            ax.set_title(_side_title(side), loc="left")
            ax.set_xlabel("level, foot to head (mm)")
            ax.set_ylim(bottom=0)
        axes[0].set_ylabel("area (cm²)")
        handles, labels = axes[0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="lower left", ncols=3, bbox_to_anchor=(0.01, 0), columnspacing=1.4)
        canvas.tight_layout(rect=(0, 0.19 * legend_rows / canvas.get_size_inches()[1] + 0.03, 1, 1))
        svg = _svg(canvas)
    return Figure(
        "Area along the thigh",
        svg,
        f"Lines of cross-sectional area against level for {', '.join(names)}; {', '.join(map(_side_title, sides))}.",
        "Each point is a slice. A line that breaks off at an end is a structure that the scan cuts.",
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

    edges = np.arange(-200, 205, 5)
    with _style():
        canvas = Canvas(figsize=(5.2, 3.2))
        ax = canvas.subplots()
        for low, high, name, color in HU_CLASSES:
            ax.axvspan(low, high, color=color, alpha=0.16, lw=0)
            ax.text(
                (low + high) / 2, 1.01, name, ha="center", va="bottom", fontsize=9, transform=ax.get_xaxis_transform()
            )
        medians = []
        others = iter(METHOD_COLORS[2:])
        for group, given in values.items():
            hu = np.asarray(given, dtype=np.float64).ravel()
            if not hu.size:
                continue
            share = np.histogram(hu, edges)[0] / hu.size * 100
            color = SIDE_COLORS.get(group) or next(others, FAINT)
            ax.stairs(share, edges, color=color, lw=1.8, label=_side_title(group))
            medians.append(f"{_side_title(group)} {np.median(hu):.0f} HU")
        ax.set(xlim=(-200, 200), ylim=(0, None), xlabel="Hounsfield units", ylabel="voxels (%)")
        ax.set_xticks([-190, -100, -30, 30, 100, 150])
        if medians:
            ax.legend(loc="upper left")
        canvas.tight_layout()
        svg = _svg(canvas)
    return Figure(
        "Hounsfield units of muscle",
        svg,
        f"Histogram of Hounsfield units; median {', '.join(medians) or 'not known'}.",
        f"Median: {', '.join(medians)}. In steps of 5 HU; values beyond the axis count in the total."
        if medians
        else "",
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
    _need(structures, ("structure", "side", mean, sums), "the fat fractions")
    rows = structures[structures[mean].notna()]
    names = [name for name in colors if (rows["structure"] == name).any()]
    sides = _sides(rows)
    thick = 0.8 / max(1, len(sides))
    with _style():
        canvas = Canvas(figsize=(5.2, 1.1 + 0.2 * len(names) * max(1.3, len(sides))))
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
    group: Mapping[str, str] | None = None,
    methods: Sequence[str] | None = None,
    title: str | None = None,
    label: str | None = None,
) -> Figure:
    """Draw every score of a metric as a point, by method and group, with median and quartiles.

    Parameters
    ----------
    scores : DataFrame
        Tidy score table: columns ``case_id``, ``method``, ``metric``, ``value``.
    metric : str
        Which of its metrics.
    group : mapping of str to str, optional
        Case id to group, as the grade; groups stand in the order in which the mapping first names them. One group
        where not given.
    methods : sequence of str, optional
        Which methods, in which order; all of them, as they first appear, where not given.
    title : str, optional
        Title of the figure; the metric where not given.
    label : str, optional
        Label of the value axis, with its unit; the metric where not given.

    Returns
    -------
    Figure
        A score that is not finite is not drawn; the caption counts them.

    Raises
    ------
    SchemaError
        If a column is missing, or no row has the metric.
    """
    from matplotlib.figure import Figure as Canvas

    _need(scores, ("case_id", "method", "metric", "value"), "the figure of scores")
    rows = scores[scores["metric"] == metric]
    if rows.empty:
        known = ", ".join(sorted(set(scores["metric"].astype(str)))) or "none"
        raise SchemaError(f"no score of the metric '{metric}' to draw; the table holds: {known}")
    names = list(methods) if methods is not None else list(dict.fromkeys(rows["method"]))
    groups = list(dict.fromkeys(group.values())) if group is not None else [""]
    belongs = rows["case_id"].map(group) if group is not None else rows["case_id"].map(lambda _: "")
    value = rows["value"].astype(float)
    finite = np.isfinite(value)
    wide = 0.8 / len(names)
    medians = []
    with _style():
        legend_rows = -(-len(names) // 3)
        canvas = Canvas(figsize=(max(4.8, 1.2 + 0.28 * len(groups) * len(names)), 3.0 + 0.19 * legend_rows))
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
        ax.set_ylabel(label or metric)
        handles, labels = ax.get_legend_handles_labels()
        canvas.legend(handles, labels, loc="lower left", ncols=3, bbox_to_anchor=(0.01, 0), columnspacing=1.4)
        canvas.tight_layout(rect=(0, 0.19 * legend_rows / canvas.get_size_inches()[1] + 0.03, 1, 1))
        svg = _svg(canvas)
    missing = int((~finite).sum())
    caption = "Each point is a score; the bar is the median, the box the quartiles."
    if missing:
        caption += f" {missing} of {len(rows)} scores are not numbers (failed or empty) and are not drawn."
    return Figure(title or metric, svg, f"{label or metric}, medians: {'; '.join(medians)}.", caption)


def _strip(ax: Axes, at: float, values: np.ndarray, width: float, color: str) -> None:
    """Draw points spread over the width in the order of their values, so that the drawing needs no random numbers."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    ax.bar(at, high - low, bottom=low, width=width, color=color, alpha=0.25, lw=0)
    ax.plot([at - width / 2, at + width / 2], [middle, middle], color=color, lw=2.2, solid_capstyle="butt")
    golden = (np.arange(values.size) * 0.618034) % 1 - 0.5
    ax.plot(at + 0.7 * width * golden, values, ls="", marker="o", ms=3.2, color=color, alpha=0.75, mew=0)
