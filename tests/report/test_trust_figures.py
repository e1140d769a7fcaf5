"""Figures of how far to trust a segmentation."""

from __future__ import annotations

import math
import re

import pandas as pd
import pytest

from musclekit.errors import SchemaError
from musclekit.report import reliability, variance_against_dice, variance_bars


def structures(psv: list[float], dice: list[float] | None = None) -> pd.DataFrame:
    names = [f"muscle {n}" for n in range(len(psv))]
    table = pd.DataFrame({"structure": names, "side": "left", "psv": psv})
    return table if dice is None else table.assign(dice=dice)


def test_the_least_certain_structure_is_named_first_and_the_absent_ones_apart() -> None:
    found = variance_bars(structures([0.01, 0.2, math.nan]))
    assert found.alt == "Variance by structure; largest: muscle 1 left 0.2, muscle 0 left 0.01."
    assert found.caption.endswith("Not found, and so without a variance: muscle 2 left.")


def test_variance_bars_need_their_columns() -> None:
    with pytest.raises(SchemaError, match="a figure of uncertainty needs the columns side, psv"):
        variance_bars(pd.DataFrame({"structure": ["a"]}))


def test_every_known_pair_of_variance_and_dice_is_a_point() -> None:
    table = structures([0.01, 0.02, 0.03, math.nan], [0.95, 0.9, math.nan, 0.8])
    found = variance_against_dice(table)
    assert len(re.findall(r"<use xlink:href=\"#[^\"]*\" x=\"[^\"]*\" y=\"[^\"]*\" style=\"fill", found.svg)) >= 2
    assert found.alt == "Dice from 0.90 to 0.95 against PSV from 0.01 to 0.02."
    assert found.caption.endswith("2 of 4 lack one of the two and are not drawn.")


def test_twelve_structures_are_told_apart() -> None:
    table = structures([0.01 * n for n in range(12)], [0.9] * 12)
    found = variance_against_dice(table)
    assert all(f">muscle {n}<" in found.svg for n in range(12))


def test_one_variance_alone_has_no_line() -> None:
    assert variance_against_dice(structures([0.1], [0.9])).svg.startswith("<svg")


def test_no_pair_is_an_error() -> None:
    with pytest.raises(SchemaError, match="no structure has both a variance and a Dice"):
        variance_against_dice(structures([math.nan], [0.9]))
    with pytest.raises(SchemaError, match="needs the column dice"):
        variance_against_dice(structures([0.1]))


def test_a_calibration_curve_says_how_sure_a_network_is_of_itself() -> None:
    curve = pd.DataFrame({"n": [0, 30, 10], "confidence": [math.nan, 0.8, 1.0], "accuracy": [math.nan, 0.7, 0.9]})
    found = reliability({"dropout": curve, "ensemble": curve.assign(accuracy=curve["confidence"])})
    assert found.alt == "Confidence less accuracy, on the average: dropout +0.100; ensemble +0.000."
    assert ">ensemble<" in found.svg


def test_no_calibration_curve_is_an_error() -> None:
    with pytest.raises(SchemaError, match="there is no calibration curve to draw"):
        reliability({})
    with pytest.raises(SchemaError, match="a calibration curve needs the columns confidence, accuracy"):
        reliability({"a": pd.DataFrame({"n": [1]})})
