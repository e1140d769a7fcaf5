"""Summary tables: distributions of the finite scores, counts of the others, Markdown and LaTeX."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from musclekit.errors import SchemaError
from musclekit.report import paper_table, summary_table, to_latex, to_markdown


def scores() -> pd.DataFrame:
    def row(case: str, method: str, value: float, status: str = "ok", metric: str = "dice") -> dict[str, object]:
        return {
            "case_id": case, "subject": case[:2], "slice": pd.NA, "method": method,
            "label": "muscle" if metric else "",
            "metric": metric, "value": value, "unit": "", "status": status,
            "grade": "severe" if "x" in case else "mild",
        }  # fmt: skip

    rows = [
        row("p1a", "gmm", 0.8),
        row("p1b", "gmm", 0.9),
        row("p2a", "gmm", 0.6),
        row("p3x", "gmm", np.nan, "failed: nothing found"),
        row("p4x", "gmm", np.nan, "undefined"),
        row("p5x", "gmm", np.inf),
        row("p6x", "gmm", np.nan, "failed: no such file", ""),
        row("p1a", "spgc", 0.95),
        row("p6x", "lost", np.nan, "failed: no such file", ""),
        {**row("p1a", "gmm", 0.1), "slice": 3},
    ]
    return pd.DataFrame(rows)


def test_finite_scores_are_summed_up_and_the_others_are_counted() -> None:
    table = summary_table(scores()).set_index("method")
    row = table.loc["gmm"]
    assert (row["n"], row["cases"], row["subjects"]) == (3, 7, 6)
    assert (row["median"], row["min"], row["max"]) == (0.8, 0.6, 0.9)
    assert row["mean"] == pytest.approx(2.3 / 3)
    assert row["sd"] == pytest.approx(np.std([0.8, 0.9, 0.6], ddof=1))
    assert (row["undefined"], row["infinite"], row["failed"]) == (1, 1, 2)
    assert np.isnan(table.loc["spgc", "sd"])


def test_a_method_that_failed_everywhere_is_not_left_out() -> None:
    row = summary_table(scores()).set_index("method").loc["lost"]
    assert (row["n"], row["cases"], row["failed"]) == (0, 1, 1)
    assert np.isnan(row["median"])


def test_cases_are_parted_by_a_column() -> None:
    table = summary_table(scores(), by=["grade"]).set_index(["method", "grade"])
    assert table.loc[("gmm", "mild"), "n"] == 3
    assert table.loc[("gmm", "mild"), "failed"] == 0
    assert table.loc[("gmm", "severe"), "n"] == 0
    assert table.loc[("gmm", "severe"), "failed"] == 2
    with pytest.raises(SchemaError, match="the summary needs the column centre"):
        summary_table(scores(), by=["centre"])


def test_a_paper_table_says_n_and_what_is_not_in_it() -> None:
    table = paper_table(summary_table(scores(), by=["grade"]), "dice", by="grade").set_index("method")
    assert table.loc["gmm", "mild"] == "0.800 (0.700–0.850), n 3"
    assert table.loc["gmm", "severe"] == "n 0, 1 undefined, 1 infinite, 2 failed"
    assert table.loc["spgc", "severe"] == "–"
    whole = paper_table(summary_table(scores()), "dice").set_index("method")
    assert whole.loc["spgc", "median (quartiles)"] == "0.950 (0.950–0.950), n 1"


FRAME = pd.DataFrame({"method": ["n4 | gmm", "50 % & a_b"], "n": [3, 4], "median": [0.12345, np.nan]})


def test_markdown_keeps_its_columns() -> None:
    assert to_markdown(FRAME) == (
        "| method | n | median |\n| --- | ---: | ---: |\n| n4 \\| gmm | 3 | 0.123 |\n| 50 % & a_b | 4 | – |\n"
    )


def test_latex_is_escaped() -> None:
    text = to_latex(FRAME, digits=2)
    assert text.startswith("\\begin{tabular}{lrr}\n\\toprule\nmethod & n & median \\\\\n\\midrule\n")
    assert "50 \\% \\& a\\_b & 4 & -- \\\\" in text
    assert "n4 | gmm & 3 & 0.12 \\\\" in text
    assert text.endswith("\\bottomrule\n\\end{tabular}\n")
