from __future__ import annotations

from pathlib import Path

import pytest

from musclekit.errors import ParameterError
from musclekit.image import Contrast
from musclekit.io import group_rows, load_case, read_manifest
from musclekit.labels import label_set
from musclekit.workflows import write_phantoms


def test_a_cohort_reads_back_as_cases(tmp_path: Path) -> None:
    manifest = write_phantoms(
        tmp_path, subjects=2, modalities=("dixon", "ct"), grades=("healthy", "severe"), slices=2, size=48, seed=3
    )
    cases = [load_case(rows, label_set("thigh-full-sided")) for rows in group_rows(read_manifest(manifest))]
    assert [case.id for case in cases] == ["sub-01_dixon", "sub-01_ct", "sub-02_dixon", "sub-02_ct"]
    assert set(cases[0].images) == {Contrast.FAT, Contrast.WATER}
    assert [case.domain for case in cases] == ["easy", "easy", "hard", "hard"]
    assert cases[0].subject == cases[1].subject
    assert all(case.reference is not None and case.reference.voxels.any() for case in cases)
    assert cases[3].meta["grade"] == "severe"
    assert cases[3].meta["generator_version"]


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        write_phantoms(tmp_path / name, subjects=1, modalities=("mr",), slices=1, size=32, seed=seed)
    one, two, three = ((tmp_path / name / "sub-01_t1w.nii.gz").read_bytes() for name in ("one", "two", "three"))
    assert one == two
    assert one != three


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"modalities": ("pet",)}, "modality is any of mr, ct, dixon, not 'pet'"),
        ({"grades": ("awful",)}, "grade is any of healthy, minor, moderate, severe, not 'awful'"),
        ({"slices": 0}, "1 or more slices"),
        ({"size": 4}, "16 pixels or more"),
        ({"subjects": 0}, "at least one subject"),
    ],
)
def test_what_cannot_be_made_is_refused(tmp_path: Path, settings: dict[str, object], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        write_phantoms(tmp_path, **settings)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
