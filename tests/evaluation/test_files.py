from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from musclekit.evaluation.files import file_digests
from musclekit.weights import shipped


def test_files_are_found_wherever_they_are_named(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.pt").write_text(name)
    first, second = tmp_path / "a.pt", tmp_path / "b.pt"
    found = file_digests(
        {"checkpoint": str(second), "parts": [{"template": first}, 3, None, "", "no file", "x" * 300, "x" * 5000]}
    )
    assert found == {str(first): hashlib.sha256(b"a").hexdigest(), str(second): hashlib.sha256(b"b").hexdigest()}


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert file_digests([str(tmp_path), "a\0b"]) == {}


@pytest.mark.parametrize("name", list(shipped()))
def test_weights_that_ship_are_files(name: str) -> None:
    expected = hashlib.sha256(shipped()[name].path.read_bytes()).hexdigest()
    assert file_digests({"checkpoint": name}) == {name: expected}
