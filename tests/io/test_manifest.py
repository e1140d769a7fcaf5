from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from musclekit import io
from musclekit.errors import GeometryError, InputError, LabelError, MissingFileError, SchemaError
from musclekit.image import Contrast, Grid, Image, LabelMap
from musclekit.labels import label_set

THIGH = label_set("thigh-4")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two scans with labels, and a fat and a water image of a third; manifest beside them."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "fat", "water"):
        grid = Grid.from_spacing((2, 4, 5), (3, 1, 1))
        io.write_image(Image(rng.uniform(0, 500, grid.shape), grid, Contrast.MR), tmp_path / "scans" / f"{name}.nii.gz")
        labels = LabelMap(rng.integers(0, 5, grid.shape), grid, THIGH)
        io.write_labels(labels, tmp_path / "scans" / f"{name}_dseg.nii.gz")
    return tmp_path


def manifest(folder: Path, text: str) -> Path:
    path = folder / "cases.csv"
    path.write_text(text, encoding="utf-8")
    return path


HEAD = "case_id,subject,image,labels,modality,domain,side,split,age\n"


def test_rows_and_cases(folder: Path) -> None:
    path = manifest(
        folder,
        HEAD
        + "a,p1,scans/a.nii.gz,scans/a_dseg.nii.gz,t1w,hard,left,train,61\n"
        + "d,p2,scans/fat.nii.gz,,fat,,,test,\n"
        + ",,,,,,,,\n"
        + "d,p2,scans/water.nii.gz,,water,,,test,\n",
    )
    rows = io.read_manifest(path)
    assert rows[0] == io.ManifestRow(
        "a", "p1", folder / "scans/a.nii.gz", folder / "scans/a_dseg.nii.gz", Contrast.T1W, "hard", "left", "train",
        {"age": "61"},
    )  # fmt: skip
    assert rows[1].labels is None
    assert rows[1].extra == {}
    one, two = (io.load_case(group, THIGH) for group in io.group_rows(rows))
    assert (one.id, one.subject, one.side, one.domain) == ("a", "p1", "left", "hard")
    assert dict(one.meta) == {"age": "61", "split": "train"}
    assert (one.image.contrast, one.image.domain) == (Contrast.T1W, "hard")
    assert one.reference is not None
    np.testing.assert_array_equal(one.reference.voxels, io.read_labels(rows[0].labels, THIGH).voxels)
    assert list(two.images) == [Contrast.FAT, Contrast.WATER]
    assert two.reference is None
    assert io.load_case(rows[:1]).reference is None


def test_round_trip(folder: Path) -> None:
    rows = [
        io.ManifestRow(
            "a", "p1", folder / "scans/a.nii.gz", folder / "scans/a_dseg.nii.gz", Contrast.CT, extra={"k": "1"}
        ),
        io.ManifestRow("b, the second", "p2", folder / "scans/b.nii.gz", side="right", split="test", domain="easy"),
    ]
    path = folder / "sub" / "manifest.csv"
    io.write_manifest(rows, path)
    assert path.read_text().splitlines() == [
        "case_id,subject,image,labels,modality,domain,side,split,k",
        "a,p1,../scans/a.nii.gz,../scans/a_dseg.nii.gz,ct,,,,1",
        '"b, the second",p2,../scans/b.nii.gz,,,easy,right,test,',
    ]
    back = io.read_manifest(path)
    assert [(r.case_id, r.modality, r.side, r.split, r.domain, dict(r.extra)) for r in back] == [
        ("a", Contrast.CT, None, None, None, {"k": "1"}),
        ("b, the second", None, "right", "test", "easy", {}),
    ]
    assert [r.image.resolve() for r in back] == [r.image for r in rows]


def test_what_spreadsheets_write(folder: Path) -> None:
    path = folder / "cases.csv"
    path.write_bytes(b"\xef\xbb\xbfcase_id,subject,image,,\r\n a , p1,scans/a.nii.gz,,\r\n,,,,\r\n")
    (row,) = io.read_manifest(path)
    assert (row.case_id, row.subject) == ("a", "p1")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", SchemaError, "the file is empty; it begins with a line of column names"),
        ("\n\n", SchemaError, "the file is empty"),
        ("case_id,subject,image\n", SchemaError, "there is no row below the column names"),
        ("case_id,image,age\na,x,1\n", SchemaError, "the column subject is missing; there are: case_id, image, age"),
        ("id,path\na,x\n", SchemaError, "the columns case_id, subject, image are missing; there are: id, path"),
        ("case_id;subject;image\n", SchemaError, "cells are separated by ';'; save the table with commas"),
        ("case_id,subject,image,image\n", SchemaError, "the column image stands there twice"),
        (HEAD + "a,p1,scans/a.nii.gz,,,,,,,,x\n", SchemaError, "line 2 has 11 cells, there are 9 columns"),
        (HEAD + "a,,scans/a.nii.gz\n", SchemaError, "at [line 2]: 'subject' is a required property"),
        (HEAD + "a,p,scans/a.nii.gz,,xray\n", SchemaError, "at [line 2][modality]: 'xray' is not one of ['ct', "),
        (HEAD + "a,p,scans/a.nii.gz,,,,both\n", SchemaError, "[side]: 'both' is not one of ['left', 'right']"),
        (
            HEAD + "a,p,scans/a.nii.gz\nb,p,scans/b.nii.gz\na,p,scans/b.nii.gz\n",
            SchemaError,
            "case_id 'a' is repeated in lines 2 and 4 with no modality; give each case an id of its own",
        ),
        (
            HEAD + "a,p,scans/a.nii.gz,,fat\na,p,scans/b.nii.gz,,fat\n",
            SchemaError,
            "case_id 'a' is repeated in lines 2 and 3 with modality fat",
        ),
        (
            HEAD + "a,p,scans/a.nii.gz,,fat\na,q,scans/b.nii.gz,,water\n",
            SchemaError,
            "case 'a': lines 2 and 3 differ in subject",
        ),
        (
            HEAD + "a,p,scans/a.nii.gz,,,,,train\nb,p,scans/b.nii.gz,,,,,test\n",
            SchemaError,
            "subject 'p' stands in split 'train' (line 2) and 'test' (line 3); keep all cases of a person in one",
        ),
        (HEAD + "a,p,scans/c.nii.gz\n", MissingFileError, "line 2 (case 'a'): image "),
        (HEAD + "a,p,scans/a.nii.gz,lab.nii\n", MissingFileError, "lab.nii does not exist"),
        (HEAD + 'a,p,"scans/a.nii.gz\n', SchemaError, "not a CSV text"),
    ],
)
def test_bad_manifests(folder: Path, text: str, error: type, message: str) -> None:
    path = manifest(folder, text)
    with pytest.raises(error) as caught:
        io.read_manifest(path)
    assert str(caught.value).startswith(f"manifest {path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_manifest(folder: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none\.csv: no such manifest"):
        io.read_manifest(folder / "none.csv")
    (folder / "cases.csv").write_bytes(b"\xff\xfe\x00case")
    with pytest.raises(SchemaError, match="not a CSV text"):
        io.read_manifest(folder / "cases.csv")


def test_a_case_that_cannot_be_loaded_is_named(folder: Path) -> None:
    grid = Grid.from_spacing((2, 4, 6), (3, 1, 1))
    io.write_labels(LabelMap(np.ones(grid.shape, np.uint8), grid, THIGH), folder / "wide.nii.gz")
    image = folder / "scans/a.nii.gz"
    with pytest.raises(GeometryError, match="case 'a': the reference lies on another grid: shapes"):
        io.load_case([io.ManifestRow("a", "p", image, folder / "wide.nii.gz")], THIGH)
    (folder / "broken.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"case 'a': .*broken\.nii\.gz: the file is empty"):
        io.load_case([io.ManifestRow("a", "p", folder / "broken.nii.gz")])
    with pytest.raises(LabelError, match=r"case 'a': .*a_dseg\.nii\.gz: label ids \[.*\] do not belong to the set"):
        io.load_case([io.ManifestRow("a", "p", image, folder / "scans/a_dseg.nii.gz")], label_set("compartment"))
    with pytest.raises(SchemaError, match=r"case 'a': two images of contrast mr; state the modality of each row"):
        io.load_case([io.ManifestRow("a", "p", image), io.ManifestRow("a", "p", image, modality=Contrast.MR)])
    with pytest.raises(SchemaError, match=r"the rows of one case_id, not of \['a', 'b'\]"):
        io.load_case([io.ManifestRow("a", "p", image), io.ManifestRow("b", "p", image)])


def test_a_case_may_have_labels_and_no_image(folder: Path) -> None:
    path = folder / "maps.csv"
    path.write_text("case_id,subject,labels\na,p,scans/a_dseg.nii.gz\n", encoding="utf-8")
    (row,) = io.read_manifest(path)
    assert row.image is None
    assert io.files_of([row]) == [folder / "scans/a_dseg.nii.gz"]
    io.write_manifest([row], folder / "again.csv")
    assert io.read_manifest(folder / "again.csv")[0].image is None
    with pytest.raises(InputError, match="case 'a': it has no image, only a label map"):
        io.load_case([row])
    path.write_text("case_id,subject,image,labels\na,p,,\n", encoding="utf-8")
    with pytest.raises(SchemaError, match="line 2"):
        io.read_manifest(path)
