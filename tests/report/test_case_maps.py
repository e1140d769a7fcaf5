"""Maps of scores by case and structure."""

from __future__ import annotations

import math
import re

import pandas as pd
import pytest

from musclekit.errors import SchemaError
from musclekit.report import case_map


def scores(values: dict[tuple[str, str, str], float], metric: str = "dice", method: str = "gmm") -> pd.DataFrame:
    """Scores of (case, side, structure)."""
    rows = [
        {"case_id": case, "side": side, "label": label, "method": method, "metric": metric, "value": value}
        for (case, side, label), value in values.items()
    ]
    return pd.DataFrame(rows)


def fills(svg: str) -> list[str]:
    """Colours of the squares, row by row."""
    return re.findall(r'<path d="[^"]*" clip-path="[^"]*" style="fill: (#[0-9a-f]{6})"', svg)


def test_every_score_stands_in_its_square() -> None:
    table = scores(
        {
            ("a", "left", "vastus"): 0.91,
            ("a", "left", "rectus"): 0.42,
            ("b", "", "vastus"): 0.83,
            ("b", "", "rectus"): 0.77,
        }
    )
    found = case_map(table, "dice", "gmm")
    written = re.findall(r">([^<>\n]+)</text>", found.svg)
    assert [text for text in written if text.startswith("0.")] == ["0.910", "0.420", "0.830", "0.770"]
    assert [text for text in written if not text.startswith("0.")] == ["vastus", "rectus", "a left", "b"]
    assert "worst: rectus of a left, 0.420" in found.alt
    assert "from 0.420 to 0.910" in found.caption


@pytest.mark.parametrize("smaller_is_better", [False, True])
def test_the_worst_is_the_darkest(smaller_is_better: bool) -> None:
    table = scores({("a", "", "vastus"): 0.1, ("a", "", "rectus"): 0.9})
    found = case_map(table, "dice", "gmm", smaller_is_better=smaller_is_better)
    low, high = (sum(int(color[i : i + 2], 16) for i in (1, 3, 5)) for color in fills(found.svg))
    assert (low < high) != smaller_is_better


def test_what_is_no_number_is_named_apart_and_ranks_worst() -> None:
    table = scores(
        {
            ("fine", "", "vastus"): 1.0,
            ("fine", "", "rectus"): 1.2,
            ("lost", "", "vastus"): math.inf,
            ("lost", "", "rectus"): math.nan,
            ("bad", "", "vastus"): 9.0,
            ("bad", "", "rectus"): 1.1,
        },
        metric="asd",
    )
    found = case_map(table, "asd", "gmm", smaller_is_better=True, most=2)
    assert "∞" in found.svg
    assert ">–<" in found.svg
    assert ">fine<" not in found.svg
    assert found.caption.endswith("Of 3 rows the 2 that are worst in any structure.")
    assert "worst: vastus of bad, 9.00" in found.alt


def test_one_failure_does_not_leave_the_rest_alike() -> None:
    values = {(f"case {n}", "", "vastus"): 1 + n / 100 for n in range(100)} | {("lost", "", "vastus"): 500.0}
    found = case_map(scores(values, metric="asd"), "asd", "gmm", smaller_is_better=True, most=200)
    assert len(set(fills(found.svg))) > 20


def test_the_same_scores_are_the_same_bytes() -> None:
    table = scores({("a", "", "vastus"): 0.5, ("b", "", "vastus"): 0.5})
    assert case_map(table, "dice", "gmm").svg == case_map(table, "dice", "gmm").svg


def test_nothing_to_map_is_an_error() -> None:
    table = scores({("a", "", "vastus"): math.nan})
    with pytest.raises(SchemaError, match="no dice of 'gmm' is a number"):
        case_map(table, "dice", "gmm")
    with pytest.raises(SchemaError, match="the map of cases needs the column side"):
        case_map(table.drop(columns="side"), "dice", "gmm")
