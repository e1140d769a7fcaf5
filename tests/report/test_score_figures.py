"""Figures of scores: they show what the tables say, and count what they cannot show."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from musclekit.errors import SchemaError
from musclekit.report import bland_altman, boxplot, differences, not_drawn, sensitivity_map
from musclekit.report.drawing import METHOD_COLORS


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def scores() -> pd.DataFrame:
    rows = [
        {
            "case_id": f"p{i}",
            "method": method,
            "label": "muscle",
            "metric": "dice",
            "value": (0.5 if method == "gmm" else 0.7) + 0.02 * i,
            "status": "ok",
            "grade": ("healthy", "severe")[i % 2],
        }
        for i in range(9)
        for method in ("gmm", "n4 & <cut>")
    ]
    return pd.DataFrame(rows)


def grid() -> pd.DataFrame:
    rows = [
        {"smoothness": s, "sigma": g, "prior_weight": w, "score": 0.8 - abs(np.log10(s) + 1) / 10 - 0.01 * g + 0.05 * w}
        for s, g, w in itertools.product([0.01, 0.1, 1.0], [1.0, 2.0], [0.2, 0.6])
    ]
    return pd.DataFrame(rows)


def volumes() -> pd.DataFrame:
    return pd.DataFrame(
        {"method": ["gmm"] * 3, "prediction": [101.0, 203.0, 305.0], "reference": [100.0, 200.0, 300.0]}
    )


def test_figures_are_the_same_bytes_and_refer_to_nothing_outside() -> None:
    def every() -> list[object]:
        return [boxplot(scores(), "dice", group="grade"), bland_altman(volumes()), sensitivity_map(grid(), ["sigma"])]

    for one, two in zip(every(), every(), strict=True):
        assert one == two
        assert not re.search(r"(href|src)=\"(?!#)", one.svg)


def test_the_box_plot_says_medians_and_numbers_of_scores() -> None:
    figure = boxplot(scores(), "dice", axis_label="Dice")
    assert figure.alt == "Dice, medians: gmm 0.58 (n 9); n4 & <cut> 0.78 (n 9)."
    assert "Dice" in texts(figure.svg)
    assert texts(figure.svg).count("n 9") == 2
    parted = boxplot(scores(), "dice", group="grade")
    assert "gmm healthy 0.58 (n 5)" in parted.alt
    assert {"healthy", "severe"} <= set(texts(parted.svg))


def test_the_box_plot_counts_what_it_cannot_draw() -> None:
    table = scores()
    table.loc[0, ["value", "status"]] = [np.nan, "failed: no muscle"]
    table.loc[2, ["value", "status"]] = [np.nan, "undefined"]
    table.loc[4, "value"] = np.inf
    nowhere = {"case_id": "p9", "method": "gmm", "metric": "", "value": np.nan, "status": "failed: no file"}
    table = pd.concat([table, pd.DataFrame([nowhere])], ignore_index=True)
    figure = boxplot(table, "dice")
    assert "1 failed, 1 undefined (both masks empty), 1 infinite (one mask empty)" in figure.caption
    assert "1 more cases failed before anything could be measured" in figure.caption
    assert "n 6 (+3)" in texts(figure.svg)
    assert not_drawn(scores()) == ""


def test_more_methods_than_colours_stand_beside_their_boxes() -> None:
    one = scores().query("method == 'gmm'")
    table = pd.concat([one.assign(method=f"method {n}") for n in range(9)])
    found = boxplot(table, "dice", group="grade")
    for n in range(9):
        assert found.svg.count(f">method {n}<") == 2
    assert all(found.svg.count(f">{grade}<") == 1 for grade in ("healthy", "severe"))
    # As many as there are colours are in the legend, once.
    assert boxplot(table[table["method"] != "method 8"], "dice", group="grade").svg.count(">method 1<") == 1


def test_the_box_plot_names_what_there_is() -> None:
    with pytest.raises(SchemaError, match="no score of the metric 'asd' to draw; the table holds: dice"):
        boxplot(scores(), "asd")
    with pytest.raises(SchemaError, match="the box plot needs the column domain"):
        boxplot(scores(), "dice", group="domain")


def test_bland_altman_gives_bias_and_limits() -> None:
    figure = bland_altman(volumes())
    # Differences 1, 3, 5: mean 3, standard deviation 2.
    assert "gmm +3 (-0.92 to +6.92)" in figure.alt
    assert {"+3", "+6.92", "-0.92", "gmm, n 3"} <= set(texts(figure.svg))
    lacking = pd.concat([volumes(), volumes().assign(prediction=np.nan)])
    assert "3 of 6 pairs lack a number and are not drawn" in bland_altman(lacking).caption
    with pytest.raises(SchemaError, match="there is no pair of volumes to draw"):
        bland_altman(volumes().assign(reference=np.nan))


def test_differences_are_drawn_with_interval_and_p() -> None:
    pairs = pd.DataFrame(
        {
            "label": ["muscle"] * 3,
            "method": ["gc", "spgc", "lost"],
            "baseline": ["gmm"] * 3,
            "n": [10, 10, 0],
            "difference": [0.1, -0.02, np.nan],
            "low": [0.05, -0.04, np.nan],
            "high": [0.15, 0.01, np.nan],
            "level": [0.95] * 3,
            "p_corrected": [0.0004, 0.12, np.nan],
        }
    )
    figure = differences(pairs, what="Dice")
    assert "gc − gmm +0.1 (+0.05 to +0.15), n 10, p < 0.001" in figure.alt
    assert "lost − gmm unknown, n 0, no test" in figure.alt
    assert {"spgc − gmm", "n 10, p 0.120"} <= set(texts(figure.svg))
    assert "95 % bootstrap interval" in figure.caption
    with pytest.raises(SchemaError, match="there is no pair of methods to draw"):
        differences(pairs.head(0), what="Dice")


def test_the_map_shows_the_mean_over_the_other_parameters() -> None:
    figure = sensitivity_map(grid(), ["smoothness", "sigma", "prior_weight"])
    words = texts(figure.svg)
    # smoothness 0.1, sigma 1: the mean over both prior weights.
    assert f"{0.8 - 0.01 + 0.05 * 0.4:.3f}" in words
    assert "sigma 1.0, smoothness 0.1: 0.810" in figure.alt
    assert "prior_weight 0.6, sigma 1.0" in figure.alt
    one = sensitivity_map(grid()[grid()["sigma"] == 1.0], ["smoothness", "sigma"])
    assert "smoothness 0.1: 0.810" in one.alt
    assert "Not shown, because only one value was tried: sigma" in one.caption


def test_a_method_has_one_colour_on_a_page() -> None:
    table, pairs = scores(), volumes()
    name = table["method"].iloc[0]
    alone, few = table[table["method"] == name], pairs.assign(method=name)
    for own, shared in (
        (boxplot(alone, "dice"), boxplot(alone, "dice", methods=["another", name])),
        (bland_altman(few), bland_altman(few, methods=["another", name])),
    ):
        assert METHOD_COLORS[0] in own.svg
        assert METHOD_COLORS[0] not in shared.svg
        assert METHOD_COLORS[1] in shared.svg
        assert "another" not in texts(shared.svg)


def test_the_best_of_distances_is_the_smallest() -> None:
    figure = sensitivity_map(grid(), ["smoothness", "sigma"], smaller_is_better=True)
    means = grid().groupby(["smoothness", "sigma"])["score"].mean()
    assert figure.alt.endswith(f": {means.min():.3f}.")
    assert sensitivity_map(grid(), ["smoothness", "sigma"]).alt.endswith(f": {means.max():.3f}.")


def test_values_may_be_words_or_lists() -> None:
    table = pd.DataFrame(
        {"per": ["slice", "volume"] * 2, "steps": [[40, 20], [40, 20], [5], [5]], "score": [1, 2, 3, 4]}
    )
    figure = sensitivity_map(table, ["per", "steps"])
    assert "steps [5], per volume: 4.000" in figure.alt
    assert {"slice", "volume", "[40, 20]", "[5]"} <= set(texts(figure.svg))


def test_the_map_says_what_it_lacks() -> None:
    table = grid()
    table.loc[0, "score"] = np.nan
    assert "1 of 12 points have no score and are left out" in sensitivity_map(table, ["smoothness"]).caption
    with pytest.raises(SchemaError, match="no point of the grid has a score"):
        sensitivity_map(grid().assign(score=np.nan), ["smoothness"])
    with pytest.raises(SchemaError, match="no parameter has two values or more"):
        sensitivity_map(grid().head(1), ["smoothness", "sigma"])
