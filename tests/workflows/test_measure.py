from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from musclekit.errors import FormatError, InputError
from musclekit.image import Contrast
from musclekit.io import write_image, write_label_table, write_labels
from musclekit.labels import label_set, label_set_names
from musclekit.phantom import make_case
from musclekit.workflows import label_set_of, measure_scan


@pytest.mark.parametrize("name", ["tissue", "thigh-full-sided", "qmritools-sided", "functional-3"])
def test_the_label_table_tells_the_set(tmp_path: Path, name: str) -> None:
    write_label_table(label_set(name), tmp_path / "a_dseg.tsv")
    assert label_set_of(tmp_path / "a_dseg.nii.gz").name == name


def test_no_two_sets_have_one_table() -> None:
    # huashan-11 and thigh-11 are one anatomy under two names: the first is found.
    tables: dict[frozenset[tuple[int, str]], list[str]] = {}
    for name in label_set_names():
        key = frozenset((label.id, label.full_name) for label in label_set(name))
        tables.setdefault(key, []).append(name)
    twice = sorted(names for names in tables.values() if len(names) > 1)
    assert twice == [["huashan-11", "thigh-11"], ["huashan-11-sided", "thigh-11-sided"]]


def test_a_table_of_no_known_set_is_said(tmp_path: Path) -> None:
    (tmp_path / "a_dseg.tsv").write_text("index\tname\n1\tspleen\n")
    with pytest.raises(InputError, match="describes no label set known here; give --label-set"):
        label_set_of(tmp_path / "a_dseg.nii.gz")


def test_dixon_gives_both_fat_fractions_of_each_muscle_and_side(tmp_path: Path) -> None:
    case = make_case(4, contrasts=(Contrast.FAT, Contrast.WATER), grade="moderate", shape=(3, 96, 96))
    for contrast, image in case.images.items():
        write_image(image, tmp_path / f"{contrast}.nii.gz")
    assert case.reference is not None
    write_labels(case.reference, tmp_path / "labels.nii.gz")
    fat, water = tmp_path / "fat.nii.gz", tmp_path / "water.nii.gz"
    batch = measure_scan(
        fat,
        tmp_path / "labels.nii.gz",
        tmp_path / "out",
        label_set_name="thigh-full-sided",
        fat=fat,
        water=water,
        contrast=Contrast.FAT,
    )
    assert not batch.failed
    table = pd.read_csv(tmp_path / "out" / "fat_measures.csv")
    muscles = table[table["structure"].isin(label_set("thigh-11").names)]
    assert set(muscles["side"]) == {"left", "right"}
    found = muscles[muscles["status"] != "absent"]
    assert found["fat_fraction_of_sums"].between(0, 1).all()
    assert (found["fat_fraction_of_sums"] - found["fat_fraction_voxel_mean"]).abs().max() > 0
    assert {"report.html", "run.json", "fat_qc.png"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_a_table_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "a_dseg.tsv").write_text("id,label\n1,muscle\n")
    with pytest.raises(FormatError, match="not a label table, which has the columns index and name"):
        label_set_of(tmp_path / "a_dseg.nii.gz")
