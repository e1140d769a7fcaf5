"""Figures: they show what the tables say, the same way every time."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from musclekit.errors import SchemaError
from musclekit.image import Contrast, Grid, Image, LabelMap
from musclekit.labels import label_set, label_set_names
from musclekit.quantify import measure
from musclekit.report import csa_profile, fat_fraction_bars, hu_histogram, scan_figures, score_strips
from musclekit.report.figures import NOT_MUSCLE, readable

COLORS = {"sartorius": "#f28e2b", "gracilis": "#b07aa1"}


def slices() -> pd.DataFrame:
    rows = [
        {"structure": s, "side": side, "slice": z, "level_mm": 5.0 * z, "csa_mm2": 100.0 * z + 50, "status": "ok"}
        for s in COLORS
        for side in ("left", "right")
        for z in range(6)
    ]
    return pd.DataFrame(rows)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def scores() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = [
        {"case_id": f"p{i}", "method": method, "metric": "dice", "value": float(rng.uniform(0.5, 1))}
        for i in range(8)
        for method in ("gmm", "level & set <b>")
    ]
    return pd.DataFrame(rows)


GRADES = {f"p{i}": ("healthy", "severe")[i // 4] for i in range(8)}


def every_figure():
    table = pd.DataFrame(
        {
            "structure": ["sartorius", "sartorius", "gracilis"],
            "side": ["left", "right", "left"],
            "fat_fraction_voxel_mean": [0.1, 0.2, 0.4],
            "fat_fraction_of_sums": [0.12, 0.22, 0.45],
        }
    )
    return [
        csa_profile(slices(), COLORS),
        hu_histogram({"left": np.arange(-100, 100), "right": np.arange(0, 80)}),
        fat_fraction_bars(table, COLORS),
        score_strips(scores(), "dice", group=GRADES),
    ]


def test_figures_are_the_same_bytes_and_refer_to_nothing_outside():
    for one, two in zip(every_figure(), every_figure(), strict=True):
        assert one == two
        assert not re.search(r"(href|src)=\"(?!#)", one.svg)
        assert "<!DOCTYPE" not in one.svg
        assert "<metadata" not in one.svg
        assert one.alt
        assert one.title


def test_the_areas_of_both_sides_are_drawn_with_every_name():
    words = texts(csa_profile(slices(), COLORS).svg)
    assert {"right", "left", "sartorius", "gracilis"} <= set(words)


def line_ys(svg: str, color: str) -> list[list[float]]:
    """Heights of the points of every solid line of a colour."""
    found = []
    for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}path"):
        style = element.get("style", "")
        if f"stroke: {color}" in style and "fill: none" in style and "opacity" not in style:
            points = re.findall(r"[ML] ([\d.]+) ([\d.]+)", element.get("d", ""))
            if len(points) > 3:  # the legend's own line has three
                found.append([float(y) for _, y in points])
    return found


def test_a_line_rises_with_the_area_and_stops_being_solid_where_it_is_cut():
    table = slices()
    color = readable(COLORS["sartorius"])
    plain = line_ys(csa_profile(table, COLORS).svg, color)
    assert len(plain) == 2
    assert all(len(ys) == 6 and ys == sorted(ys, reverse=True) for ys in plain)
    table.loc[table["slice"] == 5, "status"] = "cut"
    assert [len(ys) for ys in line_ys(csa_profile(table, COLORS).svg, color)] == [5, 5]


def test_structures_without_a_colour_or_an_area_are_not_drawn():
    table = slices()
    table.loc[table["structure"] == "gracilis", "csa_mm2"] = np.nan
    words = texts(csa_profile(table, COLORS).svg)
    assert "gracilis" not in words
    assert "sartorius" not in texts(csa_profile(slices(), {"gracilis": "#b07aa1"}).svg)


def test_the_histogram_has_the_classes_and_the_median():
    figure = hu_histogram({"left": [50, 60, 70], "right": [-100, -100, 20]})
    assert {"fat", "low", "normal"} <= set(texts(figure.svg))
    assert "left 60 HU" in figure.caption
    assert "right -100 HU" in figure.caption
    assert "not known" in hu_histogram({}).alt


def test_scores_are_counted_and_grouped():
    table = scores()
    table.loc[0, "value"] = np.nan
    figure = score_strips(table, "dice", group=GRADES, axis_label="Dice")
    assert {"healthy", "severe", "gmm", "level & set <b>", "Dice"} <= set(texts(figure.svg))
    assert "1 of 16 scores are not numbers" in figure.caption
    median = np.median(table["value"][(table["method"] == "gmm") & table["case_id"].isin(["p4", "p5", "p6", "p7"])])
    assert f"gmm severe {median:.3g}" in figure.alt
    assert "not numbers" not in score_strips(scores(), "dice").caption


def test_scores_of_one_structure_alone():
    table = pd.concat([scores().assign(label="muscle", value=0.9), scores().assign(label="bone", value=0.1)])
    figure = score_strips(table, "dice", label="muscle")
    assert figure.title == "dice of muscle"
    assert "gmm 0.9;" in figure.alt
    with pytest.raises(SchemaError, match="no score of the label 'fat' to draw; the table holds: bone, muscle"):
        score_strips(table, "dice", label="fat")


def test_every_score_is_a_point():
    figure = score_strips(scores(), "dice")
    uses = ET.fromstring(figure.svg).iter("{http://www.w3.org/2000/svg}use")
    assert sum("fill-opacity" in use.get("style", "") for use in uses) == 16


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: csa_profile(slices().drop(columns=["level_mm", "side"]), COLORS), "needs the columns side, level_mm"),
        (
            lambda: fat_fraction_bars(slices(), COLORS),
            "the figure of fat fractions needs the columns fat_fraction_voxel_mean",
        ),
        (lambda: score_strips(scores(), "hd95"), "no score of the metric 'hd95' to draw; the table holds: dice"),
        (lambda: score_strips(scores().drop(columns="method"), "dice"), "needs the column method"),
    ],
)
def test_a_table_that_lacks_something_is_refused(draw, message):
    with pytest.raises(SchemaError, match=message):
        draw()


def test_every_label_colour_becomes_one_that_shows_on_white_and_black():
    for name in label_set_names():
        for label in label_set(name):
            red, green, blue = (int(readable(label.color)[i : i + 2], 16) for i in (1, 3, 5))
            assert 70 <= 0.30 * red + 0.59 * green + 0.11 * blue <= 178, label
    assert readable("#e15759") == "#e15759"


def scan(contrast: Contrast, planes: int = 4):
    shape = (planes, 30, 30)
    grid = Grid.from_spacing(shape, (5, 2, 2))
    _, y, x = np.indices(shape)
    ids = np.zeros(shape, np.uint8)
    ids[(y - 15) ** 2 + (x - 15) ** 2 < 100] = 1
    ids[(y - 15) ** 2 + (x - 15) ** 2 < 9] = 2
    values = np.where(ids == 1, 55.0, np.where(ids == 2, 800.0, -500.0))
    return LabelMap(ids, grid, label_set("tissue")), Image(values, grid, contrast)


def test_a_scan_has_the_figures_that_its_measures_allow():
    labels, image = scan(Contrast.CT)
    figures = scan_figures(measure(labels, image), labels, image)
    assert [figure.title for figure in figures] == ["Area along the thigh", "Hounsfield units of muscle"]
    # Bone has no part in it; fat between the muscles has.
    assert figures[1].caption.startswith("Voxels of muscle and intermuscular fat. Median: 55 HU.")

    labels, fat = scan(Contrast.FAT)
    water = Image(np.abs(fat.voxels) + 1, fat.grid, Contrast.WATER)
    fat = fat.with_voxels(np.abs(fat.voxels))
    measures = measure(labels, fat, fat=fat, water=water)
    assert [f.title for f in scan_figures(measures, labels, fat)] == ["Area along the thigh", "Fat fraction"]

    labels, image = scan(Contrast.T1W, planes=1)
    assert scan_figures(measure(labels, image), labels, image) == []


def test_what_is_not_muscle_is_named_as_in_the_label_sets():
    assert {label.name for name in label_set_names() for label in label_set(name)} >= NOT_MUSCLE
    assert all(label.name not in NOT_MUSCLE for name in label_set_names() for label in label_set(name) if label.group)


def test_a_scan_without_labels_has_no_figures():
    labels, image = scan(Contrast.CT)
    empty = labels.with_voxels(labels.voxels * 0)
    assert scan_figures(measure(empty, image), empty, image) == []


def test_importing_the_report_does_not_load_matplotlib_or_jinja2():
    code = "import sys, musclekit.report; sys.exit(bool({'matplotlib', 'jinja2', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
