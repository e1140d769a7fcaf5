"""Whether two ways to measure volumes agree: automatic with manual ones, or one way with itself.

Two legs of a person are two rows of one subject, never two observations: rows are paired first, and the pairs of a
person are averaged (``legs="mean"``), or left and right are analysed by themselves (``legs="apart"``). A mean over legs
and not their sum, so that a person of whom one leg was scanned stands on the same scale as the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from musclekit.errors import InputError, ParameterError, SchemaError
from musclekit.quantify.groups import VOLUMES
from musclekit.statistics import Estimate, IccModel, bland_altman, intraclass_correlation

__all__ = [
    "AGREEMENT_COLUMNS",
    "KEY",
    "LEAST_PERSONS",
    "REPEATABILITY_COLUMNS",
    "Legs",
    "observations",
    "pair_volumes",
    "repeatability",
    "volume_agreement",
]

Legs = Literal["mean", "apart"]
PairedBy = Literal["case", "subject"]

#: What a row of a table of volumes is of.
KEY = ("case_id", "subject", "side", "group")

_ICC = ("icc_2_1", "icc_2_1_low", "icc_2_1_high", "icc_3_1", "icc_3_1_low", "icc_3_1_high", "icc_p")
_ABOUT = ("set", "group", "side", "quantity", "pairs", "subjects")

#: Columns of an agreement, in order.
AGREEMENT_COLUMNS = (
    *_ABOUT, "automatic_mean_ml", "reference_mean_ml", *_ICC, "bias_ml", "bias_low", "bias_high", "bias_percent",
    "sd_ml", "lower_ml", "lower_low", "lower_high", "upper_ml", "upper_low", "upper_high", "level", "left_out", "note",
)  # fmt: skip

#: Columns of a repeatability, in order.
REPEATABILITY_COLUMNS = (
    *_ABOUT, "mean_ml", "difference_ml", "sw_ml", "sw_low", "sw_high", "cv_percent", "coefficient_ml",
    "coefficient_low", "coefficient_high", *_ICC, "level", "left_out", "note",
)  # fmt: skip

#: Status of the pairs that take part: both have the group, or one of the two alone, the other being 0 ml.
TAKES_PART = ("ok", "missed", "extra")

#: Below it neither an ICC nor limits of agreement say anything.
LEAST_PERSONS = 3

#: Where 95 % of a normal distribution lie, in standard deviations.
LIMITS_SD = 1.96


def pair_volumes(
    automatic: pd.DataFrame, reference: pd.DataFrame, *, by: str | None = None, paired_by: PairedBy = "case"
) -> pd.DataFrame:
    """Put two tables of volumes side by side.

    Parameters
    ----------
    automatic, reference : DataFrame
        One row a case, side and group: columns `KEY`, one or more of ``total_ml``, ``lean_ml`` and ``fat_ml``, and
        ``status`` where there is one, as of `musclekit.quantify.group_volumes`; ``failed: <why>`` for a case on which
        the automatic failed.
    by : str, optional
        Column of the reference that parts the cases into sets, as internal and external; where the automatic table has
        it too, it tells the set of cases that are not in the reference.
    paired_by : {"case", "subject"}
        Rows are paired by case, or, for two scans of one person, which are two cases, by subject; each table then has
        one scan of a subject.

    Returns
    -------
    DataFrame
        ``set`` (``all`` without `by`), `KEY`, then ``automatic_total_ml``, ``reference_total_ml`` and so on, and
        ``status``:

        ``ok``
            Both have the group.
        ``missed``, ``extra``
            The automatic, or the reference, has none of it, and its volumes are 0: what was not found is an error of
            the method, and leaving it out would make the method better than it is.
        ``absent``
            Neither has it.
        ``not annotated``
            The reference has no group at all on this side of the case.
        ``unknown``
            A total is no number.
        ``no reference``, ``no automatic``
            One of the two has no such row.
        ``failed: <why>``
            As given.

    Raises
    ------
    SchemaError
        If a column is missing, or the tables have no volume in common.
    InputError
        If a table has two rows of one key.
    """
    if paired_by not in get_args(PairedBy):
        raise ParameterError(f"paired_by is one of {', '.join(get_args(PairedBy))}, not '{paired_by}'")
    tables = {"automatic": automatic, "reference": reference}
    quantities = [name for name in VOLUMES if all(name in table.columns for table in tables.values())]
    if not quantities:
        raise SchemaError(f"two tables of volumes share one or more of the columns {', '.join(VOLUMES)}; these do not")
    key = [name for name in KEY if paired_by == "case" or name != "case_id"]
    rows = {
        what: _rows(table, what, key, by if what == "reference" or by in table.columns else None)
        for what, table in tables.items()
    }
    annotated = {
        (row["case_id"], row["side"]) for row in rows["reference"].values() if row.get("status", "") != "absent"
    }
    # A case that failed may have no reference, but the automatic table may know its set.
    sets = {row["case_id"]: str(row.get(by or "", "")) for what in tables for row in rows[what].values()}
    paired = []
    for one in dict.fromkeys([*rows["reference"], *rows["automatic"]]):
        found, wanted = rows["automatic"].get(one), rows["reference"].get(one)
        either = wanted or found or {}
        status = _status(found, wanted, annotated)
        row: dict[str, Any] = {"set": sets.get(either["case_id"], "") if by is not None else "all"}
        row |= {name: either[name] for name in KEY}
        for quantity in quantities:
            pair = [math.nan if side is None else float(side[quantity]) for side in (found, wanted)]
            if status in ("missed", "extra") and np.isfinite(pair).any():
                pair = [0.0 if math.isnan(value) else value for value in pair]
            row |= {f"automatic_{quantity}": pair[0], f"reference_{quantity}": pair[1]}
        paired.append(row | {"status": status})
    columns = [f"{what}_{quantity}" for quantity in quantities for what in tables]
    return pd.DataFrame(paired, columns=["set", *KEY, *columns, "status"])


def _rows(table: pd.DataFrame, what: str, key: list[str], by: str | None) -> dict[tuple[str, ...], dict[str, Any]]:
    """Rows of a table by their key, in its order."""
    missing = [name for name in (*KEY, *([] if by is None else [by])) if name not in table.columns]
    if missing:
        raise SchemaError(f"the {what} volumes lack the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    texts = [*KEY, *([] if by is None else [by]), *(["status"] if "status" in table.columns else [])]
    # A column that is empty in a file has been read as numbers.
    plain = table.assign(
        **{name: table[name].astype(object).where(table[name].notna(), "").astype(str) for name in texts}
    )
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in plain.to_dict("records"):
        one = tuple(row[name] for name in key)
        if one in found:
            raise InputError(f"the {what} volumes have two rows of {', '.join(filter(None, one))}; give each once")
        found[one] = {str(name): value for name, value in row.items()}
    return found


def _status(found: Mapping[str, Any] | None, wanted: Mapping[str, Any] | None, annotated: set[tuple[str, str]]) -> str:
    for row in (found, wanted):
        if row is not None and str(row.get("status", "")).startswith("failed"):
            return str(row["status"])
    if wanted is None:
        return "no reference"
    if (wanted["case_id"], wanted["side"]) not in annotated:
        return "not annotated"
    if found is None:
        return "no automatic"
    absent = found.get("status") == "absent", wanted.get("status") == "absent"
    if any(absent):
        return {(True, True): "absent", (True, False): "missed", (False, True): "extra"}[absent]
    known = all(math.isfinite(row["total_ml"]) for row in (found, wanted) if "total_ml" in row)
    return "ok" if known else "unknown"


def observations(pairs: pd.DataFrame, quantity: str, *, legs: Legs = "mean") -> pd.DataFrame:
    """Return what one quantity is compared by: one observation a person, or a person and side.

    Parameters
    ----------
    pairs : DataFrame
        As `pair_volumes` gives them.
    quantity : {"total_ml", "lean_ml", "fat_ml"}
        Which.
    legs : {"mean", "apart"}
        One observation is the mean over all pairs of a person, or over those of one side of a person.

    Returns
    -------
    DataFrame
        ``set``, ``group``, ``side`` (empty for the mean), ``subject``, ``automatic``, ``reference`` in ml, and
        ``pairs``: how many are in the mean.
    """
    if legs not in get_args(Legs):
        raise ParameterError(f"legs is one of {', '.join(get_args(Legs))}, not '{legs}'")
    both = pairs.rename(columns={f"automatic_{quantity}": "automatic", f"reference_{quantity}": "reference"})
    finite = np.isfinite(both[["automatic", "reference"]].to_numpy(dtype=np.float64)).all(axis=1)
    both = both[finite & both["status"].isin(TAKES_PART)]
    side = both["side"] if legs == "apart" else both["side"].map(lambda _: "")
    one = ["set", "group", "side", "subject"]
    gathered = both.assign(side=side, pairs=1).groupby(one, sort=False)
    found: pd.DataFrame = gathered.agg({"automatic": "mean", "reference": "mean", "pairs": "sum"}).reset_index()
    return found


def volume_agreement(
    automatic: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    by: str | None = None,
    legs: Legs = "mean",
    level: float = 0.95,
) -> pd.DataFrame:
    """Tell how far automatic volumes agree with those of a reference, group by group.

    Parameters
    ----------
    automatic, reference : DataFrame
        As `pair_volumes` takes them.
    by : str, optional
        Column of the reference that parts the cases into sets, as internal and external; each is told by itself.
    legs : {"mean", "apart"}
        One observation is the mean over all rows of a person, so that limits of agreement are those of such a mean; or
        left and right are told by themselves, so that they are those of one leg.
    level : float
        Of all intervals.

    Returns
    -------
    DataFrame
        A row a set, group (side) and quantity, columns `AGREEMENT_COLUMNS`: ``pairs`` rows of ``subjects`` persons, who
        are the observations; the means of both; ICC(2,1), absolute agreement, and ICC(3,1), consistency, with F
        intervals, and ``icc_p`` of the F test that both share (is there any correlation?); ``bias_ml`` and
        ``bias_percent`` (of the mean of the reference), automatic minus reference; ``sd_ml`` of the differences; limits
        of agreement, ``lower_ml`` and ``upper_ml``, with their intervals. What cannot be told is NaN, and ``note`` says
        why. ``left_out`` counts the rows that take no part, by status (`pair_volumes`). A quantity that no row has,
        such as fat in MR, has no row.

    Raises
    ------
    SchemaError
        If a column is missing, or the tables have no volume in common.
    InputError
        If a table has two rows of one key.
    ParameterError
        If the level or what becomes of legs does not exist.

    Notes
    -----
    Shrout and Fleiss (1979), McGraw and Wong (1996), Bland and Altman (1986; 1999): `musclekit.statistics`. Their
    intervals are those of independent observations, which persons are and legs are not.
    """
    _check_level(level)
    rows = []
    for about, seen, pairs in _parts(pair_volumes(automatic, reference, by=by), legs):
        first, second = seen["automatic"].to_numpy(float), seen["reference"].to_numpy(float)
        notes: list[str] = []
        row = about | _means(first, second) | _correlations(first, second, level, notes)
        if len(first) >= LEAST_PERSONS:
            found = bland_altman(first, second, level=level)
            for name, estimate in (("bias", found.bias), ("lower", found.lower), ("upper", found.upper)):
                row |= {f"{name}_ml": estimate.estimate} | _ends(name, estimate)
            row["sd_ml"] = found.sd
        rows.append(
            row
            | {"level": level, "left_out": _left_out(pairs, about["pairs"]), "note": "; ".join(dict.fromkeys(notes))}
        )
    return pd.DataFrame(rows, columns=list(AGREEMENT_COLUMNS))


def repeatability(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    by: str | None = None,
    paired_by: PairedBy = "case",
    legs: Legs = "mean",
    level: float = 0.95,
) -> pd.DataFrame:
    """Tell how far volumes repeat: two segmentations of the same scans, or two scans of the same people.

    Parameters
    ----------
    first, second : DataFrame
        As `pair_volumes` takes them.
    by : str, optional
        Column of the second table that parts the cases into sets.
    paired_by : {"case", "subject"}
        ``"case"`` for two segmentations of the same scans, ``"subject"`` for two scans of the same people.
    legs : {"mean", "apart"}
        As of `volume_agreement`.
    level : float
        Of all intervals.

    Returns
    -------
    DataFrame
        A row a set, group (side) and quantity, columns `REPEATABILITY_COLUMNS`. With differences d and means m of the
        n persons: ``difference_ml``, the mean of d; ``sw_ml``, the within-subject standard deviation
        sqrt(sum d^2 / 2 n), with its chi-squared interval of n degrees of freedom; ``cv_percent``, the
        root-mean-square coefficient of variation 100 sqrt(mean(d^2 / 2 m^2)); ``coefficient_ml``, the repeatability
        coefficient 1.96 sqrt(2) sw, below which 95 % of the differences between two measurements are expected; ICC(2,1)
        and ICC(3,1) as of `volume_agreement`. A difference on the average is part of sw.

    Raises
    ------
    SchemaError
        If a column is missing, or the tables have no volume in common.
    InputError
        If a table has two rows of one key.
    ParameterError
        If the level, what rows are paired by or what becomes of legs does not exist.

    Notes
    -----
    Bland and Altman, BMJ 1996;312:1654 (sw, repeatability coefficient); Gluer et al., Osteoporos Int 1995;5:262-270
    (root-mean-square coefficient of variation).
    """
    _check_level(level)
    rows = []
    for about, seen, pairs in _parts(pair_volumes(first, second, by=by, paired_by=paired_by), legs):
        one, two = seen["automatic"].to_numpy(float), seen["reference"].to_numpy(float)
        notes: list[str] = []
        row = about | _correlations(one, two, level, notes)
        if len(one):
            row |= _within(one - two, (one + two) / 2, level)
        rows.append(
            row
            | {"level": level, "left_out": _left_out(pairs, about["pairs"]), "note": "; ".join(dict.fromkeys(notes))}
        )
    return pd.DataFrame(rows, columns=list(REPEATABILITY_COLUMNS))


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ParameterError(f"the level of an interval lies between 0 and 1, not at {level:g}")


def _parts(pairs: pd.DataFrame, legs: Legs) -> list[tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]]:
    """Keys, observations and rows of each set, group (side) and quantity that is known of any row."""
    parts = []
    told = [name for name in VOLUMES if f"automatic_{name}" in pairs.columns]
    seen = {name: observations(pairs, name, legs=legs) for name in told}
    # A case that failed as a whole has rows without a group.
    named = pairs[pairs["group"] != ""]
    if legs == "apart":
        named = _lost_of_both_legs(named)
    sides = named["side"] if legs == "apart" else named["side"].map(lambda _: "")
    for (which, group, side), rows in named.groupby([named["set"], named["group"], sides], sort=False):
        for quantity, found in seen.items():
            if found.empty and quantity != told[0]:
                continue
            mine = found[(found["set"] == which) & (found["group"] == group) & (found["side"] == side)]
            about = {"set": which, "group": group, "side": side, "quantity": quantity}
            parts.append((about | {"pairs": int(mine["pairs"].sum()), "subjects": len(mine)}, mine, rows))
    return parts


def _lost_of_both_legs(pairs: pd.DataFrame) -> pd.DataFrame:
    """Give the rows of a case that failed, of which no leg is known, to every leg that the others have."""
    unknown = (pairs["side"] == "") & pairs["status"].astype(str).str.startswith("failed")
    legs = pairs.loc[~unknown, ["set", "group", "side"]].drop_duplicates()
    lost = pairs[unknown].drop(columns="side").merge(legs, on=["set", "group"], how="left")
    return pd.concat([pairs[~unknown], lost.fillna({"side": ""})[list(pairs.columns)]], ignore_index=True)


def _left_out(pairs: pd.DataFrame, taken: int) -> str:
    """Say how many rows take no part, and why: their status, or that this quantity of them is not told."""
    lost = Counter(status.split(":")[0] for status in pairs["status"] if status not in TAKES_PART)
    lost["not told"] = len(pairs) - lost.total() - taken
    lost = +lost
    return ", ".join(f"{count} {why}" for why, count in lost.items())


def _means(first: NDArray[np.float64], second: NDArray[np.float64]) -> dict[str, Any]:
    if not len(first):
        return {}
    bias, mean = first.mean() - second.mean(), second.mean()
    return {
        "automatic_mean_ml": first.mean(),
        "reference_mean_ml": mean,
        "bias_ml": bias,
        "bias_percent": 100 * bias / mean if mean else math.nan,
    }


def _ends(name: str, estimate: Estimate) -> dict[str, Any]:
    return {f"{name}_low": estimate.interval.low, f"{name}_high": estimate.interval.high}


def _correlations(
    first: NDArray[np.float64], second: NDArray[np.float64], level: float, notes: list[str]
) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if len(first) < LEAST_PERSONS:
        notes.append(f"an agreement needs {LEAST_PERSONS} or more persons, not {len(first)}")
        return row
    models: Mapping[str, IccModel] = {"icc_2_1": "2,1", "icc_3_1": "3,1"}
    for name, model in models.items():
        try:
            found = intraclass_correlation(np.stack([first, second], axis=1), model=model, level=level)
        except InputError as problem:
            notes.append(str(problem))
        else:
            row |= {name: found.estimate, "icc_p": found.p} | _ends(name, found)
    return row


def _within(difference: NDArray[np.float64], mean: NDArray[np.float64], level: float) -> dict[str, Any]:
    n = len(difference)
    squares = float((difference**2).sum()) / 2
    sw = math.sqrt(squares / n)
    low, high = (math.sqrt(squares / float(stats.chi2.ppf(q, n))) for q in ((1 + level) / 2, (1 - level) / 2))
    relative = difference[mean > 0] / mean[mean > 0]
    to_coefficient = LIMITS_SD * math.sqrt(2)
    return {
        "mean_ml": mean.mean(),
        "difference_ml": difference.mean(),
        "sw_ml": sw,
        "sw_low": low,
        "sw_high": high,
        "cv_percent": 100 * math.sqrt(float((relative**2).mean()) / 2) if len(relative) else math.nan,
        "coefficient_ml": to_coefficient * sw,
        "coefficient_low": to_coefficient * low,
        "coefficient_high": to_coefficient * high,
    }
