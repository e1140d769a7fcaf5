"""Sheets of slices of legs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from musclekit.errors import GeometryError
from musclekit.labels import label_set
from musclekit.report import LegColumn, leg_sheet

FOUR = label_set("thigh-4")


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR))[:, :, ::-1]


def test_labels_have_their_colour_and_the_front_is_on_top() -> None:
    images = np.full((2, 64, 64), -1.0, dtype=np.float16)
    classes = np.zeros(images.shape, dtype=np.uint8)
    # Rows grow to the front: a label in high rows is drawn above the middle.
    classes[0, 50:60, 20:40] = 3
    classes[1, :, :] = 255
    picture = decoded(leg_sheet([LegColumn("image", images), LegColumn("labels", images, classes)], ["a", "b"], FOUR))
    color = [int(FOUR[3].color[k : k + 2], 16) for k in (1, 3, 5)]
    at = np.argwhere((picture == color).all(axis=2))
    height, width = picture.shape[:2]
    assert len(at)
    assert at[:, 0].max() < height / 4
    assert at[:, 1].min() > width / 2
    assert width == 2 * 192 + 4


def test_columns_that_do_not_belong_together_are_refused() -> None:
    images = np.zeros((2, 8, 8), dtype=np.float16)
    with pytest.raises(GeometryError, match="as many slices, all of one size"):
        leg_sheet([LegColumn("a", images), LegColumn("b", images[:1])], ["x", "y"], FOUR)
    with pytest.raises(GeometryError, match="there are 2 slices and 1 names"):
        leg_sheet([LegColumn("a", images)], ["x"], FOUR)
