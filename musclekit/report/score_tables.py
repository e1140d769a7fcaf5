"""Score tables made short: what a paper prints, with every score that is no number counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from musclekit.report.data import is_missing
from musclekit.report.drawing import need

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["paper_table", "summary_table", "to_latex", "to_markdown"]

#: Characters that mean something to LaTeX, and how they are written.
_LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
          "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\N{EN DASH}": "--",
          "\N{MINUS SIGN}": "$-$"}  # fmt: skip
DASH = "\N{EN DASH}"


def summary_table(scores: pd.DataFrame, *, by: Sequence[str] = ()) -> pd.DataFrame:
    """Return the distribution of every metric over the cases, a row a method, structure, metric and group.

    Parameters
    ----------
    scores : DataFrame
        Score table. Scores of single slices are passed over: a slice is no sample.
    by : sequence of str
        Further columns to part the cases by: ``"domain"``, ``"grade"`` ...

    Returns
    -------
    DataFrame
        Columns ``method``, those of `by`, ``label``, ``metric``, ``unit``, ``cases``, ``subjects``, ``n`` (scores that
        are finite: the numbers that follow are theirs), ``median``, ``q1``, ``q3``, ``mean``, ``sd`` (n - 1), ``min``,
        ``max``, and the scores that are not: ``undefined`` (both masks empty), ``infinite`` (one mask empty),
        ``failed``. A case on which a method failed before its labels were known counts as failed in every row of the
        method.

    Raises
    ------
    SchemaError
        If a column is missing.
    """
    import pandas as pd

    need(
        scores,
        ("case_id", "subject", "slice", "method", "label", "metric", "value", "unit", "status", *by),
        "the summary",
    )
    whole = scores[scores["slice"].isna()]
    nowhere = whole[whole["metric"] == ""]
    lost: dict[tuple[Any, ...], pd.DataFrame] = dict(iter(nowhere.groupby(["method", *by], sort=False)))
    rows = []
    keys = ["method", *by, "label", "metric", "unit"]
    for key, mine in whole[whole["metric"] != ""].groupby(keys, sort=False):
        also = lost.get(key[: 1 + len(by)], nowhere.iloc[:0])
        rows.append(dict(zip(keys, key, strict=True)) | _spread(mine, also))
    known = {(row["method"], *(row[name] for name in by)) for row in rows}
    for group, mine in lost.items():
        if group not in known:  # the method failed on every case of the group
            rows.append(dict(zip(keys, (*group, "", "", ""), strict=True)) | _spread(mine.iloc[:0], mine))
    return pd.DataFrame(rows, columns=[*keys, *_SPREAD])


_SPREAD = (
    "cases", "subjects", "n", "median", "q1", "q3", "mean", "sd", "min", "max", "undefined", "infinite", "failed",
)  # fmt: skip


def _spread(rows: pd.DataFrame, nowhere: pd.DataFrame) -> dict[str, float | int]:
    value = rows["value"].to_numpy(dtype=np.float64)
    failed = rows["status"].astype(str).str.startswith("failed").to_numpy()
    finite = value[np.isfinite(value)]
    nothing = finite.size == 0
    q1, median, q3 = (np.nan,) * 3 if nothing else np.percentile(finite, [25, 50, 75])
    return {
        "cases": len({*rows["case_id"], *nowhere["case_id"]}),
        "subjects": len({*rows["subject"], *nowhere["subject"]}),
        "n": int(finite.size),
        "median": float(median),
        "q1": float(q1),
        "q3": float(q3),
        "mean": np.nan if nothing else float(finite.mean()),
        "sd": float(finite.std(ddof=1)) if finite.size > 1 else np.nan,
        "min": np.nan if nothing else float(finite.min()),
        "max": np.nan if nothing else float(finite.max()),
        "undefined": int((np.isnan(value) & ~failed).sum()),
        "infinite": int(np.isinf(value).sum()),
        "failed": int(failed.sum()) + len(nowhere),
    }


def paper_table(summary: pd.DataFrame, metric: str, *, by: str | None = None, label: str | None = None) -> pd.DataFrame:
    """Return medians with quartiles as a paper prints them: a row a method (and structure), a column a group.

    Parameters
    ----------
    summary : DataFrame
        As `summary_table` gives it.
    metric : str
        Which metric.
    by : str, optional
        The column of groups; one column of all cases where not given.
    label : str, optional
        Which structure; all of them, each in a row, where not given.

    Returns
    -------
    DataFrame
        Text. Cells read ``0.861 (0.812-0.903), n 20``, with an en dash; what is not in n is said: ``n 18, 1 failed``.
    """
    import pandas as pd

    rows = summary[summary["metric"] == metric]
    if label is not None:
        rows = rows[rows["label"] == label]
    groups = [""] if by is None else list(dict.fromkeys(rows[by]))
    table = []
    for (method, name), mine in rows.groupby(["method", "label"], sort=False):
        line = {"method": method, "structure": name}
        for group in groups:
            found = mine if by is None else mine[mine[by] == group]
            line[str(group) or "median (quartiles)"] = _cell(found.iloc[0]) if len(found) else DASH
        table.append(line)
    return pd.DataFrame(table)


def _cell(row: pd.Series[Any]) -> str:
    left_out = [f"{int(row[why])} {why}" for why in ("undefined", "infinite", "failed") if row[why]]
    if not row["n"]:
        return ", ".join(["n 0", *left_out])
    digits = 3 if row["unit"] == "" else 1
    low, middle, high = (f"{row[name]:.{digits}f}".replace("-", "\N{MINUS SIGN}") for name in ("q1", "median", "q3"))
    return ", ".join([f"{middle} ({low}{DASH}{high})", f"n {row['n']}", *left_out])


def _text(value: Any, digits: int) -> str:
    if is_missing(value):
        return DASH
    if isinstance(value, (float, np.floating)):
        return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
    return str(value)


def to_markdown(frame: pd.DataFrame, *, digits: int = 3) -> str:
    """Return a table as Markdown; numbers stand on the right, with so many digits after the point."""
    right = [frame[name].dtype.kind in "iuf" for name in frame.columns]
    lines = [[str(name) for name in frame.columns], ["---:" if flag else "---" for flag in right]]
    lines += [
        [_text(value, digits).replace("|", "\\|") for value in row] for row in frame.itertuples(index=False, name=None)
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def to_latex(frame: pd.DataFrame, *, digits: int = 3) -> str:
    """Return a table as a LaTeX ``tabular`` with the rules of the package booktabs."""

    def escaped(text: str) -> str:
        return "".join(_LATEX.get(letter, letter) for letter in text)

    right = [frame[name].dtype.kind in "iuf" for name in frame.columns]
    rows = [[_text(value, digits) for value in row] for row in frame.itertuples(index=False, name=None)]
    head = [str(name) for name in frame.columns]
    body = [" & ".join(map(escaped, cells)) + r" \\" for cells in rows]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{''.join('r' if flag else 'l' for flag in right)}}}",
            r"\toprule",
            " & ".join(map(escaped, head)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )
