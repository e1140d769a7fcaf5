from __future__ import annotations

import xml.etree.ElementTree as ET

import pandas as pd
import pytest

from musclekit.errors import SchemaError
from musclekit.report import loss_curves

LOSSES = pd.DataFrame(
    {
        "epoch": [1, 2],
        "cycle": [0.4, 0.2],
        "weighted_cycle": [4.0, 2.0],
        "weighted_gan": [0.5, 0.75],
        "discriminator_source": [0.25, 0.125],
    }
)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_generators_and_discriminators_have_a_figure_each() -> None:
    generators, discriminators = loss_curves(LOSSES)
    assert {"cycle", "gan", "epoch"} <= set(texts(generators.svg))
    assert generators.alt == "Loss over 2 epochs; at the end cycle 2, gan 0.75."
    assert "source" in texts(discriminators.svg)
    assert loss_curves(LOSSES)[0].svg == generators.svg


def test_what_was_not_trained_is_not_drawn() -> None:
    (only,) = loss_curves(LOSSES[["epoch", "weighted_cycle"]])
    assert only.title == "Loss"


def test_a_table_without_epochs_is_refused() -> None:
    with pytest.raises(SchemaError, match="a figure of losses needs the column epoch"):
        loss_curves(LOSSES.drop(columns="epoch"))
