"""What `benchmarks.unets` found, as tables and figures of docs/results_unets.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from musclekit.evaluation import compare
from musclekit.labels import label_set
from musclekit.report import Figure, boxplot, case_map
from musclekit.statistics import bootstrap_by_subject

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
#: What stands for the mean of all muscles of a leg.
ALL = "all muscles"
#: Comparisons of the papers: method, against, paper.
PAIRS = [
    ("unet-2.5d", "unet-2d", "003"),
    ("unet-2.5d", "unet-3d", "003"),
    ("bayesian-unet", "fcn-8s", "002"),
    ("bayesian-unet", "multiatlas", "002"),
    ("manet", "dense-unet", "004"),
    ("segformer", "dense-unet", "004"),
    ("segformer", "manet", "004"),
]


#: What a score is of, but for the structure.
KEYS = ["case_id", "subject", "side", "slice", "fold", "method", "params_id", "metric", "unit"]


def over_seeds(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of score tables: of a network trained with several seeds the mean of its scores."""
    scores = pd.concat(tables, ignore_index=True)
    keys = [*(name for name in KEYS if name != "params_id"), "label"]
    return scores.groupby(keys, dropna=False, sort=False, as_index=False).agg(
        {"params_id": "first", "value": "mean", "status": "first"}
    )


def with_means(scores: pd.DataFrame) -> pd.DataFrame:
    """Add the mean over the muscles of each leg to the scores of volumes.

    A muscle that is not found has a Dice of 0, and no surface: distances are means over those found.
    """
    whole = scores[scores["slice"].isna() & scores["metric"].isin(["dice", "asd"])]
    finite = whole.assign(value=whole["value"].replace([np.inf], np.nan))
    means = finite.groupby(KEYS, dropna=False, sort=False)["value"].mean().reset_index()
    return pd.concat([whole, means.assign(label=ALL, status="ok")], ignore_index=True)


def overview(scores: pd.DataFrame, steps: dict[str, int], weights: dict[str, int]) -> list[str]:
    """Mean over the muscles of each leg: Dice and surface distance, with intervals over people."""
    lines = [
        "| network | weights | updates | Dice | 95 % | worst leg | ASD, mm | not found |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in dict.fromkeys(scores["method"]):
        mine = scores[(scores["method"] == method) & (scores["label"] == ALL)]
        dice, asd = (mine[mine["metric"] == metric] for metric in ("dice", "asd"))
        found = bootstrap_by_subject(dice["value"], list(dice["subject"]))
        each = scores[(scores["method"] == method) & (scores["label"] != ALL) & (scores["metric"] == "dice")]
        missing = int((each["value"] == 0).sum())
        lines.append(
            f"| {method} | {weights.get(method, 0):,} | {steps.get(method, 0):,} | {found.estimate:.3f} | "
            f"{found.interval.low:.3f} to {found.interval.high:.3f} | {dice['value'].min():.3f} | "
            f"{asd['value'].median():.2f} | {missing} of {len(each)} |"
        )
    return lines


def per_muscle(scores: pd.DataFrame, metric: str, digits: int) -> list[str]:
    """Medians over legs of each muscle."""
    labels = label_set("thigh-11")
    lines = [
        "| network | " + " | ".join(label.abbreviation for label in labels) + " |",
        "|---" * (len(labels) + 1) + "|",
    ]
    for method in dict.fromkeys(scores["method"]):
        mine = scores[(scores["method"] == method) & (scores["metric"] == metric)]
        medians = [mine.loc[mine["label"] == label.name, "value"].median() for label in labels]
        lines.append(f"| {method} | " + " | ".join(f"{value:.{digits}f}" for value in medians) + " |")
    return lines


def pairs(scores: pd.DataFrame) -> list[str]:
    """Comparisons of the papers, paired by person, corrected over all of them."""
    lines = [
        "| paper | network | against | n | Dice | median difference | 95 % | paired t, p | Bonferroni |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    known = set(scores["method"])
    wanted = [pair for pair in PAIRS if pair[0] in known and pair[1] in known]
    for method, baseline, paper in wanted:
        both = scores[scores["method"].isin([method, baseline])]
        row = compare(both, label=ALL, baseline=baseline, test="t", correction="bonferroni").iloc[0]
        lines.append(
            f"| {paper} | {method} | {baseline} | {row['n']} | {row['value']:.3f}, {row['baseline_value']:.3f} | "
            f"{row['difference']:+.3f} | {row['low']:+.3f} to {row['high']:+.3f} | {row['p']:.2g} | "
            f"{min(1.0, row['p'] * len(wanted)):.2g} |"
        )
    return lines


def figures(cohorts: Mapping[str, pd.DataFrame], method: str) -> dict[str, Figure]:
    """Draw the scores of whole legs of each cohort, and the surface distances of one network, leg by leg."""
    together = pd.concat([scores.assign(scanner=name) for name, scores in cohorts.items()], ignore_index=True)
    title = "Dice, mean of the muscles of a leg"
    drawn = {"dice": boxplot(together, "dice", label=ALL, group="scanner", title=title)}
    for name, scores in cohorts.items():
        muscles = scores[scores["label"] != ALL]
        drawn[f"asd_{name}"] = case_map(muscles, "asd", method, smaller_is_better=True, axis_label="ASD, mm")
    return drawn


def write_figures(drawn: Mapping[str, Figure]) -> None:
    """Write figures beside the document, each of which names it."""
    FIGURES.mkdir(exist_ok=True)
    for name, figure in drawn.items():
        (FIGURES / f"unets_{name}.svg").write_text(figure.svg, encoding="utf-8")
