"""A map of scores, structure by case: where a method went wrong, and with whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from musclekit.errors import SchemaError
from musclekit.report.drawing import WIDTH_IN, Figure, need, style, svg_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["case_map"]

#: The best score, the middle of the scale, and the worst score.
COLORS = ("#eef1f3", "#e7a36d", "#9c2418")
#: Lettering on them: fixed, because the squares keep their colour on a dark page.
ON_DARK, ON_LIGHT = "#ffffff", "#101418"
#: A square whose score is no number.
UNKNOWN = "#b9c0c7"
#: Share of the scores after which the scale ends: worse ones are as dark.
DARKEST = 0.98
#: Share of the scale from which on lettering is light.
DARK = 0.6


def case_map(
    scores: pd.DataFrame,
    metric: str,
    method: str,
    *,
    smaller_is_better: bool = False,
    title: str | None = None,
    axis_label: str | None = None,
    most: int = 40,
) -> Figure:
    """Draw every score of a method as a square, a row a case (a leg, where legs are scored), a column a structure.

    Parameters
    ----------
    scores : DataFrame
        Score table of whole volumes: columns ``case_id``, ``side``, ``label``, ``method``, ``metric`` and ``value``.
    metric, method : str
        Which of them.
    smaller_is_better : bool
        Whether the best score is the smallest, as of a distance.
    title, axis_label : str, optional
        Of the figure, and of the scale with its unit; the metric where not given.
    most : int
        Rows. Of more cases those are shown that are worst in any structure.

    Returns
    -------
    Figure
        The darker, the worse. A structure that one of the two lacks has an infinite distance (∞) and one that both
        lack no score (–): both are grey.

    Raises
    ------
    SchemaError
        If a column is missing, or the method has no such score that is a number.
    """
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.figure import Figure as Canvas

    need(scores, ("case_id", "side", "label", "method", "metric", "value"), "the map of cases")
    rows = scores[(scores["metric"] == metric) & (scores["method"] == method)]
    names = rows["case_id"].astype(str) + (" " + rows["side"].fillna("").astype(str)).str.rstrip()
    table = rows.assign(name=names).pivot_table(index="name", columns="label", values="value", sort=False, dropna=False)
    table = table.reindex(index=names.unique(), columns=rows["label"].unique())
    found = table.to_numpy(dtype=np.float64)
    known = np.isfinite(found)
    if not known.any():
        raise SchemaError(f"no {metric} of '{method}' is a number: there is nothing to map")
    # Whatever the metric: the larger, the worse.
    badness = np.where(np.isnan(found), -np.inf, found if smaller_is_better else -found)
    shown = np.sort(np.argsort(-badness.max(axis=1), kind="stable")[:most])
    # A single failure, a hundred times as far off as the rest, would leave all the rest alike.
    scale = Normalize(badness[known].min(), float(np.quantile(badness[known], DARKEST)))
    colors = LinearSegmentedColormap.from_list("badness", COLORS).with_extremes(bad=UNKNOWN)
    digits = 2 if smaller_is_better else 3
    with style():
        canvas = Canvas(figsize=(max(WIDTH_IN, 1.6 + 0.5 * found.shape[1]), 1.5 + 0.24 * len(shown)))
        ax = canvas.subplots()
        ax.pcolormesh(np.ma.masked_invalid(badness[shown]), cmap=colors, norm=scale, edgecolors="none")
        for (i, j), value in np.ndenumerate(found[shown]):
            text = f"{value:.{digits}f}" if np.isfinite(value) else ("–" if np.isnan(value) else "∞")
            dark = np.isfinite(value) and scale(badness[shown[i], j]) > DARK
            ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=7, color=ON_DARK if dark else ON_LIGHT)
        ax.set_xticks(np.arange(found.shape[1]) + 0.5, [str(name) for name in table.columns], rotation=40, ha="right")
        ax.set_yticks(np.arange(len(shown)) + 0.5, [str(table.index[i]) for i in shown])
        ax.invert_yaxis()
        ax.tick_params(length=0)
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        canvas.tight_layout()
        svg = svg_of(canvas)
    row, column = np.unravel_index(int(np.argmax(np.where(known, badness, -np.inf))), found.shape)
    what = axis_label or metric
    caption = (
        f"{what} of {method}, from {found[known].min():.{digits}f} to {found[known].max():.{digits}f}; the darker, the "
        "worse; grey: one of the two lacks the structure (∞), or both do (–)."
    )
    if len(shown) < len(found):
        caption += f" Of {len(found)} rows the {len(shown)} that are worst in any structure."
    worst = f"{table.columns[int(column)]} of {table.index[int(row)]}, {found[row, column]:.{digits}f}"
    alt = f"{what} by case and structure; worst: {worst}."
    return Figure(title or f"{what}, case by case", svg, alt, caption)
