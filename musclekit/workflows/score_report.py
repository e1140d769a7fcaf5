"""What the report of any score table shows: box plots, agreement of volumes, what failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from musclekit.report import Failure, Figure, Table, bland_altman, boxplot, case_map, not_drawn
from musclekit.statistics import Estimate
from musclekit.statistics import bland_altman as bland_altman_analysis

__all__ = [
    "METRIC_TITLES",
    "VOLUMES",
    "every_metric",
    "failures_of",
    "lost_scores",
    "metric_title",
    "metrics_of",
    "score_figures",
    "volume_pairs",
    "volume_tables",
]  # fmt: skip

#: Name of a metric, and its unit. A metric that is not named here goes by its own name.
METRIC_TITLES = {
    "dice": ("Dice", ""),
    "jaccard": ("Jaccard", ""),
    "sensitivity": ("Sensitivity", ""),
    "specificity": ("Specificity", ""),
    "accuracy": ("Accuracy", ""),
    "ppv": ("Positive predictive value", ""),
    "volume": ("Volume", "mL"),
    "reference_volume": ("Volume of the reference", "mL"),
    "volume_error": ("Volume error", "mL"),
    "relative_volume_error": ("Relative volume error", "%"),
    "asd": ("Mean surface distance", "mm"),
    "hd": ("Hausdorff distance", "mm"),
    "hd95": ("HD95", "mm"),
    "hd95_max": ("HD95, larger direction", "mm"),
    "surface_dice_2mm": ("Surface Dice at 2 mm", ""),
}
#: Metrics that are mapped by case and structure, and whether a small one is good.
MAPPED = {"dice": False, "asd": True}
#: Fewer pairs than this have no limits of agreement.
LEAST_PAIRS = 3
#: Metrics that are no scores: they are drawn against each other.
VOLUMES = ("volume", "reference_volume")


def metric_title(metric: str) -> tuple[str, str]:
    """Return what a metric is called on a page, and its unit."""
    return METRIC_TITLES.get(metric, (metric.replace("_", " "), ""))


def score_figures(
    scores: pd.DataFrame, *, by: str | None = None, begin: Callable[[str], None] = lambda what: None
) -> tuple[dict[str, Figure], list[str]]:
    """Draw a box plot of every metric, maps of the cases, and the agreement of the volume of every structure.

    Parameters
    ----------
    scores : DataFrame
        Score table; scores of single slices are passed over.
    by : str, optional
        Column that parts the cases.
    begin : callable, optional
        Called before each metric, and before the volumes, with their name.

    Returns
    -------
    (dict of str to Figure, list of str)
        Name of the figure, as a file is called, to the figure; and what could not be drawn, and why.
    """
    whole = scores[scores["slice"].isna()]
    labels = [name for name in dict.fromkeys(whole["label"]) if name]
    methods = [str(name) for name in dict.fromkeys(whole["method"])]
    figures: dict[str, Figure] = {}
    warnings: list[str] = []
    for name in metrics_of(whole):
        begin(name)
        if name in VOLUMES:
            continue
        rows = whole[whole["metric"].isin([name, ""])]
        if np.isfinite(rows["value"]).any():
            figures[f"boxplot_{name}"] = _box_figure(rows, name, by, labels, methods)
        else:
            warnings.append(f"{name}: no score is a finite number ({not_drawn(rows)}); there is nothing to draw")
        if name in MAPPED and len(labels) > 1:
            figures |= _case_maps(rows, name, methods)
    begin("volumes")
    return figures | _volume_figures(whole, labels, methods, warnings), warnings


def every_metric(summary: pd.DataFrame) -> Table:
    """Return the table of all metrics, to be opened by those who want it."""
    return Table(
        "Every metric", summary, "Undefined: both masks are empty; infinite: one of them is.", folded=len(summary) > 12
    )


def metrics_of(scores: pd.DataFrame) -> list[str]:
    """Return the metrics of a score table, in its order."""
    return [str(name) for name in dict.fromkeys(scores["metric"]) if name]


def failures_of(scores: pd.DataFrame) -> list[Failure]:
    """Return each case on which a method failed, once, with its reason."""
    failed = scores[scores["status"].astype(str).str.startswith("failed")]
    return [
        Failure(f"{row.case_id}, {row.method}", str(row.status).removeprefix("failed: "))
        for row in failed.drop_duplicates(["case_id", "method", "status"]).itertuples()
    ]


def volume_pairs(scores: pd.DataFrame, label: str) -> pd.DataFrame:
    """Return predicted and reference volume of a structure.

    Parameters
    ----------
    scores : DataFrame
        Score table with the metrics ``volume`` and ``reference_volume``.
    label : str
        Which structure.

    Returns
    -------
    DataFrame
        One row a case, side, fold and method: ``case_id``, ``subject``, ``side``, ``fold``, ``method``, and
        ``prediction`` and ``reference`` in mL, NaN where a volume is not known.
    """
    whole = scores[scores["slice"].isna() & (scores["label"] == label)]
    key = ["case_id", "subject", "side", "fold", "method"]
    pairs = whole[key].drop_duplicates(ignore_index=True)
    for metric, name in (("volume", "prediction"), ("reference_volume", "reference")):
        values = whole.loc[whole["metric"] == metric, [*key, "value"]].drop_duplicates(key)
        pairs = pairs.merge(values.rename(columns={"value": name}), on=key, how="left")
    return pairs


def lost_scores(scores: pd.DataFrame, metric: str) -> str:
    """Say in a sentence how many scores of a metric are no numbers, and why."""
    lost = not_drawn(scores[scores["metric"].isin([metric, ""])])
    return f"Scores that are no numbers: {lost}." if lost else "Every score is a finite number."


def volume_tables(scores: pd.DataFrame) -> list[Table]:
    """Return bias and limits of agreement of predicted and reference volumes, a row a method and structure.

    Parameters
    ----------
    scores : DataFrame
        Score table.

    Returns
    -------
    list of Table
        One table, with the t intervals of `musclekit.statistics.bland_altman`, pairs that lack a number counted; none
        where no method has three pairs.
    """
    whole = scores[scores["slice"].isna()]
    rows = []
    for label in [name for name in dict.fromkeys(whole["label"]) if name]:
        for method, pairs in volume_pairs(whole, label).groupby("method", sort=False):
            known = pairs[np.isfinite(pairs["prediction"]) & np.isfinite(pairs["reference"])]
            if len(known) < LEAST_PAIRS:
                continue
            found = bland_altman_analysis(known["prediction"].to_numpy(), known["reference"].to_numpy())
            rows.append(
                {
                    "method": method,
                    "structure": label,
                    "pairs": len(known),
                    "subjects": known["subject"].nunique(),
                    "bias, mL": _with_interval(found.bias),
                    "lower limit, mL": _with_interval(found.lower),
                    "upper limit, mL": _with_interval(found.upper),
                    "left out": len(pairs) - len(known),
                }
            )
    if not rows:
        return []
    caption = (
        "Prediction minus reference: mean difference and 95 % limits of agreement (Bland and Altman), each with its "
        "95 % interval. Pairs of one subject are taken as independent: with two legs a subject the intervals are too "
        "narrow."
    )
    return [Table("Agreement of volumes", pd.DataFrame(rows), caption)]


def _with_interval(estimate: Estimate) -> str:
    numbers = (estimate.estimate, estimate.interval.low, estimate.interval.high)
    value, low, high = (f"{number:+.1f}".replace("-", "\N{MINUS SIGN}") for number in numbers)
    return f"{value} ({low} to {high})"


def _box_figure(
    rows: pd.DataFrame, metric: str, by: str | None, labels: Sequence[str], methods: Sequence[str]
) -> Figure:
    title, unit = metric_title(metric)
    if by is not None and len(labels) > 1:
        # The groups of one structure stand together.
        rows = rows.assign(group=rows["label"] + ", " + rows[by].astype(str), place=rows["label"].map(labels.index))
        rows = rows.sort_values("place", kind="stable")
        group: str | None = "group"
    else:
        group = by if by is not None else ("label" if len(labels) > 1 else None)
    what = f" of {labels[0]}" if len(labels) == 1 else ""
    axis = f"{title}, {unit}" if unit else title
    return boxplot(rows, metric, group=group, title=f"{title}{what}", axis_label=axis, methods=methods)


def _case_maps(rows: pd.DataFrame, metric: str, methods: Sequence[str]) -> dict[str, Figure]:
    """Draw the scores of each method that has any, by case and structure."""
    title, unit = metric_title(metric)
    finite = rows[np.isfinite(rows["value"])]
    return {
        f"cases_{metric}_{method.replace(' ', '_')}": case_map(
            rows,
            metric,
            method,
            smaller_is_better=MAPPED[metric],
            title=f"{title} case by case, {method}",
            axis_label=f"{title}, {unit}" if unit else title,
        )
        for method in methods
        if (finite["method"] == method).any()
    }


def _volume_figures(
    scores: pd.DataFrame, labels: Sequence[str], methods: Sequence[str], warnings: list[str]
) -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    if not set(VOLUMES) <= set(scores["metric"]):
        return found
    for label in labels:
        pairs = volume_pairs(scores, label)
        if np.isfinite(pairs[["prediction", "reference"]].astype(float)).all(axis=1).any():
            name = f"bland_altman_{label.replace(' ', '_')}"
            found[name] = bland_altman(pairs, title=f"Agreement of the volume of {label}", methods=methods)
        else:
            warnings.append(f"{label}: no volume of the reference is known; there is no Bland-Altman figure")
    return found
