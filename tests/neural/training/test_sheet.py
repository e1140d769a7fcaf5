from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from musclekit.errors import OutputError
from musclekit.neural.training.sheet import GAP, HEADER, sheet_of, write_sheet


def test_slices_stand_side_by_side() -> None:
    black, white = np.full((2, 8, 6), -1, np.float32), np.full((2, 8, 6), 3, np.float32)
    sheet = sheet_of(("source", "fake"), (black, white))
    assert sheet.shape == (HEADER + 2 * (8 + GAP), 2 * 6 + GAP)
    assert (sheet[HEADER : HEADER + 8, :6] == 0).all()
    assert (sheet[HEADER + 8 : HEADER + 8 + GAP] == 255).all()
    assert (sheet[HEADER:, 6 + GAP :] == 255).all()


def test_grey_is_half_way() -> None:
    sheet = sheet_of(("source",), (np.zeros((1, 4, 4), np.float32),))
    assert (sheet[HEADER : HEADER + 4] == 128).all()


def test_a_column_has_a_name() -> None:
    sheet = sheet_of(("fake target",), (np.zeros((1, 64, 64), np.float32),))
    assert (sheet[:HEADER] < 128).any()


def test_a_sheet_is_written_whole(tmp_path: Path) -> None:
    sheet = sheet_of(("source",), (np.zeros((1, 16, 16), np.float32),))
    write_sheet(sheet, tmp_path / "sheets" / "epoch_0001.png")
    read = cv2.imread(str(tmp_path / "sheets" / "epoch_0001.png"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(read, sheet)
    with pytest.raises(OutputError, match="a folder stands there"):
        write_sheet(sheet, tmp_path / "sheets")
