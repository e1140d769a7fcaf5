"""Figures of score tables, as SVG: how scores spread, volumes against the reference, what a parameter changes.

Like every figure of a report, a drawing is the same bytes for the same data, and what is not drawn is counted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from musclekit.errors import SchemaError
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
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

__all__ = ["bland_altman", "boxplot", "differences", "not_drawn", "score_strips", "sensitivity_map"]

#: Whiskers reach to the farthest score within so many box heights (Tukey).
WHISKERS = 1.5
#: Where 95 % of a normal distribution lie, in standard deviations.
LIMITS_SD = 1.96
#: Low, middle and high of a sensitivity map (the first, the middle and the last of viridis without its darkest part).
MAP_COLORS = ("#3f4788", "#23898e", "#8fd744")
#: Lettering on them: fixed, because the squares keep their colour on a dark page.
ON_DARK, ON_LIGHT = "#ffffff", "#101418"


def _rows_of(scores: pd.DataFrame, metric: str, label: str | None, columns: Sequence[str], what: str) -> pd.DataFrame:
    """Return the scores of a metric and, where one is named, of a label."""
    wanted = {"metric": metric} | ({} if label is None else {"label": label})
    need(scores, (*columns, *wanted), what)
    rows = scores
    for column, name in wanted.items():
        known = ", ".join(sorted(set(rows[column].dropna().astype(str)) - {""})) or "none"
        rows = rows[rows[column] == name]
        if rows.empty:
            raise SchemaError(f"no score of the {column} '{name}' to draw; the table holds: {known}")
    return rows


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

    rows = _rows_of(scores, metric, label, ("case_id", "method", "value"), "the figure of scores")
    names = list(methods) if methods is not None else list(dict.fromkeys(rows["method"]))
    groups = list(dict.fromkeys(group.values())) if group is not None else [""]
    belongs = rows["case_id"].map(group) if group is not None else rows["case_id"].map(lambda _: "")
    value = rows["value"].astype(float)
    finite = np.isfinite(value)
    wide = 0.8 / len(names)
    medians = []
    with style():
        width = max(WIDTH_IN, 1.2 + 0.28 * len(groups) * len(names))
        canvas = Canvas(figsize=(width, 3.0 + legend_in(len(names), 3)))
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
        legend_below(canvas, ax, len(names), 3)
        svg = svg_of(canvas)
    missing = int((~finite).sum())
    caption = "Each point is a score; the bar is the median, the box the quartiles."
    if missing:
        caption += f" {missing} of {len(rows)} scores are not numbers (failed or empty) and are not drawn."
    shown = metric if label is None else f"{metric} of {label}"
    return Figure(title or shown, svg, f"{axis_label or shown}, medians: {'; '.join(medians)}.", caption)


def _strip(ax: Axes, at: float, values: np.ndarray, width: float, color: str) -> None:
    """Draw points spread over the width in the order of their values, so that the drawing needs no random numbers."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    ax.bar(at, high - low, bottom=low, width=width, color=color, alpha=0.25, lw=0)
    ax.plot([at - width / 2, at + width / 2], [middle, middle], color=color, lw=2.2, solid_capstyle="butt")
    golden = (np.arange(values.size) * 0.618034) % 1 - 0.5
    ax.plot(at + 0.7 * width * golden, values, ls="", marker="o", ms=3.2, color=color, alpha=0.75, mew=0)


def not_drawn(rows: pd.DataFrame) -> str:
    """Say how many scores are no numbers, and why: ``"2 failed, 1 infinite"``; empty where all are.

    Parameters
    ----------
    rows : DataFrame
        Columns ``value`` and ``status`` of a score table.
    """
    value, status = rows["value"].astype(float), rows["status"].astype(str)
    failed = status.str.startswith("failed")
    counts = {
        "failed": int(failed.sum()),
        "undefined (both masks empty)": int((value.isna() & ~failed).sum()),
        "infinite (one mask empty)": int(np.isinf(value).sum()),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def boxplot(
    scores: pd.DataFrame,
    metric: str,
    *,
    label: str | None = None,
    group: str | None = None,
    title: str | None = None,
    axis_label: str | None = None,
    methods: Sequence[str] | None = None,
) -> Figure:
    """Draw the spread of a metric as boxes, one a method and group, lying on their side so that names can be read.

    Parameters
    ----------
    scores : DataFrame
        Score table: columns ``case_id``, ``method``, ``metric``, ``value``, ``status``, and those asked for.
    metric : str
        Which of its metrics.
    label : str, optional
        Which of its structures; all of them where not given.
    group : str, optional
        Column whose values the boxes are gathered by: ``"label"``, ``"domain"``, ``"grade"`` ...
    title, axis_label : str, optional
        Of the figure, and of the axis with its unit; the metric where not given.
    methods : sequence of str, optional
        All methods of a page, of which the metric may have some: each has the same colour in all its figures. Those of
        the metric where not given.

    Returns
    -------
    Figure
        Box: quartiles; line: median; whiskers: the farthest scores within 1.5 box lengths; each score is a point. What
        is not finite cannot be drawn: it is counted beside its box and, with the reason, in the caption.

    Raises
    ------
    SchemaError
        If a column is missing, or no row has the metric or the label.
    """
    from matplotlib.figure import Figure as Canvas

    columns = ("case_id", "method", "value", "status", *([] if group is None else [group]))
    rows = _rows_of(scores, metric, label, columns, "the box plot")
    present = list(dict.fromkeys(rows["method"].astype(str)))
    colors = _colors(methods or present)
    part = rows[group].fillna("").astype(str) if group is not None else rows["method"].map(lambda _: "")
    groups = list(dict.fromkeys(part))
    thick = 0.22
    # More methods than colours are told apart by their names alone, each beside its box.
    named = len(present) > len(METHOD_COLORS)
    boxes, told, at = [], [], 0.0
    for name in groups:
        at += 0.8 if named and name else 0.0
        for method in present:
            mine = rows[(part == name) & (rows["method"] == method)]
            if mine.empty:
                continue
            finite = np.sort(mine["value"].astype(float)[np.isfinite(mine["value"].astype(float))].to_numpy())
            boxes.append((at, name, method, finite, len(mine) - finite.size))
            at += 1.0
            if finite.size:
                told.append(f"{method}{f' {name}' if name else ''} {np.median(finite):.3g} (n {finite.size})")
        at += 0.6
    with style():
        legend = 0.0 if named else legend_in(len(present), 2)
        canvas = Canvas(figsize=(WIDTH_IN + 0.8, 0.75 + thick * at + legend))
        ax = canvas.subplots()
        ax.use_sticky_edges = False  # a box that reaches farthest is not cut by the frame
        for where, _, method, finite, lost in boxes:
            if finite.size:
                _box(ax, where, finite, colors[method])
            text = f"n {finite.size}" + (f" (+{lost})" if lost else "")
            ax.text(1.01, where, text, fontsize=8, color=FAINT, va="center", transform=ax.get_yaxis_transform())
        places = {name: [where for where, of, *_ in boxes if of == name] for name in groups}
        if named:
            ax.set_yticks([where for where, *_ in boxes], [method for _, _, method, *_ in boxes], fontsize=8)
            for name, of_group in places.items():
                ax.text(0, of_group[0] - 1.0, name, fontsize=9, va="center", transform=ax.get_yaxis_transform())
        else:
            for method in present:
                ax.plot([], [], color=colors[method], lw=5, label=method)
            ax.set_yticks([np.mean(of_group) for of_group in places.values()], groups)
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(at - 0.9, -0.5 if named else -0.7)
        ax.grid(visible=False, axis="y")
        ax.spines["left"].set_visible(False)
        ax.set_xlabel(axis_label or metric)
        if named:
            canvas.tight_layout()
        else:
            legend_below(canvas, ax, len(present), 2)
        svg = svg_of(canvas)
    caption = "Box: quartiles, with the median; whiskers: the farthest scores within 1.5 box lengths; points: scores."
    lost_why = not_drawn(rows)
    if lost_why:
        caption += f" Of {len(rows)} scores these are no numbers and are not drawn (+ beside the box): {lost_why}."
    nowhere = int((scores["metric"].fillna("") == "").sum())
    if nowhere:
        caption += f" {nowhere} more cases failed before anything could be measured."
    shown = metric if label is None else f"{metric} of {label}"
    return Figure(title or shown, svg, f"{axis_label or shown}, medians: {'; '.join(told) or 'none'}.", caption)


def _colors(methods: Sequence[str]) -> dict[str, str]:
    return {method: METHOD_COLORS[n % len(METHOD_COLORS)] for n, method in enumerate(methods)}


def _box(ax: Axes, at: float, values: NDArray[np.float64], color: str) -> None:
    low, middle, high = np.percentile(values, [25, 50, 75])
    reach = WHISKERS * (high - low)
    inside = values[(values >= low - reach) & (values <= high + reach)]
    ax.plot([inside.min(), low], [at, at], color=color, lw=1.2)
    ax.plot([high, inside.max()], [at, at], color=color, lw=1.2)
    ax.barh(at, high - low, left=low, height=0.72, color=color, alpha=0.25, lw=0)
    ax.plot([middle, middle], [at - 0.36, at + 0.36], color=color, lw=2.2, solid_capstyle="butt")
    golden = (np.arange(values.size) * 0.618034) % 1 - 0.5
    ax.plot(values, at + 0.5 * golden, ls="", marker="o", ms=2.6, color=color, alpha=0.7, mew=0)


def bland_altman(
    volumes: pd.DataFrame,
    *,
    what: str = "volume",
    unit: str = "mL",
    title: str | None = None,
    methods: Sequence[str] | None = None,
) -> Figure:
    """Draw the difference of prediction and reference against their mean, a panel a method.

    Parameters
    ----------
    volumes : DataFrame
        One row a case: columns ``method``, ``prediction`` and ``reference``, in one unit. Rows without both are
        counted, not drawn.
    what, unit : str
        What was measured, and in which unit.
    title : str, optional
        Of the figure.
    methods : sequence of str, optional
        As of `boxplot`.

    Returns
    -------
    Figure
        Line: mean difference; dashed: the limits of agreement, mean difference ± 1.96 standard deviations (n - 1).

    Raises
    ------
    SchemaError
        If a column is missing, or no row has both numbers.

    Notes
    -----
    Bland and Altman, Lancet 1986. Several cases of one person are drawn as if they were independent.
    """
    from matplotlib.figure import Figure as Canvas

    need(volumes, ("method", "prediction", "reference"), "the Bland-Altman figure")
    both = np.isfinite(volumes[["prediction", "reference"]].astype(float)).all(axis=1)
    rows = volumes[both]
    if rows.empty:
        raise SchemaError(f"there is no pair of {what}s to draw")
    present = list(dict.fromkeys(rows["method"].astype(str)))
    colors = _colors(methods or present)
    across = min(2, len(present))
    down = math.ceil(len(present) / across)
    told = []
    with style():
        canvas = Canvas(figsize=(WIDTH_IN if across == 1 else 1.5 * WIDTH_IN, 0.3 + 2.5 * down))
        panels = canvas.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
        for panel in panels[len(present) :]:
            panel.set_visible(False)
        for ax, method in zip(panels, present, strict=False):
            mine = rows[rows["method"] == method]
            found, wanted = mine["prediction"].to_numpy(float), mine["reference"].to_numpy(float)
            difference, mean = found - wanted, (found + wanted) / 2
            color = colors[method]
            ax.axhline(0, color=FAINT, lw=0.8)
            ax.plot(mean, difference, ls="", marker="o", ms=4, color=color, alpha=0.75, mew=0)
            bias = float(difference.mean())
            ax.axhline(bias, color=color, lw=1.8)
            lines = [(bias, f"{bias:+.3g}")]
            if difference.size > 1:
                spread = LIMITS_SD * float(difference.std(ddof=1))
                lines += [(bias + spread, f"{bias + spread:+.3g}"), (bias - spread, f"{bias - spread:+.3g}")]
                told.append(f"{method} {bias:+.3g} ({bias - spread:+.3g} to {bias + spread:+.3g})")
            else:
                told.append(f"{method} {bias:+.3g} (one case)")
            for level, _ in lines[1:]:
                ax.axhline(level, color=color, lw=1.2, ls="--")
            for level, text in lines:
                ax.text(1.01, level, text, fontsize=8, color=INK, va="center", transform=ax.get_yaxis_transform())
            ax.set_title(f"{method}, n {difference.size}")
            ax.margins(x=0.08, y=0.12)
        for panel in panels[max(0, len(present) - across) : len(present)]:
            panel.tick_params(labelbottom=True)
            panel.set_xlabel(f"mean of the two, {unit}")
        for panel in panels[::across]:
            panel.set_ylabel(f"difference, {unit}")
        canvas.tight_layout(w_pad=2.2)
        svg = svg_of(canvas)
    caption = (
        f"Prediction minus reference. Line: mean difference; dashed: ± {LIMITS_SD} standard deviations (95 % limits of "
        "agreement)."
    )
    lost = int((~both).sum())
    if lost:
        caption += f" {lost} of {len(volumes)} pairs lack a number and are not drawn."
    alt = f"Mean difference of {what}, {unit}, with limits of agreement: {'; '.join(told)}."
    return Figure(title or f"Agreement of {what}", svg, alt, caption)


def differences(comparison: pd.DataFrame, *, what: str, unit: str = "", title: str = "Differences") -> Figure:
    """Draw the difference of each pair of methods with its interval, and say its corrected p.

    Parameters
    ----------
    comparison : DataFrame
        As `musclekit.evaluation.compare` gives it: columns ``label``, ``method``, ``baseline``, ``n``, ``difference``,
        ``low``, ``high``, ``level`` and ``p_corrected``.
    what, unit : str
        What was compared, and in which unit.
    title : str
        Of the figure.

    Returns
    -------
    Figure
        A line a structure and pair. A pair without a difference (no subject has both scores) has a line of words alone.

    Raises
    ------
    SchemaError
        If a column is missing, or there is no pair.
    """
    from matplotlib.figure import Figure as Canvas

    columns = ("label", "method", "baseline", "n", "difference", "low", "high", "level", "p_corrected")
    need(comparison, columns, "the figure of differences")
    if comparison.empty:
        raise SchemaError("there is no pair of methods to draw")
    labels = list(dict.fromkeys(comparison["label"]))
    names, told = [], []
    with style():
        canvas = Canvas(figsize=(WIDTH_IN + 0.8, 0.75 + 0.36 * len(comparison)))
        ax = canvas.subplots()
        ax.axvline(0, color=FAINT, lw=0.8)
        for at, row in enumerate(comparison.to_dict("records")):
            color = METHOD_COLORS[labels.index(row["label"]) % len(METHOD_COLORS)]
            name = f"{row['method']} − {row['baseline']}"
            names.append(f"{name}, {row['label']}" if len(labels) > 1 else name)
            p = "no test" if not np.isfinite(row["p_corrected"]) else _p_text(row["p_corrected"])
            text = f"n {row['n']}, {p}"
            if np.isfinite(row["difference"]):
                ax.plot([row["low"], row["high"]], [at, at], color=color, lw=1.8, solid_capstyle="butt")
                ax.plot([row["difference"]], [at], marker="o", ms=6, color=color, mew=0)
                told.append(f"{names[-1]} {row['difference']:+.3g} ({row['low']:+.3g} to {row['high']:+.3g}), {text}")
            else:
                told.append(f"{names[-1]} unknown, {text}")
            ax.text(1.01, at, text, fontsize=8, color=FAINT, va="center", transform=ax.get_yaxis_transform())
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False, axis="y")
        ax.spines["left"].set_visible(False)
        ax.set_xlabel(f"difference of {what}{f', {unit}' if unit else ''}")
        canvas.tight_layout()
        svg = svg_of(canvas)
    level = f"{100 * float(comparison['level'].iloc[0]):g} %"
    caption = f"Median over subjects of the difference; line: {level} bootstrap interval; p is corrected for all."
    return Figure(title, svg, f"Difference of {what}: {'; '.join(told)}.", caption)


def _p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}"


def sensitivity_map(
    points: pd.DataFrame,
    parameters: Sequence[str],
    *,
    score: str = "score",
    title: str = "What the parameters change",
    smaller_is_better: bool = False,
) -> Figure:
    """Draw the mean score over every pair of parameters, averaged over the other parameters.

    Parameters
    ----------
    points : DataFrame
        One row a point of the grid: a column for each parameter, and its score.
    parameters : sequence of str
        Columns. Those with one value alone have nothing to show.
    score : str
        Column of the scores.
    title : str
        Of the figure.
    smaller_is_better : bool
        Whether the best score is the smallest, as of a distance.

    Returns
    -------
    Figure
        A panel a pair, its best square framed; with a single parameter, one row. One scale of colours for all.

    Raises
    ------
    SchemaError
        If a column is missing, no parameter has two values, or no point has a score.
    """
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.figure import Figure as Canvas

    need(points, (*parameters, score), "the map of parameters")
    known = points[np.isfinite(points[score].astype(float))]
    if known.empty:
        raise SchemaError("no point of the grid has a score: there is nothing to map")
    # Numbers keep their order; lists and words are told apart by what they are called.
    named = [name for name in parameters if known[name].dtype.kind not in "iufb"]
    known = known.assign(**{name: known[name].map(str) for name in named})
    varied = [name for name in parameters if known[name].nunique() > 1]
    if not varied:
        raise SchemaError("no parameter has two values or more: there is nothing to map")
    pairs: list[tuple[str | None, str]] = list(itertools.combinations(varied, 2)) or [(None, varied[0])]
    maps = [_mean_scores(known, down, across, score) for down, across in pairs]
    every = np.concatenate([found[np.isfinite(found)] for _, _, found in maps])
    colors = LinearSegmentedColormap.from_list("scores", MAP_COLORS)
    scale = Normalize(every.min(), every.max() if every.max() > every.min() else every.min() + 1e-9)
    best_of = np.nanargmin if smaller_is_better else np.nanargmax
    told = []
    across = min(2, len(pairs))
    down = math.ceil(len(pairs) / across)
    tall = max(found.shape[0] for _, _, found in maps)
    with style():
        canvas = Canvas(figsize=(WIDTH_IN if across == 1 else 1.6 * WIDTH_IN, down * (0.75 + 0.3 * tall)))
        panels = canvas.subplots(down, across, squeeze=False).ravel()
        for panel in panels[len(pairs) :]:
            panel.set_visible(False)
        for ax, (row_name, column_name), (row_values, column_values, found) in zip(panels, pairs, maps, strict=False):
            ax.pcolormesh(found, cmap=colors, norm=scale, edgecolors="none")
            best = tuple(int(i) for i in np.unravel_index(best_of(found), found.shape))
            for (i, j), value in np.ndenumerate(found):
                if np.isfinite(value):
                    ink = ON_LIGHT if scale(value) > 0.55 else ON_DARK
                    weight = "bold" if (i, j) == best else "normal"
                    ax.text(j + 0.5, i + 0.5, f"{value:.3f}", ha="center", va="center", fontsize=7.5, color=ink,
                            fontweight=weight)  # fmt: skip
            ax.add_patch(_frame(best))
            ax.set_xticks(np.arange(len(column_values)) + 0.5, column_values)
            ax.set_yticks(np.arange(len(row_values)) + 0.5, row_values)
            ax.set_xlabel(column_name)
            ax.set_ylabel(row_name or "")
            ax.tick_params(length=0)
            ax.grid(visible=False)
            ax.spines[:].set_visible(False)
            where = f"{column_name} {column_values[best[1]]}"
            where += f", {row_name} {row_values[best[0]]}" if row_name else ""
            told.append(f"{where}: {found[best]:.3f}")
        canvas.tight_layout(h_pad=1.2, w_pad=1.6)
        svg = svg_of(canvas)
    caption = (
        f"Each square is the mean {score} over all points of the grid with these two values; the frame is the best. "
        f"Squares range from {every.min():.3f} (dark) to {every.max():.3f} (light)."
    )
    fixed = [name for name in parameters if name not in varied]
    if fixed:
        caption += f" Not shown, because only one value was tried: {', '.join(fixed)}."
    lost = len(points) - len(known)
    if lost:
        caption += f" {lost} of {len(points)} points have no score and are left out."
    return Figure(title, svg, f"Best pairs of values. {'; '.join(told)}.", caption)


def _mean_scores(
    points: pd.DataFrame, down: str | None, across: str, score: str
) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """Names of rows and columns, and the mean score of each square; NaN where no point lies."""
    index = points[down] if down is not None else points[across].map(lambda _: "")
    table = points.assign(_down=index).pivot_table(index="_down", columns=across, values=score, aggfunc="mean")
    return [str(v) for v in table.index], [str(v) for v in table.columns], table.to_numpy(dtype=np.float64)


def _frame(square: tuple[int, ...]) -> Rectangle:
    from matplotlib.patches import Rectangle

    return Rectangle((square[1] + 0.03, square[0] + 0.03), 0.94, 0.94, fill=False, edgecolor=ON_DARK, lw=1.6)
