"""What `benchmarks.unets` found, as tables and figures of docs/results_unets.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from musclekit.evaluation import compare
from musclekit.labels import label_set
from musclekit.report import boxplot
from musclekit.statistics import bootstrap_by_subject

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


def with_means(scores: pd.DataFrame) -> pd.DataFrame:
    """Add the mean over the muscles of each leg to the scores of volumes; a muscle that is not found counts as 0."""
    whole = scores[scores["slice"].isna() & scores["metric"].isin(["dice", "asd"])]
    keys = ["case_id", "subject", "side", "slice", "fold", "method", "params_id", "metric", "unit"]
    finite = whole.assign(value=whole["value"].replace([np.inf], np.nan))
    means = finite.groupby(keys, dropna=False, sort=False)["value"].mean().reset_index()
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


def heat_map(scores: pd.DataFrame, method: str) -> list[str]:
    """Surface distance muscle by person, the larger of the two legs: where it went wrong, and with whom."""
    asd = scores[(scores["method"] == method) & (scores["metric"] == "asd") & (scores["label"] != ALL)]
    table = asd.pivot_table(index="subject", columns="label", values="value", aggfunc="max")
    labels = label_set("thigh-11")
    lines = [
        "| person | " + " | ".join(label.abbreviation for label in labels) + " |",
        "|---" * (len(labels) + 1) + "|",
    ]
    for subject, row in table.iterrows():
        values = [row[label.name] for label in labels]
        lines.append(f"| {subject} | " + " | ".join(f"**{v:.1f}**" if v > 3 else f"{v:.1f}" for v in values) + " |")
    return lines


def draw(scores: pd.DataFrame, folder: Path, methods: Sequence[str]) -> None:
    """Draw the box plots of the Dice: the mean of all muscles, and each muscle."""
    folder.mkdir(exist_ok=True)
    whole = boxplot(scores, "dice", label=ALL, methods=methods, title="Dice, mean of the muscles of a leg")
    (folder / "unets_dice.svg").write_text(whole.svg, encoding="utf-8")
