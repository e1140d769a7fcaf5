"""What `benchmarks.unets_uncertainty` works out of tables: correlations over people, errors of a predicted Dice."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from musclekit.errors import InputError
from musclekit.uncertainty import fit_dice_calibration

RESAMPLES = 2000
#: Fewer people say nothing.
LEAST_PEOPLE = 5
Floats = NDArray[np.float64]


def correlation_over_people(
    x: ArrayLike, y: ArrayLike, people: ArrayLike, given: ArrayLike | None = None, *, seed: int = 0
) -> tuple[float, float, float]:
    """Return Pearson's correlation, with what is given partialled out, and its 95 % interval.

    Structures and legs of one person are alike, so that people are drawn anew and not points (cluster bootstrap).
    """
    columns = [np.asarray(x, dtype=float), np.asarray(y, dtype=float)]
    columns += [] if given is None else [np.asarray(given, dtype=float)]
    names, whose = np.unique(np.asarray(people), return_inverse=True)
    if len(names) < LEAST_PEOPLE:
        return (float("nan"),) * 3
    # All that correlations need are sums of products, and those of a draw are sums over the people drawn.
    values = np.stack([np.ones(len(columns[0])), *[column - column.mean() for column in columns]])
    products = np.einsum("in,jn->nij", values, values)
    of_person = np.zeros((len(names), *products.shape[1:]))
    np.add.at(of_person, whose, products)
    draws = np.random.default_rng(seed).integers(0, len(names), (RESAMPLES, len(names)))
    found = np.array([_correlation(of_person[draw].sum(axis=0)) for draw in draws])
    known = found[np.isfinite(found)]
    if not known.size:
        return (float("nan"),) * 3
    low, high = np.percentile(known, [2.5, 97.5])
    return _correlation(of_person.sum(axis=0)), float(low), float(high)


def _correlation(sums: Floats) -> float:
    n = sums[0, 0]
    covariance = sums[1:, 1:] / n - np.outer(sums[0, 1:], sums[0, 1:]) / n**2
    sd = np.sqrt(np.diag(covariance))
    if not (sd > 0).all():
        return float("nan")
    r = covariance / np.outer(sd, sd)
    if len(r) == 2:
        return float(r[0, 1])
    rest = np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))
    return float((r[0, 1] - r[0, 2] * r[1, 2]) / rest)


def true_volumes(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the volume of each structure of each leg in the reference, from the errors of the volumes found.

    The error in millilitres over the one in per cent; a structure whose volume was found exactly has none of the two.
    """
    whole = scores[scores["slice"].isna() & scores["metric"].isin(["volume_error", "relative_volume_error"])]
    table = whole.pivot_table(index=["case_id", "label", "side"], columns="metric", values="value")
    volumes = 100 * table["volume_error"] / table["relative_volume_error"].replace(0, np.nan)
    return volumes.rename("true_ml").reset_index().rename(columns={"label": "structure"})


def predicted_errors(trust: pd.DataFrame, model: str, samples: int) -> pd.DataFrame:
    """Return how far off the predicted Dice of each structure is, and how far off the mean Dice would be.

    Each fold is told by lines, and by means, of the other folds.
    """
    rows = []
    known = trust.dropna(subset=["psv", "dice"])
    for fold in sorted(set(known["fold"])):
        others = known[known["fold"] != fold]
        try:
            calibration = fit_dice_calibration(
                others.rename(columns={"structure": "label"}), model=model, n_samples=samples
            )
        except InputError:
            continue
        means = others.groupby("structure")["dice"].mean()
        for row in known[known["fold"] == fold].to_dict("records"):
            name = str(row["structure"])
            if name in calibration.structures:
                told = calibration.predict(name, row["psv"]).value
                rows.append({"structure": name, "subject": row["subject"], "by_line": abs(told - row["dice"]),
                             "by_mean": abs(means[name] - row["dice"])})  # fmt: skip
    return pd.DataFrame(rows, columns=["structure", "subject", "by_line", "by_mean"])


def psv_table(trust: pd.DataFrame, model: str, samples: int) -> list[str]:
    """Correlation of PSV and Dice, over all structures and in each, and with the true size partialled out."""
    lines = [
        "| structure | n | people | r | 95 % | r, size partialled out | 95 % | error of the predicted Dice | of the "
        "mean Dice |",
        "|---" * 9 + "|",
    ]
    errors = predicted_errors(trust, model, samples)
    parts = [("all", trust), *((str(name), part) for name, part in trust.groupby("structure", sort=False))]
    for name, part in parts:
        known = part.dropna(subset=["psv", "dice", "true_ml"])
        columns = (known["psv"], known["dice"], known["subject"])
        r = correlation_over_people(*columns)
        partial = correlation_over_people(*columns, np.log(known["true_ml"]))
        mine = errors if name == "all" else errors[errors["structure"] == name]
        lines.append(
            f"| {name} | {len(known)} | {known['subject'].nunique()} | {_interval(r)} | {_interval(partial)} | "
            f"{mine['by_line'].mean():.3f} | {mine['by_mean'].mean():.3f} |"
        )
    return lines


def _interval(found: tuple[float, float, float]) -> str:
    value, low, high = found
    return f"{value:+.2f} | {low:+.2f} to {high:+.2f}"
